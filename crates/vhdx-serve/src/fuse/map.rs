//! Data and holes of a file.

use std::ops::Range;

use vhdx_mmap::{ErrorKind, Location, Result, Run};

use crate::export::{Export, Part};

type Runs<'e> = Box<dyn Iterator<Item = Result<Run>> + 'e>;

/// Parts of a range of an export that are either data or a hole, as they are found: neighbours may be of one kind. What
/// cannot be read is data. An error is the last item: the tables are lost, and what was found before may be wrong, too.
pub(super) struct Parts<'e> {
    export: &'e Export,
    at: u64,
    end: u64,
    runs: Option<Runs<'e>>,
}

impl<'e> Parts<'e> {
    pub(super) fn new(export: &'e Export, range: Range<u64>) -> Self {
        Self { export, at: range.start, end: range.end, runs: None }
    }
}

impl Iterator for Parts<'_> {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        let (export, start, end) = (self.export, self.at, self.end);
        if start >= end {
            return None;
        }
        let runs = self.runs.get_or_insert_with(|| Box::new(export.range().extents(start..end)));
        let (end, is_hole) = match runs.next()? {
            Ok(run) => (run.end(), run.at == Location::Zero),
            Err(error) if matches!(error.kind(), ErrorKind::Lost) => {
                self.at = end;
                return Some(Err(error));
            }
            // A read of this block fails, later ones may not.
            Err(_) => {
                self.runs = None;
                (export.end_of_block(start, end), false)
            }
        };
        self.at = end;
        Some(Ok(Part { range: start..end, is_hole }))
    }
}

/// Returns the number of bytes that are data.
pub(super) fn allocated(export: &Export) -> Result<u64> {
    Parts::new(export, 0..export.range().size()).try_fold(0_u64, |sum, part| {
        let part = part?;
        let length = part.range.end.saturating_sub(part.range.start);
        Ok(sum.saturating_add(if part.is_hole { 0 } else { length }))
    })
}

/// Returns the offset of the first byte from `offset` on that is in a hole, or in data; `None` if no such byte follows.
pub(super) fn next(export: &Export, offset: u64, is_hole: bool) -> Result<Option<u64>> {
    let size = export.range().size();
    for part in Parts::new(export, offset..size) {
        let part = part?;
        if part.is_hole == is_hole {
            // A walk checks at its end that the tables were read as they are in the files, and this one had no end.
            export.range().check_lost(offset..part.range.end)?;
            return Ok(Some(part.range.start));
        }
    }
    Ok(None)
}
