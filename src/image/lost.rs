//! Tolerated losses of a file: one copy of a structure that exists twice.

use crate::error::{ErrorKind, Result, Structure};
use crate::source::{FailedReads, Source};

use super::warning::Warnings;
use crate::error::Rule;

/// Checks that no byte of a file that was used is lost, except the identifier, and copies of headers and region tables
/// with warnings in `noted`: these were ignored, and the other copy was used.
///
/// # Errors
/// [`ErrorKind::Lost`], or the error of reading the file.
pub(crate) fn check(file: &Source, failed: &FailedReads, noted: &Warnings) -> Result<()> {
    let redundant = [Rule::Signature, Rule::HeaderCopies, Rule::RegionTableCopies];
    let lost =
        noted.as_slice().iter().filter(|warning| matches!(warning.detail.kind(), ErrorKind::Lost | ErrorKind::Io(_)));
    let lost = lost.filter(|warning| redundant.contains(&warning.rule)).filter_map(|warning| warning.detail.offset());
    // Each of them has 64 KiB of its own, and a page of the system may be as large.
    let mut excused: Vec<u64> = lost.map(|offset| offset / FailedReads::SLOT).collect();
    excused.sort_unstable();
    if let Some(error) = failed.first_but_for(&excused) {
        return Err(error);
    }
    let mut from = 0;
    for number in excused {
        let start = number.saturating_mul(FailedReads::SLOT);
        file.check(Structure::File, from, start.saturating_sub(from))?;
        from = start.saturating_add(FailedReads::SLOT);
    }
    file.check(Structure::File, from, file.len().saturating_sub(from))?;
    file.check_still_has(file.len())
}
