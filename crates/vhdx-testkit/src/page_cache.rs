//! How much of a file is in the page cache: a page fault or a read brings in what lies around as well, as much as the
//! read-ahead of the system is.
#![expect(unsafe_code, reason = "the system is asked about pages of a mapping")]

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::PAGE;

/// Drops a file from the page cache. Returns false where the file system keeps it there.
pub fn drop_cached(path: &Path) -> bool {
    let file = File::options().read(true).write(true).open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, NonZeroU64::new(0), rustix::fs::Advice::DontNeed).unwrap();
    cached(path) == 0
}

/// How much of a file is in the page cache, in bytes.
pub fn cached(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    if let Some(pages) = pages_by_cachestat(&file) {
        return pages * PAGE;
    }
    // SAFETY: the file is not written to meanwhile, and no byte of it is looked at.
    let mapping = unsafe { memmap2::MmapOptions::new().map(&file) }.unwrap();
    let pages = mapping.len().div_ceil(usize::try_from(PAGE).unwrap());
    let mut resident = vec![0_u8; pages];
    // SAFETY: the range is that of the mapping, and there is a byte for each of its pages.
    let result = unsafe { libc::mincore(mapping.as_ptr().cast_mut().cast(), mapping.len(), resident.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    u64::try_from(resident.iter().filter(|page| **page & 1 == 1).count()).unwrap() * PAGE
}

/// Number of pages of a file in the page cache, as Linux 6.5 and later count them without a look at each. Returns
/// `None` if it counts none: they may be those of a file below, in an overlay.
fn pages_by_cachestat(file: &File) -> Option<u64> {
    /// The system call has this number on every kind of machine.
    const CACHESTAT: libc::c_long = 451;

    // Offset and length; 0 is all of the file. Then pages: cached, dirty, being written, evicted, recently evicted.
    let (range, mut pages) = ([0_u64; 2], [0_u64; 5]);
    // SAFETY: the call reads two numbers from `range`, and writes five to `pages`.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0) };
    (result == 0 && pages[0] > 0).then_some(pages[0])
}
