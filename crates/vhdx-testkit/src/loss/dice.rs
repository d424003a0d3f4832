//! Choices: from a seed, so that every run makes the same ones, or from the bytes of a fuzzer.

/// Converts a length for slices.
pub fn size(length: u64) -> usize {
    usize::try_from(length).unwrap()
}

/// Converts a length for files.
pub fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

/// A source of choices.
#[derive(Clone, Debug)]
pub enum Dice {
    /// Pseudo-random numbers (splitmix64).
    Seed(u64),
    /// Bytes of an input, first byte last; after them, every choice is the first one.
    Bytes(Vec<u8>),
}

impl Dice {
    /// Choices that follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self::Seed(seed)
    }

    /// Choices that follow from the bytes of an input.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.iter().rev().copied().collect())
    }

    fn number(&mut self, bytes: u32) -> u64 {
        match self {
            Self::Seed(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^ (mixed >> 31)
            }
            Self::Bytes(left) => (0..bytes).fold(0, |number, _| number << 8 | u64::from(left.pop().unwrap_or(0))),
        }
    }

    /// A number in `0..end`; 0 if that is empty.
    pub fn below(&mut self, end: u64) -> u64 {
        let bits = u64::BITS - end.max(1).leading_zeros();
        self.number(bits.div_ceil(8)) % end.max(1)
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// An item of a list that is not empty.
    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[size(self.below(wide(all.len())))].clone()
    }
}
