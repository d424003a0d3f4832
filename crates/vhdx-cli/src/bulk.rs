//! Shared parts of the commands that work on whole disks.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};
use vhdx_mmap::ops::Algorithm;
use vhdx_mmap::ops::manifest::ManifestError;
use vhdx_mmap::{Error, PageCachePolicy, ScanError, ScanOptions};

use crate::args::{CacheArgs, CacheChoice, Common};
use crate::exit::{Exit, Failure};
use crate::progress::Work;
use crate::size::ByteRange;

/// Threads that do the work.
#[derive(Clone)]
pub(crate) enum Pool {
    Threads(Arc<ThreadPool>),
    /// The system allows this user no more threads: the current one does all the work.
    ThisThread,
}

impl Pool {
    pub(crate) fn has_threads(&self) -> bool {
        matches!(self, Self::Threads(_))
    }

    pub(crate) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self {
            Self::Threads(pool) => pool.install(work),
            Self::ThisThread => work(),
        }
    }
}

/// The pool of all threads: several images at once have the same.
static ALL: OnceLock<Pool> = OnceLock::new();

/// The threads: the number of --threads, or one per core.
pub(crate) fn all_threads(common: &Common) -> Result<Pool, Failure> {
    match ALL.get() {
        Some(pool) => Ok(pool.clone()),
        None => {
            let pool = pool(common, usize::MAX)?;
            Ok(ALL.get_or_init(|| pool).clone())
        }
    }
}

/// Starts the threads: the number of --threads, or one per core, up to `max`.
pub(crate) fn pool(common: &Common, max: usize) -> Result<Pool, Failure> {
    let threads = match common.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from).min(max),
    };
    if let Ok(pool) = ThreadPoolBuilder::new().num_threads(threads).build() {
        return Ok(Pool::Threads(Arc::new(pool)));
    }
    if rayon::current_thread_index().is_none() {
        let pool = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        let pool = pool.map_err(|error| Failure::new(Exit::Io, format!("threads: {error}")))?;
        // The current thread belongs to this pool until it ends, so the pool is never dropped.
        std::mem::forget(pool);
    }
    Ok(Pool::ThisThread)
}

/// Options of the library for a pass over a disk.
pub(crate) fn scan_options(cache: CacheArgs, work: &Work) -> ScanOptions<'_> {
    let cache = match cache.cache {
        CacheChoice::Keep => PageCachePolicy::Keep,
        CacheChoice::Drop => PageCachePolicy::Drop,
    };
    ScanOptions::new().cache(cache).progress(work)
}

/// Range of --range in a disk of `size` bytes; by default, all of it.
pub(crate) fn range_of(range: Option<ByteRange>, size: u64) -> Result<Range<u64>, Failure> {
    range.map_or(Ok(0..size), |range| range.within(size).map_err(Failure::usage))
}

/// Fails if an algorithm is given twice.
pub(crate) fn reject_duplicates(algorithms: &[Algorithm]) -> Result<(), Failure> {
    let twice = algorithms
        .iter()
        .enumerate()
        .find(|(index, algorithm)| algorithms.iter().take(*index).any(|before| before == *algorithm));
    twice.map_or(Ok(()), |(_, algorithm)| Err(Failure::usage(format!("{algorithm}: given twice"))))
}

impl Failure {
    /// An error of the library in one of several files. The text names the file, unless the error concerns all of them.
    pub(crate) fn of_one_input(image: &Path, error: &Error) -> Self {
        match error.file() {
            Some(file) => Self::of_named(file, error),
            None => Self::of_image(image, error),
        }
    }

    /// An error of a manifest or of its image.
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
            error @ ScanError::Manifest(ManifestError::OtherSize { .. }) => {
                Self::new(Exit::Mismatch, format!("{}: {}: {error}", image.display(), manifest.display()))
                    .with_hint("a resized disk, or the manifest of another disk")
            }
            error @ ScanError::Manifest(ManifestError::EmptyShard { .. }) => {
                Self::new(Exit::Corrupt, format!("{}: {error}", manifest.display()))
                    .with_hint("verify with the other shards, or merge all of them into one manifest with `vhdx merge`")
            }
            error => Self::new(Exit::Corrupt, format!("{}: {error}", manifest.display())),
        }
    }

    /// An error of a pass over an image.
    pub(crate) fn of_scan(image: &Path, error: &ScanError, work: &Work) -> Self {
        match error {
            ScanError::Read(error) => Self::of_image(image, error),
            _ => Self::Interrupted { signal: work.signal().unwrap_or(0) },
        }
    }
}
