//! `vhdx info`: shows what an image is and what is on it.

mod human;

use std::io::Write;
use std::path::{Path, PathBuf};

use vhdx_mmap::ops::{self, DiskLayout};
use vhdx_mmap::report::Info;
use vhdx_mmap::{BlockStates, Chain, Disk, Error, ErrorKind, Layer};

use crate::args::{Common, InfoArgs};
use crate::exit::{Exit, Failure};
use crate::json;
use crate::open::{self, actual_size};
use crate::salvage;
use crate::term;

pub(crate) fn run(args: &InfoArgs, common: &Common) -> Result<Exit, Failure> {
    salvage::reject_several_images(&args.salvage, &args.images)?;
    let mut infos = Vec::new();
    let mut out = term::stdout();
    let (mut first_failure, mut is_first) = (None, true);
    for path in &args.images {
        let shown = (|| {
            let chain = open::salvaged_chain(path, common, &args.salvage)?;
            salvage::prepare(&args.salvage, &Disk::so_far(&chain), None)?;
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
            let result = match chain.broken().filter(|_| args.backing_chain) {
                Some(error) => Err(Failure::of_image(path, error)),
                None => {
                    let disk = &Disk::so_far(&chain);
                    out.flush()?;
                    salvage::finish(path, disk, 0..disk.size(), &args.salvage)
                }
            };
            open::fail_if_changed(chain.layers(), result)
        })();
        match shown {
            Ok(Exit::Done) => {}
            Ok(exit) => drop(first_failure.get_or_insert(exit)),
            Err(closed @ Failure::ClosedPipe { .. }) => return Err(closed),
            // Show the other images, too; the first failure decides the exit code.
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

/// Report on a layer.
fn report(path: &Path, chain: &Chain, number: usize, layer: &Layer) -> Result<Info, Failure> {
    let path = layer.image().path().unwrap_or(path);
    let info = Info::of_layer(chain, number).map_err(|error| Failure::of_image(path, &error))?;
    if info.format_specific.data.blocks.states.is_none()
        && let Err(error) = layer.image().block_states()
    {
        warn_of_unknown_count(path, &error);
    }
    Ok(info)
}

/// Warns that part of the BAT of a salvaged image is lost.
fn warn_of_unknown_count(path: &Path, error: &Error) {
    let text = format!("{}: {error}; the number of allocated blocks is unknown", path.display());
    term::message("warning", term::WARNING, &term::escape(&text));
}

/// Facts about one image.
struct Facts<'a> {
    path: PathBuf,
    layer: &'a Layer,
    /// `None` if a part of the BAT is lost.
    blocks: Option<BlockStates>,
    /// Space that the file occupies on the drive, in bytes.
    actual_size: Option<u64>,
    /// File of the parent, if it was found.
    parent: Option<PathBuf>,
    /// Why the parent was not found.
    broken: Option<&'a Error>,
    /// Files of the chain from this image on.
    chain: Vec<PathBuf>,
    /// Partitions and file systems of the disk; only for the given image.
    contents: Option<Result<DiskLayout, Error>>,
    /// Why the chain ends before its base.
    chain_broken: Option<&'a Error>,
}

impl<'a> Facts<'a> {
    fn new(path: &Path, chain: &'a Chain, number: usize, layer: &'a Layer) -> Result<Self, Failure> {
        let path_of = |layer: &Layer| layer.image().path().unwrap_or(path).to_path_buf();
        let image = layer.image();
        let blocks = match image.block_states() {
            Ok(blocks) => Some(blocks),
            Err(error) if chain.is_salvaged() => {
                warn_of_unknown_count(&path_of(layer), &error);
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

    /// Why the content of the disk is unknown. If a parent is missing, that is the reason.
    fn why_unknown<'e>(&'e self, error: &'e Error) -> &'e Error {
        self.chain_broken.filter(|_| matches!(error.kind(), ErrorKind::NoParentAttached)).unwrap_or(error)
    }
}
