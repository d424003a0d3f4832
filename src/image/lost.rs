//! What a file may have lost without harm: a copy of something that there is twice.

use crate::error::{ErrorKind, Result, Structure};
use crate::source::{FailedReads, Source};

use super::warning::Warnings;
use crate::error::Rule;

/// That nothing was lost of a file that was looked at, but for the identifier, and copies of headers and region tables, of which
/// `noted` says so: nothing was made of these, and there was another copy.
///
/// # Errors
/// [`ErrorKind::Lost`], or why the file could not be read.
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
    file.check_length(file.len())
}
