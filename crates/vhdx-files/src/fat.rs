//! FAT12, FAT16 and FAT32, as Microsoft's "FAT: General Overview of On-Disk Format" describes them.
//!
//! This is a reader of our own: the well-kept ones tell neither where content lies nor name a file by anything but its
//! path, and hang on damaged chains.

use crate::clusters::{Clusters, Width, time_of};
use crate::content::{Content, Run};
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::names::{from_utf16, units};
use crate::options::VolumeWarning;
use crate::volume::{About, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory};

/// Size of an entry of a directory, in bytes.
const ENTRY: usize = 32;

/// Attributes of an entry.
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// All of read-only, hidden, system and label: a piece of a long name.
const LONG_NAME: u8 = 0x0f;

/// Largest size of a directory, in bytes: 65,536 entries.
const MOST_OF_DIRECTORY: u64 = 65_536 * 32;

/// Names a file by the offset of its entry. The boot sector is at 0, so 0 is the root directory.
const ROOT: Node = Node(0);

/// Where the root directory lies.
#[derive(Clone, Copy, Debug)]
enum Root {
    /// Before the clusters: offset and length, in bytes.
    Fixed(u64, u64),
    /// In a chain that begins with this cluster.
    Chain(u32),
}

#[derive(Debug)]
pub(crate) struct Fat {
    clusters: Clusters,
    root: Root,
    about: About,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// What a volume says of its state: in a byte of the boot sector (Linux), and in bits of the second entry of the table
/// that are set while all is well (Windows).
fn warnings(clusters: &Clusters, state: u8) -> Result<Vec<VolumeWarning>> {
    const NOT_UNMOUNTED: u8 = 1;
    let mut entry = [0; 4];
    let (unmounted, sound) = match clusters.width {
        Width::Twelve => (0, 0),
        Width::Sixteen => (0x8000, 0x4000),
        Width::TwentyEight | Width::ThirtyTwo => (0x800_0000, 0x400_0000),
    };
    match clusters.width {
        Width::Twelve => {}
        Width::Sixteen => clusters.read(clusters.table.saturating_add(2), entry.split_at_mut(2).0)?,
        Width::TwentyEight | Width::ThirtyTwo => clusters.read(clusters.table.saturating_add(4), &mut entry)?,
    }
    let entry = u32::from_le_bytes(entry);
    let is_in_use = state & NOT_UNMOUNTED != 0 || entry & unmounted != unmounted;
    Ok([(is_in_use, VolumeWarning::NotUnmounted), (entry & sound != sound, VolumeWarning::HasErrors)]
        .into_iter()
        .filter_map(|(is_so, warning)| is_so.then_some(warning))
        .collect())
}

impl Fat {
    pub(crate) fn open(device: Device, about: About) -> Result<Self> {
        let kind = about.kind;
        call(kind, |error| error, || Self::read(device, about))
    }

    fn read(device: Device, about: About) -> Result<Self> {
        let kind = about.kind;
        let mut boot = [0; 512];
        device.fill(0, &mut boot).map_err(|error| Error::damaged(kind, error))?;
        let sector = u64::from(word(&boot, 11));
        let per_cluster = u64::from(byte(&boot, 13));
        let is_valid = matches!(sector, 512 | 1024 | 2048 | 4096) && per_cluster.is_power_of_two();
        if !is_valid {
            return Err(Error::damaged(kind, "the boot sector has impossible sizes"));
        }
        let or_wide = |narrow: u16, wide: usize| if narrow == 0 { long(&boot, wide) } else { u32::from(narrow) };
        let sectors = u64::from(or_wide(word(&boot, 19), 32));
        let is_32 = word(&boot, 22) == 0;
        let table_sectors = u64::from(or_wide(word(&boot, 22), 36));
        let (reserved, tables) = (u64::from(word(&boot, 14)), u64::from(byte(&boot, 16)));
        let root_bytes = u64::from(word(&boot, 17)).saturating_mul(32);
        let tables_end = reserved.saturating_add(tables.saturating_mul(table_sectors)).saturating_mul(sector);
        let start = tables_end.saturating_add(root_bytes.next_multiple_of(sector));
        let size = per_cluster.saturating_mul(sector);
        let total = sectors.saturating_mul(sector);
        let count = total.saturating_sub(start).checked_div(size).unwrap_or(0);
        let width = match count {
            _ if is_32 => Width::TwentyEight,
            0..4085 => Width::Twelve,
            _ => Width::Sixteen,
        };
        // FAT32 can keep one table up to date alone, and says which.
        let flags = if is_32 { word(&boot, 40) } else { 0 };
        let active = if flags & 0x80 != 0 { u64::from(flags & 0xf) } else { 0 };
        if count == 0 || table_sectors == 0 || active >= tables {
            return Err(Error::damaged(kind, "the boot sector has impossible sizes"));
        }
        let table = reserved.saturating_add(active.saturating_mul(table_sectors)).saturating_mul(sector);
        // A volume has no more clusters than its table has entries.
        let table_bytes = table_sectors.saturating_mul(sector);
        let entries = match width {
            Width::Twelve => table_bytes.saturating_mul(2) / 3,
            Width::Sixteen => table_bytes / 2,
            Width::TwentyEight | Width::ThirtyTwo => table_bytes / 4,
        };
        let count = u32::try_from(count.min(entries.saturating_sub(2))).unwrap_or(u32::MAX).min(0xfff_fff4);
        let clusters = Clusters { kind, device, width, table, start, size, count };
        let root = if is_32 { Root::Chain(long(&boot, 44)) } else { Root::Fixed(tables_end, root_bytes) };
        let used = clusters.used()?.saturating_mul(size);
        let warnings = warnings(&clusters, byte(&boot, if is_32 { 0x41 } else { 0x25 }))?;
        let about = About {
            warnings,
            size: u64::from(count).saturating_mul(size),
            used: Some(used),
            block_size: u32::try_from(size).unwrap_or(u32::MAX),
            ignores_case: true,
            ..about
        };
        Ok(Self { clusters, root, about })
    }

    fn call<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        call(self.about.kind, |error| error, work)
    }

    /// Reads the entry of a file.
    fn entry(&self, node: Node) -> Result<[u8; ENTRY]> {
        let mut entry = [0; ENTRY];
        self.clusters.read(node.0, &mut entry)?;
        Ok(entry)
    }

    fn first_cluster(&self, entry: &[u8]) -> u32 {
        let high = if self.clusters.width == Width::TwentyEight { word(entry, 20) } else { 0 };
        u32::from(high) << 16 | u32::from(word(entry, 26))
    }

    /// Returns where a directory lies.
    fn directory(&self, node: Node) -> Result<Vec<Run>> {
        if node == ROOT {
            return match self.root {
                Root::Fixed(at, length) => Ok(vec![Run { start: 0, length, at: Some(at) }]),
                Root::Chain(first) => self.clusters.chain(first, MOST_OF_DIRECTORY),
            };
        }
        let entry = self.entry(node)?;
        let kind = if byte(&entry, 11) & DIRECTORY != 0 { FileKind::Directory } else { FileKind::File };
        require_directory(kind, node)?;
        self.clusters.chain(self.first_cluster(&entry), MOST_OF_DIRECTORY)
    }

    fn list(&self, directory: Node) -> Result<Vec<Entry>> {
        let (mut entries, mut name) = (Vec::new(), LongName::default());
        for run in self.directory(directory)? {
            let Some(at) = run.at else { continue };
            let mut bytes = vec![0; usize::try_from(run.length).unwrap_or(0)];
            self.clusters.read(at, &mut bytes)?;
            for (entry, at) in bytes.chunks_exact(ENTRY).zip((at..).step_by(ENTRY)) {
                let attributes = byte(entry, 11);
                match byte(entry, 0) {
                    0 => return Ok(entries),
                    0xe5 => name = LongName::default(),
                    _ if attributes & 0x3f == LONG_NAME => name.add(entry),
                    _ if attributes & VOLUME_LABEL != 0 => name = LongName::default(),
                    b'.' if entry.starts_with(b".          ") || entry.starts_with(b"..         ") => {}
                    _ => {
                        let is_directory = attributes & DIRECTORY != 0;
                        entries.push(Entry {
                            name: std::mem::take(&mut name).finish(entry).unwrap_or_else(|| short_name(entry)),
                            node: Node(at),
                            kind: Some(if is_directory { FileKind::Directory } else { FileKind::File }),
                        });
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// A long name, of which the last piece comes first.
#[derive(Default)]
struct LongName {
    /// Pieces so far, the last one first.
    pieces: Vec<Vec<u16>>,
    /// Number of the piece that came before; 0 if there is no name, or a broken one.
    number: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        const LAST: u8 = 0x40;
        let (number, checksum) = (byte(entry, 0) & 0x3f, byte(entry, 13));
        if byte(entry, 0) & LAST != 0 {
            *self = Self { pieces: Vec::new(), number, checksum };
        } else if self.number != number.saturating_add(1) || self.checksum != checksum {
            *self = Self::default();
            return;
        } else {
            self.number = number;
        }
        let piece = [1..11, 14..26, 28..32].map(|range| entry.get(range).unwrap_or_default()).concat();
        self.pieces.push(units(&piece).collect());
    }

    /// Returns the name, if it is complete and belongs to the entry behind it.
    fn finish(self, entry: &[u8]) -> Option<Vec<u8>> {
        let short = entry.get(..11)?;
        let checksum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.number != 1 || self.checksum != checksum {
            return None;
        }
        let units: Vec<u16> = self.pieces.into_iter().rev().flatten().take_while(|unit| *unit != 0).collect();
        (!units.is_empty()).then(|| from_utf16(&units))
    }
}

/// The upper half of code page 437, which FAT has been written in since it began.
const UPPER_HALF: &str = concat!(
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
);

/// The name of an entry without a long one: 8 characters and 3, and whether Windows shows them in lower case.
fn short_name(entry: &[u8]) -> Vec<u8> {
    let case = byte(entry, 12);
    let part = |range: std::ops::Range<usize>, is_lower: bool| -> String {
        let bytes = entry.get(range).unwrap_or_default();
        let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last.saturating_add(1));
        let characters = bytes.iter().take(end).map(|byte| match byte {
            0..0x80 => char::from(*byte),
            _ => UPPER_HALF.chars().nth(usize::from(byte & 0x7f)).unwrap_or('?'),
        });
        if is_lower { characters.flat_map(char::to_lowercase).collect() } else { characters.collect() }
    };
    let mut first = part(0..8, case & 0x08 != 0);
    if byte(entry, 0) == 0x05 {
        // 0xe5 marks what was removed, so a name that begins with it is written with 5.
        first.replace_range(0..1, "σ");
    }
    let extension = part(8..11, case & 0x10 != 0);
    if !extension.is_empty() {
        first.push('.');
        first.push_str(&extension);
    }
    first.into_bytes()
}

impl Volume for Fat {
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
        let entry = self.call(|| self.entry(node))?;
        let is_directory = byte(&entry, 11) & DIRECTORY != 0;
        let kind = if is_directory { FileKind::Directory } else { FileKind::File };
        let size = if is_directory { 0 } else { u64::from(long(&entry, 28)) };
        Ok(Metadata {
            allocated: (!is_directory).then(|| size.next_multiple_of(self.clusters.size)),
            times: Times {
                modified: time_of(word(&entry, 24), word(&entry, 22), 0),
                accessed: time_of(word(&entry, 18), 0, 0),
                changed: None,
                created: time_of(word(&entry, 16), word(&entry, 14), byte(&entry, 13)),
            },
            dos_attributes: Some(u32::from(byte(&entry, 11))),
            ..Metadata::new(kind, size)
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
            let entry = self.entry(file)?;
            if byte(&entry, 11) & DIRECTORY != 0 {
                return Err(Error::not_file(file));
            }
            let size = u64::from(long(&entry, 28));
            let runs = if size == 0 { Vec::new() } else { self.clusters.chain(self.first_cluster(&entry), size)? };
            let found = runs.iter().fold(0_u64, |sum, run| sum.saturating_add(run.length));
            if found < size {
                return Err(Error::damaged(kind, "the chain of a file ends before its content does"));
            }
            Ok((size, runs))
        })?;
        Content::of_runs(kind, size, &self.clusters.device, runs)
    }
}
