//! Names in UTF-16, as file systems of Windows have them.

/// Converts UTF-16 to UTF-8. A surrogate without its other half becomes three bytes, as in WTF-8, so that different
/// names stay different.
pub(crate) fn from_utf16(units: &[u16]) -> Vec<u8> {
    let mut name = Vec::with_capacity(units.len());
    let mut buffer = [0; 4];
    for unit in char::decode_utf16(units.iter().copied()) {
        match unit {
            Ok(character) => name.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes()),
            Err(error) => {
                let [low, high] = error.unpaired_surrogate().to_le_bytes();
                name.extend([0xe0 | (high >> 4), 0x80 | ((high & 0xf) << 2) | (low >> 6), 0x80 | (low & 0x3f)]);
            }
        }
    }
    name
}

/// Returns the 16-bit units of little-endian bytes.
pub(crate) fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit))
}

/// Converts a name from WTF-8 to UTF-16. None if it is neither UTF-8 nor WTF-8, and so no name of this file system.
pub(crate) fn to_utf16(name: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (valid, behind) = match std::str::from_utf8(rest) {
            Ok(text) => (text, [].as_slice()),
            Err(error) => {
                let (valid, behind) = rest.split_at_checked(error.valid_up_to())?;
                (std::str::from_utf8(valid).ok()?, behind)
            }
        };
        units.extend(valid.encode_utf16());
        rest = match behind {
            [] => behind,
            [0xed, high @ 0xa0..=0xbf, low @ 0x80..=0xbf, behind @ ..] => {
                units.push(0xd000 | (u16::from(high & 0x3f) << 6) | u16::from(low & 0x3f));
                behind
            }
            _ => return None,
        };
    }
    Some(units)
}

#[cfg(test)]
mod tests {
    use super::{from_utf16, to_utf16};

    #[test]
    fn names_survive_both_conversions() {
        let names: [&[u16]; 5] =
            [&[], &[0x41, 0xe9, 0x65e5], &[0xd83e, 0xdd80], &[0xd83e, 0x41, 0xdd80], &[0xdfff, 0xd800]];
        for name in names {
            assert_eq!(to_utf16(&from_utf16(name)).unwrap(), name);
        }
        assert_eq!(to_utf16(b"\xff"), None);
        assert_eq!(to_utf16(b"a\xed\xa0"), None);
    }

    #[test]
    fn unpaired_surrogates_stay_apart() {
        assert_eq!(from_utf16(&[0x41, 0xe9, 0xd83e, 0xdd80]), "Aé🦀".as_bytes());
        assert_eq!(from_utf16(&[0xd83e, 0x41]), [0xed, 0xa0, 0xbe, 0x41]);
        assert_ne!(from_utf16(&[0xdc00]), from_utf16(&[0xdc01]));
    }
}
