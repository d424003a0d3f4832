//! What an examination of an image finds: everything, and of each kind no more than anybody reads.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;

use super::rule::{Check, Severity};
use super::warning::{Warning, severity_of};

/// Something that an examination has found.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule that is broken.
    pub check: Check,
    /// How much that matters here.
    pub severity: Severity,
    /// Where, what was found, and what was expected.
    pub detail: Error,
    /// What of the disk it is about, in bytes, where it is about a part of it.
    pub range: Option<Range<u64>>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.check.code())
    }
}

impl From<Warning> for Finding {
    fn from(warning: Warning) -> Self {
        let Warning { check, severity, detail } = warning;
        Self { check, severity, detail, range: None }
    }
}

/// How many findings of one rule are kept. A table may break a rule in each of 64 million entries.
const MOST_OF_A_KIND: u64 = 100;

/// Findings, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<(Check, Severity), u64>,
}

impl Findings {
    pub(crate) fn add(&mut self, check: Check, detail: Error, range: Option<Range<u64>>) {
        self.add_as(check, check.severity(), detail, range);
    }

    /// Something that keeps a part of the image from being read.
    pub(crate) fn refuse(&mut self, check: Check, detail: Error, range: Option<Range<u64>>) {
        let severity = severity_of(&detail);
        self.add_as(check, severity, detail, range);
    }

    pub(crate) fn add_as(&mut self, check: Check, severity: Severity, detail: Error, range: Option<Range<u64>>) {
        self.push(Finding { check, severity, detail, range });
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        let count = self.counts.entry((finding.check, finding.severity)).or_default();
        *count = count.saturating_add(1);
        if *count <= MOST_OF_A_KIND {
            self.list.push(finding);
        }
    }

    /// Counts more of a kind without telling of them.
    pub(crate) fn count_more(&mut self, check: Check, severity: Severity, more: u64) {
        if more > 0 {
            let count = self.counts.entry((check, severity)).or_default();
            *count = count.saturating_add(more);
        }
    }

    /// These, and others behind them.
    pub(crate) fn append(&mut self, other: Self) {
        let mut untold = other.counts;
        for finding in other.list {
            if let Some(count) = untold.get_mut(&(finding.check, finding.severity)) {
                *count = count.saturating_sub(1);
            }
            self.push(finding);
        }
        for ((check, severity), count) in untold {
            self.count_more(check, severity, count);
        }
    }

    /// The same, each said of a layer of a chain.
    pub(crate) fn in_layer(mut self, layer: usize, file: Option<&Path>) -> Self {
        self.list = self
            .list
            .into_iter()
            .map(|finding| Finding { detail: finding.detail.in_layer(layer, file), ..finding })
            .collect();
        self
    }

    /// The same without those of a severity.
    pub(crate) fn without(mut self, severity: Severity) -> Self {
        self.list.retain(|finding| finding.severity != severity);
        self.counts.retain(|(_, of), _| *of != severity);
        self
    }

    /// The findings, and how many there are of each kind.
    pub(crate) fn into_parts(self) -> (Vec<Finding>, BTreeMap<(Check, Severity), u64>) {
        (self.list, self.counts)
    }
}
