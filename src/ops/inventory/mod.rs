//! Many images at once: the image files in folders, how they depend on each other, and what each of them is.

mod files;
mod forest;
mod listing;
mod row;
mod siblings;

pub use files::{ImageFile, ImageFiles};
pub use forest::{Forest, ForestImage, ForestLeaf, ForestParent, StoredParent};
pub use listing::Listing;
pub use row::{Health, InventoryOptions, InventoryRow, ParentStatus, RowContent};
pub use siblings::{Checkpoints, Siblings};
