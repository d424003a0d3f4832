//! Finding everything that is wrong with one image, also what no read depends on.

mod bat;
mod finding;
mod image;
mod shared;
mod slots;

pub use finding::Finding;
pub(crate) use finding::Findings;
pub(crate) use image::Examined;
