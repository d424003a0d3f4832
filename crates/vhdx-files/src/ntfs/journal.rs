//! The journal, `$LogFile`: whether it holds changes that are not in the volume, and what they are.

use fs_ntfs::error::Error as PartError;
use fs_ntfs::logfile::{LogfileState, state_of_nonempty};
use fs_ntfs::logfile_replay::{Plan, plan};

use super::bounds::is_bounded;
use super::raw::{Fields, damaged, stride_of, to_u64, to_usize, unsupported};
use super::record::DATA;
use super::runs::{Clusters, clusters_of};
use super::view::View;
use crate::error::Result;
use crate::volume::Node;

/// Number of the record of `$LogFile`.
const LOG: u64 = 2;

/// Largest journal that is replayed, in bytes; the largest that Windows makes of its own accord.
const LARGEST_LOG: u64 = 64 << 20;

/// Most bytes that a replay may change.
const MOST_CHANGED: u64 = 64 << 20;

/// Byte of a journal that was emptied.
const EMPTY: u8 = 0xff;

/// Returns the volume as the journal leaves it; none if the journal has no change that the volume lacks.
pub(super) fn replayed(view: &View) -> Result<Option<View>> {
    pending(view)?.map(|log| replay(view, &log)).transpose()
}

/// Returns whether the journal has changes that the volume may lack.
pub(super) fn is_pending(view: &View) -> Result<bool> {
    Ok(pending(view)?.is_some())
}

/// Returns the journal, if it has changes that the volume may lack.
fn pending(view: &View) -> Result<Option<Clusters>> {
    let log = log_of(view)?;
    if is_empty(view, &log)? {
        return Ok(None);
    }
    let mut read = |offset: u64, length: usize| {
        let end = offset.checked_add(to_u64(length))?;
        let mut bytes = vec![0; if end <= log.initialised { length } else { return None }];
        view.read_runs(&log.runs, offset, &mut bytes).ok()?;
        Some(bytes)
    };
    match state_of_nonempty(&mut read) {
        LogfileState::Empty | LogfileState::Clean(_) => Ok(None),
        LogfileState::Pending(_) => Ok(Some(log)),
    }
}

fn log_of(view: &View) -> Result<Clusters> {
    let file = view.file(Node(LOG), |kind, _| kind == DATA)?;
    let pieces = file.pieces(DATA, &[])?;
    let log = clusters_of(&pieces.iter().collect::<Vec<_>>(), view.cluster())?;
    log.require_whole(view.cluster())?;
    log.require_plain()?;
    Ok(log)
}

/// Returns whether the journal was emptied, as every tool does that writes none.
fn is_empty(view: &View, log: &Clusters) -> Result<bool> {
    let mut piece = vec![0; 4096];
    let mut offset = 0_u64;
    let end = log.initialised.min(LARGEST_LOG);
    while offset < end {
        let rest = to_usize(end.saturating_sub(offset));
        let piece_length = piece.len().min(rest);
        let part = piece.get_mut(..piece_length).unwrap_or_default();
        view.read_runs(&log.runs, offset, part)?;
        if part.iter().any(|byte| *byte != EMPTY) {
            return Ok(false);
        }
        offset = offset.saturating_add(to_u64(piece_length));
        // A journal in use is recognised by its first page; one that was emptied is long.
        piece.resize(1 << 20, 0);
    }
    Ok(true)
}

fn replay(view: &View, log: &Clusters) -> Result<View> {
    if log.initialised > LARGEST_LOG {
        return Err(unsupported(format!("a journal of {} bytes with changes", log.initialised)));
    }
    let mut bytes = vec![0; to_usize(log.initialised)];
    view.read_runs(&log.runs, 0, &mut bytes)?;
    if !is_bounded(&bytes) {
        return Err(damaged("the journal has records that none has: it was made to delay"));
    }
    let mut boot = view.boot;
    boot.bytes_per_sector = stride(view)?;
    let mut left = MOST_CHANGED;
    let mut read = |at: u64, buffer: &mut [u8]| {
        // What is read is kept.
        left = left.checked_sub(to_u64(buffer.len())).ok_or_else(|| PartError::io("it changes too much"))?;
        view.fill(at, buffer).map_err(|error| PartError::io(error.to_string()))
    };
    let plan = plan(&bytes, &boot, &mut read).map_err(|error| {
        // The part's texts end with the number of its own issue.
        let reason = error.to_string().replace(" (rust-fs-ntfs#137)", "");
        unsupported(format!("the journal holds changes that the volume lacks: {reason}"))
    })?;
    drop(bytes);
    check(view, log, &plan)?;
    let replayed = view.changed(plan.writes)?;
    for (record, at) in &plan.mft_records {
        if replayed.place_of(*record) != Some(*at) {
            return Err(damaged(format!("the journal is of another volume: it has file record {record} elsewhere")));
        }
    }
    Ok(replayed)
}

/// Returns how far apart the places are that update sequences protect.
fn stride(view: &View) -> Result<u16> {
    let mut header = [0; 8];
    view.fill(view.place_of(0).unwrap_or(u64::MAX), &mut header)?;
    let record_size = to_usize(view.boot.file_record_size);
    let stride = stride_of(record_size, usize::from(header.as_slice().u16(6)?), view.sector())?;
    u16::try_from(stride).map_err(damaged)
}

/// Refuses changes outside of the volume, and changes of the journal itself.
fn check(view: &View, log: &Clusters, plan: &Plan) -> Result<()> {
    let volume = view.device.range().size();
    for (at, bytes) in &plan.writes {
        let length = to_u64(bytes.len());
        let end = at.saturating_add(length);
        let is_in_log = log
            .runs
            .iter()
            .filter_map(|run| Some((run.at?, run.length)))
            .any(|(start, length)| *at < start.saturating_add(length) && start < end);
        if is_in_log || end > volume {
            return Err(damaged("the journal changes itself, or what is outside of the volume"));
        }
    }
    Ok(())
}
