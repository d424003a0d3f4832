//! Every operation over a chain of which a file becomes shorter at some moment returns an error, or correct content.
//!
//! The model and the operations are those of the library's own test; here, the bytes of the input make all choices.

use arbitrary::{Arbitrary, Result, Unstructured};
use vhdx_testkit::loss::rounds::Verdict;
use vhdx_testkit::loss::{dice, rounds};

/// Number of rounds for the chain of an input: a few, since the search needs many short runs.
const ROUNDS: usize = 6;

/// Bytes that choose the chain, the operations, and the moments.
#[derive(Debug)]
pub struct Input {
    choices: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let length = bytes.len();
        Ok(Self { choices: bytes.bytes(length)?.to_vec() })
    }
}

pub fn run(input: &Input) {
    let mut dice = dice::Dice::from_bytes(&input.choices);
    for round in rounds::run(&mut dice, ROUNDS, false) {
        match round.verdict {
            Verdict::Right | Verdict::Told => {}
            Verdict::Wrong(what) | Verdict::Misnamed(what) => panic!("{}: {}: {what}", round.operation, round.how),
        }
    }
}
