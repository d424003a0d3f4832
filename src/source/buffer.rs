//! Memory for reads: page-aligned, since the system copies into other memory several times slower, and direct writes take
//! no other.

use crate::num::to_u64;

/// What pages are aligned to.
const PAGE: usize = 4096;

/// Bytes in memory that begin on a page. What they hold is of no meaning before something is read into them.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Where the first page begins.
    skip: usize,
}

impl Buffer {
    /// Makes sure that there are `length` bytes, and lends them. What they held may be lost.
    pub(crate) fn reserve(&mut self, length: usize) -> &mut [u8] {
        let needed = length.saturating_add(PAGE);
        if self.bytes.len() < needed {
            // Not resized, which would copy what nobody needs.
            self.bytes = vec![0; needed];
            self.skip = self.bytes.as_ptr().align_offset(PAGE).min(PAGE);
        }
        self.bytes.get_mut(self.skip..).and_then(|bytes| bytes.get_mut(..length)).unwrap_or_default()
    }

    /// `length` bytes from `start` on, if there are so many.
    pub(crate) fn get(&self, start: usize, length: usize) -> Option<&[u8]> {
        self.bytes.get(self.skip.checked_add(start)?..)?.get(..length)
    }
}

/// A length, rounded up to whole pages.
pub(crate) fn whole_pages(length: u64) -> u64 {
    length.saturating_add(to_u64(PAGE).saturating_sub(1)) & !to_u64(PAGE).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::{Buffer, PAGE, whole_pages};

    #[test]
    fn memory_begins_on_a_page_and_is_kept_while_it_suffices() {
        let mut buffer = Buffer::default();
        for length in [1, PAGE, 5 * PAGE + 1, 3] {
            let bytes = buffer.reserve(length);
            assert_eq!((bytes.len(), bytes.as_ptr().align_offset(PAGE)), (length, 0));
        }
        let kept = buffer.reserve(2 * PAGE).as_ptr();
        buffer.reserve(5 * PAGE)[4 * PAGE] = 7;
        assert_eq!(buffer.reserve(PAGE).as_ptr(), kept);
        assert_eq!(buffer.get(4 * PAGE, 1), Some(&[7][..]));
        assert_eq!(buffer.get(4 * PAGE, 9 * PAGE), None);
        assert_eq!([0, 1, 4096, 4097].map(whole_pages), [0, 4096, 4096, 8192]);
    }
}
