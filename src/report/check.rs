//! The findings in an image: `vhdx check`.

use std::borrow::Cow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::check::Finding;
use crate::error::{Rule, Severity};
use crate::ops::{CheckReport, PayloadCheck};
use crate::source::Source;

use super::{LogUse, LooksLike, NameBytes, Report, Schema, Share, Span, Truncated, entries_replayed, text_of};

/// The findings in an image, or why there are none.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CheckResult {
    /// The image was checked.
    Checked(Box<Check>),
    /// The image could not be opened at all.
    Failed(CheckFailure),
}

/// The findings in an image: the keys of `qemu-img check` first.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// `vhdx`; none if the file is not a VHDX image.
    pub format: Option<Cow<'static, str>>,
    /// Number of things that could not be checked or are not supported.
    pub check_errors: u64,
    /// Number of corruptions; in a strict check, warnings count as corruptions.
    pub corruptions: u64,
    /// Number of leaks.
    pub leaks: u64,
    /// File offset at which the last structure ends, in bytes; none if the image can't be opened.
    pub image_end_offset: Option<u64>,
    /// Number of payload blocks.
    pub total_clusters: u64,
    /// Number of blocks that are present in the image.
    pub allocated_clusters: u64,
    /// Number of blocks that do not follow the block before them in the file.
    pub fragmented_clusters: u64,
    /// Number of warnings.
    pub warnings: u64,
    /// Number of notes.
    pub notes: u64,
    /// Space that nothing refers to, in bytes.
    pub leaked_bytes: u64,
    /// What was done with the log; none if the image can't be opened.
    pub log: Option<LogUse>,
    /// Number of entries of the log that were replayed in memory.
    pub log_entries_replayed: u64,
    /// What a truncated file has lost; none if it has all of its blocks.
    pub truncated: Option<Truncated>,
    /// Whether another program has a file of the chain open for writing; none if unknown.
    #[serde(default)]
    pub in_use: Option<bool>,
    /// What the file is, if it is not a VHDX image; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_like: Option<LooksLike>,
    /// Name of this format.
    pub schema: Schema<Self>,
    /// Number of findings of each kind.
    pub counts: Vec<CheckCount>,
    /// The findings, at most 100 of each kind in each layer.
    pub findings: Vec<CheckFinding>,
    /// What the content of a share of the disk adds; absent if the whole disk was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<CheckShare>,
}

/// What the content of a share of a disk adds to a check.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckShare {
    /// The share.
    #[serde(flatten)]
    pub share: Share,
    /// Number of findings before those about the content.
    pub first_finding: usize,
    /// Number of findings of each kind about the content.
    pub counts: Vec<CheckCount>,
    /// Number of allocated blocks in the share that hold only zeros.
    pub zero_blocks: u64,
    /// Block size, in bytes.
    pub block_size: u64,
    /// Whether warnings count as corruptions.
    pub strict: bool,
}

impl Report for Check {
    const SCHEMA: &'static str = "vhdx-mmap/check/1";
}

/// An image that could not be opened at all.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckFailure {
    /// Path of the image.
    pub filename: String,
    /// Bytes of the path, if it is not Unicode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename_bytes: Option<NameBytes>,
    /// None.
    pub format: Option<Cow<'static, str>>,
    /// 1.
    pub check_errors: u64,
    /// Why the image could not be opened.
    pub error: String,
    /// Name of this format.
    pub schema: Schema<Check>,
}

/// Number of findings of one kind.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckCount {
    /// Code of the rule.
    pub code: Rule,
    /// How much the findings matter.
    pub severity: Severity,
    /// Number of findings.
    pub count: u64,
}

/// A finding.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckFinding {
    /// Code of the rule.
    pub code: Rule,
    /// How much the finding matters.
    pub severity: Severity,
    /// The structure that breaks the rule.
    pub structure: String,
    /// Layer of the chain: 0 is the image that was opened, 1 its parent.
    pub layer: usize,
    /// File offset, in bytes; none if the finding concerns the structure as a whole.
    pub offset: Option<u64>,
    /// The bytes of the disk that the finding concerns.
    pub range: Option<Span>,
    /// What was found, and what was expected.
    pub message: String,
    /// The program that is known to write images like this, if it made the image: then the finding is harmless.
    pub habit_of: Option<Cow<'static, str>>,
}

impl Check {
    /// Describes what a check has found. In a strict check, warnings count as corruptions.
    #[must_use]
    pub fn of(report: &CheckReport, is_strict: bool) -> Self {
        let count = |severity| report.count(severity);
        let unchecked = count(Severity::Unchecked).saturating_add(count(Severity::Unsupported));
        let counts = report.counts.iter();
        Self {
            filename: text_of(report.files.first().and_then(|file| file.path())),
            filename_bytes: report.files.first().and_then(|file| file.path()).and_then(NameBytes::of),
            format: report.is_vhdx.then_some("vhdx".into()),
            check_errors: unchecked.max(u64::from(!report.is_vhdx)),
            corruptions: report.corruptions(is_strict),
            leaks: count(Severity::Leak),
            image_end_offset: report.image_end,
            total_clusters: report.blocks,
            allocated_clusters: report.allocated_blocks,
            fragmented_clusters: report.fragmented_blocks,
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            leaked_bytes: report.leaked_bytes,
            log: report.logs.first().map(LogUse::from),
            log_entries_replayed: report.logs.first().map_or(0, entries_replayed),
            truncated: report.truncated().and_then(Truncated::of),
            in_use: Source::any_in_use(&report.files),
            looks_like: report.looks_like.map(LooksLike::of),
            schema: Schema::default(),
            counts: counts.map(|((code, severity), count)| CheckCount::of(*code, *severity, *count)).collect(),
            findings: report.findings.iter().map(CheckFinding::of).collect(),
            share: report.payload.as_ref().map(|payload| CheckShare::of(payload, is_strict)),
        }
    }
}

impl CheckShare {
    fn of(payload: &PayloadCheck, strict: bool) -> Self {
        let counts = payload.counts.iter();
        Self {
            share: Share::new(&payload.share, payload.disk_size, payload.state.clone()),
            first_finding: payload.first_finding,
            counts: counts.map(|((code, severity), count)| CheckCount::of(*code, *severity, *count)).collect(),
            zero_blocks: payload.zero_blocks,
            block_size: payload.block_size,
            strict,
        }
    }
}

impl CheckFailure {
    /// Describes an image that could not be opened.
    #[must_use]
    pub fn of(image: &Path, error: &str) -> Self {
        Self {
            filename: text_of(Some(image)),
            filename_bytes: NameBytes::of(image),
            format: None,
            check_errors: 1,
            error: error.to_owned(),
            schema: Schema::default(),
        }
    }
}

impl CheckCount {
    fn of(code: Rule, severity: Severity, count: u64) -> Self {
        Self { code, severity, count }
    }
}

impl CheckFinding {
    /// Describes a finding.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        Self {
            code: finding.rule,
            severity: finding.severity,
            structure: finding.detail.structure().to_string(),
            layer: finding.detail.layer(),
            offset: finding.detail.offset(),
            range: finding.range.clone().map(Span::from),
            message: format!("{:#}", finding.detail),
            habit_of: finding.habit_of.map(Cow::Borrowed),
        }
    }
}
