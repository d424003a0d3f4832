//! Every operation over a chain of which a file becomes shorter at some moment: an error, or the truth.
//!
//! The model, and the operations, are those of the library's own test; here, the bytes of the input make all choices.

use arbitrary::{Arbitrary, Result, Unstructured};

#[expect(dead_code, reason = "here, dice make all chains")]
#[path = "../../tests/it/loss/chain.rs"]
mod chain;
#[expect(dead_code, reason = "here, no choice comes from a seed")]
#[path = "../../tests/it/loss/dice.rs"]
mod dice;
#[path = "../../tests/it/loss/operations/mod.rs"]
mod operations;
#[expect(dead_code, reason = "the test counts answers after a salvage apart")]
#[path = "../../tests/it/loss/rounds.rs"]
mod rounds;
#[path = "../../tests/it/loss/truth.rs"]
mod truth;

use rounds::Verdict;

/// How many rounds the chain of an input serves for: a few, since the search wants many short runs.
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
