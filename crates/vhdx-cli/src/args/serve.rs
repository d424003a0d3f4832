//! Arguments of `vhdx serve`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

/// Serve disks over NBD, read-only, for programs that need a device or a raw disk
///
/// Nothing is converted or copied. An image has the exports disk (the whole disk, also without a name), part1, part2, …
/// (its partitions), and layer0, layer1, … (the disk at each checkpoint). Of several images, the names begin with the
/// name of the image: base, base/part1.
///
/// The URI of each export is printed on a line of standard output when the server is ready. SIGINT, SIGTERM and SIGHUP
/// end it. Sockets that systemd or libnbd pass (LISTEN_FDS) are used instead of new ones.
///
/// Example: vhdx serve disk.vhdx -- nbdinfo --map '$uri'
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Images to serve
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Create the Unix socket at this path, with mode 0600 [default: in a new folder that only this user can enter]
    #[arg(long, short = 'U', value_name = "PATH", conflicts_with_all = ["port", "stdio"])]
    pub(crate) socket: Option<PathBuf>,
    /// Listen on a TCP port of this machine instead, 127.0.0.1 only; 0 for any free port
    ///
    /// Every user of the machine can read the disk through it.
    #[arg(long, value_name = "PORT", conflicts_with = "stdio")]
    pub(crate) port: Option<u16>,
    /// Listen on this address, so that other machines can connect: without a password and without encryption
    #[arg(long, value_name = "ADDRESS", requires = "port")]
    pub(crate) bind: Option<IpAddr>,
    /// Serve one client on standard input and output; sockets that are passed come first
    #[arg(long, conflicts_with = "command")]
    pub(crate) stdio: bool,
    /// Largest number of connections at a time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) max_connections: u32,
    /// Open damaged images, too; reads of lost ranges fail with EIO
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Program to run with the server: its arguments, in which $uri is replaced, and its environment have the URI of
    /// the first export; when it ends, the server ends with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
