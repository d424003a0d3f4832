//! An image and its parents, from the image that was opened down to its base.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result, Rule, Severity, Structure};
use crate::image::{Image, ImageKind, Linkage, LogPolicy, MetadataOverrides, Strictness, Warning, Warnings};
use crate::source::{LostRanges, OpenFile, Source, SourceRef};

use super::Disk;
use super::parents::{self, Found, FoundBy, KnownFiles, NotFound, Parents, Search};

/// How many parents an image can have, one behind the other.
pub const MAX_PARENTS: usize = 256;

/// How an image and its parents are to be opened.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// What to do with a log that holds changes: of the image and of each parent.
    pub log_policy: LogPolicy,
    /// Where parents may be looked for.
    pub parents: Parents,
    /// What to do with images that are damaged. With [`Strictness::Salvage`], what can't be read is zero, and [`Disk::losses`]
    /// tells what that is. Where a medium fails, that holds for bytes that are read ([`Disk::read_at`], scans and what
    /// `ops` has); those that are lent from a mapping ([`Disk::segments`], [`Disk::slice`]) are an error there.
    pub strictness: Strictness,
    /// What counts instead of what the metadata of the image say. Of its parents, nothing is assumed.
    pub assumed: MetadataOverrides,
    maps_parents: bool,
}

impl OpenOptions {
    /// Logs are replayed in memory, and no file is opened but the one that is given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what to do with a log that holds changes.
    #[must_use]
    pub fn log_policy(mut self, log_policy: LogPolicy) -> Self {
        self.log_policy = log_policy;
        self
    }

    /// Sets what to do with images that are damaged.
    #[must_use]
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.strictness = strictness;
        self
    }

    /// Sets what counts instead of what the metadata of the image say.
    #[must_use]
    pub fn assumed(mut self, assumed: MetadataOverrides) -> Self {
        self.assumed = assumed;
        self
    }

    /// Maps the parents that a search finds and opens ([`Parents::Beside`], [`Parents::Within`], [`Parents::Explicit`]), as
    /// [`Source::map`] does. Without this they are opened by [`Source::open`], and nothing can be borrowed of what lies in
    /// them.
    ///
    /// # Safety
    /// The promise of [`Source::map`], made for all files that such a search opens: their content and their length do not
    /// change while a disk of them lives.
    #[cfg(feature = "mmap")]
    #[expect(unsafe_code, reason = "a promise about files, which no type can make")]
    #[must_use]
    pub unsafe fn map_parents(mut self) -> Self {
        self.maps_parents = true;
        self
    }

    /// A parent that a search has found and opened.
    pub(super) fn open_parent(&self, file: OpenFile) -> Result<Source> {
        #[cfg(feature = "mmap")]
        if self.maps_parents {
            #[expect(unsafe_code, reason = "a promise about files is passed on")]
            // SAFETY: only `map_parents` sets this, whose caller has promised it for all parents.
            return unsafe { Source::map_open(file) };
        }
        Ok(Source::of_file(file))
    }

    /// Sets where parents may be looked for.
    #[must_use]
    pub fn parents(mut self, parents: Parents) -> Self {
        self.parents = parents;
        self
    }
}

/// One image of a chain.
#[derive(Debug)]
pub struct Layer {
    image: Image,
    link: Option<ParentLink>,
    warnings: Warnings,
    /// Of a layer that is salvaged: what its medium has failed to give so far.
    lost: Option<LostRanges>,
}

/// How a layer was found for the one above it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentLink {
    /// By which way.
    pub found_by: FoundBy,
    /// By which identity it was verified.
    pub linkage: Linkage,
}

impl Layer {
    fn new(image: Image, link: Option<ParentLink>, strictness: Strictness) -> Self {
        let lost = (strictness == Strictness::Salvage).then(LostRanges::default);
        Self { image, link, warnings: Warnings::default(), lost }
    }

    /// The file, as this layer reads it.
    pub(crate) fn file(&self) -> SourceRef<'_> {
        SourceRef::new(self.image.source(), self.lost.as_ref())
    }

    /// What of `length` bytes of the file, from `offset` on, its medium has failed to give so far: the first such range. None
    /// of a layer that is not salvaged.
    pub(crate) fn first_unread(&self, offset: u64, length: u64) -> Option<Range<u64>> {
        self.lost.as_ref()?.first_in(offset, length)
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// How it was found; none for the image that was opened.
    #[must_use]
    pub fn link(&self) -> Option<ParentLink> {
        self.link
    }

    /// What is out of the ordinary in the image, and in its link to its parent.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.image.warnings().iter().chain(self.warnings.as_slice())
    }
}

/// A chain as far as it could be followed: for whoever wants to know what is there, even where it is not enough for a
/// [`Disk`].
#[derive(Debug)]
pub struct Chain {
    disk: Disk,
    end: End,
    /// The rule that the end breaks, where that is known.
    broken_rule: Option<Rule>,
    /// What else is wrong with a parent that is there and can't be used.
    unusable: Vec<Warning>,
}

#[derive(Debug)]
enum End {
    /// The last layer needs no parent.
    Base,
    /// The last layer needs a parent, and none was to be looked for.
    NotAttached,
    /// The last layer needs a parent, and there is none that could be taken.
    Broken(Error),
}

impl Chain {
    /// Opens an image and follows its parents.
    ///
    /// # Errors
    /// Only if the image itself can't be opened. What is wrong with its parents is kept: [`Chain::broken`].
    pub fn open(source: Source, options: &OpenOptions) -> Result<Self> {
        let image = Image::open_with(source, options.log_policy, options.strictness, &options.assumed)?;
        Ok(Self::of(image, options))
    }

    /// The chain of an image that has been opened.
    pub(crate) fn of(image: Image, options: &OpenOptions) -> Self {
        let is_salvage = options.strictness == Strictness::Salvage;
        let mut files = KnownFiles::default();
        files.chain.extend(image.source().id());
        let mut layers = vec![Layer::new(image, None, options.strictness)];
        let (mut broken_rule, mut unusable) = (None, Vec::new());
        let end = loop {
            match next_layer(&mut layers, &mut files, options) {
                Ok(Next::Layer(layer)) => {
                    files.chain.extend(layer.image.source().id());
                    layers.push(*layer);
                }
                Ok(Next::Base) => break End::Base,
                Ok(Next::NotAttached) => break End::NotAttached,
                Err(NotFound { error, warnings }) => {
                    broken_rule = layers.last().and_then(|layer| layer.warnings.ended_by()).or(warnings.ended_by());
                    unusable = warnings.into_list();
                    break End::Broken(error);
                }
            }
        };
        let missing = if let End::Broken(error) = &end { Some(error.clone()) } else { None };
        Self { disk: Disk::new(layers, is_salvage, missing), end, broken_rule, unusable }
    }

    /// The rule that keeps the chain from going on, where it is one of the parent locator or of the parent's own structures.
    pub(crate) fn broken_rule(&self) -> Option<Rule> {
        self.broken_rule
    }

    /// What is wrong with a parent that is there and can't be used, but for [`Chain::broken`].
    pub(crate) fn unusable(&self) -> &[Warning] {
        &self.unusable
    }

    /// The layers: the image that was opened first, its base last. There is at least one.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.disk.layers()
    }

    /// The disk, as far as the layers found make it. What lies in a parent that was not found can't be read from it:
    /// [`ErrorKind::NoParentAttached`].
    #[must_use]
    pub fn disk_so_far(&self) -> &Disk {
        &self.disk
    }

    /// Why the chain ends before its base, if something is wrong.
    #[must_use]
    pub fn broken(&self) -> Option<&Error> {
        match &self.end {
            End::Broken(error) => Some(error),
            End::Base | End::NotAttached => None,
        }
    }

    /// Whether the last layer needs a parent that is not there.
    #[must_use]
    pub fn needs_parent(&self) -> bool {
        !matches!(self.end, End::Base)
    }

    /// The disk, if nothing is wrong with its layers.
    pub(super) fn into_disk(self) -> Result<Disk> {
        match self.end {
            End::Broken(error) if !self.disk.is_salvaged() => Err(error),
            End::Broken(_) | End::Base | End::NotAttached => Ok(self.disk),
        }
    }
}

enum Next {
    Layer(Box<Layer>),
    Base,
    NotAttached,
}

/// Finds the parent of the last of `layers`.
fn next_layer(layers: &mut [Layer], files: &mut KnownFiles, options: &OpenOptions) -> Result<Next, NotFound> {
    let depth = layers.len();
    let Some((child, above)) = layers.split_last_mut() else { return Ok(Next::Base) };
    if child.image.kind() != ImageKind::Differencing {
        return Ok(Next::Base);
    }
    if !options.parents.searches() {
        return Ok(Next::NotAttached);
    }
    let layer = above.len();
    if depth > MAX_PARENTS {
        let kind = ErrorKind::ChainTooLong { limit: MAX_PARENTS };
        return Err(Error::of(Structure::Parent, kind).in_layer(layer, child.image.path()).into());
    }
    match find_parent(child, layer, files, options) {
        Err(NotFound { error, warnings }) if options.strictness == Strictness::Salvage => {
            let Some(image) = parents::named(&child.image, files, options) else {
                return Err(NotFound { error, warnings });
            };
            let what = "not known by its identity: taken for the parent since it was named";
            let detail = Error::of(Structure::Parent, ErrorKind::Text { what });
            child.warnings.add_as(
                Rule::ParentIdentity,
                Severity::Corruption,
                detail.in_layer(layer, child.image.path()),
            );
            let link = ParentLink { found_by: FoundBy::Given, linkage: Linkage::Unverified };
            Ok(Next::Layer(Box::new(Layer::new(image, Some(link), options.strictness))))
        }
        found => found,
    }
}

/// Finds the parent of `child`, which needs one, by its identity.
fn find_parent(
    child: &mut Layer,
    layer: usize,
    files: &mut KnownFiles,
    options: &OpenOptions,
) -> Result<Next, NotFound> {
    let in_child = |error: Error, image: &Image| error.in_layer(layer, image.path());
    let locator = child.image.read_parent_locator(&mut child.warnings);
    let Some(locator) = locator.map_err(|error| in_child(error, &child.image))? else { return Ok(Next::Base) };
    let search = Search::new(&child.image, &locator, layer, files, options);
    let Found { image, found_by, linkage } = search.run(&options.parents)?;
    if image.virtual_disk_size() != child.image.virtual_disk_size() {
        let kind = ErrorKind::Field {
            field: "VirtualDiskSize of the parent",
            found: image.virtual_disk_size(),
            expected: "the size of the child",
        };
        child.warnings.add(Rule::ParentSize, in_child(Error::of(Structure::Parent, kind), &child.image));
    }
    if linkage == Linkage::ParentLinkage2 {
        let kind = ErrorKind::Text { what: "the parent is linked by parent_linkage2: a merge into it was in progress" };
        child.warnings.add(Rule::ParentIdentity, in_child(Error::of(Structure::ParentLocator, kind), &child.image));
    }
    // What it says of itself has been read: the pages in which that stands would add up in a long chain.
    image.source().forget(0, image.source().length());
    Ok(Next::Layer(Box::new(Layer::new(image, Some(ParentLink { found_by, linkage }), options.strictness))))
}
