//! Cache of a few pages of tables, for sources that are read piece by piece.
//!
//! Most small reads need one entry of the BAT, and most of these are near each other. Without this cache, each of them
//! would be a request of its own, possibly to another machine.

use std::sync::{Mutex, PoisonError};

use super::Source;
use crate::num::{to_u64, to_usize_saturating};

/// Length of a page, in bytes.
const PAGE: u64 = 8 << 10;

/// Number of pages that are kept: 256 KiB.
const MOST: usize = 32;

/// The pages that were used last, the newest first.
#[derive(Debug, Default)]
pub(super) struct TablePages(Mutex<Vec<Page>>);

#[derive(Debug)]
struct Page {
    offset: u64,
    /// Shorter than [`PAGE`] at the end of the file.
    bytes: Box<[u8]>,
}

impl TablePages {
    /// Fills `buf` with the bytes at `offset`, if they are in one page that can be read. Returns false otherwise.
    pub(super) fn read(&self, source: &Source, offset: u64, buf: &mut [u8]) -> bool {
        let start = offset & !PAGE.saturating_sub(1);
        let within = to_usize_saturating(offset.saturating_sub(start));
        if to_u64(within.saturating_add(buf.len())) > PAGE {
            return false;
        }
        if self.copy(start, within, buf) {
            return true;
        }
        // Not under the lock: other threads need other pages meanwhile.
        let mut bytes = vec![0; to_usize_saturating(source.len().saturating_sub(start).min(PAGE))].into_boxed_slice();
        if source.read_exact_at(start, &mut bytes).is_err() {
            return false;
        }
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.iter().all(|page| page.offset != start) {
            pages.insert(0, Page { offset: start, bytes });
            pages.truncate(MOST);
        }
        drop(pages);
        self.copy(start, within, buf)
    }

    fn copy(&self, start: u64, within: usize, buf: &mut [u8]) -> bool {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = pages.iter().position(|page| page.offset == start) else { return false };
        pages.get_mut(..=place).unwrap_or_default().rotate_right(1);
        let bytes = pages.first().and_then(|page| page.bytes.get(within..)?.get(..buf.len()));
        bytes.is_some_and(|bytes| {
            buf.copy_from_slice(bytes);
            true
        })
    }

    /// Removes the pages between `start` and `end`.
    pub(super) fn forget(&self, start: u64, end: u64) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|page| page.offset >= end || page.offset.saturating_add(PAGE) <= start);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{MOST, PAGE, TablePages};
    use crate::source::{ReadAt, Source};

    /// Counts requests; the page at 3 * PAGE cannot be read.
    struct Counted(AtomicUsize);

    impl ReadAt for Counted {
        fn len(&self) -> io::Result<u64> {
            Ok(100 * PAGE + 7)
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if offset == 3 * PAGE {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            for (byte, at) in buf.iter_mut().zip(offset..) {
                *byte = u8::try_from(at % 251).unwrap();
            }
            Ok(())
        }
    }

    #[test]
    fn recent_page_is_read_once() {
        let reader = Arc::new(Counted(AtomicUsize::new(0)));
        let source = Source::from_reader(Arc::clone(&reader)).unwrap();
        let pages = TablePages::default();
        let mut buf = [0; 8];
        let mut read = |offset: u64, expected: bool| {
            let before = reader.0.load(Ordering::Relaxed);
            assert_eq!(pages.read(&source, offset, &mut buf), expected, "{offset}");
            if expected {
                let bytes: Vec<u8> = (offset..offset + 8).map(|at| u8::try_from(at % 251).unwrap()).collect();
                assert_eq!(buf[..], bytes, "{offset}");
            }
            reader.0.load(Ordering::Relaxed) - before
        };
        assert_eq!([read(5, true), read(PAGE - 8, true), read(0, true)], [1, 0, 0]);
        assert_eq!(read(PAGE - 7, false), 0, "in two pages");
        assert_eq!(read(3 * PAGE + 16, false), 1, "can't be read");
        assert_eq!(read(100 * PAGE - 1, false), 0, "in two pages");
        for page in 10..10 + u64::try_from(MOST).unwrap() - 1 {
            assert_eq!(read(page * PAGE, true), 1);
        }
        assert_eq!(read(9, true), 0, "still there, and the newest now");
        assert_eq!([read(60 * PAGE, true), read(10 * PAGE, true), read(9, true)], [1, 1, 0]);
        pages.forget(0, 1);
        assert_eq!(read(9, true), 1);
    }
}
