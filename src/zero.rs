//! Zeros: detection, and memory to borrow them from.

/// Largest number of zero bytes that can be borrowed in one piece.
pub const ZERO_PAGES_LEN: usize = 64 << 10;

/// On a page of its own, as direct writes require.
#[repr(align(4096))]
struct ZeroPages([u8; ZERO_PAGES_LEN]);

static ZEROS: ZeroPages = ZeroPages([0; ZERO_PAGES_LEN]);

/// Returns `length` zero bytes, but at most [`ZERO_PAGES_LEN`], from memory that the whole process shares.
#[must_use]
pub fn zero_pages(length: u64) -> &'static [u8] {
    usize::try_from(length).ok().and_then(|length| ZEROS.0.get(..length)).unwrap_or(&ZEROS.0)
}

/// Returns whether all of `bytes` are zero. An empty slice is.
///
/// Checks 4 KiB at a time, without a branch in between, so that the compiler uses SIMD. Bytes that are not zero are
/// mostly found in the first piece.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().take(16).all(|byte| *byte == 0)
        && bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::{ZERO_PAGES_LEN, is_zero, zero_pages};

    #[test]
    fn one_set_bit_is_found_anywhere() {
        for length in [0, 1, 31, 4095, 4096, 4097, 9000] {
            let mut bytes = vec![0_u8; length];
            assert!(is_zero(&bytes), "{length} zeros");
            for at in (0..length).step_by(7).chain(length.checked_sub(1)) {
                bytes[at] = 0x80;
                assert!(!is_zero(&bytes), "a bit at {at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn zero_pages_are_limited() {
        assert_eq!(zero_pages(0).len(), 0);
        assert_eq!(zero_pages(513).len(), 513);
        assert_eq!(zero_pages(u64::MAX).len(), ZERO_PAGES_LEN);
        assert!(is_zero(zero_pages(u64::MAX)));
    }
}
