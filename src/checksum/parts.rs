//! CRC-32 in parts.

use crc32fast::Hasher;

use crate::num::to_u64;

/// CRC-32 (IEEE) of content in parts: the sums of adjacent parts can be joined.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crc32 {
    sum: Hasher,
    length: Length,
}

/// Length of content, as far as a CRC-32 depends on it: any number of bytes, of any number of parts, without overflow.
///
/// Appending `n` bytes multiplies the sum by `x^(8n)` modulo the polynomial, and `x^(2^32 - 1)` is 1 (the polynomial is
/// primitive). So only `n` modulo `2^32 - 1` counts. It is 0 for empty content, and between 1 and `2^32 - 1` otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Length(u64);

impl Length {
    /// The period of `x` modulo the polynomial.
    const PERIOD: u64 = 0xffff_ffff;

    fn of(bytes: u64) -> Self {
        Self(match bytes.checked_sub(1) {
            Some(before) => (before % Self::PERIOD).saturating_add(1),
            None => 0,
        })
    }

    fn and(self, next: Self) -> Self {
        // The sum of two 32-bit numbers.
        Self::of(self.0.saturating_add(next.0))
    }
}

/// Appends content with the sum `next` to content with the sum `sum`.
fn join(sum: &Hasher, next: u32, length: Length) -> Hasher {
    // The crate counts bytes in a u64, and adds without a check: it gets no more than one length.
    let mut joined = Hasher::new_with_initial_len(sum.clone().finalize(), 0);
    joined.combine(&Hasher::new_with_initial_len(next, length.0));
    Hasher::new_with_initial_len(joined.finalize(), 0)
}

impl Crc32 {
    /// Makes the known sum of `length` bytes.
    pub(crate) fn of(sum: u32, length: u64) -> Self {
        Self { sum: Hasher::new_with_initial_len(sum, 0), length: Length::of(length) }
    }

    /// Continues the sum over `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.length = self.length.and(Length::of(to_u64(bytes.len())));
    }

    /// Appends the content of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        self.sum = join(&self.sum, other.value(), other.length);
        self.length = self.length.and(other.length);
    }

    /// Appends the content of `other` `times` times: one or two steps for each bit of `times`.
    pub(crate) fn append_repeated(&mut self, other: &Self, times: u64) {
        let (mut power, mut left) = (other.clone(), times);
        while left > 0 {
            if left & 1 == 1 {
                self.append(&power);
            }
            let half = power.clone();
            power.append(&half);
            left >>= 1;
        }
    }

    /// Appends zeros, in a time that hardly depends on their number.
    pub(crate) fn append_zeros(&mut self, length: u64) {
        let length = Length::of(length);
        // Without the inversion at its beginning and end, a CRC of zeros is 0: nothing is added to the multiplied sum.
        let inverted = Hasher::new_with_initial_len(!self.value(), 0);
        let shifted = join(&inverted, 0, length).finalize();
        self.sum = Hasher::new_with_initial_len(!shifted, 0);
        self.length = self.length.and(length);
    }

    /// Returns the sum.
    pub(crate) fn value(&self) -> u32 {
        self.sum.clone().finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::Crc32;
    use crate::checksum::crc32;

    #[test]
    fn crc32_of_parts_and_zeros_equals_whole() {
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
    }

    // Input that is too long to process. All expected sums below are computed in Python, by x^(8n) modulo the
    // polynomial in 32-bit integers; that computation was compared with zlib for lengths up to 256 MiB.

    #[test]
    fn crc32_of_zeros_is_correct_for_every_length() {
        for (zeros, alone, after_abc) in [
            (0, 0, 0x3524_41c2),
            (0xffff_ffff, 0, 0x3524_41c2),
            (1 << 40, 0x0d96_8558, 0x80cc_9ae1),
            (1 << 46, 0xab54_d286, 0x0e3d_9a02),
            ((1 << 46) - 512, 0x1943_4de6, 0x73e5_60ad),
            (1 << 47, 0x011f_fca6, 0x5299_76d7),
            (1 << 48, 0xd797_8eeb, 0xa3e8_ff66),
            ((1 << 48) + 1, 0xe50d_43f3, 0x7670_c31f),
            ((1 << 50) - 512, 0xb04c_91b4, 0x298f_606a),
            (1 << 63, 0x4dbd_f21c, 0x7581_96c8),
            (u64::MAX, 0, 0x3524_41c2),
        ] {
            let (mut sum, mut after) = (Crc32::default(), Crc32::default());
            sum.append_zeros(zeros);
            assert_eq!(sum.value(), alone, "{zeros} zeros");
            after.update(b"abc");
            after.append_zeros(zeros);
            assert_eq!(after.value(), after_abc, "abc and {zeros} zeros");
            let mut joined = Crc32::default();
            joined.update(b"abc");
            joined.append(&sum);
            assert_eq!(joined.value(), after_abc, "abc and a part of {zeros} zeros");
            let mut known = Crc32::default();
            known.update(b"abc");
            known.append(&Crc32::of(alone, zeros));
            assert_eq!(known.value(), after_abc, "abc and the known sum of {zeros} zeros");
        }
    }

    #[test]
    fn crc32_of_parts_longer_than_u64_is_correct() {
        // "abc", 2^63 zeros, "xyz", 2^63 zeros, "end".
        let part = |bytes: &[u8], zeros| {
            let mut part = Crc32::default();
            part.update(bytes);
            part.append_zeros(zeros);
            part
        };
        let (first, second, last) = (part(b"abc", 1 << 63), part(b"xyz", 1 << 63), part(b"end", 0));
        let mut from_the_left = first.clone();
        from_the_left.append(&second);
        from_the_left.append(&last);
        assert_eq!(from_the_left.value(), 0xd946_54d7);
        let (mut from_the_right, mut rest) = (first, second);
        rest.append(&last);
        from_the_right.append(&rest);
        assert_eq!(from_the_right.value(), 0xd946_54d7);
    }

    #[test]
    fn crc32_of_repeated_content_equals_whole() {
        let mut part = Crc32::default();
        part.update(&[0xcb, 0xf4, 0x39, 0x26]);
        for (times, expected) in
            [(0, 0), (1_000_003, 0xc1e5_89c4), (1 << 26, 0x3d0a_990c), (1 << 40, 0xfe6a_6212), (u64::MAX, 0)]
        {
            let mut sum = Crc32::default();
            sum.append_repeated(&part, times);
            assert_eq!(sum.value(), expected, "{times} times");
        }
        let mut sum = Crc32::default();
        sum.update(b"head");
        sum.append_repeated(&part, 1001);
        let written_out = [&b"head"[..], &[0xcb, 0xf4, 0x39, 0x26].repeat(1001)].concat();
        assert_eq!(sum.value(), crc32(&written_out));
    }
}
