//! Check of an image and its chain.

mod payload;

use std::collections::BTreeMap;

use crate::check::{Examined, Finding, Findings};
use crate::disk::{Chain, Disk, Layer, OpenOptions};
use crate::error::{Category, Error, ErrorKind, OtherFormat, Rule, Severity, Structure};
use crate::image::{Image, LogState, Strictness, Warning, Warnings};
use crate::scan::{ScanError, ScanOptions};
use crate::source::Source;

use super::plan::{Portion, Share, state_of};

pub use payload::PayloadCheck;
#[cfg(feature = "serde")]
pub(crate) use payload::zero_blocks;

/// Options for a check.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct CheckOptions<'p> {
    /// Options for opening the image and its parents. Everything that can be opened is, regardless of
    /// [`OpenOptions::strictness`].
    pub open: OpenOptions,
    /// Whether to read the content of all blocks, too: this finds unreadable bytes, and blocks that hold only zeros.
    pub payload: bool,
    /// The part of the content to read: all of it if `None`. Structures are checked in any case.
    pub share: Option<Portion>,
    /// Options for reading the content.
    pub scan: ScanOptions<'p>,
}

impl<'p> CheckOptions<'p> {
    /// Makes the default options: only structures are checked, with the parents that `open` allows.
    #[must_use]
    pub fn new(open: OpenOptions) -> Self {
        Self { open, payload: false, share: None, scan: ScanOptions::default() }
    }

    /// Sets whether to read the content of all blocks, too.
    #[must_use]
    pub fn payload(mut self, payload: bool) -> Self {
        self.payload = payload;
        self
    }

    /// Reads the content of a share of the disk only, and notes in [`CheckReport::payload`] what belongs to it.
    #[must_use]
    pub fn share(mut self, share: impl Into<Portion>) -> Self {
        (self.payload, self.share) = (true, Some(share.into()));
        self
    }

    /// Sets the options for reading the content.
    #[must_use]
    pub fn scan(mut self, scan: ScanOptions<'p>) -> Self {
        self.scan = scan;
        self
    }
}

/// Report of a check.
#[non_exhaustive]
#[derive(Debug)]
pub struct CheckReport {
    /// Findings in the order in which an image is read, layer by layer; at most 100 of each kind in each layer.
    pub findings: Vec<Finding>,
    /// Number of findings of each kind, including those that are not in `findings`.
    pub counts: BTreeMap<(Rule, Severity), u64>,
    /// Whether the file is a VHDX file.
    pub is_vhdx: bool,
    /// What the file is instead, if it is not a VHDX file.
    pub looks_like: Option<OtherFormat>,
    /// End of the last structure that something refers to (file offset), in bytes. `None` if the image cannot be
    /// opened.
    pub image_end: Option<u64>,
    /// Number of payload blocks of the disk.
    pub blocks: u64,
    /// Number of allocated payload blocks in the image.
    pub allocated_blocks: u64,
    /// Number of allocated payload blocks that do not follow the previous one in the file.
    pub fragmented_blocks: u64,
    /// Space of the file and its parents that nothing refers to, and that is not zero, in bytes: whole MiB, except at
    /// the end of a file.
    pub leaked_bytes: u64,
    /// States of the logs: that of the image first, then those of its parents.
    pub logs: Vec<LogState>,
    /// The files that were checked: that of the image first, then its parents.
    pub files: Vec<Source>,
    /// What the content of a share adds to the check. `None` without [`CheckOptions::share`], or if the image cannot be
    /// opened.
    pub payload: Option<PayloadCheck>,
}

impl CheckReport {
    /// Returns the number of findings of this severity.
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

    /// Returns why blocks are missing in the file of the image, if it was truncated: an error of the kind
    /// [`ErrorKind::Truncated`].
    #[must_use]
    pub fn truncated(&self) -> Option<&Error> {
        truncated(&self.findings)
    }

    /// Returns the highest severity of all findings. Returns `None` if there are no findings.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|(_, severity)| *severity).max()
    }

    /// Returns whether something prevented a complete check.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.is_vhdx || self.image_end.is_none() || self.count(Severity::Unchecked) > 0
    }
}

/// Checks an image and its chain: every rule of the format, and others ([`Rule`]). The check continues after findings.
/// If there is no [`Severity::Corruption`], [`Severity::Unsupported`] or [`Severity::Unchecked`], the disk can be
/// opened and its map can be read from end to end; with [`CheckOptions::payload`], its content was read, too. With the
/// feature `rayon`, the threads of the current pool do it.
///
/// # Errors
/// [`ScanError::Cancelled`], if [`Progress::advance`](crate::Progress::advance) cancelled the check.
/// [`ScanError::Read`] with [`ErrorKind::OtherFiles`], if the files differ from [`OpenOptions::expect`].
pub fn check(source: Source, options: &CheckOptions<'_>) -> Result<CheckReport, ScanError> {
    let mut findings = Findings::default();
    let mut report = CheckReport {
        findings: Vec::new(),
        counts: BTreeMap::new(),
        is_vhdx: true,
        looks_like: None,
        image_end: None,
        blocks: 0,
        allocated_blocks: 0,
        fragmented_blocks: 0,
        leaked_bytes: 0,
        logs: Vec::new(),
        files: vec![source.clone()],
        payload: None,
    };
    let open = options.open.clone().strictness(Strictness::Salvage);
    let mut warnings = Warnings::new(Strictness::Salvage);
    match Image::open_noting(source, open.log_policy, &open.overrides, &mut warnings) {
        Ok(image) => {
            let opened = Chain::of(image, &open);
            opened.check_expected(&open)?;
            chain(&opened, options, &mut findings, &mut report)?;
        }
        Err(error) => {
            let check = warnings.ended_by().unwrap_or(Rule::Medium);
            // Bytes that a medium does not return may be valid.
            let is_breach = |warning: &Warning| warning.detail.category() != Category::Io;
            let breaks = |rule| warnings.as_slice().iter().any(|warning| warning.rule == rule && is_breach(warning));
            // A search has found a part of an image, or there is a region table.
            let has_part = matches!(error.kind(), ErrorKind::RegionSearch { found } if !found.is_empty())
                || !breaks(Rule::RegionTables) && check != Rule::RegionTables;
            let is_other =
                error.looks_like().is_some() || breaks(Rule::Signature) && breaks(Rule::Headers) && !has_part;
            let mut list = warnings.into_list();
            if is_other {
                // Everything else follows from that.
                report.is_vhdx = false;
                list.retain(|warning| warning.detail.looks_like().is_some());
                let signature = list.pop().map_or(error, |warning| warning.detail);
                report.looks_like = signature.looks_like();
                findings.reject(Rule::Signature, signature, None);
            } else {
                list.into_iter().for_each(|warning| findings.push(warning.into()));
                findings.reject(check, error, None);
            }
        }
    }
    (report.findings, report.counts) = findings.into_parts();
    Ok(report)
}

/// Returns the first block of each layer that overlaps another block of the same file, if any. All but one of the
/// blocks with the same space hold the bytes of another block (rule V69 of [`check`]), and are read without an error.
/// In a salvage, the first block that overlaps a region or a log, and is read nevertheless, is also returned. If the
/// BAT of a layer was lost during the search, that is the error of the layer. With the feature `rayon`, the threads of
/// the current pool do it; the cost depends only on the size of the block allocation table (MS-VHDX 2.5).
#[must_use]
pub fn shared_blocks(disk: &Disk) -> Vec<Error> {
    let of_layer = |(number, layer): (usize, &Layer)| {
        let image = layer.image();
        Some(image.first_shared_block()?.in_layer(number, image.path()))
    };
    disk.layers().iter().enumerate().filter_map(of_layer).collect()
}

/// Returns findings about content of a disk that is missing or wrong although no entry of a table says so, layer by
/// layer: a truncated file ([`ErrorKind::Truncated`]), blocks that overlap (as [`shared_blocks`]), blocks of the disk
/// in entries of sector bitmaps ([`ErrorKind::StrayBlock`]), lost entries of the BAT ([`ErrorKind::LostBlocks`]), and
/// blocks past the end of the file that are zeros after a replay (the rule V24), which may never have been written. For
/// programs that read the content: such a disk reads without an error, or up to one. With the feature `rayon`, the
/// threads of the current pool do it. The cost depends on the size of the BAT, except for its holes; besides, at most
/// 20 MiB of each file are read, so an image whose unused space is longer is judged by samples. [`check`] looks at
/// everything. Later calls return what the first one has found.
#[must_use]
pub fn content_warnings(disk: &Disk) -> Vec<Finding> {
    disk.layers().iter().enumerate().flat_map(|(number, layer)| layer_warnings(layer, number)).collect()
}

/// Returns the findings of [`content_warnings`] in one layer, which has this number.
#[must_use]
pub fn layer_warnings(layer: &Layer, number: usize) -> Vec<Finding> {
    let image = layer.image();
    let findings = image.survey();
    findings.map(|finding| Finding { detail: finding.detail.in_layer(number, image.path()), ..finding }).collect()
}

/// Returns the error of the kind [`ErrorKind::Truncated`] among findings of the image itself.
pub(crate) fn truncated(findings: &[Finding]) -> Option<&Error> {
    let mut details = findings.iter().map(|finding| &finding.detail);
    details.find(|detail| detail.layer() == 0 && matches!(detail.kind(), ErrorKind::Truncated { .. }))
}

/// Checks all layers, and the links between them.
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
        report.leaked_bytes = report.leaked_bytes.saturating_add(unreferenced);
        report.logs.push(image.log_state().clone());
        found.name_habits(image);
        findings.append_layer(found, number, image.path());
        if number > 0 {
            report.files.push(image.source().clone());
        }
    }
    link(chain, findings);
    if options.payload {
        let disk = Disk::so_far(chain);
        let share = match options.share.map(|portion| portion.share(&disk)).transpose() {
            Ok(share) => share,
            Err(error) => {
                findings.reject(Rule::Medium, error, None);
                return Ok(());
            }
        };
        let before = findings.counts();
        let first = findings.len();
        let range = share.as_ref().map_or(0..disk.size(), Share::range);
        let zero_blocks = payload::read(&disk, range, &options.scan, findings)?;
        report.payload = share.map(|share| PayloadCheck {
            share,
            disk_size: disk.size(),
            state: state_of(&chain.fingerprint()),
            first_finding: first,
            counts: findings.counts_since(&before),
            zero_blocks,
            block_size: disk.image().block_size(),
        });
    }
    Ok(())
}

/// Reports why the chain ends before its base, if it does.
fn link(chain: &Chain, findings: &mut Findings) {
    let Some((number, last)) = chain.layers().iter().enumerate().next_back() else { return };
    let mut found = Findings::default();
    if let Some(error) = chain.broken() {
        let rule = chain.broken_rule().unwrap_or_else(|| rule_of_link(error));
        findings.reject(rule, error.clone(), None);
        chain.unusable().iter().for_each(|warning| found.push(warning.clone().into()));
        findings.append_layer(found, number.saturating_add(1), error.file());
    } else if chain.needs_parent() {
        // The parent locator has not been read, since no search was allowed.
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

/// Returns the rule that is broken if a parent was not found, or was rejected.
fn rule_of_link(error: &Error) -> Rule {
    match error.kind() {
        ErrorKind::ParentMismatch { .. } => Rule::ParentIdentity,
        ErrorKind::ChainCycle | ErrorKind::ChainTooLong { .. } => Rule::Chain,
        ErrorKind::SectorSizeMismatch { .. } => Rule::ParentSectorSize,
        _ => Rule::ParentMissing,
    }
}
