//! NTFS.
//!
//! Geometry, runs, LZNT1 and the replay of the journal are those of `rust-fs-ntfs`. Records, lists of attributes and
//! directories are read here: its reader of them reads the boot sector and `$MFT` again for each, has no name that is
//! not Unicode, and takes blocks of names for others where clusters are larger than they are.

mod bounds;
mod content;
mod facts;
mod file;
mod index;
mod journal;
mod raw;
mod record;
mod reparse;
mod runs;
mod security;
mod view;

use std::fmt;
use std::sync::OnceLock;

use vhdx_mmap::ops::Volume as Kind;

use self::facts::{SYSTEM, device_of, first_of, times};
use self::file::File;
use self::index::{Directory, UpCase};
use self::raw::{Fields, damaged, to_u64, to_usize, unsupported};
use self::record::{
    Attribute, Body, DATA, EXTENDED, FILE_NAME, Name, REPARSE_POINT, STANDARD_INFORMATION, VOLUME_INFORMATION,
    VOLUME_NAME, split,
};
use self::runs::{Clusters, ENCRYPTED, clusters_of};
use self::security::{DESCRIPTOR, Descriptors};
use self::view::View;
use crate::content::Content;
use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::names::{to_utf16, units};
use crate::options::{VolumeOptions, VolumeWarning};
use crate::volume::{About, Attribute as Extended, Entry, FileKind, Metadata, Node, Stream, Volume, require_directory};

/// Numbers of the records of system files.
const VOLUME: u64 = 3;
const ROOT: u64 = 5;
const BITMAP: u64 = 6;
const UPCASE: u64 = 10;

/// Flag of a volume that Windows is to check.
const DIRTY: u16 = 1;

/// Number of the first record that is not kept for system files. Those are left out of listings.
const FIRST_USER: u64 = 24;

/// Attributes of DOS and Windows: a directory, and a reparse point.
const DIRECTORY: u32 = 0x10;
const REPARSE: u32 = 0x400;
/// As a name has it, whose directory lists it.
const NAME_OF_DIRECTORY: u32 = 0x1000_0000;

/// Largest `$Bitmap` whose bits are counted, in bytes: that of 64 TiB with clusters of 4 KiB.
const LARGEST_BITMAP: u64 = 2 << 30;

/// Most bytes that are read of `$Bitmap` in one call, in bytes.
const BITMAP_PIECE: usize = 1 << 20;

pub(crate) struct Ntfs {
    view: View,
    root: Node,
    about: About,
    /// With the space in use, which takes a look at all of `$Bitmap`.
    full_about: OnceLock<About>,
    upcase: OnceLock<UpCase>,
    /// Empty if they cannot be read.
    descriptors: OnceLock<Descriptors>,
    /// Whether the volume is the one that Windows runs from, and so has the letter C.
    is_of_windows: OnceLock<bool>,
}

impl fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ntfs").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Calls the reader, which is this module and its part.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    call(Kind::Ntfs, |error: Error| error, work)
}

impl Ntfs {
    pub(crate) fn open(device: Device, about: About, options: &VolumeOptions) -> Result<Self> {
        let mut this = guarded(|| {
            let view = View::open(device)?;
            let mut warnings = Vec::new();
            let replayed = if options.ignores_journal() {
                // Of a journal that cannot be read, nothing says that it is empty.
                if journal::is_pending(&view).unwrap_or(true) {
                    warnings.push(VolumeWarning::JournalIgnored);
                }
                None
            } else {
                journal::replayed(&view)?
            };
            let is_replayed = replayed.is_some();
            let view = replayed.unwrap_or(view);
            let file = view.file(Node(VOLUME), |kind, _| matches!(kind, VOLUME_NAME | VOLUME_INFORMATION))?;
            let label = match file.all(VOLUME_NAME)?.first() {
                Some(label) => char::decode_utf16(units(label.resident()?))
                    .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect(),
                None => String::new(),
            };
            let information = file.all(VOLUME_INFORMATION)?;
            let information = information.first().ok_or_else(|| damaged("$Volume has no version"))?.resident()?;
            let version = (information.u8(8)?, information.u8(9)?);
            if !matches!(version, (1, 2) | (3, _)) {
                return Err(unsupported(format!("version {}.{}", version.0, version.1)));
            }
            if information.u16(0xa)? & DIRTY != 0 {
                warnings.push(VolumeWarning::CheckScheduled);
            }
            let about = About {
                label,
                warnings,
                uuid: format!("{:016X}", view.boot.serial_number),
                size: view.boot.volume_bytes(),
                block_size: u32::try_from(view.cluster()).unwrap_or(0),
                is_replayed,
                ignores_case: true,
                ..about
            };
            let root = view.file(Node(ROOT), |_, _| false)?;
            if !root.is_directory() {
                return Err(damaged("the root is no directory"));
            }
            Ok(Self {
                view,
                root: Node(root.reference()?),
                about,
                full_about: OnceLock::new(),
                upcase: OnceLock::new(),
                descriptors: OnceLock::new(),
                is_of_windows: OnceLock::new(),
            })
        })?;
        if this.is_hibernated() {
            this.about.warnings.push(VolumeWarning::Hibernated);
        }
        Ok(this)
    }

    /// Returns whether Windows hibernates on this volume, or was shut down with fast startup. A file that cannot be
    /// read says nothing.
    fn is_hibernated(&self) -> bool {
        const MARKS: [&[u8; 4]; 2] = [b"hibr", b"HIBR"];
        let beginning = || -> Result<Option<[u8; 4]>> {
            let Some(file) = self.find(self.root, b"hiberfil.sys")? else { return Ok(None) };
            let mut mark = [0; 4];
            self.open(file, None)?.read_at(&mut mark, 0)?;
            Ok(Some(mark))
        };
        beginning().ok().flatten().is_some_and(|mark| MARKS.contains(&&mark))
    }

    fn upcase(&self) -> &UpCase {
        let table = || -> Result<Vec<u8>> {
            let file = self.view.file(Node(UPCASE), |kind, _| kind == DATA)?;
            let pieces = file.pieces(DATA, &[])?;
            self.view.value(&pieces.iter().collect::<Vec<_>>(), to_u64(UpCase::LENGTH))
        };
        // Only looking up names in another case needs it, and the table is the same everywhere.
        self.upcase.get_or_init(|| UpCase::new(guarded(table).ok()))
    }

    fn descriptors(&self) -> &Descriptors {
        self.descriptors.get_or_init(|| guarded(|| Descriptors::of(&self.view)).unwrap_or_default())
    }

    /// Counts the clusters in use, by `$Bitmap`.
    fn used(&self) -> Result<u64> {
        let clusters = guarded(|| {
            let file = self.view.file(Node(BITMAP), |kind, _| kind == DATA)?;
            let pieces = file.pieces(DATA, &[])?;
            clusters_of(&pieces.iter().collect::<Vec<_>>(), self.view.cluster())
        })?;
        let size = self.about.size.min(self.view.device.range().size());
        let count = size.checked_div(self.view.cluster()).unwrap_or(0);
        let length = count.div_ceil(8).min(clusters.initialised);
        if length > LARGEST_BITMAP {
            return Err(unsupported("a bitmap of more clusters than are counted"));
        }
        let mut piece = vec![0; BITMAP_PIECE];
        let (mut used, mut offset) = (0_u64, 0_u64);
        while offset < length {
            let rest = to_usize(length.saturating_sub(offset)).min(BITMAP_PIECE);
            let bytes = piece.get_mut(..rest).unwrap_or_default();
            guarded(|| self.view.read_runs(&clusters.runs, offset, bytes))?;
            // Bits past the last cluster are set, and count for none.
            let spare = offset.saturating_add(to_u64(rest)).saturating_mul(8).saturating_sub(count);
            if let (Some(last), Ok(spare @ 1..8)) = (bytes.last_mut(), u32::try_from(spare)) {
                *last &= u8::MAX >> spare;
            }
            used = bytes.iter().fold(used, |used, byte| used.saturating_add(u64::from(byte.count_ones())));
            offset = offset.saturating_add(to_u64(rest));
        }
        Ok(used.saturating_mul(self.view.cluster()))
    }

    /// Returns the name of a stream as the file has it: the one that is asked for, or one in another case.
    fn stream_name(&self, file: &File, wanted: &str) -> Result<Option<Vec<u8>>> {
        let streams = file.streams()?;
        let is_exact = |name: &[u8]| units(name).eq(wanted.encode_utf16());
        let is_similar = |name: &[u8]| self.upcase().compare(units(name), wanted.encode_utf16()).is_eq();
        // A name that is not Unicode can only be asked for as it is shown.
        let is_shown = |name: &[u8]| text_of(name) == wanted;
        let find = |test: &dyn Fn(&[u8]) -> bool| streams.iter().find(|stream| test(stream.name));
        let found = find(&is_exact).or_else(|| find(&is_similar)).or_else(|| find(&is_shown));
        Ok(found.map(|stream| stream.name.to_vec()))
    }
}

/// Returns a name as text; what is not Unicode in it is replaced.
fn text_of(name: &[u8]) -> String {
    let characters = char::decode_utf16(units(name));
    characters.map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

impl Volume for Ntfs {
    fn about(&self) -> &About {
        self.full_about.get_or_init(|| About { used: self.used().ok(), ..self.about.clone() })
    }

    fn root(&self) -> Node {
        self.root
    }

    fn metadata(&self, node: Node) -> Result<Metadata> {
        guarded(|| {
            let file = self.file(node, |kind| matches!(kind, FILE_NAME | EXTENDED))?;
            let facts = self.facts_of(&file)?;
            let mut links = 0_u32;
            let mut name_times = None;
            for name in file.all(FILE_NAME)? {
                let name = Name::parse(name.resident()?)?;
                if !name.is_dos {
                    links = links.saturating_add(1);
                    name_times = name_times.or(Some(times(name.times)));
                }
            }
            let content = first_of(file.pieces(DATA, &[])?);
            let is_directory = facts.kind == FileKind::Directory;
            let mut metadata = Metadata {
                allocated: content.as_ref().map(Attribute::allocated),
                times: facts.times,
                name_times,
                links: Some(if links == 0 { u32::from(file.links()) } else { links }),
                dos_attributes: Some(facts.attributes | if file.is_directory() { DIRECTORY } else { 0 }),
                is_encrypted: content.is_some_and(|content| content.flags & ENCRYPTED != 0) && !is_directory,
                ..Metadata::new(facts.kind, facts.size)
            };
            // What the Linux of Windows notes of its files.
            for attribute in self.extended(&file)? {
                let number = |at| attribute.value.u32(at).ok();
                match attribute.name.as_slice() {
                    b"$LXMOD" => metadata.mode = number(0).map(|mode| mode & 0o7777),
                    b"$LXUID" => metadata.owner = number(0).map(|user| (user, metadata.owner.unwrap_or_default().1)),
                    b"$LXGID" => metadata.owner = number(0).map(|group| (metadata.owner.unwrap_or_default().0, group)),
                    b"$LXDEV" => metadata.device = number(0).zip(number(4)),
                    _ => {}
                }
            }
            if let Some(special) = &facts.special {
                match facts.kind {
                    FileKind::Link => metadata.size = to_u64(special.len()),
                    _ => metadata.device = device_of(special),
                }
            }
            if let (FileKind::Link, Some(reparse)) = (facts.kind, &facts.reparse) {
                metadata.size = to_u64(reparse.target(|letter| self.has_letter(letter))?.len());
            }
            Ok(metadata)
        })
    }

    fn entries(&self, directory: Node) -> Result<Vec<Entry>> {
        let names = guarded(|| {
            let file = self.view.file(directory, |_, _| true)?;
            require_directory(self.facts_of(&file)?.kind, directory)?;
            Directory::of(&self.view, &file)
        })?;
        let mut entries = Vec::new();
        let mut push = |reference: u64, name: Name<'_>| {
            if name.is_dos || split(reference).0 < FIRST_USER {
                return;
            }
            let kind = match name.attributes {
                // The record of the file has to be asked what these are.
                attributes if attributes & (REPARSE | SYSTEM) != 0 => None,
                attributes if attributes & NAME_OF_DIRECTORY != 0 => Some(FileKind::Directory),
                _ => Some(FileKind::File),
            };
            entries.push(Entry { name: name.to_wtf8(), node: Node(reference), kind });
        };
        names.for_each(&self.view, &|work| guarded(work), &mut push)?;
        Ok(entries)
    }

    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        let names = guarded(|| {
            let file = self.view.file(directory, |_, _| true)?;
            require_directory(self.facts_of(&file)?.kind, directory)?;
            Directory::of(&self.view, &file)
        })?;
        let Some(name) = to_utf16(name) else { return Ok(None) };
        let upcase = self.upcase();
        let found = guarded(|| names.find(&self.view, upcase, &name))?;
        Ok(found.map(Node))
    }

    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>> {
        let opened = guarded(|| {
            let all = self.view.file(file, |kind, _| matches!(kind, STANDARD_INFORMATION | REPARSE_POINT | DATA))?;
            let name = match stream {
                None => Vec::new(),
                Some(stream) => {
                    let name = self.stream_name(&all, stream)?;
                    name.ok_or_else(|| Error::NotFound(format!("{file}:{stream}").into_bytes()))?
                }
            };
            let facts = if stream.is_none() { Some(self.facts_of(&all)?) } else { None };
            if facts.as_ref().is_some_and(|facts| facts.kind != FileKind::File) {
                return Err(Error::not_file(file));
            }
            let pieces = all.pieces(DATA, &name)?;
            let clusters = match pieces.as_slice() {
                [] => return Ok(Err(Vec::new())),
                [Attribute { body: Body::Resident(value), flags, .. }] if flags & ENCRYPTED == 0 => {
                    let here = Clusters::default();
                    facts.as_ref().map_or(Ok(()), |facts| Self::refuse_elsewhere(facts, &here))?;
                    return Ok(Err(value.to_vec()));
                }
                [Attribute { body: Body::Resident(_), .. }, ..] => {
                    return Err(unsupported("a file that is encrypted (EFS)"));
                }
                pieces => clusters_of(&pieces.iter().collect::<Vec<_>>(), self.view.cluster())?,
            };
            facts.as_ref().map_or(Ok(()), |facts| Self::refuse_elsewhere(facts, &clusters))?;
            Ok(Ok(clusters))
        })?;
        match opened {
            Ok(clusters) => self.content(clusters),
            Err(value) => Ok(Content::of_bytes(value)),
        }
    }

    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        guarded(|| {
            let facts = self.facts_of(&self.file(link, |_| false)?)?;
            match (facts.kind, facts.reparse, facts.special) {
                (FileKind::Link, Some(reparse), _) => reparse.target(|letter| self.has_letter(letter)),
                (FileKind::Link, None, Some(target)) => Ok(target),
                _ => Err(damaged(format!("{link}: is no link"))),
            }
        })
    }

    fn attributes(&self, node: Node) -> Result<Vec<Extended>> {
        let is_wanted = |kind| matches!(kind, STANDARD_INFORMATION | DESCRIPTOR | EXTENDED);
        let (found, descriptor) = guarded(|| {
            let file = self.view.file(node, |kind, _| is_wanted(kind))?;
            Ok((self.extended(&file)?, self.descriptor(&file)))
        })?;
        // They are in no namespace; those that the Linux of Windows keeps here have lost the case of their letters.
        let named =
            |attribute: Extended| Extended { name: [b"ntfs.".as_slice(), &attribute.name].concat(), ..attribute };
        Ok(found.into_iter().map(named).chain(descriptor).collect())
    }

    fn streams(&self, node: Node) -> Result<Vec<Stream>> {
        guarded(|| {
            let file = self.view.file(node, |kind, first| kind == DATA && first == 0)?;
            let streams = file.streams()?;
            Ok(streams.iter().map(|stream| Stream { name: text_of(stream.name), size: stream.size() }).collect())
        })
    }
}
