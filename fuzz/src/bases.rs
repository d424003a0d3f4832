//! The images to which changes are applied.

use vhdx_mmap::{LogPolicy, OpenOptions, ParentRequest, Parents, Source};

use std::sync::Arc;

use crate::change::Places;
use crate::kit::builder::{Image, Spec};
use crate::kit::log::Dirty;
use crate::kit::oracle;
use crate::kit::{Block, FileBytes, MIB};
use crate::scratch::Scratch;

/// An image, and the parent that it needs.
pub(crate) struct Base {
    pub(crate) scratch: Scratch,
    pub(crate) places: Places,
    parent: Option<(Vec<u8>, Source)>,
}

impl Base {
    pub(crate) fn new(image: &Image, parent: Option<&Spec>) -> Self {
        let parent = parent.map(|parent| parent.build().bytes.to_vec());
        let parent = parent.map(|parent| (parent.clone(), Source::from_vec(parent)));
        Self { scratch: Scratch::new(image.bytes.to_vec()), places: Places::of(image), parent }
    }

    /// Returns options that find the parent.
    pub(crate) fn options(&self, log_policy: LogPolicy) -> OpenOptions {
        let parent = self.parent.as_ref().map(|(_, source)| source.clone());
        let finder = move |_: &ParentRequest<'_>| Ok(parent.clone());
        OpenOptions::new().log_policy(log_policy).parents(Parents::With(Arc::new(finder)))
    }

    /// Returns the first `layers` files of the chain, child first.
    pub(crate) fn files(&self, layers: usize) -> Vec<&dyn FileBytes> {
        let mut files: Vec<&dyn FileBytes> = vec![self.scratch.bytes()];
        files.extend(self.parent.as_ref().map(|(bytes, _)| bytes as &dyn FileBytes));
        files.truncate(layers.max(1));
        files
    }
}

/// Returns the policies of library and oracle.
pub(crate) fn policies(ignores_log: bool) -> (LogPolicy, oracle::LogPolicy) {
    if ignores_log {
        (LogPolicy::Ignore, oracle::LogPolicy::Ignore)
    } else {
        (LogPolicy::Replay, oracle::LogPolicy::Replay)
    }
}

/// Makes a clean image, a child, one that is dirty in each way that the kit knows, and a dirty child.
pub(crate) fn bases() -> Vec<Base> {
    let small = || Spec { disk_size: 3 * MIB, ..Spec::empty(3 * MIB) }.block(0, Block::full()).block(2, Block::full());
    let parent = small();
    let sectors = [3..40, 64..65, 2000..2048];
    let child = Spec::child_of(&parent, "parent").block(1, Block::partial(&sectors)).block(2, Block::zero());
    let dirty = Dirty::ALL.iter().map(|dirty| Base::new(&dirty.build(&small()), None));
    let mut bases = vec![Base::new(&small().build(), None), Base::new(&child.build(), Some(&parent))];
    bases.extend(dirty);
    bases.push(Base::new(&Dirty::ManyEntries.build(&child), Some(&parent)));
    bases
}
