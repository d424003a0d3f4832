//! File systems made by their own tools and filled by the kernel, read by this crate and compared.

mod ext;
mod fat;
mod lab;
mod ntfs;
