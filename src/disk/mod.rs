//! The disk that a guest sees: an image and its parents, as one.

mod block;
mod chain;
mod cursor;
mod extents;
mod parents;
mod reader;
mod segments;
mod stored_path;

use std::ops::{Bound, RangeBounds};

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::image::{Image, Warning};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::Source;
use crate::zero::{ZERO_PAGES_LENGTH, zero_pages};

use cursor::Cursor;

pub use block::Block;
pub use chain::{Chain, Layer, Link, MAX_PARENTS, OpenOptions};
pub use extents::{Extent, Extents};
pub use parents::{FoundBy, ParentFinder, ParentRequest, Parents};
pub use reader::Reader;
pub use segments::{Segment, Segments};

/// A virtual disk: an image and the chain of its parents.
///
/// It owns its files, can be shared between threads, and every read takes `&self`. Nothing in it changes.
#[derive(Debug)]
pub struct Disk {
    /// The image that was opened first; there is at least one.
    layers: Vec<Layer>,
}

impl Disk {
    /// Opens an image, and its parents as `options` allow.
    ///
    /// # Errors
    /// As for [`Image::open`]; [`Category::ParentNotFound`](crate::Category::ParentNotFound) and
    /// [`Category::ParentMismatch`](crate::Category::ParentMismatch) if a parent is needed and was looked for in vain. The
    /// error says in which layer it is.
    pub fn open(source: Source, options: &OpenOptions) -> Result<Self> {
        Self::from_chain(Chain::open(source, options)?)
    }

    /// The disk of a chain that has been opened.
    ///
    /// # Errors
    /// What is wrong with the chain: [`Chain::broken`].
    pub fn from_chain(chain: Chain) -> Result<Self> {
        chain.into_disk()
    }

    /// The layers: the image that was opened first, its base last. There is at least one.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The image that was opened.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a chain has at least the image that was opened")]
    pub fn image(&self) -> &Image {
        self.layers[0].image()
    }

    /// Size of the disk, in bytes: 0 to 64 TiB.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.image().virtual_disk_size()
    }

    /// Size of a block of the image that was opened, in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.image().block_size()
    }

    /// What is out of the ordinary in the layers, with the number of each.
    pub fn warnings(&self) -> impl Iterator<Item = (usize, &Warning)> {
        self.layers
            .iter()
            .enumerate()
            .flat_map(|(number, layer)| layer.warnings().map(move |warning| (number, warning)))
    }

    /// The content of a range of bytes of the disk, as bytes lent from the files and as lengths of zeros: in order, and
    /// each run as long as can be. What lies behind the end of the disk is left out.
    ///
    /// Nothing is copied, whatever the range. An error is the last item, behind all that is good before it.
    pub fn segments(&self, range: impl RangeBounds<u64>) -> Segments<'_> {
        Segments::new(self.cursor(range))
    }

    /// The map of a range of bytes of the disk, in order, without a look at the content. What lies behind the end of the
    /// disk is left out. An error is the last item, behind all that is good before it.
    pub fn extents(&self, range: impl RangeBounds<u64>) -> Extents<'_> {
        Extents::new(self.cursor(range))
    }

    /// A block of the disk, by number.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if there is no such block; [`ErrorKind::ReservedState`] or
    /// [`ErrorKind::PartiallyPresentWithoutParent`] if its state can't be.
    pub fn block(&self, index: u64) -> Result<Block<'_>> {
        Block::new(self, index)
    }

    /// Copies bytes from `offset` on into `buffer`, and returns how many: all that `buffer` has room for, or as many as
    /// there are up to the end of the disk; 0 behind it.
    ///
    /// # Errors
    /// If a block of the range can't be read. What `buffer` holds then is of no meaning.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let end = offset.saturating_add(to_u64(buffer.len()));
        let mut rest: &mut [u8] = buffer;
        let before = rest.len();
        for segment in self.segments(offset..end) {
            let segment = segment?;
            let (piece, behind) = rest.split_at_mut(to_usize_saturating(segment.len()).min(rest.len()));
            match segment {
                // As long as the piece, since the segments are no longer than the range.
                Segment::Data(bytes) => piece.copy_from_slice(bytes),
                Segment::Zero(_) => piece.fill(0),
            }
            rest = behind;
        }
        Ok(before.saturating_sub(rest.len()))
    }

    /// Lends the bytes of a range, if they lie together: in one run of one file, or all zero and no more than 64 KiB.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the range ends behind the disk; otherwise as for [`Disk::read_at`].
    pub fn slice(&self, offset: u64, length: u64) -> Result<Option<&[u8]>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size());
        let Some(end) = end else {
            let kind = ErrorKind::OutsideDisk { end: offset.saturating_add(length), size: self.size() };
            return Err(Error::of(Structure::Disk, kind));
        };
        Ok(match self.segments(offset..end).next().transpose()? {
            None => Some(&[]),
            Some(Segment::Data(bytes)) => Some(bytes).filter(|bytes| to_u64(bytes.len()) == length),
            Some(Segment::Zero(zeros)) => {
                let fits = zeros == length && length <= to_u64(ZERO_PAGES_LENGTH);
                fits.then(|| zero_pages(length))
            }
        })
    }

    /// The disk as a stream.
    #[must_use]
    pub fn reader(&self) -> Reader<&Self> {
        Reader::new(self)
    }

    /// The first byte and the end of a range, as far as it lies in the disk.
    pub(crate) fn bounds(&self, range: impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let end = end.min(self.size());
        (start.min(end), end)
    }

    fn cursor(&self, range: impl RangeBounds<u64>) -> Cursor<'_> {
        let (start, end) = self.bounds(range);
        Cursor::new(self, start, end)
    }
}

impl<'d> IntoIterator for &'d Disk {
    type Item = Result<Segment<'d>>;
    type IntoIter = Segments<'d>;

    fn into_iter(self) -> Segments<'d> {
        self.segments(..)
    }
}
