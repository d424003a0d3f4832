//! Memory for reads: page-aligned, since the system copies into other memory several times slower, and direct writes
//! require it.

use crate::num::to_u64;

/// Alignment of pages, in bytes.
const PAGE: usize = 4096;

/// Memory that begins on a page. Its content is undefined before something is read into it.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Offset of the first page.
    skip: usize,
}

impl Buffer {
    /// Makes sure that there are `length` bytes, and returns them. Their old content may be lost.
    pub(crate) fn reserve(&mut self, length: usize) -> &mut [u8] {
        let needed = length.saturating_add(PAGE);
        if self.bytes.len() < needed {
            // Not resized, which would copy the old content.
            self.bytes = vec![0; needed];
            self.skip = self.bytes.as_ptr().align_offset(PAGE).min(PAGE);
        }
        self.bytes.get_mut(self.skip..).and_then(|bytes| bytes.get_mut(..length)).unwrap_or_default()
    }

    /// Returns `length` bytes from `start` on, if they exist.
    pub(crate) fn get(&self, start: usize, length: usize) -> Option<&[u8]> {
        self.bytes.get(self.skip.checked_add(start)?..)?.get(..length)
    }
}

/// Rounds a length up to whole pages.
pub(crate) fn whole_pages(length: u64) -> u64 {
    length.saturating_add(to_u64(PAGE).saturating_sub(1)) & !to_u64(PAGE).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::{Buffer, PAGE, whole_pages};

    #[test]
    fn memory_is_aligned_and_reused() {
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
