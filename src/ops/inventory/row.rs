//! One row for each image: what it is, and in which state.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Chain, Disk, Extents, FoundBy, Layer, OpenOptions, Parents};
use crate::error::{Category, Error, ErrorKind, Rule, Severity};
use crate::image::{Image, ImageKind, LogState};
use crate::ops::{self, Algorithm, CheckOptions, Digest, DiskLayout};
use crate::scan::{Input, ScanError, ScanOptions};

use super::files::ImageFile;
use super::forest::Forest;
use super::listing::{BATCH, Entry, Listing, map_all};

/// Options for an inventory.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct InventoryOptions<'p> {
    /// Options for opening each image and its parents.
    pub open: OpenOptions,
    /// Whether to read the content: digests, blocks that hold only zeros, and all rules of
    /// [`check`](fn@crate::ops::check).
    pub deep: bool,
    /// Algorithms of the digests.
    pub algorithms: Vec<Algorithm>,
    /// Options for reading the content.
    pub scan: ScanOptions<'p>,
    /// What adds to the layout of a disk what only readers of file systems know, such as
    /// [`Usage`](crate::ops::Usage); none if nothing does. The crate `vhdx-files` has such a function.
    pub examine: Option<fn(&Arc<Disk>, &mut DiskLayout)>,
}

impl<'p> InventoryOptions<'p> {
    /// Makes the default options: tables are read, no content.
    #[must_use]
    pub fn new(open: OpenOptions) -> Self {
        Self { open, deep: false, algorithms: vec![Algorithm::Sha256], scan: ScanOptions::default(), examine: None }
    }

    /// Sets whether to read the content.
    #[must_use]
    pub fn deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }

    /// Sets what adds to the layout of a disk.
    #[must_use]
    pub fn examine(mut self, examine: fn(&Arc<Disk>, &mut DiskLayout)) -> Self {
        self.examine = Some(examine);
        self
    }

    /// Sets the options for reading the content.
    #[must_use]
    pub fn scan(mut self, scan: ScanOptions<'p>) -> Self {
        self.scan = scan;
        self
    }
}

/// Row of an inventory: an image, or a path that cannot be read.
#[non_exhaustive]
#[derive(Debug)]
pub struct InventoryRow {
    /// Path of the image.
    pub path: PathBuf,
    /// Length of the file, in bytes. `None` if the file cannot be opened.
    pub file_size: Option<u64>,
    /// Space that the file occupies on its medium, in bytes, if the system reports it.
    pub actual_size: Option<u64>,
    /// Whether another program has the file open for writing, if the system says so
    /// ([`Source::in_use`](crate::Source::in_use)).
    pub in_use: Option<bool>,
    /// What the image is, or why it cannot be opened.
    pub image: Result<RowContent, Error>,
}

/// What an image is.
#[non_exhaustive]
#[derive(Debug)]
pub struct RowContent {
    /// Kind of the image.
    pub kind: ImageKind,
    /// Size of the virtual disk, in bytes.
    pub virtual_size: u64,
    /// Size of the payload blocks that the file holds, in bytes. `None` if the BAT is damaged.
    pub allocated: Option<u64>,
    /// State of the log.
    pub log: LogState,
    /// Whether the parent was found.
    pub parent: ParentStatus,
    /// Number of the listed images that depend on this image.
    pub checkpoints: usize,
    /// State of the image.
    pub health: Health,
    /// First problem, if there is one.
    pub problem: Option<Error>,
    /// Partitions and file systems of the disk, or why they are unknown.
    pub layout: Result<DiskLayout, Error>,
    /// Digests of the disk. `None` unless the content was read.
    pub digests: Option<Vec<Digest>>,
    /// Number of allocated blocks that hold only zeros. `None` unless the content was read.
    pub zero_blocks: Option<u64>,
    /// Number of allocated blocks that do not follow the previous one in the file. `None` unless the content was read.
    pub fragmented_blocks: Option<u64>,
}

/// Whether the parents of an image were found.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParentStatus {
    /// The image needs no parent.
    None,
    /// All parents were found.
    Found,
    /// All parents were found, at least one of them by its identity under another name.
    Renamed,
    /// The search for parents was not allowed.
    NotSearched,
    /// A parent was not found.
    Missing,
    /// A file was found, but it has another identity: it was changed after the child was made, or is another image.
    Changed,
    /// A parent was found, but cannot be used.
    Unusable,
}

impl ParentStatus {
    /// Returns the name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Found => "found",
            Self::Renamed => "renamed",
            Self::NotSearched => "not searched",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Unusable => "unusable",
        }
    }

    fn of(chain: &Chain) -> Self {
        let is_renamed = |layer: &Layer| layer.link().is_some_and(|link| link.found_by == FoundBy::Identity);
        match chain.broken().map(Error::category) {
            None if chain.needs_parent() => Self::NotSearched,
            None if chain.layers().len() == 1 => Self::None,
            None if chain.layers().iter().any(is_renamed) => Self::Renamed,
            None => Self::Found,
            Some(Category::ParentNotFound) => Self::Missing,
            Some(Category::ParentMismatch) => Self::Changed,
            Some(_) => Self::Unusable,
        }
    }
}

/// State of an image.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Nothing is wrong with it.
    Ok,
    /// It can be read, but something is unusual.
    Warnings,
    /// It is in order, but a parent is missing, so its disk cannot be read.
    Incomplete,
    /// It needs something that this crate does not support.
    Unsupported,
    /// A part of it cannot be read.
    Damaged,
}

impl Health {
    /// Returns the name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warnings => "warnings",
            Self::Incomplete => "incomplete",
            Self::Unsupported => "unsupported",
            Self::Damaged => "damaged",
        }
    }

    fn of_error(error: &Error) -> Self {
        if error.category() == Category::Unsupported { Self::Unsupported } else { Self::Damaged }
    }

    /// State that a finding means, if any.
    fn of_finding(severity: Severity, detail: &Error) -> Option<Self> {
        match severity {
            Severity::Note | Severity::Leak => None,
            Severity::Corruption | Severity::Unsupported => Some(Self::of_error(detail)),
            Severity::Warning | Severity::Unchecked => Some(Self::Warnings),
        }
    }
}

impl RowContent {
    /// Notes a problem, unless a worse one, or another one that is as bad, is known.
    fn note(&mut self, state: Health, problem: &Error) {
        if state > self.health {
            (self.health, self.problem) = (state, Some(problem.clone()));
        }
    }
}

impl Listing {
    /// Calls `on_row` for every image of the listing, in order, until it breaks. A path that cannot be read is a row
    /// with the error. With the feature `rayon`, the threads of the current pool do it. At most 64 rows are in memory.
    ///
    /// # Errors
    /// [`ScanError::Cancelled`], if [`Progress::advance`](crate::Progress::advance) cancelled the reading of content.
    pub fn rows(
        &self,
        options: &InventoryOptions<'_>,
        mut on_row: impl FnMut(InventoryRow) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        // A row of an image whose content is read takes long, and is of use at once.
        let batch = if options.deep { 1 } else { BATCH };
        let options = &InventoryOptions { open: options.open.clone().remember_folders(), ..options.clone() };
        for batch in self.entries.chunks(batch) {
            for row in map_all(batch, |entry| row(entry, self.forest(), options)) {
                if on_row(row?).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn row(entry: &Entry, forest: &Forest, options: &InventoryOptions<'_>) -> Result<InventoryRow, ScanError> {
    let path = entry.path.clone();
    let source = match entry.file.as_ref().map_err(Error::clone).and_then(ImageFile::open) {
        Ok(source) => source,
        Err(error) => {
            return Ok(InventoryRow { path, file_size: None, actual_size: None, in_use: None, image: Err(error) });
        }
    };
    let (file_size, actual_size, in_use) = (Some(source.len()), source.actual_size(), source.in_use());
    let image = match Chain::open(source, &options.open) {
        Ok(mut chain) => {
            let renamed = chain.broken().and_then(|_| listed_chain(entry, forest, options));
            let is_renamed = renamed.is_some();
            chain = renamed.unwrap_or(chain);
            let mut content = content(&chain, options)?;
            if is_renamed {
                content.parent = ParentStatus::Renamed;
            }
            let listed = entry.number.as_ref().ok().and_then(|number| forest.images().get(*number));
            content.checkpoints = listed.map_or(0, |image| image.descendants);
            Ok(content)
        }
        Err(error) => Err(error),
    };
    Ok(InventoryRow { path, file_size, actual_size, in_use, image })
}

/// Opens an image whose parent has another name than the stored one, with the parents that the listing has.
fn listed_chain(entry: &Entry, forest: &Forest, options: &InventoryOptions<'_>) -> Option<Chain> {
    let ancestors: Vec<PathBuf> = forest.ancestors(*entry.number.as_ref().ok()?).cloned().collect();
    let parents = vec![options.open.parents.clone(), Parents::Explicit(ancestors)];
    let open = options.open.clone().parents(Parents::FirstOf(parents));
    let chain = Chain::open(entry.file.as_ref().ok()?.open().ok()?, &open).ok()?;
    chain.broken().is_none().then_some(chain)
}

fn content(chain: &Chain, options: &InventoryOptions<'_>) -> Result<RowContent, ScanError> {
    let disk = Arc::new(Disk::so_far(chain));
    let image = disk.image();
    let allocated = allocated(image);
    let parent = ParentStatus::of(chain);
    let mut layout = ops::detect(&disk).map_err(|error| match (error.kind(), chain.broken()) {
        (ErrorKind::NoParentAttached, Some(missing)) => missing.clone(),
        _ => error,
    });
    if let (Some(examine), Ok(layout)) = (options.examine, &mut layout) {
        examine(&disk, layout);
    }
    let mut content = RowContent {
        kind: image.kind(),
        virtual_size: image.virtual_disk_size(),
        allocated: allocated.as_ref().ok().copied(),
        log: image.log_state().clone(),
        parent,
        checkpoints: 0,
        health: Health::Ok,
        problem: None,
        layout,
        digests: None,
        zero_blocks: None,
        fragmented_blocks: None,
    };
    // Only what is about the image itself: its parents have rows of their own.
    let top = disk.layers().first();
    let survey = top.map(|layer| ops::layer_warnings(layer, 0)).unwrap_or_default();
    let warnings = top.into_iter().flat_map(Layer::warnings).map(|warning| (warning.severity, &warning.detail));
    for (severity, detail) in survey.iter().map(|finding| (finding.severity, &finding.detail)).chain(warnings) {
        if let Some(state) = Health::of_finding(severity, detail) {
            content.note(state, detail);
        }
    }
    if let Some(error) = chain.broken() {
        content.note(Health::Incomplete, error);
    }
    if let Some(Err(error)) = Extents::above(&*disk, .., 1).find(Result::is_err) {
        content.note(Health::of_error(&error), &error);
    }
    if let Err(error) = &allocated {
        content.note(Health::of_error(error), error);
    }
    if options.deep {
        look_inside(&disk, chain, options, &mut content)?;
    }
    Ok(content)
}

/// Returns the size of the payload blocks that a file holds, in bytes.
fn allocated(image: &Image) -> Result<u64, Error> {
    use crate::format::PayloadBlockState::{FullyPresent, PartiallyPresent};

    let states = image.block_states()?;
    let blocks = states.count(FullyPresent).saturating_add(states.count(PartiallyPresent));
    Ok(blocks.saturating_mul(image.block_size()))
}

/// Reads the content of a disk.
fn look_inside(
    disk: &Disk,
    chain: &Chain,
    options: &InventoryOptions<'_>,
    content: &mut RowContent,
) -> Result<(), ScanError> {
    // The parents have rows of their own.
    let own = options.open.clone().parents(Parents::None);
    let check = CheckOptions::new(own).payload(true).scan(options.scan);
    let report = ops::check(disk.image().source().clone(), &check)?;
    for finding in report.findings.iter().filter(|finding| finding.rule != Rule::ParentMissing) {
        if let Some(state) = Health::of_finding(finding.severity, &finding.detail) {
            content.note(state, &finding.detail);
        }
    }
    let zero_blocks = report.findings.iter().filter(|finding| finding.rule == Rule::ZeroBlock);
    let zero_blocks = zero_blocks.filter_map(|finding| match finding.detail.kind() {
        ErrorKind::ZeroBlocks { count, .. } => Some(*count),
        _ => None,
    });
    content.zero_blocks = Some(zero_blocks.fold(0, u64::saturating_add));
    content.fragmented_blocks = Some(report.fragmented_blocks);
    if chain.needs_parent() {
        return Ok(());
    }
    match ops::hash(Input::disk(disk), &options.algorithms, &options.scan) {
        Ok(digests) => content.digests = Some(digests),
        Err(ScanError::Read(error)) => {
            content.note(Health::of_error(&error), &error);
        }
        Err(other) => return Err(other),
    }
    Ok(())
}
