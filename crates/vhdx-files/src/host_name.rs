//! Names that this system can have.

/// Longest name on Linux, in bytes.
const LONGEST: usize = 255;

/// Returns the name itself, if this system can have a file of that name, or one that it can have: bytes that no name
/// can hold are written as `%2F`, and a name that is too long is cut, with a sum of the whole name at its end.
#[must_use]
pub fn host_name(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    let is_special = matches!(name, b"" | b"." | b"..");
    for byte in name {
        if matches!(byte, b'/' | 0) || is_special {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            escaped.push(*byte);
        }
    }
    if escaped.is_empty() {
        return b"%".to_vec();
    }
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
