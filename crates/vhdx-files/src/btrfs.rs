//! Btrfs.
