//! Conversions between `usize` and `u64`, in one place, so that no other file needs `as`.

/// Converts a length in memory to a length in a file, without loss: no target has a `usize` of more than 64 bits.
#[inline]
#[expect(clippy::as_conversions, reason = "usize is at most 64 bits wide on every target of Rust")]
pub(crate) const fn to_u64(n: usize) -> u64 {
    n as u64
}

/// Converts a length in a file to a length in memory, at most `usize::MAX`: for lengths that are only an upper bound.
#[inline]
pub(crate) fn to_usize_saturating(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
