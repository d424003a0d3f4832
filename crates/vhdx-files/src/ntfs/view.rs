//! The volume below the files: its geometry, its bytes with the changes of the journal, and the file records.

use std::collections::BTreeMap;

use fs_ntfs::block_io::BlockIo;
use fs_ntfs::mft_io::{BootParams, NTFS_OEM_ID, read_boot_params_io};

use super::raw::{damaged, to_u64, to_usize, unsupported};
use super::record::{ATTRIBUTE_LIST, Attribute, Body, DATA, IN_USE, ListEntry, Record, split};
use super::runs::{Clusters, clusters_of};
use crate::content::Run;
use crate::device::Device;
use crate::error::Result;

/// Largest size of a list of attributes, in bytes. Windows makes none of more than 256 KiB.
const LARGEST_LIST: u64 = 1 << 20;

/// Number of the first records that have a copy.
const MIRRORED: u64 = 4;

/// Largest size of a cluster, in bytes.
const LARGEST_CLUSTER: u64 = 2 << 20;

/// The changes of a journal: offsets in the volume, and what is there then.
pub(super) type Changes = BTreeMap<u64, Vec<u8>>;

/// The volume, and where its file records are.
pub(super) struct View {
    pub(super) device: Device,
    pub(super) boot: BootParams,
    /// Where the copy of the first file records begins, in bytes.
    mirror: u64,
    /// What the journal changes: offsets in the volume, and the bytes there.
    changes: Changes,
    /// Length of the longest change, in bytes.
    longest_change: u64,
    /// The content of `$MFT`.
    table: Clusters,
}

/// Device as the reader of boot sectors takes it. It is never written.
struct Readable<'d>(&'d Device);

impl BlockIo for Readable<'_> {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), String> {
        self.0.fill(offset, buffer).map_err(|error| error.to_string())
    }

    fn write_all_at(&mut self, _: u64, _: &[u8]) -> std::result::Result<(), String> {
        Err("the disk is read only".to_owned())
    }

    fn size(&self) -> u64 {
        self.0.range().size()
    }
}

impl View {
    /// Reads the boot sector, and finds the file records.
    pub(super) fn open(device: Device) -> Result<Self> {
        let boot = read_boot_params_io(&mut Readable(&device)).map_err(damaged)?;
        if boot.oem_id != *NTFS_OEM_ID {
            return Err(damaged("the boot sector is not one of NTFS"));
        }
        if !(512..=4096).contains(&boot.bytes_per_sector) {
            return Err(unsupported(format!("sectors of {} bytes", boot.bytes_per_sector)));
        }
        if boot.cluster_size > LARGEST_CLUSTER {
            return Err(unsupported(format!("clusters of {} bytes", boot.cluster_size)));
        }
        let mut field = [0; 8];
        device.fill(0x38, &mut field).map_err(damaged)?;
        let mirror = u64::from_le_bytes(field).saturating_mul(boot.cluster_size);
        let view =
            Self { device, boot, mirror, changes: Changes::new(), longest_change: 0, table: Clusters::default() };
        view.with_table()
    }

    /// Returns the volume as the changes of the journal leave it.
    pub(super) fn changed(&self, changes: Changes) -> Result<Self> {
        let longest_change = changes.values().map(|bytes| to_u64(bytes.len())).max().unwrap_or(0);
        let device = self.device.clone();
        let view =
            Self { device, boot: self.boot, mirror: self.mirror, changes, longest_change, table: Clusters::default() };
        view.with_table()
    }

    /// Size of a cluster, in bytes.
    pub(super) fn cluster(&self) -> u64 {
        self.boot.cluster_size
    }

    /// Size of a sector, in bytes.
    pub(super) fn sector(&self) -> usize {
        usize::from(self.boot.bytes_per_sector)
    }

    /// Size of a file record, in bytes.
    fn record_size(&self) -> usize {
        to_usize(self.boot.file_record_size)
    }

    /// Finds the content of `$MFT`, whose own record is the first one, at the place that the boot sector names. Records
    /// that hold further pieces of its list of runs are in the pieces before them.
    fn with_table(mut self) -> Result<Self> {
        let start = self.boot.mft_lcn.saturating_mul(self.boot.cluster_size);
        let size = self.boot.file_record_size;
        // Where record 0 is: enough to read it before anything else is known.
        self.table = Clusters {
            size,
            initialised: size,
            runs: vec![Run { start: 0, length: size, at: Some(start) }],
            ..Clusters::default()
        };
        let record = self.record(0)?;
        let attributes = record.attributes()?;
        let own = |attributes: &[Attribute<'_>]| -> Vec<u64> {
            let data = attributes.iter().filter(|attribute| attribute.kind == DATA && attribute.name.is_empty());
            data.map(Attribute::first).collect()
        };
        if own(&attributes) != [0] {
            return Err(damaged("the record of $MFT has not the beginning of its content"));
        }
        let first: Vec<&Attribute<'_>> =
            attributes.iter().filter(|attribute| attribute.kind == DATA && attribute.name.is_empty()).collect();
        let mut table = clusters_of(&first, self.cluster())?;
        let list = self.list_of(&attributes)?;
        let mut further: Vec<_> =
            list.iter().filter(|entry| entry.kind == DATA && entry.name.is_empty() && entry.first != 0).collect();
        further.sort_by_key(|entry| entry.first);
        for entry in further {
            self.table = table;
            let holder = self.extension(entry, 0, None)?;
            let attributes = holder.attributes()?;
            let piece = entry.find(&attributes)?;
            table = std::mem::take(&mut self.table);
            table.append(piece, self.cluster())?;
        }
        table.require_whole(self.cluster())?;
        self.table = table;
        Ok(self)
    }

    /// Reads a file record. It may be one that is not in use.
    pub(super) fn record(&self, number: u64) -> Result<Record> {
        let size = self.boot.file_record_size;
        let at = number.checked_mul(size).filter(|at| at.saturating_add(size) <= self.table.initialised);
        let Some(at) = at else {
            return Err(damaged(format!("file record {number} lies outside of $MFT")));
        };
        let mut bytes = vec![0; self.record_size()];
        let read = self.read_runs(&self.table.runs, at, &mut bytes);
        match read.and_then(|()| Record::parse(number, bytes, self.sector())) {
            Err(_) if number < MIRRORED => {
                let mut bytes = vec![0; self.record_size()];
                self.fill(self.mirror.saturating_add(number.saturating_mul(size)), &mut bytes)?;
                Record::parse(number, bytes, self.sector())
            }
            parsed => parsed,
        }
    }

    /// Reads the list of attributes, if there is one among the attributes of the first record of a file.
    pub(super) fn list_of(&self, attributes: &[Attribute<'_>]) -> Result<Vec<ListEntry>> {
        let Some(list) = attributes.iter().find(|attribute| attribute.kind == ATTRIBUTE_LIST) else {
            return Ok(Vec::new());
        };
        ListEntry::parse_all(&self.value(&[list], LARGEST_LIST)?)
    }

    /// Reads a record that a list of attributes refers to. It has to belong to the file whose first record has the
    /// number `base`.
    pub(super) fn extension(&self, entry: &ListEntry, base: u64, sequence: Option<u16>) -> Result<Record> {
        let (number, wanted) = split(entry.reference);
        let record = self.record(number)?;
        let (owner, owner_sequence) = split(record.base);
        let is_stale = record.flags & IN_USE == 0 || record.sequence != wanted;
        if is_stale || owner != base || sequence.is_some_and(|sequence| sequence != owner_sequence) {
            return Err(damaged(format!("file record {number} is no part of the file with record {base}")));
        }
        Ok(record)
    }

    /// Returns where a file record is, in bytes, if it is in one piece.
    pub(super) fn place_of(&self, number: u64) -> Option<u64> {
        let size = self.boot.file_record_size;
        let at = number.checked_mul(size)?;
        let runs = &self.table.runs;
        let run = runs.get(runs.partition_point(|run| run.start.saturating_add(run.length) <= at))?;
        let end = run.start.saturating_add(run.length);
        (at.saturating_add(size) <= end).then(|| Some(run.at?.saturating_add(at.saturating_sub(run.start))))?
    }

    /// Fills `buffer` with the bytes at `offset` of the volume.
    pub(super) fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let outside = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("a structure lies outside of the volume"),
            _ => damaged(error),
        };
        self.device.fill(offset, buffer).map_err(outside)?;
        self.change(offset, buffer);
        Ok(())
    }

    /// Returns whether the journal changes anything in a range of the volume.
    pub(super) fn is_changed(&self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        let near = self.changes.range(offset.saturating_sub(self.longest_change)..end);
        near.into_iter().any(|(at, bytes)| at.saturating_add(to_u64(bytes.len())) > offset)
    }

    /// Changes bytes of the volume, read from `offset`, as the journal does.
    pub(super) fn change(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset.saturating_add(to_u64(buffer.len()));
        for (at, bytes) in self.changes.range(offset.saturating_sub(self.longest_change)..end) {
            let (skipped, from) = (offset.saturating_sub(*at), at.saturating_sub(offset));
            let bytes = bytes.get(to_usize(skipped)..).unwrap_or_default();
            let buffer = buffer.get_mut(to_usize(from)..).unwrap_or_default();
            buffer.iter_mut().zip(bytes).for_each(|(old, new)| *old = *new);
        }
    }

    /// Fills `buffer` with the bytes at `offset` of a value that lies in runs. A hole is an error: this is for
    /// structures, not for content.
    pub(super) fn read_runs(&self, runs: &[Run], offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut offset, mut buffer) = (offset, buffer);
        let first = runs.partition_point(|run| run.start.saturating_add(run.length) <= offset);
        let mut runs = runs.get(first..).unwrap_or_default().iter();
        while !buffer.is_empty() {
            let run = runs.next().filter(|run| run.start <= offset);
            let run = run.ok_or_else(|| damaged("a structure lies past the end of its clusters"))?;
            let at = run.at.ok_or_else(|| damaged("a structure has a hole"))?;
            let skipped = offset.saturating_sub(run.start);
            let length = to_usize(run.length.saturating_sub(skipped)).min(buffer.len());
            let (piece, behind) = buffer.split_at_mut(length);
            self.fill(at.saturating_add(skipped), piece)?;
            offset = offset.saturating_add(to_u64(length));
            buffer = behind;
        }
        Ok(())
    }

    /// Reads the whole value of an attribute that is a structure, of at most `most` bytes.
    pub(super) fn value(&self, pieces: &[&Attribute<'_>], most: u64) -> Result<Vec<u8>> {
        if let [Attribute { body: Body::Resident(value), .. }] = pieces {
            return Ok(value.to_vec());
        }
        let clusters = clusters_of(pieces, self.cluster())?;
        clusters.require_whole(self.cluster())?;
        clusters.require_plain()?;
        if clusters.size > most {
            return Err(damaged(format!("an attribute has {} bytes, at most {most} were expected", clusters.size)));
        }
        let mut value = vec![0; to_usize(clusters.size)];
        // What was never written reads as zeros.
        let written = value.get_mut(..to_usize(clusters.initialised)).unwrap_or_default();
        self.read_runs(&clusters.runs, 0, written)?;
        Ok(value)
    }
}
