//! Chain of images: the opened image, its parents, and the base.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, Rule, Severity, Structure};
use crate::image::{Image, ImageKind, Linkage, Strictness, Warning};
use crate::source::Source;

use super::fingerprint::ChainFingerprint;
use super::layer::{Layer, ParentLink};
use super::options::OpenOptions;
use super::parents::FoundBy;
use super::search::{self, Found, KnownFiles, NotFound, Search};

/// Largest number of parents that an image can have.
pub const MAX_PARENTS: usize = 256;

/// Chain of images, as far as it could be followed. A chain can be inspected even if it is not complete enough for a
/// [`Disk`](crate::Disk).
#[derive(Debug)]
pub struct Chain {
    layers: Arc<[Layer]>,
    is_salvaged: bool,
    end: End,
    /// Rule that the end of the chain breaks, if known.
    broken_rule: Option<Rule>,
    /// Other problems of a parent that was found but cannot be used.
    unusable: Vec<Warning>,
}

#[derive(Debug)]
enum End {
    /// The last layer needs no parent.
    Base,
    /// The last layer needs a parent, and the options allow no search.
    NotAttached,
    /// The last layer needs a parent, and none was accepted.
    Broken(Error),
}

impl Chain {
    /// Opens an image and follows its parents.
    ///
    /// # Errors
    /// Fails only if the image itself cannot be opened, or with [`ErrorKind::OtherFiles`] if the files differ from
    /// [`OpenOptions::expect`]. Problems of parents are kept in [`Chain::broken`].
    pub fn open(source: Source, options: &OpenOptions) -> Result<Self> {
        let image = Image::open_with(source, options.log_policy, options.strictness, &options.overrides)?;
        let chain = Self::of(image, options);
        chain.check_expected(options).map(|()| chain)
    }

    /// Checks that the files are those of [`OpenOptions::expect`].
    pub(crate) fn check_expected(&self, options: &OpenOptions) -> Result<()> {
        let Some(expected) = &options.expected else { return Ok(()) };
        // If a parent cannot be used, the reason says more than that it is missing.
        expected.check(&self.fingerprint(), self.broken().is_some()).map_err(|error| {
            let layer = self.layers().get(error.layer());
            error.in_file(layer.and_then(|layer| layer.image().path()))
        })
    }

    /// Returns the chain of an opened image.
    pub(crate) fn of(image: Image, options: &OpenOptions) -> Self {
        let is_salvaged = options.strictness == Strictness::Salvage;
        let mut files = KnownFiles::new(options);
        files.chain.extend(image.source().id());
        let mut layers = vec![Layer::new(image, None, options.strictness)];
        let (mut broken_rule, mut unusable) = (None, Vec::new());
        let end = loop {
            match next_layer(&mut layers, &mut files, options) {
                Ok(Next::Layer(layer)) => {
                    files.chain.extend(layer.image().source().id());
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
        Self { layers: layers.into(), is_salvaged, end, broken_rule, unusable }
    }

    /// Returns the rule that ends the chain, if it is a rule of the parent locator or of the parent's own structures.
    pub(crate) fn broken_rule(&self) -> Option<Rule> {
        self.broken_rule
    }

    /// Returns the problems of a parent that was found but cannot be used, except for [`Chain::broken`].
    pub(crate) fn unusable(&self) -> &[Warning] {
        &self.unusable
    }

    /// Returns the layers, at least one: the opened image first, its base last.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns the layers, to be shared with a disk.
    pub(super) fn shared_layers(&self) -> Arc<[Layer]> {
        Arc::clone(&self.layers)
    }

    /// Returns whether the chain was opened with [`Strictness::Salvage`].
    #[must_use]
    pub fn is_salvaged(&self) -> bool {
        self.is_salvaged
    }

    /// Returns the fingerprint of the chain: its files and their states.
    #[must_use]
    pub fn fingerprint(&self) -> ChainFingerprint {
        ChainFingerprint::of(&self.layers)
    }

    /// Returns the reason why the chain ends before its base, if it does.
    #[must_use]
    pub fn broken(&self) -> Option<&Error> {
        match &self.end {
            End::Broken(error) => Some(error),
            End::Base | End::NotAttached => None,
        }
    }

    /// Returns whether the last layer needs a parent that was not found.
    #[must_use]
    pub fn needs_parent(&self) -> bool {
        !matches!(self.end, End::Base)
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
    if child.image().kind() != ImageKind::Differencing {
        return Ok(Next::Base);
    }
    if !options.parents.searches() {
        return Ok(Next::NotAttached);
    }
    let layer = above.len();
    if depth > MAX_PARENTS {
        let kind = ErrorKind::ChainTooLong { limit: MAX_PARENTS };
        return Err(Error::of(Structure::Parent, kind).in_layer(layer, child.image().path()).into());
    }
    match find_parent(child, layer, files, options) {
        Err(NotFound { error, warnings }) if options.strictness == Strictness::Salvage => {
            let Some(image) = search::named(child.image(), files, options) else {
                return Err(NotFound { error, warnings });
            };
            let what = "identity not verified: used because the caller named it";
            let detail = Error::of(Structure::Parent, ErrorKind::Text { what });
            child.warnings.add_as(
                Rule::ParentIdentity,
                Severity::Corruption,
                detail.in_layer(layer, child.image().path()),
            );
            let link = ParentLink { found_by: FoundBy::Given, linkage: Linkage::Unverified, others: 0 };
            Ok(Next::Layer(Box::new(Layer::new(image, Some(link), options.strictness))))
        }
        found => found,
    }
}

/// Finds the parent of `child` by its identity.
fn find_parent(
    child: &mut Layer,
    layer: usize,
    files: &mut KnownFiles,
    options: &OpenOptions,
) -> Result<Next, NotFound> {
    let in_child = |error: Error, image: &Image| error.in_layer(layer, image.path());
    let locator = child.image.read_parent_locator(&mut child.warnings);
    let Some(locator) = locator.map_err(|error| in_child(error, child.image()))? else { return Ok(Next::Base) };
    let search = Search::new(child.image(), &locator, layer, files, options);
    let Found { image, found_by, linkage, others } = search.run(&options.parents)?;
    if image.virtual_disk_size() != child.image().virtual_disk_size() {
        let kind = ErrorKind::Field {
            field: "VirtualDiskSize of the parent",
            found: image.virtual_disk_size(),
            expected: "the size of the child",
        };
        child.warnings.add(Rule::ParentSize, in_child(Error::of(Structure::Parent, kind), child.image()));
    }
    if linkage == Linkage::ParentLinkage2 {
        let kind = ErrorKind::Text { what: "linked by parent_linkage2: a merge into the parent was in progress" };
        child.warnings.add(Rule::ParentIdentity, in_child(Error::of(Structure::ParentLocator, kind), child.image()));
    }
    // In a long chain, the pages with the structures of all images would add up.
    image.source().forget(0, image.source().len());
    Ok(Next::Layer(Box::new(Layer::new(image, Some(ParentLink { found_by, linkage, others }), options.strictness))))
}
