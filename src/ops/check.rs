//! Finding everything that is wrong with an image and its chain.

use std::collections::BTreeMap;

use crate::disk::{Chain, Disk, OpenOptions};
use crate::error::{Error, ErrorKind, Structure};
use crate::format::PayloadBlockState;
use crate::image::{Check, Examined, Finding, Findings, Image, Severity, Strictness, Warnings};
use crate::scan::{Content, ScanOptions, Stopped};
use crate::source::Source;
use crate::zero::is_zero;

/// How an image is to be checked.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct CheckOptions<'p> {
    /// How the image and its parents are opened. Whatever can be opened is, whatever [`OpenOptions::strictness`] says.
    pub open: OpenOptions,
    /// Whether to read the content of all blocks as well: to see that the medium gives it, and which blocks hold only zeros.
    pub payload: bool,
    /// How the content is read.
    pub scan: ScanOptions<'p>,
}

impl<'p> CheckOptions<'p> {
    /// Structures only, with the parents that `open` allows.
    #[must_use]
    pub fn new(open: OpenOptions) -> Self {
        Self { open, payload: false, scan: ScanOptions::default() }
    }

    /// Sets whether to read the content of all blocks as well.
    #[must_use]
    pub fn payload(mut self, payload: bool) -> Self {
        self.payload = payload;
        self
    }

    /// Sets how the content is read.
    #[must_use]
    pub fn scan(mut self, scan: ScanOptions<'p>) -> Self {
        self.scan = scan;
        self
    }
}

/// What a check has found.
#[non_exhaustive]
#[derive(Debug)]
pub struct CheckReport {
    /// In the order in which an image is read, layer by layer; of each kind at most 100 for each layer.
    pub findings: Vec<Finding>,
    /// How many there are of each kind, those that are not among the findings included.
    pub counts: BTreeMap<(Check, Severity), u64>,
    /// Whether the file is a VHDX at all.
    pub is_vhdx: bool,
    /// Where the last thing in the file ends that something refers to, in bytes; none if the image can't be opened.
    pub image_end: Option<u64>,
    /// Payload blocks of the disk.
    pub blocks: u64,
    /// Those of them that are present in the image.
    pub allocated_blocks: u64,
    /// Those of them that do not follow the one before in the file.
    pub fragmented_blocks: u64,
    /// How many MiB of the file nothing refers to, though they hold something.
    pub unreferenced: u64,
}

impl CheckReport {
    /// How many findings there are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.iter().filter(|((_, found), _)| *found == severity).map(|(_, count)| *count).sum()
    }

    /// The most severe finding; none if there are none.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|(_, severity)| *severity).max()
    }
}

/// Checks an image and its chain: every rule of the format, and what goes beyond it ([`Check`]). Nothing stops at the first
/// finding. Where nothing is found that is a [`Severity::Corruption`], [`Severity::Unsupported`] or [`Severity::Unchecked`], the disk
/// can be opened and its map can be read from end to end; with [`CheckOptions::payload`], its content was. With the feature `rayon`,
/// the threads of the current pool do it.
///
/// # Errors
/// [`Stopped::Cancelled`], if [`Progress::advance`](crate::Progress::advance) asked for it.
pub fn check(source: Source, options: &CheckOptions<'_>) -> Result<CheckReport, Stopped> {
    let mut findings = Findings::default();
    let mut report = CheckReport {
        findings: Vec::new(),
        counts: BTreeMap::new(),
        is_vhdx: true,
        image_end: None,
        blocks: 0,
        allocated_blocks: 0,
        fragmented_blocks: 0,
        unreferenced: 0,
    };
    let open = options.open.clone().strictness(Strictness::Salvage);
    let mut warnings = Warnings::new(Strictness::Salvage);
    match Image::open_noting(source, open.log_policy, &open.assumed, &mut warnings) {
        Ok(image) => chain(&Chain::of(image, &open), options, &mut findings, &mut report)?,
        Err(error) => {
            let check = warnings.ended_by().unwrap_or(Check::Medium);
            let breaks = |rule| warnings.as_slice().iter().any(|warning| warning.check == rule);
            report.is_vhdx = !breaks(Check::Signature) || !breaks(Check::Headers);
            warnings.into_list().into_iter().for_each(|warning| findings.push(warning.into()));
            findings.refuse(check, error, None);
        }
    }
    (report.findings, report.counts) = findings.into_parts();
    Ok(report)
}

/// Examines all layers, and how they hang together.
fn chain(
    chain: &Chain,
    options: &CheckOptions<'_>,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<(), Stopped> {
    for (number, layer) in chain.layers().iter().enumerate() {
        let image = layer.image();
        let mut found = Findings::default();
        for warning in layer.warnings() {
            found.push(warning.clone().into());
        }
        let Examined { bat, end, unreferenced } = image.examine(&mut found);
        if number == 0 {
            report.image_end = Some(end);
            report.blocks = image.payload_blocks();
            (report.allocated_blocks, report.fragmented_blocks) = (bat.allocated, bat.fragmented);
            report.unreferenced = unreferenced;
        }
        let found = found.in_layer(number, image.path());
        // Room that is wasted in a parent is no fault of the image.
        findings.append(if number == 0 { found } else { found.without(Severity::Leak) });
    }
    if let Some(error) = chain.broken() {
        let rule = chain.broken_rule().unwrap_or_else(|| rule_of_link(error));
        findings.refuse(rule, error.clone(), None);
    } else if chain.needs_parent() {
        let detail = Error::of(Structure::Parent, ErrorKind::NoParentAttached);
        findings.add(Check::ParentMissing, detail, None);
    }
    if options.payload {
        payload(chain.disk_so_far(), options, findings)?;
        for layer in chain.layers() {
            layer.image().medium_is_told(findings);
        }
    }
    Ok(())
}

/// The rule that a parent breaks which was not found, or can't be taken.
fn rule_of_link(error: &Error) -> Check {
    match error.kind() {
        ErrorKind::ParentMismatch { .. } => Check::Linkage2,
        ErrorKind::ChainCycle | ErrorKind::ChainTooLong { .. } => Check::Chain,
        ErrorKind::SectorSizeMismatch { .. } => Check::ParentSectorSize,
        _ => Check::ParentMissing,
    }
}

/// Reads all that the chain holds, and looks for blocks of the image that hold only zeros.
fn payload(disk: &Disk, options: &CheckOptions<'_>, findings: &mut Findings) -> Result<(), Stopped> {
    let image = disk.image();
    let block_size = image.block_size();
    let (mut count, mut bytes) = (0_u64, 0_u64);
    // The block at hand, and whether all of it was zero so far.
    let mut at_hand: Option<(u64, bool)> = None;
    let mut close = |block: Option<(u64, bool)>| {
        let Some((block, true)) = block else { return };
        let is_present = image.payload_block(block).is_ok_and(|(state, _)| state == PayloadBlockState::FullyPresent);
        let start = block.saturating_mul(block_size);
        // What is lost is not zero.
        let is_there = || disk.losses(start..start.saturating_add(block_size)).next().is_none();
        if is_present && is_there() {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(block_size);
        }
    };
    let scanned = Content::disk(disk).scan(
        &options.scan,
        |_, segments| segments.iter().all(|segment| segment.slices().all(is_zero)),
        |range, unit| match unit {
            // Units are no longer than a block, and never lie in two.
            Some(is_all_zero) => {
                let block = range.start.checked_div(block_size).unwrap_or(0);
                match &mut at_hand {
                    Some((at_hand, so_far)) if *at_hand == block => *so_far &= is_all_zero,
                    _ => close(at_hand.replace((block, is_all_zero))),
                }
            }
            None => {
                // Holes of the file may be parts of blocks, or whole ones.
                let first = range.start.checked_div(block_size).unwrap_or(0);
                let end = range.end.div_ceil(block_size);
                for block in first..end.min(first.saturating_add(MOST_HOLES)) {
                    if at_hand.is_none_or(|(at_hand, _)| at_hand != block) {
                        close(at_hand.replace((block, true)));
                    }
                }
            }
        },
    );
    close(at_hand);
    match scanned {
        // What can't be read is zero in a disk that is being salvaged, and told by its losses.
        Ok(()) => {}
        Err(Stopped::Read(error)) => findings.refuse(Check::Medium, error, None),
        Err(cancelled) => return Err(cancelled),
    }
    if count > 0 {
        let detail = Error::of(Structure::Disk, ErrorKind::ZeroBlocks { count, length: bytes });
        findings.add(Check::ZeroBlock, detail, None);
    }
    Ok(())
}

/// How many blocks of one hole are looked up: a fixed disk may be one hole of 64 TiB.
const MOST_HOLES: u64 = 1 << 16;

impl CheckReport {
    /// Whether something kept the check from being a whole one.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.is_vhdx || self.image_end.is_none() || self.count(Severity::Unchecked) > 0
    }
}
