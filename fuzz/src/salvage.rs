//! A salvage returns what is left of an image, and no more.

pub use crate::damage::salvage as run;
pub use crate::read::Input;
