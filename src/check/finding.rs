//! Findings of a check: all are counted, and a limited number of each kind is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use crate::error::Error;

use crate::error::{Rule, Severity};
use crate::image::{Image, Warning, severity_of};

/// Finding of a check: a breach of a rule in an image.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Finding {
    /// The broken rule.
    pub rule: Rule,
    /// Severity of the breach in this image.
    pub severity: Severity,
    /// Location and problem, with the values found and expected.
    pub detail: Error,
    /// The affected range of the disk, in bytes, if it is about a part of the disk.
    pub range: Option<Range<u64>>,
    /// The program that is known to write images like this, if it made the image. Only for a [`Severity::Note`].
    pub habit_of: Option<&'static str>,
}

impl Finding {
    pub(crate) fn new(rule: Rule, severity: Severity, detail: Error, range: Option<Range<u64>>) -> Self {
        Self { rule, severity, detail: detail.breaking(rule), range, habit_of: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#} [{}]", self.detail, self.rule.code())?;
        self.habit_of.map_or(Ok(()), |program| write!(f, ", a habit of {program}"))
    }
}

impl From<Warning> for Finding {
    fn from(warning: Warning) -> Self {
        let Warning { rule, severity, detail } = warning;
        Self::new(rule, severity, detail, None)
    }
}

/// Number of findings of one rule that are kept. A table may break a rule in each of 64 million entries.
pub(crate) const MOST_OF_A_KIND: u64 = 100;

/// Number of findings that are kept in total, except for the first of each kind in each layer.
const MOST: usize = 10_000;

/// Findings, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    counts: Counts,
}

/// Number of findings of each kind. There may be one for each of 64 million entries, and each is counted; there are few
/// kinds.
#[derive(Debug, Default)]
struct Counts(Vec<((Rule, Severity), u64)>);

impl Counts {
    /// Counts more findings of a kind, and returns their new number.
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

    /// Adds a breach that prevents reading a part of the image.
    pub(crate) fn reject(&mut self, rule: Rule, detail: Error, range: Option<Range<u64>>) {
        let severity = severity_of(&detail);
        self.add_as(rule, severity, detail, range);
    }

    pub(crate) fn add_as(&mut self, rule: Rule, severity: Severity, detail: Error, range: Option<Range<u64>>) {
        self.push(Finding::new(rule, severity, detail, range));
    }

    /// Adds a finding that may occur in every entry of a table: `say` is called only if the finding is kept.
    pub(crate) fn report(&mut self, rule: Rule, severity: Severity, say: impl FnOnce() -> (Error, Option<Range<u64>>)) {
        if self.counts.add((rule, severity), 1) <= MOST_OF_A_KIND {
            let (detail, range) = say();
            self.list.push(Finding::new(rule, severity, detail, range));
        }
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        let Finding { rule, severity, detail, range, .. } = finding;
        self.report(rule, severity, || (detail, range));
    }

    /// Counts more findings of a kind without keeping them.
    pub(crate) fn count_more(&mut self, rule: Rule, severity: Severity, more: u64) {
        if more > 0 {
            self.counts.add((rule, severity), more);
        }
    }

    /// Appends other findings.
    pub(crate) fn append(&mut self, other: Self) {
        let mut reported = Counts::default();
        for finding in other.list {
            reported.add((finding.rule, finding.severity), 1);
            self.push(finding);
        }
        for ((rule, severity), count) in other.counts.0 {
            self.count_more(rule, severity, count.saturating_sub(reported.add((rule, severity), 0)));
        }
    }

    /// Adds the programs whose habits the findings in an image are.
    pub(crate) fn name_habits(&mut self, image: &Image) {
        let named = std::mem::take(&mut self.list).into_iter().map(|finding| finding.with_habit(image));
        self.list = named.collect();
    }

    /// Appends the findings of a layer of a chain: all that were kept, or one of each kind if there are many already.
    pub(crate) fn append_layer(&mut self, found: Self, layer: usize, file: Option<&Path>) {
        let mut kinds = BTreeSet::new();
        for finding in found.list {
            if self.list.len() < MOST || kinds.insert((finding.rule, finding.severity)) {
                self.list.push(Finding { detail: finding.detail.in_layer(layer, file), ..finding });
            }
        }
        for ((rule, severity), count) in found.counts.0 {
            self.count_more(rule, severity, count);
        }
    }

    /// Returns the number of findings that are kept.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the number of findings of each kind.
    pub(crate) fn counts(&self) -> BTreeMap<(Rule, Severity), u64> {
        self.counts.0.iter().copied().collect()
    }

    /// Returns the number of findings of each kind that were added since `before`.
    pub(crate) fn counts_since(&self, before: &BTreeMap<(Rule, Severity), u64>) -> BTreeMap<(Rule, Severity), u64> {
        let since = |(kind, count): (_, u64)| (kind, count.saturating_sub(before.get(&kind).copied().unwrap_or(0)));
        self.counts().into_iter().map(since).filter(|(_, count)| *count > 0).collect()
    }

    /// Returns the findings, and their number for each kind.
    pub(crate) fn into_parts(self) -> (Vec<Finding>, BTreeMap<(Rule, Severity), u64>) {
        (self.list, self.counts.0.into_iter().collect())
    }
}
