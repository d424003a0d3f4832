//! `vhdx info`.

mod human;
mod json;

use std::io::Write;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{self, DiskLayout};
use vhdx_mmap::{BlockStates, Chain, Disk, Error, ErrorKind, Layer};

use crate::args::{Common, InfoArgs};
use crate::exit::{Exit, Failure};
use crate::open::{self, actual_size};
use crate::salvage;
use crate::term;

pub(crate) fn run(args: &InfoArgs, common: &Common) -> Result<Exit, Failure> {
    salvage::refuse_several(&args.salvage, &args.images)?;
    let mut values = Vec::new();
    let mut out = term::stdout();
    let (mut first_failure, mut is_first) = (None, true);
    for path in &args.images {
        let told = (|| {
            let chain = open::salvaged_chain(path, common, &args.salvage)?;
            salvage::prepare(&args.salvage, &Disk::so_far(&chain), None)?;
            let depth = if args.backing_chain { chain.layers().len() } else { 1 };
            for (number, layer) in chain.layers().iter().enumerate().take(depth) {
                let facts = Facts::new(path, &chain, number, layer)?;
                if args.output.is_json() {
                    values.push(json::value(&facts));
                } else {
                    if !std::mem::take(&mut is_first) {
                        writeln!(out)?;
                    }
                    human::write(&mut out, &facts)?;
                }
            }
            let told = match chain.broken().filter(|_| args.backing_chain) {
                Some(error) => Err(Failure::of_image(path, error)),
                None => {
                    let disk = &Disk::so_far(&chain);
                    out.flush()?;
                    salvage::finish(path, disk, 0..disk.size(), &args.salvage)
                }
            };
            open::fail_if_changed(chain.layers(), told)
        })();
        match told {
            Ok(Exit::Done) => {}
            Ok(exit) => drop(first_failure.get_or_insert(exit)),
            Err(closed @ Failure::ClosedPipe { .. }) => return Err(closed),
            // The other images are told of all the same; the first failure decides how the program ends.
            Err(failure) => {
                out.flush()?;
                let exit = failure.report();
                first_failure.get_or_insert(exit);
            }
        }
    }
    out.flush()?;
    if args.output.is_json() {
        match values.as_slice() {
            [value] if !args.backing_chain && args.images.len() == 1 => crate::json::print(value)?,
            [] if args.images.len() == 1 => {}
            all => crate::json::print(&all)?,
        }
    }
    Ok(first_failure.unwrap_or(Exit::Done))
}

/// All that is told of one image.
struct Facts<'a> {
    path: PathBuf,
    layer: &'a Layer,
    /// None where a part of the table is lost.
    blocks: Option<BlockStates>,
    /// Space that the file takes on its medium, in bytes.
    actual_size: Option<u64>,
    /// The file of the parent, if it was found.
    parent: Option<PathBuf>,
    /// Why it was not.
    broken: Option<&'a Error>,
    /// The files of the chain from here on.
    chain: Vec<PathBuf>,
    /// What is on the disk: only told of the image that was asked for.
    contents: Option<Result<DiskLayout, Error>>,
    /// Why the chain, from here on, ends before its base.
    chain_broken: Option<&'a Error>,
}

impl<'a> Facts<'a> {
    fn new(path: &Path, chain: &'a Chain, number: usize, layer: &'a Layer) -> Result<Self, Failure> {
        let path_of = |layer: &Layer| layer.image().path().unwrap_or(path).to_path_buf();
        let image = layer.image();
        let blocks = match image.block_states() {
            Ok(blocks) => Some(blocks),
            Err(error) if chain.is_salvaged() => {
                let text = format!("{}: {error}: nobody knows how many blocks are present", path_of(layer).display());
                term::tell("warning", term::WARNING, &term::escape(&text));
                None
            }
            Err(error) => return Err(Failure::of_image(&path_of(layer), &error)),
        };
        let below = chain.layers().get(number..).unwrap_or_default();
        Ok(Self {
            path: path_of(layer),
            layer,
            blocks,
            actual_size: image.source().file().and_then(actual_size),
            parent: below.get(1).map(path_of),
            broken: chain.broken().filter(|_| below.len() == 1),
            chain: below.iter().map(path_of).collect(),
            contents: (number == 0).then(|| ops::detect(&Disk::so_far(chain))),
            chain_broken: chain.broken(),
        })
    }

    /// Why it is not known what is on the disk: where a parent is missing, what is wrong with that.
    fn why_unknown<'e>(&'e self, error: &'e Error) -> &'e Error {
        self.chain_broken.filter(|_| matches!(error.kind(), ErrorKind::NoParentAttached)).unwrap_or(error)
    }
}

/// The numbers of blocks in each state that there are blocks in.
fn block_counts(blocks: &BlockStates) -> Vec<(&'static str, u64)> {
    let mut counts: Vec<(&'static str, u64)> =
        vhdx_mmap::PayloadBlockState::ALL.into_iter().map(|state| (state.as_str(), blocks.count(state))).collect();
    counts.push(("reserved", blocks.reserved()));
    counts.retain(|(_, count)| *count > 0);
    counts
}
