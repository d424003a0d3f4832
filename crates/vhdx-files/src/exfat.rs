//! exFAT, as Microsoft's "exFAT file system specification" describes it.
//!
//! This is a reader of our own, beside that of FAT: the others end at the valid length of content, or return what lies
//! behind it.

use crate::clusters::{Clusters, Width, time_of};
use crate::content::{Content, Run};
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::names::{from_utf16, units};
use crate::options::VolumeWarning;
use crate::time::Time;
use crate::volume::{About, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory};

/// Size of an entry of a directory, in bytes.
const ENTRY: usize = 32;

/// Types of entries.
const BITMAP: u8 = 0x81;
const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;

/// Most entries that follow the first of a file.
const MOST_SECONDARY: u8 = 18;

/// Attribute of a directory.
const DIRECTORY: u16 = 0x10;

/// Flag of content that lies in clusters one after the other, of which the table knows nothing.
const NO_CHAIN: u8 = 0x02;

/// Flags of the boot sector: the volume is in use, and some of it could not be read or written.
const NOT_UNMOUNTED: u8 = 0x02;
const HAS_ERRORS: u8 = 0x04;

/// Largest size of a directory, in bytes.
const MOST_OF_DIRECTORY: u64 = 256 << 20;

/// Names a file by the offset of its entry; 0, where the boot sector is, is the root directory. This bit says that the
/// directory lies in clusters one after the other, for entries can go on in the next one.
const CONTIGUOUS: u64 = 1 << 63;

const ROOT: Node = Node(0);

#[derive(Debug)]
pub(crate) struct ExFat {
    clusters: Clusters,
    root: u32,
    about: About,
}

/// The entries of a file: what the first says, and the second.
struct Set {
    bytes: Vec<u8>,
}

impl Set {
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn attributes(&self) -> u16 {
        u16::from_le_bytes(self.array(4))
    }

    fn is_directory(&self) -> bool {
        self.attributes() & DIRECTORY != 0
    }

    fn is_contiguous(&self) -> bool {
        self.byte(ENTRY.saturating_add(1)) & NO_CHAIN != 0
    }

    fn first_cluster(&self) -> u32 {
        u32::from_le_bytes(self.array(ENTRY.saturating_add(20)))
    }

    fn valid_length(&self) -> u64 {
        u64::from_le_bytes(self.array(ENTRY.saturating_add(8)))
    }

    fn length(&self) -> u64 {
        u64::from_le_bytes(self.array(ENTRY.saturating_add(24)))
    }

    fn name(&self) -> Vec<u8> {
        let pieces = self.bytes.chunks_exact(ENTRY).skip(2).filter(|entry| entry.first() == Some(&NAME));
        let all: Vec<u16> = pieces.flat_map(|entry| units(entry.get(2..).unwrap_or_default())).collect();
        let length = usize::from(self.byte(ENTRY.saturating_add(3))).min(all.len());
        from_utf16(all.get(..length).unwrap_or_default())
    }

    /// Whether the sum in the first entry is that of all of them.
    fn has_right_sum(&self) -> bool {
        let counted = self.bytes.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
        let sum = counted.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)));
        sum == u16::from_le_bytes(self.array(2))
    }

    /// A time, with its hundredths if it has such, and its distance from UTC.
    fn time(&self, at: usize, hundredths: u8, zone: usize) -> Option<Time> {
        let [time_low, time_high, date_low, date_high] = self.array(at);
        let (date, time) = (u16::from_le_bytes([date_low, date_high]), u16::from_le_bytes([time_low, time_high]));
        let local = time_of(date, time, hundredths)?;
        // Seven bits with a sign, in quarters of an hour, if the highest bit says that they count.
        let zone = self.byte(zone);
        let quarters = i64::from((zone << 1).cast_signed() / 2);
        let distance = if zone & 0x80 != 0 { quarters.saturating_mul(900) } else { 0 };
        Some(Time { seconds: local.seconds.saturating_sub(distance), ..local })
    }
}

impl ExFat {
    pub(crate) fn open(device: Device, about: About) -> Result<Self> {
        call(about.kind, |error| error, || Self::read(device, about))
    }

    fn read(device: Device, about: About) -> Result<Self> {
        let kind = about.kind;
        let mut boot = [0; 512];
        device.fill(0, &mut boot).map_err(|error| Error::damaged(kind, error))?;
        let long = |at: usize| -> u32 {
            boot.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let byte = |at: usize| boot.get(at).copied().unwrap_or(0);
        let (sector_shift, cluster_shift) = (u32::from(byte(108)), u32::from(byte(109)));
        let is_valid = (9..=12).contains(&sector_shift) && sector_shift.saturating_add(cluster_shift) <= 25;
        if !is_valid {
            return Err(Error::damaged(kind, "the boot sector has impossible sizes"));
        }
        let sectors = |count: u32| u64::from(count) << sector_shift;
        // The second table, with the second bitmap, is only in TexFAT.
        let active = u32::from(byte(106) & 1);
        let table_sectors = long(84);
        let count = long(92).min(u32::try_from(sectors(table_sectors) / 4).unwrap_or(u32::MAX).saturating_sub(2));
        let clusters = Clusters {
            kind,
            device,
            width: Width::ThirtyTwo,
            table: sectors(long(80)).saturating_add(sectors(table_sectors).saturating_mul(u64::from(active))),
            start: sectors(long(88)),
            size: 1_u64 << sector_shift.saturating_add(cluster_shift),
            count,
        };
        let mut volume = Self { root: long(96), about, clusters };
        let size = volume.clusters.size;
        volume.about.size = u64::from(count).saturating_mul(size);
        volume.about.block_size = u32::try_from(size).unwrap_or(u32::MAX);
        volume.about.ignores_case = true;
        volume.about.used = volume.used(active)?;
        let state = byte(106);
        volume.about.warnings = [(NOT_UNMOUNTED, VolumeWarning::NotUnmounted), (HAS_ERRORS, VolumeWarning::HasErrors)]
            .into_iter()
            .filter_map(|(flag, warning)| (state & flag != 0).then_some(warning))
            .collect();
        Ok(volume)
    }

    /// Counts the bits of the bitmap of clusters.
    fn used(&self, active: u32) -> Result<Option<u64>> {
        let mut found = None;
        self.for_each_entry(ROOT, &mut |entry, _| {
            let is_bitmap =
                entry.first() == Some(&BITMAP) && entry.get(1).map(|flags| u32::from(flags & 1)) == Some(active);
            if is_bitmap && found.is_none() {
                found = Some(Set { bytes: entry.to_vec() });
            }
            Ok(())
        })?;
        let Some(bitmap) = found else { return Ok(None) };
        let bytes = u64::from(self.clusters.count).div_ceil(8);
        let mut used = 0_u64;
        for run in self.clusters.chain(u32::from_le_bytes(bitmap.array(20)), bytes)? {
            let length = run.length.min(bytes.saturating_sub(run.start));
            let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
            self.clusters.read(run.at.unwrap_or(0), &mut piece)?;
            used = piece.iter().fold(used, |used, byte| used.saturating_add(u64::from(byte.count_ones())));
        }
        Ok(Some(used.min(u64::from(self.clusters.count)).saturating_mul(self.clusters.size)))
    }

    fn call<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        call(self.about.kind, |error| error, work)
    }

    /// Returns where a directory lies, and whether its clusters lie one after the other.
    fn directory(&self, node: Node) -> Result<(Vec<Run>, bool)> {
        if node == ROOT {
            return Ok((self.clusters.chain(self.root, MOST_OF_DIRECTORY)?, false));
        }
        let set = self.set(node)?;
        require_directory(if set.is_directory() { FileKind::Directory } else { FileKind::File }, node)?;
        let length = set.length().min(MOST_OF_DIRECTORY);
        let runs = match length {
            0 => Vec::new(),
            _ if set.is_contiguous() => self.clusters.contiguous(set.first_cluster(), length)?,
            _ => self.clusters.chain(set.first_cluster(), length)?,
        };
        Ok((runs, set.is_contiguous()))
    }

    /// Calls `visit` with the entries of a directory that are in use, and what would name them.
    fn for_each_entry(&self, directory: Node, visit: &mut dyn FnMut(&[u8], Node) -> Result<()>) -> Result<()> {
        let (runs, is_contiguous) = self.directory(directory)?;
        let flag = if is_contiguous { CONTIGUOUS } else { 0 };
        for run in runs {
            let (mut at, mut rest) = (run.at.unwrap_or(0), run.length);
            while rest > 0 {
                let mut bytes = vec![0; usize::try_from(rest.min(1 << 20)).unwrap_or(0)];
                self.clusters.read(at, &mut bytes)?;
                for (entry, at) in bytes.chunks_exact(ENTRY).zip((at..).step_by(ENTRY)) {
                    match entry.first() {
                        Some(0) => return Ok(()),
                        // Without the highest bit it was removed.
                        Some(kind) if kind & 0x80 != 0 => visit(entry, Node(at | flag))?,
                        _ => {}
                    }
                }
                let length = u64::try_from(bytes.len()).unwrap_or(rest);
                (at, rest) = (at.saturating_add(length), rest.saturating_sub(length));
            }
        }
        Ok(())
    }

    fn list(&self, directory: Node) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        // The entries of a file so far, how many are to come, and what names it.
        let mut open: Option<(Set, u8, Node)> = None;
        self.for_each_entry(directory, &mut |entry, node| {
            let first = entry.first().copied().unwrap_or(0);
            if first == FILE {
                let more = entry.get(1).copied().unwrap_or(0);
                open = (more <= MOST_SECONDARY).then(|| (Set { bytes: entry.to_vec() }, more, node));
            } else if let Some((set, more, _)) = &mut open {
                set.bytes.extend_from_slice(entry);
                *more = more.saturating_sub(1);
            }
            if let Some((set, _, node)) = open.take_if(|(_, more, _)| *more == 0) {
                let name = set.name();
                if !name.is_empty() {
                    let kind = if set.is_directory() { FileKind::Directory } else { FileKind::File };
                    entries.push(Entry { name, node, kind: Some(kind) });
                }
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// Reads the entries of a file, and verifies their sum.
    fn set(&self, node: Node) -> Result<Set> {
        let damaged = |reason| Error::damaged(self.about.kind, reason);
        let is_contiguous = node.0 & CONTIGUOUS != 0;
        let mut at = node.0 & !CONTIGUOUS;
        let mut set = Set { bytes: Vec::new() };
        let mut wanted = 1;
        while wanted > 0 {
            let mut entry = [0; ENTRY];
            self.clusters.read(at, &mut entry)?;
            if set.bytes.is_empty() {
                let [kind, more, ..] = entry;
                if kind != FILE || more > MOST_SECONDARY {
                    return Err(damaged("a name leads to what is no entry of a file"));
                }
                wanted = more.saturating_add(1);
            }
            set.bytes.extend(entry);
            wanted = wanted.saturating_sub(1);
            let next = at.saturating_add(32);
            at = next;
            let is_at_end = next.saturating_sub(self.clusters.start).is_multiple_of(self.clusters.size);
            if is_at_end && !is_contiguous && wanted > 0 {
                let cluster = self.clusters.at(next.saturating_sub(1));
                let cluster = cluster.ok_or_else(|| damaged("an entry of a directory lies before the clusters"))?;
                let following = self.clusters.next(cluster)?;
                at = self.clusters.offset(following.ok_or_else(|| damaged("a directory ends within an entry"))?)?;
            }
        }
        if set.byte(ENTRY) != STREAM || !set.has_right_sum() {
            return Err(damaged("the entries of a file do not have the sum that they state"));
        }
        Ok(set)
    }
}

impl Volume for ExFat {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        ROOT
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        if node == ROOT {
            return Ok(Metadata::new(FileKind::Directory, 0));
        }
        let set = self.call(|| self.set(node))?;
        let kind = if set.is_directory() { FileKind::Directory } else { FileKind::File };
        Ok(Metadata {
            allocated: Some(set.length().checked_next_multiple_of(self.clusters.size).unwrap_or(u64::MAX)),
            times: Times {
                created: set.time(8, set.byte(20), 22),
                modified: set.time(12, set.byte(21), 23),
                accessed: set.time(16, 0, 24),
                changed: None,
            },
            dos_attributes: Some(u32::from(set.attributes())),
            ..Metadata::new(kind, set.length())
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        self.call(|| self.list(directory))
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        let kind = self.about.kind;
        refuse_stream(kind, stream)?;
        if file == ROOT {
            return Err(Error::NotFile(b"/".to_vec()));
        }
        let (size, runs) = self.call(|| {
            let set = self.set(file)?;
            if set.is_directory() {
                return Err(Error::not_file(file));
            }
            // What is behind the valid length was never written, and reads as zeros.
            let valid = set.valid_length();
            if valid > set.length() {
                return Err(Error::damaged(kind, "more of a file is valid than it has"));
            }
            let mut runs = match valid {
                0 => Vec::new(),
                _ if set.is_contiguous() => self.clusters.contiguous(set.first_cluster(), valid)?,
                _ => self.clusters.chain(set.first_cluster(), valid)?,
            };
            let end = runs.last().map_or(0, |last| last.start.saturating_add(last.length));
            if end < valid {
                return Err(Error::damaged(kind, "the chain of a file ends before its content does"));
            }
            if let Some(last) = runs.last_mut() {
                last.length = valid.saturating_sub(last.start);
            }
            Ok((set.length(), runs))
        })?;
        Content::of_runs(kind, size, &self.clusters.device, runs)
    }
}
