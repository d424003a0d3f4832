//! A check finds every problem that prevents reading an image.

pub use crate::damage::check as run;
pub use crate::read::Input;
