//! The model of loss: random chains of which a file becomes shorter, every public operation over them, and what is the truth.

pub mod chain;
pub mod dice;
pub mod operations;
pub mod rounds;
pub mod truth;
