//! `vhdx info`.

mod human;

use std::io::Write;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{self, DiskLayout};
use vhdx_mmap::report::Info;
use vhdx_mmap::{BlockStates, Chain, Error, ErrorKind, Layer};

use crate::args::{Common, InfoArgs};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open::{self, actual_size};
use crate::salvage;
use crate::term;

pub(crate) fn run(args: &InfoArgs, common: &Common) -> Result<Exit, Failure> {
    salvage::refuse_several(&args.salvage, &args.images)?;
    let mut infos = Vec::new();
    let mut out = term::stdout();
    let (mut first_failure, mut is_first) = (None, true);
    for path in &args.images {
        let told = (|| {
            let chain = open::salvaged_chain(path, common, &args.salvage)?;
            salvage::prepare(&args.salvage, chain.disk_so_far(), None)?;
            let depth = if args.backing_chain { chain.layers().len() } else { 1 };
            for (number, layer) in chain.layers().iter().enumerate().take(depth) {
                if args.output.is_json() {
                    infos.push(report(path, &chain, number, layer)?);
                } else {
                    let facts = Facts::new(path, &chain, number, layer)?;
                    if !std::mem::take(&mut is_first) {
                        writeln!(out)?;
                    }
                    human::write(&mut out, &facts)?;
                }
            }
            let told = match chain.broken().filter(|_| args.backing_chain) {
                Some(error) => Err(Failure::of_image(path, error)),
                None => {
                    let disk = chain.disk_so_far();
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
        match infos.as_slice() {
            [info] if !args.backing_chain && args.images.len() == 1 => json::print(info)?,
            [] if args.images.len() == 1 => {}
            all => json::print(&all)?,
        }
    }
    Ok(first_failure.unwrap_or(Exit::Done))
}

/// The report on a layer, for programs.
fn report(path: &Path, chain: &Chain, number: usize, layer: &Layer) -> Result<Info, Failure> {
    let path = layer.image().path().unwrap_or(path);
    let info = Info::of_layer(chain, number).map_err(|error| Failure::of_image(path, &error))?;
    if info.format_specific.data.blocks.states.is_none()
        && let Err(error) = layer.image().block_states()
    {
        tell_unknown_blocks(path, &error);
    }
    Ok(info)
}

/// Tells of a salvaged image that a part of its table is lost.
fn tell_unknown_blocks(path: &Path, error: &Error) {
    let text = format!("{}: {error}: nobody knows how many blocks are present", path.display());
    term::tell("warning", term::WARNING, &term::escape(&text));
}

/// All that people are told of one image.
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
            Err(error) if chain.disk_so_far().is_salvaged() => {
                tell_unknown_blocks(&path_of(layer), &error);
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
            contents: (number == 0).then(|| ops::detect(chain.disk_so_far())),
            chain_broken: chain.broken(),
        })
    }

    /// Why it is not known what is on the disk: where a parent is missing, what is wrong with that.
    fn why_unknown<'e>(&'e self, error: &'e Error) -> &'e Error {
        self.chain_broken.filter(|_| matches!(error.kind(), ErrorKind::NoParentAttached)).unwrap_or(error)
    }
}
