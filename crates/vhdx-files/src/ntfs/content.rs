//! Contents of files: in place, compressed, or changed by the journal.

use std::sync::{Arc, Mutex, PoisonError};

use vhdx_mmap::ops::Volume as Kind;

use super::facts::Facts;
use super::raw::{damaged, to_u64, to_usize, unsupported};
use super::runs::{Clusters, decompress, stored_in, units_with_data};
use super::view::View;
use super::{Ntfs, guarded};
use crate::content::Content;
use crate::error::Result;

/// Attributes of a file whose content is not here, or not all of it: offline, recalled when opened, recalled when read.
const NOT_HERE: u32 = 0x1000 | 0x4_0000 | 0x40_0000;

impl Ntfs {
    /// Refuses files whose content is not where content is.
    pub(super) fn refuse_elsewhere(facts: &Facts, content: &Clusters) -> Result<()> {
        let Some(reparse) = &facts.reparse else { return Ok(()) };
        if let Some(refusal) = reparse.refusal() {
            return Err(unsupported(refusal));
        }
        if !reparse.is_of_cloud() {
            return Err(unsupported(format!("a file with a reparse point with the tag {:#010x}", reparse.tag())));
        }
        let is_here = content.runs.iter().all(|run| run.at.is_some()) && content.initialised == content.size;
        if facts.attributes & NOT_HERE != 0 || !is_here {
            return Err(unsupported("a file whose content is in a cloud"));
        }
        Ok(())
    }

    /// Opens the content of an attribute.
    pub(super) fn content(&self, clusters: Clusters) -> Result<Content<'_>> {
        let device = &self.view.device;
        clusters.require_whole(self.view.cluster())?;
        if clusters.is_encrypted() {
            return Err(unsupported("a file that is encrypted (EFS)"));
        }
        if let Some(unit) = clusters.compression_unit(self.view.cluster())? {
            let (size, units) = (clusters.size, units_with_data(&clusters, unit));
            let compressed = Compressed { view: &self.view, clusters, unit, last: Mutex::default() };
            let read = move |at: u64, buffer: &mut [u8]| compressed.read(at, buffer);
            return Content::of_changed_runs(Kind::Ntfs, size, u64::MAX, units, Box::new(read));
        }
        if !clusters.data().any(|run| self.view.is_changed(run.at.unwrap_or(0), run.length)) {
            return Content::of_runs(Kind::Ntfs, clusters.size, device, clusters.data());
        }
        let read = move |at: u64, buffer: &mut [u8]| {
            let read = device.range().read_at(buffer, at)?;
            if read != buffer.len() {
                return Err(damaged("content lies outside of the volume"));
            }
            self.view.change(at, buffer);
            Ok(())
        };
        let volume = device.range().size();
        Content::of_changed_runs(Kind::Ntfs, clusters.size, volume, clusters.data(), Box::new(read))
    }
}

/// Content that is compressed, in units.
struct Compressed<'v> {
    view: &'v View,
    clusters: Clusters,
    /// Size of a unit, in bytes.
    unit: u64,
    /// The last unit that was read: pieces of one are asked for one after the other.
    last: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Compressed<'_> {
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut at, mut buffer) = (at, buffer);
        while !buffer.is_empty() {
            let skipped = at.checked_rem(self.unit).unwrap_or(0);
            let unit = self.unit_at(at.saturating_sub(skipped))?;
            let from = unit.get(to_usize(skipped)..).unwrap_or_default();
            let length = from.len().min(buffer.len());
            let (piece, behind) = buffer.split_at_mut(length);
            piece.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            at = at.saturating_add(to_u64(length));
            buffer = behind;
        }
        Ok(())
    }

    fn unit_at(&self, start: u64) -> Result<Arc<Vec<u8>>> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, unit)) = last().as_ref().filter(|(at, _)| *at == start) {
            return Ok(Arc::clone(unit));
        }
        let unit = Arc::new(guarded(|| {
            let stored = stored_in(&self.clusters.runs, start, self.unit)?;
            let mut raw = vec![0; to_usize(stored)];
            self.view.read_runs(&self.clusters.runs, start, &mut raw)?;
            match stored == self.unit {
                true => Ok(raw),
                false => decompress(&raw, to_usize(self.unit)),
            }
        })?);
        *last() = Some((start, Arc::clone(&unit)));
        Ok(unit)
    }
}
