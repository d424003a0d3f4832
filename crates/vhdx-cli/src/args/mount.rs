//! Arguments of `vhdx mount` and `vhdx umount`.

use std::path::PathBuf;

use clap::Args;

/// Options for the kernel only.
const FOR_KERNEL: [&str; 3] = ["kernel", "loop_", "write_erofs"];

/// Mount disks as raw files, read-only: with the kernel alone, or with FUSE
///
/// DIR gets disk.raw (the whole disk), part1.raw, part2.raw, … (its partitions), layers/0.raw, layers/1.raw, … (the
/// disk at each checkpoint) and info.json. Of several images, each has a directory with its name. Nothing is converted
/// or copied: other programs read the files as they are in the images.
///
/// As root on Linux 6.12 and later, the kernel reads the images (EROFS), and no process stays. Otherwise, a process
/// serves the files with FUSE. The hint names the command that mounts the file system in the disk.
///
/// Example: vhdx mount --loop --partition 2 disk.vhdx /mnt
#[derive(Args, Debug)]
#[command(override_usage = "vhdx mount [OPTIONS] <IMAGE>... <DIR>\n       \
                            vhdx mount [OPTIONS] --write-erofs <FILE> <IMAGE>...")]
pub(crate) struct MountArgs {
    /// Images to mount, and then the directory
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Mount with the kernel (EROFS), or fail: needs root
    #[arg(long)]
    pub(crate) kernel: bool,
    /// Mount with FUSE
    #[arg(long, conflicts_with_all = FOR_KERNEL)]
    pub(crate) fuse: bool,
    /// Mount the file system in the disk on DIR, not the disk: its files are read by the kernel, without replaying a
    /// journal; needs root
    ///
    /// With --partition, that of a partition; otherwise, the disk must have a single file system.
    #[arg(long = "loop", conflicts_with = "write_erofs")]
    pub(crate) loop_: bool,
    /// Partition that --loop mounts and the hint names
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Write the EROFS metadata to FILE, and print the commands that mount it on a machine without vhdx
    ///
    /// FILE must not exist. It fits the images as they are now: do not use it after they have changed.
    #[arg(long, value_name = "FILE")]
    pub(crate) write_erofs: Option<PathBuf>,
    /// Let other users read the files; otherwise only the user who has mounted them can
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Read past the page cache of the mount, with FUSE
    #[arg(long, conflicts_with_all = FOR_KERNEL)]
    pub(crate) direct: bool,
    /// Stay in the foreground until DIR is unmounted, with FUSE
    #[arg(long, short = 'f', conflicts_with_all = FOR_KERNEL)]
    pub(crate) foreground: bool,
    /// Number of threads that answer requests, with FUSE [default: two for each core, 4 to 16]
    #[arg(long, value_name = "N", conflicts_with_all = FOR_KERNEL,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Mount damaged images, too; reads of lost ranges fail
    #[arg(long)]
    pub(crate) salvage: bool,
}

/// Unmount a directory that `vhdx mount` has mounted, and end everything that belongs to it
///
/// File systems that are mounted from the files in it are unmounted first, the last one first.
#[derive(Args, Debug)]
pub(crate) struct UmountArgs {
    /// Directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Take the directory away although files in it are in use; they end when they are closed
    #[arg(long, short)]
    pub(crate) lazy: bool,
}
