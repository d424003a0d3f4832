//! `vhdx info`: shows what an image is and what is on it.

mod contents;
mod human;
mod lines;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vhdx_mmap::ops::inventory::Checkpoints;
use vhdx_mmap::ops::{self, DiskLayout};
use vhdx_mmap::report::{Info, InfoContents};
use vhdx_mmap::{BlockStates, Chain, Disk, Error, ErrorKind, Finding, FoundBy, Layer, Severity};

use crate::args::{Common, InfoArgs};
use crate::bulk;
use crate::exit::{Exit, Failure};
use crate::findings::Tally;
use crate::folder;
use crate::json::Reports;
use crate::many;
use crate::open;
use crate::salvage;
use crate::siblings;
use crate::term;

pub(crate) fn run(args: &InfoArgs, common: &Common) -> Result<Exit, Failure> {
    salvage::reject_several_images(&args.salvage, &args.images, args.folders)?;
    let is_list = args.backing_chain || args.images.len() > 1 || args.folders.recursive;
    let mut reports = args.output.is_json().then(|| Reports::begin(is_list));
    let mut out = term::stdout();
    let (mut first_failure, mut tally) = (None, Tally::default());
    let mut between = "";
    let show = |image: &Path| Ok(show(image, args, common));
    folder::for_each_image(&args.images, args.folders, common, many::images_at_once(common), show, |path, shown| {
        let Shown { layers, has_warnings, result } = shown.unwrap_or_else(Shown::failed);
        tally.add(match &result {
            Ok(_) if has_warnings => "with warnings",
            Ok(_) => "fine",
            Err(_) => "failed",
        });
        for layer in &layers {
            match (layer, &mut reports) {
                (ShownLayer::Report(info), Some(reports)) => reports.item(&**info)?,
                (ShownLayer::Report(_), None) => {}
                (ShownLayer::Text(text), _) => {
                    write!(out, "{between}")?;
                    out.write_all(text)?;
                    between = "\n";
                }
            }
        }
        out.flush()?;
        match result {
            Ok(Exit::Done) if args.strict && has_warnings => drop(first_failure.get_or_insert(Exit::Corrupt)),
            Ok(Exit::Done) => {}
            Ok(exit) => drop(first_failure.get_or_insert(exit)),
            Err(closed @ Failure::ClosedPipe { .. }) => return Err(closed),
            // Show the other images, too; the first failure decides the exit code.
            Err(failure) => {
                if let (true, Some(reports)) = (layers.is_empty(), &mut reports) {
                    reports.failed::<Info>(path, &failure)?;
                }
                let exit = failure.report();
                first_failure.get_or_insert(exit);
            }
        }
        Ok(())
    })?;
    if let Some(line) = tally.line().filter(|_| !common.quiet && !args.output.is_json()) {
        writeln!(out, "\n{line}")?;
    }
    out.flush()?;
    reports.map_or(Ok(()), Reports::end)?;
    Ok(first_failure.unwrap_or(Exit::Done))
}

/// What is shown of one image.
struct Shown {
    layers: Vec<ShownLayer>,
    has_warnings: bool,
    result: Result<Exit, Failure>,
}

enum ShownLayer {
    Report(Box<Info>),
    Text(Vec<u8>),
}

impl Shown {
    fn failed(failure: Failure) -> Self {
        Self { layers: Vec::new(), has_warnings: false, result: Err(failure) }
    }
}

fn show(path: &Path, args: &InfoArgs, common: &Common) -> Shown {
    let mut shown = Shown { layers: Vec::new(), has_warnings: false, result: Ok(Exit::Done) };
    shown.result = show_layers(path, args, common, &mut shown);
    shown
}

fn show_layers(path: &Path, args: &InfoArgs, common: &Common, shown: &mut Shown) -> Result<Exit, Failure> {
    let chain = open::salvaged_chain(path, common, &args.salvage)?;
    salvage::prepare(&args.salvage, &Disk::so_far(&chain), None)?;
    let depth = if args.backing_chain { chain.layers().len() } else { 1 };
    let mut show_all = || {
        for (number, layer) in chain.layers().iter().enumerate().take(depth) {
            if args.output.is_json() {
                let info = report(path, &chain, number, layer, common)?;
                let mut warnings = info.format_specific.data.warnings.iter();
                shown.has_warnings |= warnings.any(|warning| warning.severity > Severity::Note);
                shown.layers.push(ShownLayer::Report(Box::new(info)));
            } else {
                let facts = Facts::new(path, &chain, number, layer, common)?;
                let mut findings = facts.content.iter().chain(&facts.findings);
                shown.has_warnings |= findings.any(|finding| finding.severity > Severity::Note);
                let mut text = Vec::new();
                human::write(&mut text, &facts, common)?;
                shown.layers.push(ShownLayer::Text(text));
            }
        }
        if let Some(error) = chain.broken().filter(|_| args.backing_chain) {
            return Err(Failure::of_image(path, error));
        }
        let disk = &Disk::so_far(&chain);
        salvage::finish(path, disk, 0..disk.size(), &args.salvage)
    };
    let result = show_all();
    open::fail_if_changed(chain.layers(), result)
}

/// Report on a layer.
fn report(path: &Path, chain: &Chain, number: usize, layer: &Layer, common: &Common) -> Result<Info, Failure> {
    let path = layer.image().path().unwrap_or(path);
    let info = bulk::all_threads(common)?.install(|| Info::of_layer(chain, number));
    let mut info = info.map_err(|error| Failure::of_image(path, &error))?;
    if let Some(InfoContents::Known(layout)) = &mut info.format_specific.data.contents {
        vhdx_files::add_usage(&Arc::new(Disk::so_far(chain)), layout);
    }
    if info.format_specific.data.blocks.states.is_none()
        && let Err(error) = layer.image().block_states()
    {
        warn_of_unknown_count(path, &error);
    }
    let checkpoints = (number == 0).then(|| siblings::checkpoints(layer.image(), common)).flatten();
    Ok(match checkpoints {
        Some(found) => info.checkpoints(&found),
        None => info,
    })
}

/// What is on the disk of a chain, and how full its file systems are.
fn layout(chain: &Chain) -> Result<DiskLayout, Error> {
    let disk = Arc::new(Disk::so_far(chain));
    let mut layout = ops::detect(&disk)?;
    vhdx_files::add_usage(&disk, &mut layout);
    Ok(layout)
}

/// Warns that part of the BAT of a salvaged image is lost.
fn warn_of_unknown_count(path: &Path, error: &Error) {
    let text = format!("{}: {error:#}; the number of allocated blocks is unknown", path.display());
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
    /// File of the parent, if it was found, and how.
    parent: Option<(PathBuf, Option<FoundBy>)>,
    /// Files of parents that another program has open for writing.
    parents_in_use: Vec<PathBuf>,
    /// Why the parent was not found.
    broken: Option<&'a Error>,
    /// Files of the chain from this image on.
    chain: Vec<PathBuf>,
    /// Partitions and file systems of the disk; only for the given image.
    contents: Option<Result<DiskLayout, Error>>,
    /// Images in the folder that depend on the given image.
    checkpoints: Option<Checkpoints>,
    /// Why the chain ends before its base.
    chain_broken: Option<&'a Error>,
    /// What its content has lost, although it can be read; for the given image, with what its parents have lost.
    content: Vec<Finding>,
    /// What else is unusual or damaged in the image.
    findings: Vec<Finding>,
}

impl<'a> Facts<'a> {
    fn new(path: &Path, chain: &'a Chain, number: usize, layer: &'a Layer, common: &Common) -> Result<Self, Failure> {
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
        let is_in_use = |layer: &Layer| layer.image().source().in_use() == Some(true);
        let below = chain.layers().get(number..).unwrap_or_default();
        Ok(Self {
            path: path_of(layer),
            layer,
            blocks,
            actual_size: image.source().actual_size(),
            parent: below.get(1).map(|parent| (path_of(parent), parent.link().map(|link| link.found_by))),
            parents_in_use: below.iter().skip(1).filter(|layer| is_in_use(layer)).map(path_of).collect(),
            broken: chain.broken().filter(|_| below.len() == 1),
            chain: below.iter().map(path_of).collect(),
            contents: (number == 0).then(|| layout(chain)),
            checkpoints: (number == 0).then(|| siblings::checkpoints(image, common)).flatten(),
            chain_broken: chain.broken(),
            content: bulk::all_threads(common)?.install(|| match number {
                0 => ops::content_warnings(&Disk::so_far(chain)),
                _ => ops::layer_warnings(layer, 0),
            }),
            findings: layer.findings().collect(),
        })
    }

    /// Why the content of the disk is unknown. If a parent is missing, that is the reason.
    fn why_unknown<'e>(&'e self, error: &'e Error) -> &'e Error {
        self.chain_broken.filter(|_| matches!(error.kind(), ErrorKind::NoParentAttached)).unwrap_or(error)
    }
}
