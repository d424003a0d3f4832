//! Model of loss: random chains of which a file is truncated, every public operation over them, and the right answers.

pub mod chain;
pub mod dice;
pub mod layer;
pub mod operations;
pub mod rounds;
pub mod truth;
