//! Names that this system can have.

use std::borrow::Cow;

/// Longest name on Linux, in bytes.
const LONGEST: usize = 255;

/// Returns the name as a part of a path: bytes that no name can hold are written as `%2F`. Otherwise names of a damaged
/// or malicious volume would lead elsewhere.
pub(crate) fn part_of_path(name: &[u8]) -> Cow<'_, [u8]> {
    let is_special = matches!(name, b"." | b"..");
    if name.is_empty() {
        return Cow::Borrowed(b"%");
    }
    if !is_special && !name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Cow::Borrowed(name);
    }
    let escape = |byte: &u8| match byte {
        b'/' | 0 => format!("%{byte:02X}").into_bytes(),
        byte if is_special => format!("%{byte:02X}").into_bytes(),
        byte => vec![*byte],
    };
    Cow::Owned(name.iter().flat_map(escape).collect())
}

/// Returns the name itself, if this system can have a file of that name, or one that it can have: bytes that no name
/// can hold are written as `%2F`, and a name that is too long is cut, with a sum of the whole name at its end.
#[must_use]
pub fn host_name(name: &[u8]) -> Vec<u8> {
    let mut escaped = part_of_path(name).into_owned();
    if escaped.len() <= LONGEST {
        return escaped;
    }
    // The extension stays, since programs go by it.
    let dot = escaped.iter().rposition(|byte| *byte == b'.').filter(|dot| escaped.len().saturating_sub(*dot) <= 16);
    let extension = dot.and_then(|dot| escaped.get(dot..)).unwrap_or_default().to_vec();
    let sum = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let end = format!("~{sum:016x}");
    let room = LONGEST.saturating_sub(end.len()).saturating_sub(extension.len());
    // Not within a character.
    let is_inside = |at: &usize| escaped.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let cut = (0..=room).rev().find(is_inside).unwrap_or(room);
    escaped.truncate(cut);
    escaped.extend_from_slice(end.as_bytes());
    escaped.extend_from_slice(&extension);
    escaped
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn names_that_no_system_has() {
        assert_eq!(host_name(b"plain.txt"), b"plain.txt");
        assert_eq!(host_name(b"not \xff UTF-8\n"), b"not \xff UTF-8\n");
        assert_eq!(host_name(b"../../etc/passwd"), b"..%2F..%2Fetc%2Fpasswd");
        assert_eq!(host_name(b".."), b"%2E%2E");
        assert_eq!(host_name(b"."), b"%2E");
        assert_eq!(host_name(b""), b"%");
        assert_eq!(host_name(b"a\0b"), b"a%00b");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let (one, other) = ("日".repeat(200) + "1.docx", "日".repeat(200) + "2.docx");
        let names = [one, other].map(|name| String::from_utf8(host_name(name.as_bytes())).unwrap());
        for name in &names {
            assert!(name.len() <= 255 && name.starts_with("日日日") && name.ends_with(".docx"), "{name}");
        }
        assert_ne!(names[0], names[1]);
    }
}
