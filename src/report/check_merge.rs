//! Merging of the checks of shares.

use std::collections::BTreeMap;

use crate::check::MOST_OF_A_KIND;
use crate::error::{Rule, Severity};
use crate::ops::zero_blocks;

use super::diff::merged_in_use;
use super::share::in_order;
use super::{Check, CheckCount, CheckFinding, CheckShare, MergeError};

type Counts = BTreeMap<(Rule, Severity), u64>;

/// Returns counts as a map.
fn map_of(counts: &[CheckCount]) -> Counts {
    counts.iter().map(|count| ((count.code, count.severity), count.count)).collect()
}

impl Check {
    /// Merges the checks of all shares of a disk, in any order, into that of the whole disk. All shares have checked
    /// the structures, with the same result; what they have found in the content is put together. Only lost ranges that
    /// reach from one share into the next are listed as several.
    ///
    /// # Errors
    /// Fails if a share is missing or occurs twice, or if shares overlap, are of different disks or states of their
    /// files, or found different structures.
    pub fn merge(shares: Vec<Self>) -> Result<Self, MergeError> {
        let shares = in_order(shares, |report| report.share.as_ref().map(|share| &share.share))?;
        let mut whole: Option<(Self, Counts, Vec<CheckFinding>)> = None;
        let mut content = Content::default();
        let mut is_strict = false;
        for (number, mut report) in shares {
            let Some(share) = report.share.take() else { continue };
            let mut counts = map_of(&report.counts);
            for ((code, severity), more) in map_of(&share.counts) {
                let of_structures = counts.get(&(code, severity)).and_then(|count| count.checked_sub(more));
                match of_structures {
                    Some(0) => drop(counts.remove(&(code, severity))),
                    Some(left) => drop(counts.insert((code, severity), left)),
                    None => return Err(MergeError::new(number, CONTRADICTION)),
                }
            }
            if share.first_finding > report.findings.len() {
                return Err(MergeError::new(number, CONTRADICTION));
            }
            let of_content = report.findings.split_off(share.first_finding);
            let structures = std::mem::take(&mut report.findings);
            content.add(&share, of_content);
            match &mut whole {
                None => {
                    is_strict = share.strict;
                    whole = Some((report, counts, structures));
                }
                Some((first, first_counts, first_structures)) => {
                    if share.strict != is_strict || counts != *first_counts || !are_same(&structures, first_structures)
                    {
                        let text = "the share has found other problems in the structures than the first one";
                        return Err(MergeError::new(number, text));
                    }
                    first.in_use = merged_in_use(first.in_use, report.in_use);
                }
            }
        }
        let Some((mut merged, counts, structures)) = whole else {
            return Err(MergeError::new(0, "there is nothing to merge"));
        };
        content.complete(&mut merged, counts, structures, is_strict);
        Ok(merged)
    }
}

/// Returns whether these are the same findings. Their messages may name copies of the files, which are elsewhere.
fn are_same(one: &[CheckFinding], other: &[CheckFinding]) -> bool {
    let without_names = |finding: &CheckFinding| {
        let CheckFinding { code, severity, structure, layer, offset, range, .. } = finding.clone();
        (code, severity, structure, layer, offset, range.map(|range| (range.start, range.length)))
    };
    one.iter().map(without_names).eq(other.iter().map(without_names))
}

const CONTRADICTION: &str = "the values in the share contradict each other";

/// What shares have found in the content.
#[derive(Default)]
struct Content {
    counts: Counts,
    /// Failures that ended the work on a share: they come before all others.
    ended: Vec<CheckFinding>,
    findings: Vec<CheckFinding>,
    zero_blocks: u64,
    block_size: u64,
}

impl Content {
    fn add(&mut self, share: &CheckShare, findings: Vec<CheckFinding>) {
        self.block_size = share.block_size;
        self.zero_blocks = self.zero_blocks.saturating_add(share.zero_blocks);
        for (kind, count) in map_of(&share.counts) {
            if kind.0 != Rule::ZeroBlock {
                let sum = self.counts.entry(kind).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        let zeros = findings.iter().position(|finding| finding.code == Rule::ZeroBlock);
        for (place, finding) in findings.into_iter().enumerate() {
            if finding.code == Rule::ZeroBlock {
                continue;
            }
            let list = if zeros.is_some_and(|zeros| place < zeros) { &mut self.ended } else { &mut self.findings };
            // Bytes that belong to no range of the disk are noted by each share.
            if finding.range.is_none() && list.contains(&finding) {
                if let Some(count) = self.counts.get_mut(&(finding.code, finding.severity)) {
                    *count = count.saturating_sub(1);
                }
                continue;
            }
            list.push(finding);
        }
    }

    /// Completes the report of a whole disk.
    fn complete(self, report: &mut Check, mut counts: Counts, mut findings: Vec<CheckFinding>, is_strict: bool) {
        let Self { counts: more, ended, findings: of_content, zero_blocks: zeros, block_size } = self;
        let mut room: BTreeMap<(Rule, Severity), u64> = BTreeMap::new();
        for ((code, severity), count) in &counts {
            room.insert((*code, *severity), MOST_OF_A_KIND.saturating_sub(*count));
        }
        let mut keep = |finding: &CheckFinding| {
            let left = room.entry((finding.code, finding.severity)).or_insert(MOST_OF_A_KIND);
            let is_kept = *left > 0;
            *left = left.saturating_sub(1);
            is_kept
        };
        let about_zeros = (zeros > 0).then(|| CheckFinding::about_content(zeros, block_size));
        let all = ended.into_iter().chain(about_zeros).chain(of_content);
        findings.extend(all.filter(|finding| keep(finding)));
        for (kind, count) in more.into_iter().chain((zeros > 0).then_some((ZERO_BLOCK, 1))) {
            let sum = counts.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        let of = |severity| counts.iter().filter(|((_, found), _)| *found == severity).map(|(_, count)| *count).sum();
        let [corruptions, warnings, notes, leaks, unchecked, unsupported]: [u64; 6] = [
            Severity::Corruption,
            Severity::Warning,
            Severity::Note,
            Severity::Leak,
            Severity::Unchecked,
            Severity::Unsupported,
        ]
        .map(of);
        report.corruptions = corruptions.saturating_add(if is_strict { warnings } else { 0 });
        (report.warnings, report.notes, report.leaks) = (warnings, notes, leaks);
        report.check_errors = unchecked.saturating_add(unsupported).max(u64::from(report.format.is_none()));
        report.counts =
            counts.into_iter().map(|((code, severity), count)| CheckCount { code, severity, count }).collect();
        report.findings = findings;
        report.share = None;
    }
}

/// Kind of the finding that allocated blocks hold only zeros.
const ZERO_BLOCK: (Rule, Severity) = (Rule::ZeroBlock, Severity::Note);

impl CheckFinding {
    /// Describes the finding that allocated blocks hold only zeros.
    fn about_content(count: u64, block_size: u64) -> Self {
        let detail = zero_blocks(count, block_size);
        Self {
            code: ZERO_BLOCK.0,
            severity: ZERO_BLOCK.1,
            structure: detail.structure().to_string(),
            layer: detail.layer(),
            offset: detail.offset(),
            range: None,
            message: format!("{detail:#}"),
            habit_of: None,
        }
    }
}
