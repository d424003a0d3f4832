//! The disk that a guest sees: an image and its parents, as one.

mod block;
mod chain;
mod fingerprint;
mod layer;
mod losses;
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
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::image::{BlockLookup, Image, Warning};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Bytes, Source, any_lost};
use crate::zero::{ZERO_PAGES_LENGTH, zero_pages};

use runs::{FEW_LAYERS, Walk};

pub use block::Block;
pub use chain::{Chain, MAX_PARENTS};
pub use fingerprint::{ChainFingerprint, LayerFingerprint};
pub use layer::{Layer, ParentLink};
pub use losses::{Loss, Losses};
pub use options::OpenOptions;
#[cfg(feature = "rayon")]
pub use par_segments::ParSegments;
pub use parents::{FoundBy, ParentFinder, ParentRequest, Parents};
pub use range::DiskRange;
pub use reader::Reader;
pub use runs::{Extents, Location, Run, Runs};
pub use segments::{Segment, Segments};
pub use shared::SharedBytes;

/// What is longer than this, in bytes, is read from the file instead of copied from the mapping. A copy takes a page fault
/// where the page has not been looked at before, which costs more than to read four pages.
const MOST_COPIED: usize = 4096;

/// A virtual disk: an image and the chain of its parents.
///
/// It owns its files, can be shared between threads, and every read takes `&self`. Nothing in it changes.
#[derive(Debug)]
pub struct Disk {
    /// The image that was opened first; there is at least one.
    layers: Arc<[Layer]>,
    /// Which of them is the first of this disk: another one than the first for the disk of an ancestor.
    top: usize,
    /// Whether what can't be read is zero.
    is_salvaged: bool,
    /// Why the last layer has no parent, though it needs one.
    missing: Option<Error>,
}

impl Disk {
    /// Opens an image, and its parents as `options` allow.
    ///
    /// # Errors
    /// As for [`Image::open`]; [`Category::ParentNotFound`](crate::Category::ParentNotFound) and
    /// [`Category::ParentMismatch`](crate::Category::ParentMismatch) if a parent is needed and was looked for in vain. The
    /// error says in which layer it is.
    pub fn open(source: Source, options: &OpenOptions) -> Result<Self> {
        Self::from_chain(&Chain::open(source, options)?)
    }

    /// Whether it was opened with [`Strictness::Salvage`](crate::Strictness::Salvage): what can't be read is zero then, and
    /// [`Disk::losses`] tells what that is.
    #[must_use]
    pub fn is_salvaged(&self) -> bool {
        self.is_salvaged
    }

    /// What of a range can't be read, in order, and why: by what the files say, and by what their media have failed to give so
    /// far. Looks at the map, not at the content.
    pub fn losses(&self, range: impl RangeBounds<u64>) -> Losses<'_> {
        let (start, end) = self.bounds(range);
        Losses::new(self, start, end)
    }

    /// The disk of a chain that has been opened.
    ///
    /// # Errors
    /// What is wrong with the chain ([`Chain::broken`]), unless it is salvaged.
    pub fn from_chain(chain: &Chain) -> Result<Self> {
        match chain.broken() {
            Some(error) if !chain.is_salvaged() => Err(error.clone()),
            _ => Ok(Self::so_far(chain)),
        }
    }

    /// The disk of a chain, as far as the layers found make it. What lies in a parent that was not found can't be read from
    /// it: [`ErrorKind::NoParentAttached`].
    #[must_use]
    pub fn so_far(chain: &Chain) -> Self {
        let missing = chain.broken().cloned();
        Self { layers: chain.shared_layers(), top: 0, is_salvaged: chain.is_salvaged(), missing }
    }

    /// Which files the layers are, and in which state: for [`OpenOptions::expect`].
    #[must_use]
    pub fn fingerprint(&self) -> ChainFingerprint {
        ChainFingerprint::of(self.layers())
    }

    /// The layers: the image that was opened first, its base last. There is at least one.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.layers.get(self.top..).unwrap_or_default()
    }

    /// The disk of a parent, with the same files: what the guest would see if layer `layer` had been opened. Layer 0 is the
    /// disk itself; none if there is no such layer.
    #[must_use]
    pub fn ancestor(&self, layer: usize) -> Option<Self> {
        let top = self.top.checked_add(layer).filter(|top| *top < self.layers.len())?;
        Some(Self {
            layers: Arc::clone(&self.layers),
            top,
            is_salvaged: self.is_salvaged,
            missing: self.missing.clone(),
        })
    }

    /// The image that was opened.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a chain has at least the image that was opened")]
    pub fn image(&self) -> &Image {
        self.layers()[0].image()
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
        self.layers()
            .iter()
            .enumerate()
            .flat_map(|(number, layer)| layer.warnings().map(move |warning| (number, warning)))
    }

    /// The content of a range of bytes of the disk, as bytes lent from the files and as lengths of zeros: in order, and
    /// each run as long as can be. What lies behind the end of the disk is left out.
    ///
    /// Nothing is copied, whatever the range. An error is the last item, behind all that is good before it.
    pub fn segments(&self, range: impl RangeBounds<u64>) -> Segments<&Self> {
        Segments::new(self, range)
    }

    /// The map of a range of bytes of the disk, in order, without a look at the content. What lies behind the end of the
    /// disk is left out. An error is the last item, behind all that is good before it.
    pub fn extents(&self, range: impl RangeBounds<u64>) -> Extents<&Self> {
        Extents::new(self, range)
    }

    /// What lies where in a range of bytes of the disk, in order, as it is found: the parts of which [`Disk::extents`] makes
    /// extents. What lies past the end of the disk is left out. An error is the last item, after all that is good before it.
    pub fn runs(&self, range: impl RangeBounds<u64>) -> Runs<&Self> {
        Runs::new(self, range)
    }

    /// The runs of a range, those of data with all that follow them in the same file.
    pub(crate) fn runs_in_files(&self, (start, end): (u64, u64)) -> impl Iterator<Item = Result<Run>> + Send {
        let mut walk = Walk::new(start, end);
        std::iter::from_fn(move || walk.next_joined(self, Run::goes_on_in))
    }

    /// The extent at `offset`, at most `most` bytes of it; none past the end of the disk. Costs no more than it looks at: `most`
    /// bounds the work.
    ///
    /// # Errors
    /// If the block at `offset` can't be read.
    pub fn extent_at(&self, offset: u64, most: u64) -> Result<Option<Run>> {
        self.extents(offset..offset.saturating_add(most)).next().transpose()
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
    /// More than a page is read from the file, past the mapping: that reads no more of the medium than is asked for, and
    /// the memory of the process does not grow. All that is copied has been there: no [`Disk::check_lost`] is needed after it.
    ///
    /// # Errors
    /// If a block of the range can't be read. What `buffer` holds then is of no meaning.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        if buffer.len() <= MOST_COPIED
            && !self.is_salvaged
            && let Some((layer, bytes)) = self.borrow_at_once(offset, to_u64(buffer.len()))
        {
            buffer.copy_from_slice(bytes);
            let read = offset..offset.saturating_add(to_u64(bytes.len()));
            return self.check_looked_at(read, layer.saturating_add(1)).map(|()| bytes.len());
        }
        let end = offset.saturating_add(to_u64(buffer.len()));
        let mut rest: &mut [u8] = buffer;
        let before = rest.len();
        // With the last run, this asks for the tables.
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

    /// The bytes at the beginning of a run.
    ///
    /// # Errors
    /// [`ErrorKind::NotBorrowable`]; [`ErrorKind::Lost`] if that is known of the first byte.
    #[inline]
    pub(crate) fn borrow_run(&self, run: &Run) -> Result<Bytes<'_>> {
        let (Location::File(offset) | Location::Log(offset)) = run.at else { return Ok(Bytes::Zero(run.len)) };
        let Some(image) = self.layers().get(run.layer).map(Layer::image) else { return Ok(Bytes::Zero(run.len)) };
        let borrowed = image.borrow(offset, run.len).map_err(|error| error.in_layer(run.layer, image.path()))?;
        if let (Location::File(_), Bytes::Data(bytes)) = (run.at, borrowed) {
            // The borrower may go through them.
            image.source().will_walk(offset, offset.saturating_add(to_u64(bytes.len())));
        }
        Ok(borrowed)
    }

    /// That what was borrowed of a run, before this call, was really what its file holds.
    pub(crate) fn check_run(&self, run: &Run) -> Result<()> {
        let (Location::File(at), Some(layer)) = (run.at, self.layers().get(run.layer)) else { return Ok(()) };
        let file = layer.image().source();
        let checked = file.check(Structure::File, at, run.len);
        let checked = checked.and_then(|()| file.check_length(at.saturating_add(run.len)));
        checked.map_err(|error| error.in_layer(run.layer, file.path()))
    }

    /// Whether bytes can be borrowed from all layers: [`Source::can_borrow`].
    #[must_use]
    pub fn can_borrow(&self) -> bool {
        self.layers().iter().all(|layer| layer.image().source().can_borrow())
    }

    /// Lends the bytes of a range, if they lie together: in one run of one file, or all zero and no more than 64 KiB.
    ///
    /// # Errors
    /// [`ErrorKind::OutsideDisk`] if the range ends behind the disk; otherwise as for [`Disk::read_at`].
    #[inline]
    pub fn slice(&self, offset: u64, length: u64) -> Result<Option<&[u8]>> {
        match self.borrow_at_once(offset, length) {
            Some((_, bytes)) => Ok(Some(bytes)),
            None => self.slice_of_segments(offset, length),
        }
    }

    /// The bytes at `offset`, at most `length`, as many as lie together (of zeros, at most 64 KiB), with a share in the disk:
    /// `'static`, and never copied. None past the end of the disk.
    ///
    /// # Errors
    /// As for [`Disk::slice`]; [`ErrorKind::NotBorrowable`] where the bytes lie in a source that is neither mapped nor in
    /// memory.
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
                let fits = zeros == length && length <= to_u64(ZERO_PAGES_LENGTH);
                fits.then(|| zero_pages(length))
            }
        })
    }

    /// Bytes that lie together in one layer, the case of most small reads, and the layer; none where it takes more to find out.
    #[inline]
    fn borrow_at_once(&self, offset: u64, length: u64) -> Option<(usize, &[u8])> {
        let end = offset.checked_add(length).filter(|end| *end > offset)?;
        for (number, image) in self.layers().iter().map(Layer::image).enumerate().take(FEW_LAYERS) {
            if end > image.virtual_disk_size() || !image.source().can_borrow() {
                return None;
            }
            match image.lookup(offset, length).ok().filter(|found| found.length() == length)? {
                BlockLookup::Data { offset, .. } => {
                    let Ok(Bytes::Data(bytes)) = image.borrow(offset, length) else { return None };
                    return Some((number, bytes)).filter(|_| to_u64(bytes.len()) == length);
                }
                BlockLookup::Parent { .. } => {}
                BlockLookup::Zero { .. } => return None,
            }
        }
        None
    }

    /// Checks that what was borrowed of a range of the disk, before this call, was really what the files hold. Two things can
    /// make zeros of bytes of a mapped file under its reader: the end of a file that has become shorter lies in the middle of
    /// a page, or a page could not be read and
    #[cfg_attr(all(unix, feature = "mmap"), doc = "[`guard_mappings`](super::guard_mappings)")]
    #[cfg_attr(not(all(unix, feature = "mmap")), doc = "`guard_mappings`")]
    /// has been called. To be called after the use of what [`Disk::slice`], [`Disk::segments`] or `Disk::par_segments` gave
    /// (zeros included: the tables may be what is lost), unless the iterator has been asked for its last item. Costs a system
    /// call for each layer while the files are whole, and a look at the map of the range otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`], with layer and file offset of a byte that was lost; or what is wrong with the map of the range.
    #[inline]
    pub fn check_lost(&self, range: impl RangeBounds<u64>) -> Result<()> {
        let (start, end) = self.bounds(range);
        self.check_looked_at(start..end, self.layers().len())
    }

    /// The same where only the first `layers` layers have been asked for the range.
    #[inline]
    fn check_looked_at(&self, range: Range<u64>, layers: usize) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut asked = self.layers().iter().take(layers).enumerate();
        let is_whole = asked.try_fold(true, |is_whole, (number, layer)| {
            let source = layer.image().source();
            let found = source.is_whole().map_err(|error| error.in_layer(number, source.path()))?;
            Ok::<_, Error>(is_whole && found)
        })?;
        if is_whole && !any_lost() { Ok(()) } else { self.check_runs(range) }
    }

    #[cold]
    fn check_runs(&self, range: Range<u64>) -> Result<()> {
        self.runs(range).try_for_each(|run| self.check_run(&run?))
    }

    /// That no file of the chain has lost its tables since it was mapped: [`Image::check_tables`].
    pub(crate) fn check_tables(&self) -> Result<()> {
        self.check_tables_of(self.layers().len())
    }

    /// The same of the first `layers` layers.
    pub(crate) fn check_tables_of(&self, layers: usize) -> Result<()> {
        let mut layers = self.layers().iter().map(Layer::image).enumerate().take(layers);
        layers.try_for_each(|(layer, image)| image.check_tables().map_err(|error| error.in_layer(layer, image.path())))
    }

    /// The disk as a stream.
    #[must_use]
    pub fn reader(&self) -> Reader<&Self> {
        Reader::new(self)
    }

    /// The first byte and the end of a range, as far as it lies in the disk.
    pub(crate) fn bounds(&self, range: impl RangeBounds<u64>) -> (u64, u64) {
        bounds(range, self.size())
    }
}

/// The first byte and the end of a range, as far as it lies in `size` bytes.
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
