//! What the commands have in common that go through whole disks.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use rayon::{ThreadPool, ThreadPoolBuilder};
use vhdx_mmap::ops::manifest::ManifestError;
use vhdx_mmap::ops::{Algorithm, Digest};
use vhdx_mmap::{Error, PageCachePolicy, ScanError, ScanOptions};

use crate::args::{CacheArgs, CacheChoice, Common};
use crate::exit::{Exit, Failure};
use crate::progress::Work;
use crate::size::ByteRange;

/// The threads that do the work.
pub(crate) enum Pool {
    Threads(ThreadPool),
    /// The system has no others for this user: the thread that asks for the work does all of it.
    ThisThread,
}

impl Pool {
    pub(crate) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Threads(pool) => pool.install(work),
            Self::ThisThread => work(),
        }
    }
}

/// As many threads as the user wants, or as there are cores, but at most `most`.
pub(crate) fn pool(common: &Common, most: usize) -> Result<Pool, Failure> {
    let threads = match common.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from).min(most),
    };
    if let Ok(pool) = ThreadPoolBuilder::new().num_threads(threads).build() {
        return Ok(Pool::Threads(pool));
    }
    if rayon::current_thread_index().is_none() {
        let pool = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        let pool = pool.map_err(|error| Failure::new(Exit::Io, format!("threads: {error}")))?;
        // This thread stays the one of this pool for as long as it lives, so the pool has to live as long.
        std::mem::forget(pool);
    }
    Ok(Pool::ThisThread)
}

/// The library's options.
pub(crate) fn scan_options(cache: CacheArgs, work: &Work) -> ScanOptions<'_> {
    let cache = match cache.cache {
        CacheChoice::Keep => PageCachePolicy::Keep,
        CacheChoice::Drop => PageCachePolicy::Drop,
    };
    ScanOptions::new().cache(cache).progress(work)
}

/// The range that the user wants of a disk of `size` bytes.
pub(crate) fn range_of(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Failure> {
    range.map_or(Ok(0..size), |range| range.within(size).map_err(Failure::usage))
}

/// Each algorithm is asked for once.
pub(crate) fn refuse_twice(algorithms: &[Algorithm]) -> Result<(), Failure> {
    let twice = algorithms
        .iter()
        .enumerate()
        .find(|(index, algorithm)| algorithms.iter().take(*index).any(|before| before == *algorithm));
    twice.map_or(Ok(()), |(_, algorithm)| Err(Failure::usage(format!("{algorithm} is asked for twice"))))
}

impl Failure {
    /// What the library says of one of several files: it says of which, unless it is about the whole of the work.
    pub(crate) fn of_one_of_several(image: &Path, error: &Error) -> Self {
        match error.file() {
            Some(_) => Self::of_named(error),
            None => Self::of_image(image, error),
        }
    }

    /// Why work with a manifest of an image ended before its end.
    pub(crate) fn of_manifest(image: &Path, manifest: &Path, error: ScanError, work: &Work) -> Self {
        match error {
            ScanError::Read(error) => Self::of_image(image, &error),
            ScanError::Cancelled => Self::Interrupted { signal: work.signal().unwrap_or(0) },
            ScanError::Manifest(ManifestError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Self::ClosedPipe { bulk: true }
            }
            ScanError::Manifest(ManifestError::Io(error)) => {
                Self::new(Exit::Io, format!("{}: {error}", manifest.display()))
            }
            error @ ScanError::Manifest(ManifestError::EmptyShare { .. }) => {
                Self::new(Exit::Corrupt, format!("{}: {error}", manifest.display()))
                    .with_hint("verify with the other shares, or `vhdx merge` all of them to one manifest")
            }
            error => Self::new(Exit::Corrupt, format!("{}: {error}", manifest.display())),
        }
    }

    /// Why work on an image ended before its end.
    pub(crate) fn of_stopped(image: &Path, stopped: &ScanError, work: &Work) -> Self {
        match stopped {
            ScanError::Read(error) => Self::of_image(image, error),
            _ => Self::Interrupted { signal: work.signal().unwrap_or(0) },
        }
    }
}

/// A digest as `sha256sum` and the like write it: in their short form, or with the algorithm's name.
pub(crate) struct DigestLine<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) name: &'a str,
    /// Whether to name the algorithm, and whose digest it is: nothing, or "disk" or "file".
    pub(crate) tag: Option<&'a str>,
}

impl fmt::Display for DigestLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name that would break the line is written with escapes, and the line begins with a mark that says so.
        let name = self.name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        if name != self.name {
            f.write_str("\\")?;
        }
        let digest = self.digest;
        match self.tag {
            None => write!(f, "{digest}  {name}"),
            Some(tag) => {
                let algorithm = digest.algorithm().as_str().to_uppercase();
                let space = if tag.is_empty() { "" } else { " " };
                write!(f, "{algorithm}{space}{tag} ({name}) = {digest}")
            }
        }
    }
}
