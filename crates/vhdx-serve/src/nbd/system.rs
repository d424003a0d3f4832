//! What is asked of the system: nothing of the protocol.

use std::io;
use std::ops::Range;

#[cfg(target_os = "linux")]
use super::MAX_REQUEST;
use crate::Export;

/// Whether the system could not read the memory that it was given: a page of a mapping that its file does not have.
pub(super) fn is_fault(error: &io::Error) -> bool {
    #[cfg(unix)]
    return rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::FAULT);
    #[cfg(not(unix))]
    return false;
}

/// Asks the system to read what lies in a range, as far as a read can be long. It may do less, or nothing.
pub(super) fn ask_for(export: &Export, range: Range<u64>) {
    #[cfg(target_os = "linux")]
    {
        /// The system reads no more than about this many bytes at once.
        const PIECE: u64 = 512 << 10;

        let end = range.end.min(range.start.saturating_add(u64::from(MAX_REQUEST)));
        let disk = export.range().disk();
        for run in export.range().extents(range.start..end).map_while(Result::ok) {
            let (Some(offset), Some(layer)) = (run.file_offset(), disk.layers().get(run.layer)) else { continue };
            let Some(file) = layer.image().source().file() else { continue };
            let mut done = 0;
            while let Some(length) = std::num::NonZeroU64::new(run.len.saturating_sub(done).min(PIECE)) {
                let advice = rustix::fs::Advice::WillNeed;
                // Only a hint.
                let _ = rustix::fs::fadvise(file, offset.saturating_add(done), Some(length), advice);
                done = done.saturating_add(length.get());
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (export, range);
}
