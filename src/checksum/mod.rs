//! Checksums.
//!
//! Two polynomials, not to be confused: the structures of a VHDX carry CRC-32C (Castagnoli), while GPT, and the world
//! that checks the content of disks, use CRC-32 (IEEE). Neither can check the other.

mod parts;

pub(crate) use parts::Crc32;

/// Returns the CRC-32C of a structure whose checksum field, 4 bytes at `field`, counts as zero (MS-VHDX 2.2.2, 2.2.3.1,
/// 2.3.1.1).
/// The structure is not copied: the sum continues over four zeros instead of the field. A field outside the structure
/// has no effect.
/// does not lie inside leaves nothing to leave out, and gives the plain sum.
pub(crate) fn crc32c_of_structure(bytes: &[u8], field: usize) -> u32 {
    let parts = bytes.split_at_checked(field).and_then(|(head, rest)| Some((head, rest.split_at_checked(4)?.1)));
    match parts {
        Some((head, tail)) => crc32c_append(crc32c_append(crc32c::crc32c(head), &[0; 4]), tail),
        None => crc32c::crc32c(bytes),
    }
}

/// Continues the CRC-32C `crc` over `bytes`.
pub(crate) fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// Returns the CRC-32 (IEEE) of content, as zlib computes it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::{crc32, crc32c_of_structure};

    #[test]
    fn check_values_match_the_two_polynomials() {
        assert_eq!(crc32c_of_structure(b"123456789", 9), 0xe306_9283);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn checksum_field_counts_as_zero_at_any_offset() {
        let mut bytes: Vec<u8> = (1..=64).collect();
        for field in 0..=60 {
            let sum = crc32c_of_structure(&bytes, field);
            let mut zeroed = bytes.clone();
            zeroed[field..field + 4].fill(0);
            assert_eq!(sum, crc32c::crc32c(&zeroed), "field at {field}");
            bytes[field] ^= 0xff;
            assert_eq!(sum, crc32c_of_structure(&bytes, field), "a changed field at {field} changes the sum");
            bytes[field] ^= 0xff;
        }
    }
}
