//! Mounts by FUSE: a [`Tree`] as files for any program, without root.
//!
//! Reads, sizes and holes are those of the disks. What cannot be read is `EIO` for the reads that need it, as in the
//! NBD server: a lost page, an invalid table entry, a truncated file, a lost range of a salvage. Nothing can be
//! written.

mod files;
mod map;
mod read;
mod system;

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};
use rustix::event::{PollFd, PollFlags, poll};

use crate::Observer;
use crate::tree::Tree;
use files::Files;
use read::ToKernel;

pub use system::{is_mounted, unmount};

/// Settings of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Source of the mount in the table of mounts: the path of the image.
    pub source: OsString,
    /// Whether other users can read the files, too. For users other than root, `/etc/fuse.conf` must allow it.
    pub allow_other: bool,
    /// Whether reads bypass the page cache of the mount. Each read of a program is then a request of its own.
    pub is_direct: bool,
    /// Number of threads that answer requests.
    pub threads: NonZeroUsize,
}

impl Default for Options {
    /// No source, the mounting user only, through the page cache, two threads for each core: 4 to 16.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = cores.saturating_mul(2).clamp(4, 16);
        Self {
            source: OsString::new(),
            allow_other: false,
            is_direct: false,
            threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// A mounted tree.
#[derive(Debug)]
pub struct Mount {
    directory: PathBuf,
    /// Device number of the mount, as the table of mounts has it; `None` if that cannot be read.
    device: Option<String>,
    session: JoinHandle<io::Result<()>>,
    /// Is closed at its other end when the session ends.
    ended: UnixStream,
}

impl Mount {
    /// Mounts a tree on a directory. When the function returns, the files can be read: threads of this process answer.
    ///
    /// # Errors
    /// The errors of mount(2); for users other than root, what `fusermount3` says.
    pub fn new<O>(tree: Tree, directory: &Path, options: &Options, observer: O) -> io::Result<Self>
    where
        O: Observer + Send + 'static,
    {
        let directory = directory.canonicalize()?;
        let (ended, end) = UnixStream::pair()?;
        let kernel = ToKernel::default();
        let files = Files::new(tree, options, observer, ToKernel::clone(&kernel));
        let device = system::mount(&directory, options)?;
        let acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        let mut config = Config::default();
        config.n_threads = Some(options.threads.get());
        config.clone_fd = true;
        let started = Session::from_fd(files, device, acl, config).and_then(|session| {
            kernel.get_or_init(|| session.notifier());
            let work = move || {
                let result = session.run();
                drop(end);
                result
            };
            std::thread::Builder::new().name("fuse".to_owned()).spawn(work)
        });
        match started {
            Ok(session) => {
                let device = system::device_of(&directory).ok().flatten();
                if let Some(device) = &device {
                    system::read_far_ahead(device);
                }
                Ok(Self { directory, device, session, ended })
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = system::detach(&directory);
                Err(error)
            }
        }
    }

    /// Returns the absolute path of the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Serves the files until they are unmounted, or until `stop` can be read or is closed at its other end. In the
    /// latter case the tree is unmounted. Files that programs have open can be read until this process ends.
    ///
    /// # Errors
    /// Fails if the session fails, or if the system cannot unmount.
    pub fn run(self, stop: impl AsFd) -> io::Result<()> {
        let is_stopped = loop {
            let wait = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut polled = [wait(self.ended.as_fd()), wait(stop.as_fd())];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break polled.first().is_none_or(|ended| ended.revents().is_empty()),
            }
        };
        if !is_stopped {
            return self.session.join().map_err(|_| io::Error::other("a thread has failed"))?;
        }
        // Another file system may have been mounted over this one since.
        if self.device.is_some() && system::device_of(&self.directory)? != self.device {
            return Err(io::Error::other("another file system is mounted on this directory"));
        }
        match unmount(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => system::detach(&self.directory),
            result => result,
        }
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
