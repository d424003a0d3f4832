//! What an examination of an image finds: everything, and of each kind no more than anybody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;

use crate::error::{Rule, Severity};
use crate::image::{Warning, severity_of};

/// Something that an examination has found.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: Rule,
    /// How much that matters here.
    pub severity: Severity,
    /// Where, what was found, and what was expected.
    pub detail: Error,
    /// What of the disk it is about, in bytes, where it is about a part of it.
    pub range: Option<Range<u64>>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.rule.code())
    }
}

impl From<Warning> for Finding {
    fn from(warning: Warning) -> Self {
        let Warning { rule, severity, detail } = warning;
        Self { rule, severity, detail, range: None }
    }
}

/// How many findings of one rule are kept. A table may break a rule in each of 64 million entries.
pub(crate) const MOST_OF_A_KIND: u64 = 100;

/// How many findings are kept in all, but for the first of each kind in each layer.
const MOST: usize = 10_000;

/// Findings, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    counts: Counts,
}

/// How many findings there are of each kind. There may be one for each of 64 million entries, and each is counted; of kinds,
/// there are few.
#[derive(Debug, Default)]
struct Counts(Vec<((Rule, Severity), u64)>);

impl Counts {
    /// Counts more of a kind, and returns how many there are of it then.
    fn add(&mut self, kind: (Rule, Severity), more: u64) -> u64 {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == kind) {
            *count = count.saturating_add(more);
            return *count;
        }
        self.0.push((kind, more));
        more
    }
}

impl Findings {
    pub(crate) fn add(&mut self, rule: Rule, detail: Error, range: Option<Range<u64>>) {
        self.add_as(rule, rule.severity(), detail, range);
    }

    /// Something that keeps a part of the image from being read.
    pub(crate) fn reject(&mut self, rule: Rule, detail: Error, range: Option<Range<u64>>) {
        let severity = severity_of(&detail);
        self.add_as(rule, severity, detail, range);
    }

    pub(crate) fn add_as(&mut self, rule: Rule, severity: Severity, detail: Error, range: Option<Range<u64>>) {
        self.push(Finding { rule, severity, detail, range });
    }

    /// The same of what may be found in every entry of a table: `say` is asked only where there is need to tell.
    pub(crate) fn tell(&mut self, rule: Rule, severity: Severity, say: impl FnOnce() -> (Error, Option<Range<u64>>)) {
        if self.counts.add((rule, severity), 1) <= MOST_OF_A_KIND {
            let (detail, range) = say();
            self.list.push(Finding { rule, severity, detail, range });
        }
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        let Finding { rule, severity, detail, range } = finding;
        self.tell(rule, severity, || (detail, range));
    }

    /// Counts more of a kind without telling of them.
    pub(crate) fn count_more(&mut self, rule: Rule, severity: Severity, more: u64) {
        if more > 0 {
            self.counts.add((rule, severity), more);
        }
    }

    /// These, and others behind them.
    pub(crate) fn append(&mut self, other: Self) {
        let mut told = Counts::default();
        for finding in other.list {
            told.add((finding.rule, finding.severity), 1);
            self.push(finding);
        }
        for ((rule, severity), count) in other.counts.0 {
            self.count_more(rule, severity, count.saturating_sub(told.add((rule, severity), 0)));
        }
    }

    /// These, and behind them what was found in a layer of a chain: as much as was kept of that, or one of each kind where
    /// there are many already.
    pub(crate) fn append_layer(&mut self, found: Self, layer: usize, file: Option<&Path>) {
        let mut kinds = BTreeSet::new();
        for Finding { rule, severity, detail, range } in found.list {
            if self.list.len() < MOST || kinds.insert((rule, severity)) {
                self.list.push(Finding { rule, severity, detail: detail.in_layer(layer, file), range });
            }
        }
        for ((rule, severity), count) in found.counts.0 {
            self.count_more(rule, severity, count);
        }
    }

    /// The findings, and how many there are of each kind.
    pub(crate) fn into_parts(self) -> (Vec<Finding>, BTreeMap<(Rule, Severity), u64>) {
        (self.list, self.counts.0.into_iter().collect())
    }
}
