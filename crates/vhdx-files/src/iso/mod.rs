//! ISO 9660, with Rock Ridge, or else Joliet where an image has it.
//!
//! A node is the offset of a record in the volume: of a file that in the directory above, of a directory the first one
//! of its own, which describes the directory itself.

mod record;
mod rock_ridge;

use vhdx_mmap::ops::Volume as Kind;

use crate::content::{Content, Run};
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::names::from_utf16;
use crate::volume::{About, Entry, FileKind, Metadata, Node, Times, Volume, refuse_stream, require_directory};

use record::Record;
use rock_ridge::RockRidge;

const KIND: Kind = Kind::Iso9660;

/// Size of a descriptor of the volume, and where the first one is.
const SECTOR: u64 = 2048;
const FIRST: u64 = 16;

/// Most descriptors that are looked at.
const MOST_DESCRIPTORS: u64 = 64;

/// Largest directory, in bytes.
const LARGEST_DIRECTORY: u32 = 64 << 20;

/// Most pieces of a file, each up to 4 GiB, as Linux has it.
const MOST_PIECES: usize = 100;

/// Longest record.
const LONGEST_RECORD: u64 = 255;

/// Which names files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Capital letters, digits and a version.
    Plain,
    /// UTF-16.
    Joliet,
    /// Those of Unix. `skip`: bytes before the entries of each record.
    RockRidge { skip: usize },
}

#[derive(Debug)]
pub(crate) struct Iso {
    device: Device,
    about: About,
    names: Names,
    root: Node,
    /// Size of a block: 512, 1024 or 2048 bytes.
    block: u32,
}

fn damaged(reason: &str) -> Error {
    Error::damaged(KIND, reason)
}

fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    call(KIND, |error: Error| error, work)
}

/// A file, as its records describe it.
struct File {
    kind: FileKind,
    size: u64,
    runs: Vec<Run>,
    rock_ridge: RockRidge,
    modified: Option<crate::time::Time>,
    is_interleaved: bool,
}

impl Iso {
    pub(crate) fn open(device: Device, about: About) -> Result<Self> {
        guarded(|| Self::try_open(device, about))
    }

    fn try_open(device: Device, about: About) -> Result<Self> {
        let (mut primary, mut joliet) = (None, None);
        let mut this = Self { device, about, names: Names::Plain, root: Node(0), block: 0 };
        for number in FIRST..FIRST.saturating_add(MOST_DESCRIPTORS) {
            let at = number.saturating_mul(SECTOR);
            if at.saturating_add(SECTOR) > this.device.range().size() {
                break;
            }
            let descriptor = this.read(at, SECTOR)?;
            let fields = Fields(&descriptor);
            match (fields.byte(0), fields.bytes(1, 5)) {
                (1, b"CD001") if primary.is_none() => primary = Some(descriptor),
                (2, b"CD001") if matches!(fields.bytes(88, 3), b"%/@" | b"%/C" | b"%/E") => joliet = Some(descriptor),
                (_, b"CD001" | b"BEA01" | b"TEA01" | b"BOOT2" | b"CDW02") => {}
                // Media of Windows have a text about UDF in ISO 9660, and all files in UDF.
                (_, b"NSR02" | b"NSR03") => {
                    return Err(Error::unsupported(
                        KIND,
                        "it is UDF as well, which can have more files, and is not read",
                    ));
                }
                _ => break,
            }
        }
        let primary = primary.ok_or_else(|| damaged("no primary descriptor of the volume"))?;
        let fields = Fields(&primary);
        this.block = u32::from(fields.le16(128));
        if !matches!(this.block, 512 | 1024 | 2048) {
            return Err(Error::unsupported(KIND, format!("blocks of {} bytes", this.block)));
        }
        this.about.size = u64::from(fields.le32(80)).saturating_mul(this.block.into());
        (this.about.used, this.about.block_size) = (Some(this.about.size), this.block);
        this.about.is_experimental = true;
        this.root = this.root_of(&primary)?;
        let (_, own) = this.own_record(this.root)?;
        let of_root = RockRidge::read(&this, Record::of(&own).map_or(&[][..], |record| record.more))?;
        match (of_root.skip, joliet) {
            (Some(skip), _) if of_root.is_used => this.names = Names::RockRidge { skip: skip.into() },
            (_, Some(joliet)) => {
                this.names = Names::Joliet;
                this.root = this.root_of(&joliet)?;
            }
            _ => {}
        }
        this.about.ignores_case = !matches!(this.names, Names::RockRidge { .. });
        Ok(this)
    }

    fn block_size(&self) -> u32 {
        self.block
    }

    fn offset(&self, block: u32) -> u64 {
        u64::from(block).saturating_mul(self.block.into())
    }

    fn read(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Error::TooMuchWork)?];
        self.device.fill(at, &mut bytes).map_err(|error| Error::damaged(KIND, error))?;
        Ok(bytes)
    }

    /// The root directory, from a descriptor.
    fn root_of(&self, descriptor: &[u8]) -> Result<Node> {
        let record = descriptor.get(156..190).and_then(Record::of).filter(Record::is_directory);
        record.map(|record| Node(self.offset(record.block))).ok_or_else(|| damaged("no root directory"))
    }

    /// Reads the record at an offset, and returns its length, too.
    fn own_record(&self, node: Node) -> Result<(u64, Vec<u8>)> {
        let most = self.device.range().size().saturating_sub(node.0).min(LONGEST_RECORD);
        let mut bytes = self.read(node.0, most)?;
        let length = bytes.first().copied().unwrap_or(0);
        bytes.truncate(length.into());
        if length == 0 || Record::of(&bytes).is_none() {
            return Err(damaged("a record of a directory is damaged"));
        }
        Ok((length.into(), bytes))
    }

    fn rock_ridge(&self, record: &Record<'_>) -> Result<RockRidge> {
        match self.names {
            Names::RockRidge { skip } => {
                // The root directory says what is skipped, and has nothing to be skipped itself.
                let is_root = record.more.get(..2) == Some(b"SP");
                RockRidge::read(self, record.more.get(if is_root { 0 } else { skip }..).unwrap_or_default())
            }
            Names::Plain | Names::Joliet => Ok(RockRidge::default()),
        }
    }

    /// Reads the records of a file.
    fn file(&self, node: Node) -> Result<File> {
        let (length, first) = self.own_record(node)?;
        let record = Record::of(&first).ok_or_else(|| damaged("a record of a directory is damaged"))?;
        let rock_ridge = self.rock_ridge(&record)?;
        let kind = kind_of(&record, &rock_ridge);
        let mut file = File {
            kind,
            size: 0,
            runs: Vec::new(),
            rock_ridge,
            modified: record.modified,
            is_interleaved: record.is_interleaved,
        };
        file.add(&record, self.offset(record.block));
        let (mut at, mut goes_on) = (node.0.saturating_add(length), record.goes_on());
        while goes_on {
            if file.runs.len() >= MOST_PIECES {
                return Err(damaged("a file has too many pieces"));
            }
            // A record does not go over the end of a block; what is left of the block is empty.
            let to_end = at.next_multiple_of(self.block.into()).saturating_sub(at);
            if self.read(at, to_end.min(1))?.first().copied().unwrap_or(0) == 0 {
                at = at.next_multiple_of(self.block.into());
            }
            let (length, next) = self.own_record(Node(at))?;
            let next = Record::of(&next).filter(|next| next.name == record.name && !next.is_directory());
            let next = next.ok_or_else(|| damaged("a file goes on, and its next record is that of another"))?;
            file.add(&next, self.offset(next.block));
            file.is_interleaved |= next.is_interleaved;
            at = at.saturating_add(length);
            goes_on = next.goes_on();
        }
        Ok(file)
    }

    /// Reads a directory, and finds where its records begin in it.
    fn directory(&self, node: Node) -> Result<(Vec<u8>, Vec<usize>)> {
        let (_, own) = self.own_record(node)?;
        let record = Record::of(&own).filter(|record| record.is_directory() && record.name == [0]);
        let Some(record) = record.filter(|record| self.offset(record.block) == node.0) else {
            require_directory(self.file(node)?.kind, node)?;
            return Err(damaged("a directory does not begin with itself"));
        };
        if record.length > LARGEST_DIRECTORY {
            return Err(Error::TooMuchWork);
        }
        let bytes = self.read(node.0, record.length.into())?;
        let block = usize::try_from(self.block).unwrap_or(2048);
        let (mut at, mut places) = (0_usize, Vec::new());
        while let Some(length) = bytes.get(at).copied().map(usize::from) {
            if length == 0 {
                at = at.saturating_add(1).next_multiple_of(block);
                continue;
            }
            places.push(at);
            at = at.saturating_add(length);
        }
        Ok((bytes, places))
    }

    /// The name of a file, of which the version is no part.
    fn name(&self, record: &Record<'_>, rock_ridge: RockRidge) -> Vec<u8> {
        match self.names {
            Names::Joliet => {
                let units: Vec<u16> = record
                    .name
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[high, low]| u16::from_le_bytes([*low, *high]))
                    .collect();
                let name = from_utf16(&units);
                name.strip_suffix(b";1").unwrap_or(&name).to_vec()
            }
            _ => rock_ridge.name.unwrap_or_else(|| {
                let name = record.name.strip_suffix(b";1").unwrap_or(record.name);
                name.strip_suffix(b".").unwrap_or(name).to_vec()
            }),
        }
    }
}

impl File {
    fn add(&mut self, record: &Record<'_>, at: u64) {
        let length = u64::from(record.length);
        if length > 0 {
            self.runs.push(Run { start: self.size, length, at: Some(at) });
        }
        self.size = self.size.saturating_add(length);
    }
}

fn kind_of(record: &Record<'_>, rock_ridge: &RockRidge) -> FileKind {
    match rock_ridge.unix {
        _ if record.is_directory() || rock_ridge.moved_to.is_some() => FileKind::Directory,
        // A directory has to be one for all.
        Some([mode, ..]) => match FileKind::of_mode(mode) {
            FileKind::Directory => FileKind::Other,
            kind => kind,
        },
        None => FileKind::File,
    }
}

impl Volume for Iso {
    fn about(&self) -> &About {
        &self.about
    }

    fn root(&self) -> Node {
        self.root
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        let File { kind, size, rock_ridge, modified, .. } = guarded(|| self.file(node))?;
        let size = match &rock_ridge.target {
            Some(target) if kind == FileKind::Link => u64::try_from(target.len()).unwrap_or(u64::MAX),
            _ => rock_ridge.unpacked.map_or(size, u64::from),
        };
        let is_device = matches!(kind, FileKind::BlockDevice | FileKind::CharacterDevice);
        Ok(Metadata {
            times: Times {
                modified: rock_ridge.modified.or(modified),
                accessed: rock_ridge.accessed,
                changed: rock_ridge.changed,
                created: rock_ridge.created,
            },
            mode: rock_ridge.unix.map(|[mode, ..]| mode & 0o7777),
            owner: rock_ridge.unix.map(|[_, _, user, group]| (user, group)),
            links: rock_ridge.unix.map(|[_, links, ..]| links),
            device: rock_ridge.device.filter(|_| is_device),
            ..Metadata::new(kind, size)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        guarded(|| {
            let (bytes, places) = self.directory(directory)?;
            let (mut entries, mut goes_on) = (Vec::new(), false);
            for at in places {
                let record = bytes.get(at..).and_then(Record::of);
                let record = record.ok_or_else(|| damaged("a record of a directory is damaged"))?;
                // The first record of a file stands for it.
                let is_first = !std::mem::replace(&mut goes_on, record.goes_on());
                if !is_first || record.is_dot() || record.is_associated() {
                    continue;
                }
                let rock_ridge = self.rock_ridge(&record)?;
                if rock_ridge.is_moved {
                    continue;
                }
                let kind = kind_of(&record, &rock_ridge);
                let node = match (rock_ridge.moved_to, kind) {
                    (Some(block), _) => self.offset(block),
                    (None, FileKind::Directory) => self.offset(record.block),
                    _ => u64::try_from(at).unwrap_or(u64::MAX).saturating_add(directory.0),
                };
                let name = self.name(&record, rock_ridge);
                entries.push(Entry { name, node: Node(node), kind: Some(kind) });
            }
            Ok(entries)
        })
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        refuse_stream(KIND, stream)?;
        let found = guarded(|| self.file(file))?;
        if found.kind != FileKind::File {
            return Err(Error::not_file(file));
        }
        if found.rock_ridge.unpacked.is_some() {
            return Err(Error::unsupported(KIND, "the file is packed (zisofs)"));
        }
        if found.rock_ridge.is_sparse || found.is_interleaved {
            return Err(Error::unsupported(KIND, "the file is sparse or interleaved"));
        }
        Content::of_runs(KIND, found.size, &self.device, found.runs)
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        let target = guarded(|| self.file(link))?.rock_ridge.target;
        target.ok_or_else(|| damaged("a link has no target"))
    }
}
