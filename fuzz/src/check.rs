//! A check finds what keeps an image from being read.

pub use crate::damage::check as run;
pub use crate::read::Input;
