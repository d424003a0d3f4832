//! File systems made by their own tools and filled by the kernel, read by this crate and compared.

mod btrfs;
mod damage;
mod erofs;
mod ext;
mod fat;
mod lab;
mod ntfs;
mod squashfs;
mod xfs;
