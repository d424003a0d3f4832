//! Finding everything that is wrong with an image and its chain.

mod payload;

use std::collections::BTreeMap;

use crate::check::{Examined, Finding, Findings};
use crate::disk::{Chain, Disk, Layer, OpenOptions};
use crate::error::{Category, Error, ErrorKind, Rule, Severity, Structure};
use crate::image::{Image, Strictness, Warning, Warnings};
use crate::scan::{ScanError, ScanOptions};
use crate::source::Source;

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
    pub counts: BTreeMap<(Rule, Severity), u64>,
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
    /// How many MiB of the file, and of those of its parents, nothing refers to, though they hold something.
    pub unreferenced: u64,
    /// The files that were looked at: that of the image first, and those of its parents.
    pub files: Vec<Source>,
}

impl CheckReport {
    /// How many findings there are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.iter().filter(|((_, found), _)| *found == severity).map(|(_, count)| *count).sum()
    }

    /// Number of corruptions. In a strict check, warnings count as corruptions.
    #[must_use]
    pub fn corruptions(&self, is_strict: bool) -> u64 {
        let warnings = if is_strict { self.count(Severity::Warning) } else { 0 };
        self.count(Severity::Corruption).saturating_add(warnings)
    }

    /// The most severe finding; none if there are none.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|(_, severity)| *severity).max()
    }

    /// Whether something kept the check from being a whole one.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.is_vhdx || self.image_end.is_none() || self.count(Severity::Unchecked) > 0
    }
}

/// Checks an image and its chain: every rule of the format, and what goes beyond it ([`Rule`]). Nothing stops at the first
/// finding. Where nothing is found that is a [`Severity::Corruption`], [`Severity::Unsupported`] or [`Severity::Unchecked`], the disk
/// can be opened and its map can be read from end to end; with [`CheckOptions::payload`], its content was. With the feature `rayon`,
/// the threads of the current pool do it.
///
/// # Errors
/// [`ScanError::Cancelled`], if [`Progress::advance`](crate::Progress::advance) asked for it.
pub fn check(source: Source, options: &CheckOptions<'_>) -> Result<CheckReport, ScanError> {
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
        files: vec![source.clone()],
    };
    let open = options.open.clone().strictness(Strictness::Salvage);
    let mut warnings = Warnings::new(Strictness::Salvage);
    match Image::open_noting(source, open.log_policy, &open.overrides, &mut warnings) {
        Ok(image) => chain(&Chain::of(image, &open), options, &mut findings, &mut report)?,
        Err(error) => {
            let check = warnings.ended_by().unwrap_or(Rule::Medium);
            // What a medium does not give may be there.
            let is_breach = |warning: &Warning| warning.detail.category() != Category::Io;
            let breaks = |rule| warnings.as_slice().iter().any(|warning| warning.rule == rule && is_breach(warning));
            report.is_vhdx = !breaks(Rule::Signature) || !breaks(Rule::Headers);
            warnings.into_list().into_iter().for_each(|warning| findings.push(warning.into()));
            findings.reject(check, error, None);
        }
    }
    (report.findings, report.counts) = findings.into_parts();
    Ok(report)
}

/// Of each layer, the first block that lies where another block of the same file does, if there is any: all but one of them hold
/// the bytes of another (rule V69 of [`check`]), and read without an error. Of an image that is salvaged, also the first one that
/// lies where a region or a log claims to be, and is read nevertheless. Of a layer whose BAT was lost while it was looked at, that is
/// the error. With the feature `rayon`, the threads of the current
/// pool look for it; what it costs depends on the size of the block allocation table (MS-VHDX 2.5), and on nothing else.
#[must_use]
pub fn shared_blocks(disk: &Disk) -> Vec<Error> {
    let of_layer = |(number, layer): (usize, &Layer)| {
        let image = layer.image();
        Some(image.first_shared_block()?.in_layer(number, image.path()))
    };
    disk.layers().iter().enumerate().filter_map(of_layer).collect()
}

/// Examines all layers, and how they hang together.
fn chain(
    chain: &Chain,
    options: &CheckOptions<'_>,
    findings: &mut Findings,
    report: &mut CheckReport,
) -> Result<(), ScanError> {
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
        }
        report.unreferenced = report.unreferenced.saturating_add(unreferenced);
        findings.append_layer(found, number, image.path());
        if number > 0 {
            report.files.push(image.source().clone());
        }
    }
    link(chain, findings);
    if options.payload {
        payload::read(&Disk::so_far(chain), &options.scan, findings)?;
    }
    Ok(())
}

/// Tells why the chain ends before its base, if it does.
fn link(chain: &Chain, findings: &mut Findings) {
    let Some((number, last)) = chain.layers().iter().enumerate().next_back() else { return };
    let mut found = Findings::default();
    if let Some(error) = chain.broken() {
        let rule = chain.broken_rule().unwrap_or_else(|| rule_of_link(error));
        findings.reject(rule, error.clone(), None);
        chain.unusable().iter().for_each(|warning| found.push(warning.clone().into()));
        findings.append_layer(found, number.saturating_add(1), error.file());
    } else if chain.needs_parent() {
        // How it knows its parent has not been read, since nobody was to look for it.
        let mut warnings = Warnings::new(Strictness::Salvage);
        let locator = last.image().read_parent_locator(&mut warnings);
        let ended_by = warnings.ended_by().unwrap_or(Rule::Locator);
        warnings.into_list().into_iter().for_each(|warning| found.push(warning.into()));
        if let Err(error) = locator {
            found.reject(ended_by, error, None);
        }
        found.add(Rule::ParentMissing, Error::of(Structure::Parent, ErrorKind::NoParentAttached), None);
        findings.append_layer(found, number, last.image().path());
    }
}

/// The rule that a parent breaks which was not found, or can't be taken.
fn rule_of_link(error: &Error) -> Rule {
    match error.kind() {
        ErrorKind::ParentMismatch { .. } => Rule::ParentIdentity,
        ErrorKind::ChainCycle | ErrorKind::ChainTooLong { .. } => Rule::Chain,
        ErrorKind::SectorSizeMismatch { .. } => Rule::ParentSectorSize,
        _ => Rule::ParentMissing,
    }
}
