//! CRC-32 in parts.

use std::sync::LazyLock;

use crate::num::to_u64;
use crate::zero::{ZERO_PAGES_LENGTH, zero_pages};

/// The CRC-32 (IEEE) of content that is summed in parts: parts that lie side by side can be joined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crc32(crc32fast::Hasher);

/// Disks are at most 2^46 bytes long.
const MOST_POWERS: usize = 48;

/// What 2^n zeros sum to.
static ZEROS: LazyLock<[Crc32; MOST_POWERS]> = LazyLock::new(|| {
    let mut power = Crc32::default();
    power.update(&[0]);
    std::array::from_fn(|_| {
        let this = power.clone();
        power.append(&this);
        this
    })
});

impl Crc32 {
    /// The sum of `length` bytes that is known already.
    pub(crate) fn of(sum: u32, length: u64) -> Self {
        Self(crc32fast::Hasher::new_with_initial_len(sum, length))
    }

    /// Goes on over `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Goes on over what `other` is the sum of.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.combine(&other.0);
    }

    /// Goes on over zeros, in a time that hardly depends on how many they are.
    pub(crate) fn append_zeros(&mut self, length: u64) {
        if length <= to_u64(ZERO_PAGES_LENGTH) {
            return self.update(zero_pages(length));
        }
        for (power, zeros) in ZEROS.iter().enumerate() {
            if length >> power & 1 == 1 {
                self.append(zeros);
            }
        }
    }

    /// The sum.
    pub(crate) fn value(&self) -> u32 {
        self.0.clone().finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::Crc32;
    use crate::checksum::crc32;

    #[test]
    fn parts_and_zeros_sum_to_what_the_whole_does() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let whole = crc32(&bytes);
        for cut in [0, 1, 512, 65_536, bytes.len()] {
            let (mut head, mut tail) = (Crc32::default(), Crc32::default());
            head.update(&bytes[..cut]);
            tail.update(&bytes[cut..]);
            head.append(&tail);
            assert_eq!(head.value(), whole, "cut at {cut}");
        }
        for zeros in [0_usize, 1, 512, 65_536, 65_537, 1 << 20, 3_000_001] {
            let mut padded = bytes.clone();
            padded.resize(bytes.len() + zeros, 0);
            padded.push(7);
            let mut sum = Crc32::of(whole, 100_000);
            sum.append_zeros(u64::try_from(zeros).unwrap());
            sum.update(&[7]);
            assert_eq!(sum.value(), crc32(&padded), "{zeros} zeros");
        }
        // Too many to look at. The expected sums are from a computation of x^(8n) modulo the polynomial in Python.
        for (zeros, expected) in [(1_u64 << 40, 0x0d96_8558), (1 << 46, 0xab54_d286), ((1 << 46) - 512, 0x1943_4de6)] {
            let mut sum = Crc32::default();
            sum.append_zeros(zeros);
            assert_eq!(sum.value(), expected, "{zeros} zeros");
        }
    }
}
