//! Runs of bits in a sector bitmap (MS-VHDX 2.4.2): the least significant bit of a byte is its first sector.

use zerocopy::FromBytes;

use crate::format::U64;

/// Returns the number of bits of `bytes`, from bit `first` of the first byte on (0 to 7), that are equal to `bit`.
pub(crate) fn equal_bits(bytes: &[u8], first: u64, bit: bool) -> u64 {
    // Inverted so that differing bits are 1.
    let turned = |byte: u8| if bit { !byte } else { byte };
    let Some((head, rest)) = bytes.split_first() else { return 0 };
    let differing = turned(*head) >> first;
    if differing != 0 {
        return u64::from(differing.trailing_zeros());
    }
    let mut equal = 8_u64.saturating_sub(first);
    let Ok((words, tail)) = <[U64]>::ref_from_prefix_with_elems(rest, rest.len() >> 3) else {
        return equal;
    };
    for word in words {
        let differing = if bit { !word.get() } else { word.get() };
        if differing != 0 {
            return equal.saturating_add(u64::from(differing.trailing_zeros()));
        }
        equal = equal.saturating_add(64);
    }
    for byte in tail {
        let differing = turned(*byte);
        if differing != 0 {
            return equal.saturating_add(u64::from(differing.trailing_zeros()));
        }
        equal = equal.saturating_add(8);
    }
    equal
}

#[cfg(test)]
mod tests {
    use super::equal_bits;

    #[test]
    fn runs_of_any_length_at_any_bit_are_counted() {
        for length in [1_usize, 7, 8, 9, 17, 40] {
            let bits = length * 8;
            for bit in [false, true] {
                for end in 0..=bits {
                    // Bits 0 to end-1 are `bit`, the one at `end` is not.
                    let mut bytes = vec![if bit { 0xff } else { 0_u8 }; length];
                    if end < bits {
                        bytes[end / 8] ^= 1 << (end % 8);
                    }
                    for first in 0..8.min(end + 1) {
                        let expected = u64::try_from(end - first).unwrap();
                        assert_eq!(equal_bits(&bytes, u64::try_from(first).unwrap(), bit), expected);
                    }
                }
            }
        }
    }
}
