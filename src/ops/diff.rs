//! Changes between a disk and an ancestor in its chain: the content of an incremental backup.

use std::ops::{ControlFlow, Range};

use crate::disk::{Disk, Extents};
use crate::error::{Error, ErrorKind, Structure};
use crate::image::ImageKind;
use crate::scan::{Input, ScanError, ScanOptions};

use super::compare::compare;

/// Range of a disk that differs from the ancestor.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The range, in bytes of the disk.
    pub range: Range<u64>,
    /// Whether the range is zero in the disk, without being in a file.
    pub is_zero: bool,
}

/// Calls `on_change` for the ranges that the layers above `ancestor` define, in order, until it breaks. Only BATs and
/// sector bitmaps are read, not the content. `ancestor` is the number of a layer, at least 1; the parent of the last
/// layer counts, even if it is missing: what the layers above it hold is known without it.
///
/// # Errors
/// [`ScanError::Read`] if the layer does not exist, or if the map of the disk cannot be read.
pub fn allocated_changes(
    disk: &Disk,
    ancestor: usize,
    on_change: impl FnMut(Change) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    allocated_changes_in(disk, ancestor, 0..disk.size(), on_change)
}

/// Calls `on_change` like [`allocated_changes`], for the changes in a range of the disk, in bytes. The changes of
/// adjacent ranges, one after the other, are those of both; a change that reaches from one into the next is cut.
///
/// # Errors
/// Those of [`allocated_changes`].
pub fn allocated_changes_in(
    disk: &Disk,
    ancestor: usize,
    range: Range<u64>,
    mut on_change: impl FnMut(Change) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let is_child = disk.layers().last().is_some_and(|last| last.image().kind() == ImageKind::Differencing);
    if ancestor != disk.layers().len() || !is_child {
        layer_of(disk, ancestor)?;
    }
    let mut pending = Pending::default();
    // Only the layers above the ancestor are looked at: nothing depends on what is below them.
    let start = range.start;
    for extent in Extents::above(disk, range, ancestor) {
        let extent = extent?;
        if extent.layer < ancestor {
            let range = extent.start..extent.start.saturating_add(extent.len);
            if pending.add(Change { range, is_zero: !extent.is_data() }, &mut on_change).is_break() {
                return Ok(disk.check_tables(start..extent.end())?);
            }
        }
    }
    let _ = pending.end(&mut on_change);
    Ok(())
}

/// Calls `on_change` for the ranges in which the content of the disk differs from its ancestor, in order and in steps
/// of [`COMPARE_STEP`](super::COMPARE_STEP), until it breaks. Ranges with the same bytes of the same file are not read.
/// With the feature `rayon`, the threads of the current pool do it.
///
/// # Errors
/// See [`ScanError`]; [`ScanError::Read`] also if the layer does not exist.
pub fn content_changes(
    disk: &Disk,
    ancestor: usize,
    options: &ScanOptions<'_>,
    on_change: impl FnMut(Change) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    content_changes_in(disk, ancestor, 0..disk.size(), options, on_change)
}

/// Calls `on_change` like [`content_changes`], for the changes in a range of the disk, in bytes. If ranges begin at
/// multiples of [`COMPARE_STEP`](super::COMPARE_STEP), the changes of adjacent ones, one after the other, are those of
/// both; a change that reaches from one into the next is cut.
///
/// # Errors
/// Those of [`content_changes`].
pub fn content_changes_in(
    disk: &Disk,
    ancestor: usize,
    range: Range<u64>,
    options: &ScanOptions<'_>,
    mut on_change: impl FnMut(Change) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    let ancestor = layer_of(disk, ancestor)?;
    let (mut pending, mut has_enough, mut failed) = (Pending::default(), false, None);
    // The part of a larger ancestor past the end of the disk does not count.
    let range = range.start.min(disk.size())..range.end.min(disk.size());
    let before = Input::disk(&ancestor).range(range.clone());
    compare(Input::disk(disk).range(range.clone()), before, options, |difference| {
        let of_disk = |place: u64| range.start.saturating_add(place);
        for extent in disk.extents(of_disk(difference.range.start)..of_disk(difference.range.end)) {
            let change = extent.map(|extent| {
                let range = extent.start..extent.start.saturating_add(extent.len);
                Change { range, is_zero: !extent.is_data() }
            });
            match change {
                Ok(change) => {
                    if pending.add(change, &mut on_change).is_break() {
                        has_enough = true;
                        return ControlFlow::Break(());
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => {
            if !has_enough {
                let _ = pending.end(&mut on_change);
            }
            Ok(())
        }
    }
}

/// Returns the disk of a layer below the first one.
fn layer_of(disk: &Disk, ancestor: usize) -> Result<Disk, Error> {
    let below = disk.ancestor(ancestor).filter(|_| ancestor > 0);
    below.ok_or_else(|| Error::of(Structure::Parent, ErrorKind::NoSuchLayer { layer: ancestor }))
}

/// A change that may become longer.
#[derive(Default)]
struct Pending(Option<Change>);

impl Pending {
    fn add(&mut self, next: Change, report: impl FnMut(Change) -> ControlFlow<()>) -> ControlFlow<()> {
        match &mut self.0 {
            Some(before) if before.range.end == next.range.start && before.is_zero == next.is_zero => {
                before.range.end = next.range.end;
                ControlFlow::Continue(())
            }
            _ => self.0.replace(next).map_or(ControlFlow::Continue(()), report),
        }
    }

    fn end(&mut self, report: impl FnMut(Change) -> ControlFlow<()>) -> ControlFlow<()> {
        self.0.take().map_or(ControlFlow::Continue(()), report)
    }
}
