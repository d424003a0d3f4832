//! Names of files in documents.

use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes of a file name that is not Unicode, under the key `filename-bytes`: as base64 (RFC 4648) in JSON. The key
/// is absent if `filename` is the name itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameBytes(Vec<u8>);

impl NameBytes {
    /// The bytes of a path; none if it is Unicode, or if the system's names are not bytes.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let bytes = path.as_os_str().as_encoded_bytes();
        (cfg!(unix) && path.to_str().is_none()).then(|| Self(bytes.to_vec()))
    }

    /// The bytes of each path that is not Unicode; none if all are.
    #[must_use]
    pub fn of_all<'p>(paths: impl IntoIterator<Item = Option<&'p Path>>) -> Option<Vec<Option<Self>>> {
        let bytes: Vec<_> = paths.into_iter().map(|path| path.and_then(Self::of)).collect();
        bytes.iter().any(Option::is_some).then_some(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path with these bytes. Where names are not bytes, what is not Unicode is replaced.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        path_of_bytes(self.0.clone())
    }
}

/// The path with these bytes. Where names are not bytes, what is not Unicode is replaced.
#[must_use]
pub fn path_of_bytes(bytes: Vec<u8>) -> PathBuf {
    #[cfg(unix)]
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(bytes);
    #[cfg(not(unix))]
    let name = String::from_utf8_lossy(&bytes).into_owned();
    name.into()
}

/// The path of a file as text; `-` for bytes without a file. What is not Unicode is replaced.
pub(crate) fn text_of(path: Option<&Path>) -> String {
    path.map_or_else(|| "-".to_owned(), |path| path.to_string_lossy().into_owned())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Serialize for NameBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for chunk in self.0.chunks(3) {
            let bits = chunk.iter().chain([0; 3].iter()).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
            for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
                let digit = DIGITS.get(bits >> shift & 0x3f).filter(|_| place <= chunk.len());
                text.push(digit.map_or('=', |digit| char::from(*digit)));
            }
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for NameBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.trim_end_matches('=');
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0_u32);
        for digit in digits.bytes() {
            let value = DIGITS.iter().zip(0_u32..).find(|(known, _)| **known == digit).map(|(_, value)| value);
            bits = bits << 6 | value.ok_or_else(|| D::Error::custom("not base64"))?;
            count = count.saturating_add(6);
            if count >= 8 {
                count = count.saturating_sub(8);
                bytes.push(u8::try_from(bits >> count & 0xff).unwrap_or_default());
                bits &= !(u32::MAX << count);
            }
        }
        Ok(Self(bytes))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for NameBytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NameBytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

#[cfg(test)]
mod tests {
    use super::NameBytes;

    #[test]
    fn bytes_are_base64() {
        // The test vectors of RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let name = NameBytes(bytes.as_bytes().to_vec());
            let json = format!("\"{text}\"");
            assert_eq!(serde_json::to_string(&name).unwrap(), json);
            assert_eq!(serde_json::from_str::<NameBytes>(&json).unwrap(), name);
        }
        assert_eq!(serde_json::to_string(&NameBytes(vec![0xff, 0xfe, 0xfb])).unwrap(), "\"//77\"");
        assert!(serde_json::from_str::<NameBytes>("\"%\"").is_err());
    }
}
