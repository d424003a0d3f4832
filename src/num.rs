//! Conversions between `usize` and `u64`, in one place, so that no other file needs `as`.

/// A length in memory as a length in a file: never loses a bit, for no target has a `usize` wider than 64 bits.
#[inline]
#[expect(clippy::as_conversions, reason = "usize is at most 64 bits wide on every target of Rust")]
pub(crate) const fn to_u64(n: usize) -> u64 {
    n as u64
}

/// A length in a file as a length in memory, or the longest length there is: for lengths that are only an upper bound.
#[inline]
pub(crate) fn to_usize_saturating(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
