//! squashfs.
