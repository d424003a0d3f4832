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

/// The 16-bit units of little-endian bytes.
pub(crate) fn units(bytes: &[u8]) -> Vec<u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::from_utf16;

    #[test]
    fn unpaired_surrogates_stay_apart() {
        assert_eq!(from_utf16(&[0x41, 0xe9, 0xd83e, 0xdd80]), "Aé🦀".as_bytes());
        assert_eq!(from_utf16(&[0xd83e, 0x41]), [0xed, 0xa0, 0xbe, 0x41]);
        assert_ne!(from_utf16(&[0xdc00]), from_utf16(&[0xdc01]));
    }
}
