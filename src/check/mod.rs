//! Check of one image, including values that no read depends on.

mod bat;
mod finding;
mod habit;
mod image;
mod shared;
mod slots;
mod survey;
mod truncated;

pub use finding::Finding;
pub(crate) use finding::Findings;
#[cfg(feature = "serde")]
pub(crate) use finding::MOST_OF_A_KIND;
pub(crate) use image::Examined;
