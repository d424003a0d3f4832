//! The virtual disk that a guest sees: an image and its parents.

mod block;
mod chain;
mod fingerprint;
mod identities;
mod layer;
mod losses;
mod names;
mod options;
#[cfg(feature = "rayon")]
mod par_segments;
mod parents;
#[cfg(feature = "rayon")]
mod pieces;
mod range;
mod reader;
mod runs;
mod search;
mod segments;
mod shared;
mod stored_path;

use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::PayloadBlockState;
use crate::image::{BlockLookup, Image, Warning};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Bytes, Source, Stored, any_lost};
use crate::zero::{ZERO_PAGES_LEN, zero_pages};

use runs::{FEW_LAYERS, Walk};

pub use block::Block;
pub use chain::{Chain, MAX_PARENTS};
pub use fingerprint::{ChainFingerprint, LayerFingerprint};
pub use layer::{Layer, ParentLink};
pub use losses::{Loss, Losses};
#[cfg(feature = "ops")]
pub(crate) use names::skeleton;
pub use options::OpenOptions;
#[cfg(feature = "rayon")]
pub use par_segments::ParSegments;
pub use parents::{FoundBy, ParentFinder, ParentRequest, Parents};
pub use range::DiskRange;
pub use reader::Reader;
pub use runs::{Extents, Location, Run, Runs};
pub use segments::{Segment, Segments};
pub use shared::SharedBytes;
pub(crate) use stored_path::names_of;

/// Longer requests, in bytes, are read from the file instead of being copied from the mapping. A copy takes a page
/// fault for each page that has not been touched before, which costs more than reading four pages.
const MOST_COPIED: usize = 4096;

/// Virtual disk: an image and the chain of its parents.
///
/// A disk owns its files and can be shared between threads. All reads take `&self`, and nothing in it changes.
#[derive(Debug)]
pub struct Disk {
    /// The opened image first; at least one.
    layers: Arc<[Layer]>,
    /// Index of the first layer of this disk. Not 0 for the disk of an ancestor.
    top: usize,
    /// Whether ranges that cannot be read are zero.
    is_salvaged: bool,
    /// Why the last layer has no parent, although it needs one.
    missing: Option<Error>,
}

impl Disk {
    /// Opens an image, and its parents as `options` allow.
    ///
    /// # Errors
    /// The errors of [`Image::open`]; [`Category::ParentNotFound`](crate::Category::ParentNotFound) or
    /// [`Category::ParentMismatch`](crate::Category::ParentMismatch) if a parent is needed but was not found. The error
    /// contains the layer.
    pub fn open(source: Source, options: &OpenOptions) -> Result<Self> {
        Self::from_chain(&Chain::open(source, options)?)
    }

    /// Returns whether the disk was opened with [`Strictness::Salvage`](crate::Strictness::Salvage). Ranges that cannot
    /// be read are zero then, and [`Disk::losses`] lists them.
    #[must_use]
    pub fn is_salvaged(&self) -> bool {
        self.is_salvaged
    }

    /// Returns the lost ranges of a range, in order, with the reasons: contradictions in the files, and failures of
    /// their media so far. Looks at the map, not at the content.
    pub fn losses(&self, range: impl RangeBounds<u64>) -> Losses<'_> {
        let (start, end) = self.bounds(range);
        Losses::new(self, start, end)
    }

    /// Returns the disk of an opened chain.
    ///
    /// # Errors
    /// The reason why the chain is broken ([`Chain::broken`]), unless it was opened for a salvage.
    pub fn from_chain(chain: &Chain) -> Result<Self> {
        match chain.broken() {
            Some(error) if !chain.is_salvaged() => Err(error.clone()),
            _ => Ok(Self::so_far(chain)),
        }
    }

    /// Returns the disk of a chain, as far as its layers were found. Reading content of a missing parent fails with
    /// [`ErrorKind::NoParentAttached`].
    #[must_use]
    pub fn so_far(chain: &Chain) -> Self {
        let missing = chain.broken().cloned();
        Self { layers: chain.shared_layers(), top: 0, is_salvaged: chain.is_salvaged(), missing }
    }

    /// Returns the fingerprint of the chain, for [`OpenOptions::expect`].
    #[must_use]
    pub fn fingerprint(&self) -> ChainFingerprint {
        ChainFingerprint::of(self.layers())
    }

    /// Returns the layers, at least one: the opened image first, its base last.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.layers.get(self.top..).unwrap_or_default()
    }

    /// Returns the disk of a parent, over the same files: the disk that a guest would see if layer `layer` had been
    /// opened. Layer 0 is this disk. Returns `None` if the layer does not exist.
    #[must_use]
    pub fn ancestor(&self, layer: usize) -> Option<Self> {
        let top = self.top.checked_add(layer).filter(|top| *top < self.layers.len())?;
        let missing = self.missing.clone().map(|error| {
            let (number, file) = (error.layer().saturating_sub(layer), error.file().map(Path::to_path_buf));
            error.in_layer(number, file.as_deref())
        });
        Some(Self { layers: Arc::clone(&self.layers), top, is_salvaged: self.is_salvaged, missing })
    }

    /// Returns the opened image.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a chain has at least the image that was opened")]
    pub fn image(&self) -> &Image {
        self.layers()[0].image()
    }

    /// Returns the size of the disk, in bytes: 0 to 64 TiB.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.image().virtual_disk_size()
    }

    /// Returns the block size of the opened image, in bytes.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        self.image().block_size()
    }

    /// Returns the warnings about all layers, with the number of the layer.
    pub fn warnings(&self) -> impl Iterator<Item = (usize, &Warning)> {
        self.layers()
            .iter()
            .enumerate()
            .flat_map(|(number, layer)| layer.warnings().map(move |warning| (number, warning)))
    }

    /// Returns the content of a range of the disk, in order: bytes borrowed from the files, and lengths of zeros. Each
    /// run is as long as possible. The part of the range past the end of the disk is left out.
    ///
    /// Nothing is copied. An error is the last item, after all valid items before it. If it is [`ErrorKind::Lost`],
    /// which only a mapping that became shorter or whose medium failed has, items before it may be invalid, too.
    pub fn segments(&self, range: impl RangeBounds<u64>) -> Segments<&Self> {
        Segments::new(self, range)
    }

    /// Returns the allocation map of a range of the disk, in order, without reading the content. The part of the range
    /// past the end of the disk is left out. An error is the last item, as for [`Disk::segments`].
    pub fn extents(&self, range: impl RangeBounds<u64>) -> Extents<&Self> {
        Extents::new(self, range)
    }

    /// Returns the runs of a range of the disk, in order, as they are found. [`Disk::extents`] joins them to extents.
    /// The part of the range past the end of the disk is left out. An error is the last item, as for
    /// [`Disk::segments`].
    pub fn runs(&self, range: impl RangeBounds<u64>) -> Runs<&Self> {
        Runs::new(self, range)
    }

    /// Returns the runs of a range. Data runs that are contiguous in a file are joined.
    pub(crate) fn runs_in_files(&self, (start, end): (u64, u64)) -> impl Iterator<Item = Result<Run>> + Send {
        let mut walk = Walk::new(start, end);
        std::iter::from_fn(move || walk.next_joined(self, Run::goes_on_in))
    }

    /// Returns the extent at `offset`, at most `most` bytes of it. Returns `None` past the end of the disk. `most` also
    /// bounds the work.
    ///
    /// # Errors
    /// Fails if the block at `offset` cannot be read.
    pub fn extent_at(&self, offset: u64, most: u64) -> Result<Option<Run>> {
        self.extents(offset..offset.saturating_add(most)).next().transpose()
    }

    /// Returns a block of the disk, by number.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the block does not exist; [`ErrorKind::ReservedState`] or
    /// [`ErrorKind::PartiallyPresentWithoutParent`] if its state is invalid.
    pub fn block(&self, index: u64) -> Result<Block<'_>> {
        Block::new(self, index)
    }

    /// Copies bytes from `offset` on into `buffer`, and returns their number: the length of `buffer`, or fewer at the
    /// end of the disk; 0 past the end.
    ///
    /// Requests of more than a page are read from the file instead of the mapping. So the medium reads no more than was
    /// requested, and the memory of the process does not grow. The copied bytes are valid: no [`Disk::check_lost`] is
    /// needed.
    ///
    /// # Errors
    /// Fails if a block of the range cannot be read. The content of `buffer` is undefined then.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if buffer.len() <= MOST_COPIED
            && !self.is_salvaged
            && let Some((layer, bytes)) = self.borrow_at_once(offset, to_u64(buffer.len()))
        {
            buffer.copy_from_slice(bytes);
            // In most cases, the bytes themselves show that the file is still long enough, and no system call is made.
            if layer == 0 && self.image().is_certain_of(bytes) {
                return Ok(bytes.len());
            }
            let read = offset..offset.saturating_add(to_u64(bytes.len()));
            return self.check_borrowed(read, layer.saturating_add(1)).map(|()| bytes.len());
        }
        let end = offset.saturating_add(to_u64(buffer.len()));
        let mut rest: &mut [u8] = buffer;
        let before = rest.len();
        // The last run comes after a check of the tables.
        for run in self.runs(offset..end) {
            let run = run?;
            let (piece, after) = rest.split_at_mut(to_usize_saturating(run.len).min(rest.len()));
            match (run.at, self.layers().get(run.layer)) {
                (Location::File(at), Some(layer)) => {
                    let read = layer.file().read_exact_at(at, piece);
                    read.map_err(|error| error.in_layer(run.layer, layer.image().path()))?;
                }
                _ => match self.borrow_run(&run)? {
                    Bytes::Data(bytes) => piece.copy_from_slice(bytes.get(..piece.len()).unwrap_or(bytes)),
                    Bytes::Zero(_) => piece.fill(0),
                },
            }
            rest = after;
        }
        Ok(before.saturating_sub(rest.len()))
    }

    /// Returns the bytes at the beginning of a run.
    ///
    /// # Errors
    /// [`ErrorKind::NotBorrowable`]; [`ErrorKind::Lost`] if the first byte is known to be lost.
    #[inline]
    pub(crate) fn borrow_run(&self, run: &Run) -> Result<Bytes<'_>> {
        let (Location::File(offset) | Location::Log(offset)) = run.at else { return Ok(Bytes::Zero(run.len)) };
        let Some(image) = self.layers().get(run.layer).map(Layer::image) else { return Ok(Bytes::Zero(run.len)) };
        let borrowed = image.borrow(offset, run.len).map_err(|error| error.in_layer(run.layer, image.path()))?;
        if let (Location::File(_), Bytes::Data(bytes)) = (run.at, borrowed) {
            // The borrower may read them in order.
            image.source().will_walk(offset, offset.saturating_add(to_u64(bytes.len())));
        }
        Ok(borrowed)
    }

    /// Checks that the bytes of a run that were borrowed before this call were those of the file.
    pub(crate) fn check_run(&self, run: &Run) -> Result<()> {
        let (Location::File(at), Some(layer)) = (run.at, self.layers().get(run.layer)) else { return Ok(()) };
        let file = layer.image().source();
        let checked = file.check(Structure::File, at, run.len);
        let checked = checked.and_then(|()| file.check_still_has(at.saturating_add(run.len)));
        checked.map_err(|error| error.in_layer(run.layer, file.path()))
    }

    /// Returns whether bytes can be borrowed from all layers: [`Source::can_borrow`].
    #[must_use]
    pub fn can_borrow(&self) -> bool {
        self.layers().iter().all(|layer| layer.image().source().can_borrow())
    }

    /// Borrows the bytes of a range if they are contiguous: in one run of one file, or all zero and at most 64 KiB.
    /// Returns `None` otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the range goes past the end of the disk; otherwise the errors of
    /// [`Disk::read_at`].
    #[inline]
    pub fn slice(&self, offset: u64, length: u64) -> Result<Option<&[u8]>> {
        match self.borrow_at_once(offset, length) {
            Some((_, bytes)) => Ok(Some(bytes)),
            None => self.slice_of_segments(offset, length),
        }
    }

    /// Borrows up to `length` contiguous bytes at `offset` (of zeros, at most 64 KiB), with a share in the disk: the
    /// result is `'static`, and nothing is copied. Returns `None` past the end of the disk.
    ///
    /// A file that has become shorter is noticed by [`SharedBytes::check_lost`], after the use of the bytes.
    ///
    /// # Errors
    /// The errors of [`Disk::slice`]; [`ErrorKind::NotBorrowable`] if the bytes are in a source that is neither mapped
    /// nor in memory.
    pub fn shared_slice(self: &Arc<Self>, offset: u64, length: u64) -> Result<Option<SharedBytes>> {
        SharedBytes::new(self, offset, length)
    }

    fn slice_of_segments(&self, offset: u64, length: u64) -> Result<Option<&[u8]>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size());
        let Some(end) = end else {
            let kind = ErrorKind::OutsideDisk { end: offset.saturating_add(length), size: self.size() };
            return Err(Error::of(Structure::Disk, kind));
        };
        Ok(match self.segments(offset..end).next().transpose()? {
            None => Some(&[]),
            Some(Segment::Data(bytes)) => Some(bytes).filter(|bytes| to_u64(bytes.len()) == length),
            Some(Segment::Zero(zeros)) => {
                let fits = zeros == length && length <= to_u64(ZERO_PAGES_LEN);
                fits.then(|| zero_pages(length))
            }
        })
    }

    /// Returns contiguous bytes of one layer, and the layer: the fast path for small reads. Returns `None` if more work
    /// is needed.
    #[inline]
    fn borrow_at_once(&self, offset: u64, length: u64) -> Option<(usize, &[u8])> {
        let (layer, image, at, _) = self.find_at_once(offset, length)?;
        let Ok(Bytes::Data(bytes)) = image.borrow(at, length) else { return None };
        Some((layer, bytes)).filter(|_| to_u64(bytes.len()) == length)
    }

    /// Returns the run of a range that is contiguous in the file of one layer: the fast path for small borrows. Returns
    /// `None` if more work is needed. As for bytes that are borrowed, [`Disk::check_lost`] is due after their use.
    #[inline]
    fn run_at_once(&self, offset: u64, length: u64) -> Option<Run> {
        let (layer, image, at, state) = self.find_at_once(offset, length)?;
        let is_in_file = matches!(image.stored(at, length), Ok(Stored::File(found)) if found == length);
        is_in_file.then_some(Run { start: offset, len: length, layer, state: Some(state), at: Location::File(at) })
    }

    /// Finds the layer that has all of a range in one block, and the offset in its file.
    #[inline]
    fn find_at_once(&self, offset: u64, length: u64) -> Option<(usize, &Image, u64, PayloadBlockState)> {
        let end = offset.checked_add(length).filter(|end| *end > offset)?;
        for (number, image) in self.layers().iter().map(Layer::image).enumerate().take(FEW_LAYERS) {
            if end > image.virtual_disk_size() || !image.source().can_borrow() {
                return None;
            }
            match image.lookup(offset, length).ok().filter(|found| found.length() == length)? {
                BlockLookup::Data { offset, state, .. } => return Some((number, image, offset, state)),
                BlockLookup::Parent { .. } => {}
                BlockLookup::Zero { .. } => return None,
            }
        }
        None
    }

    /// Checks that the bytes that were borrowed of a range of the disk before this call were those of the files. Bytes
    /// of a mapped file may read as zeros in two cases: in the last page of a file that has become shorter, and in a
    /// page that could not be read after
    #[cfg_attr(all(unix, feature = "mmap"), doc = "[`guard_mappings`](super::guard_mappings)")]
    #[cfg_attr(not(all(unix, feature = "mmap")), doc = "`guard_mappings`")]
    /// was called.
    ///
    /// Call this after the use of the bytes and zeros that [`Disk::slice`], [`Disk::segments`] or `Disk::par_segments`
    /// returned, unless the iterator has returned `None` or an error. (Zeros count, since the tables may be lost.) It
    /// costs a system call for each layer while the files are complete, and a look at the map of the range otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`], with layer and file offset of a lost byte; or the error in the map of the range.
    #[inline]
    pub fn check_lost(&self, range: impl RangeBounds<u64>) -> Result<()> {
        let (start, end) = self.bounds(range);
        self.check_range(start..end, self.are_whole(self.layers().len(), |_| true)?)
    }

    /// Checks a range of which bytes and zeros were borrowed from the first `layers` layers.
    #[inline]
    pub(crate) fn check_borrowed(&self, range: Range<u64>, layers: usize) -> Result<()> {
        self.check_range(range, self.are_whole(layers, Source::is_mapped)?)
    }

    #[inline]
    fn check_range(&self, range: Range<u64>, are_whole: bool) -> Result<()> {
        if are_whole && !any_lost() { Ok(()) } else { self.check_runs(range) }
    }

    #[cold]
    fn check_runs(&self, range: Range<u64>) -> Result<()> {
        self.runs(range).try_for_each(|run| self.check_run(&run?))
    }

    /// Checks that the tables that map a range were read as they are in the files, for callers that stop a walk before
    /// its end, or read tables in another way.
    pub(crate) fn check_tables(&self, range: Range<u64>) -> Result<()> {
        if self.are_whole(self.layers().len(), Source::is_mapped)? && !any_lost() {
            return Ok(());
        }
        self.runs(range).try_for_each(|run| run.map(drop))
    }

    /// Returns whether the files of the first `layers` layers, those that `which` selects, are as long as when they
    /// were opened. What is lost of a mapping is known from now on.
    ///
    /// # Errors
    /// Fails if a length is unknown.
    #[inline]
    pub(crate) fn are_whole(&self, layers: usize, which: fn(&Source) -> bool) -> Result<bool> {
        self.layers().iter().take(layers).enumerate().try_fold(true, |are_whole, (number, layer)| {
            let source = layer.image().source();
            let is_whole = if which(source) { source.is_whole() } else { Ok(true) };
            Ok(is_whole.map_err(|error| error.in_layer(number, source.path()))? && are_whole)
        })
    }

    /// Returns the disk as a stream.
    #[must_use]
    pub fn reader(&self) -> Reader<&Self> {
        Reader::new(self)
    }

    /// Returns the first byte and the end of a range, limited to the disk.
    pub(crate) fn bounds(&self, range: impl RangeBounds<u64>) -> (u64, u64) {
        bounds(range, self.size())
    }
}

/// Returns the first byte and the end of a range, limited to `size` bytes.
pub(crate) fn bounds(range: impl RangeBounds<u64>, size: u64) -> (u64, u64) {
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
    let end = end.min(size);
    (start.min(end), end)
}
