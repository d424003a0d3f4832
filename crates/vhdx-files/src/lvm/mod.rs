//! LVM2: logical volumes that lie in pieces of physical ones as they are ("linear").
//!
//! A physical volume has a label in one of its first four sectors, which leads to areas with the text that describes
//! the whole group. Labels, headers of areas and texts have checksums, and the text with the highest number counts.

mod text;

use std::collections::HashMap;

use vhdx_mmap::ops::Volume as Kind;

use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::storage::Storage;

use text::{Section, Value};

const KIND: Kind = Kind::Lvm;

/// Unit of all places and sizes.
const SECTOR: u64 = 512;

/// Longest text that is read, in bytes. A thousand volumes take half a megabyte.
const LONGEST_TEXT: u64 = 2 << 20;

/// Most texts of a disk, in bytes, without those that are there again.
const MOST_TEXT: usize = 4 << 20;

/// Most volumes of a group.
const MOST_VOLUMES: usize = 4096;

/// Most metadata areas of a physical volume: one at its beginning, and one at its end.
const MOST_AREAS: usize = 2;

/// Length of the header of an area. The text is in a ring behind it.
const AREA_HEADER: u64 = 512;

/// Value that checksums begin with.
const CHECKSUM_SEED: u32 = 0xf597_a6cf;

const AREA_MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";

/// Flag of a text that is out of use.
const IS_IGNORED: u32 = 1;

/// A logical volume.
#[derive(Debug)]
pub(crate) struct LogicalVolume {
    /// Name of its group.
    pub(crate) group: String,
    /// Its own name.
    pub(crate) name: String,
    /// Its UUID, as the tools of LVM print it.
    pub(crate) uuid: String,
    /// Its size, in bytes.
    pub(crate) size: u64,
    /// Where it lies, or why it cannot be read.
    pub(crate) storage: Result<Storage>,
    /// Whether other physical volumes of its group are not on this disk, and may have a newer description of it.
    pub(crate) is_partial: bool,
}

/// A physical volume.
struct Physical {
    /// Without hyphens.
    uuid: Vec<u8>,
    storage: Storage,
    /// Whether another one has the same UUID. Copies are not told apart, and one may be older.
    is_twice: bool,
}

/// Reads the logical volumes of the groups of physical volumes on one disk; and why some of these cannot be read, with
/// their indexes.
pub(crate) fn read(storages: &[Storage]) -> (Vec<LogicalVolume>, Vec<(usize, Error)>) {
    let (mut physical, mut texts, mut failed) = (Vec::<Physical>::new(), Vec::<Vec<u8>>::new(), Vec::new());
    for (index, storage) in storages.iter().enumerate() {
        match call(KIND, |error: Error| error, || read_physical(storage, &mut texts)) {
            Ok(uuid) => {
                let same = physical.iter_mut().find(|other| other.uuid == uuid);
                let is_twice = same.map(|other| other.is_twice = true).is_some();
                physical.push(Physical { uuid, storage: storage.clone(), is_twice });
            }
            Err(error) => failed.push((index, error)),
        }
    }
    let mut groups: HashMap<Vec<u8>, Group<'_>> = HashMap::new();
    for text in &texts {
        // That it can be parsed was seen when it was read.
        let Some(mut group) = Section::parse(text).ok().and_then(Group::of) else { continue };
        if let Some(known) = groups.get(&group.uuid).filter(|known| known.number >= group.number) {
            if known.number > group.number {
                continue;
            }
            group.is_ambiguous = known.is_ambiguous || known.section() != group.section();
        }
        groups.insert(group.uuid.clone(), group);
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    groups.sort_by(|one, other| (&one.name, &one.uuid).cmp(&(&other.name, &other.uuid)));
    let volumes = groups.iter().flat_map(|group| group.volumes(&physical)).collect();
    (volumes, failed)
}

fn damaged(reason: &str) -> Error {
    Error::damaged(KIND, reason)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!CHECKSUM_SEED);
    hasher.update(bytes);
    !hasher.finalize()
}

fn read_bytes(device: &Device, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Error::TooMuchWork)?];
    device.fill(offset, &mut bytes).map_err(|error| Error::damaged(KIND, error))?;
    Ok(bytes)
}

/// Reads the UUID of a physical volume, and adds the texts in its areas to those that are known.
fn read_physical(storage: &Storage, texts: &mut Vec<Vec<u8>>) -> Result<Vec<u8>> {
    let device = Device::new(storage.clone());
    let beginning = read_bytes(&device, 0, SECTOR.saturating_mul(4))?;
    let mut sectors = (0_u64..).zip(beginning.chunks_exact(512));
    let is_label = |bytes: &[u8]| bytes.starts_with(b"LABELONE") && bytes.get(24..32) == Some(b"LVM2 001");
    let found = sectors.find(|(_, sector)| is_label(sector));
    let (number, sector) = found.ok_or_else(|| damaged("no label of a physical volume"))?;
    let label = Fields(sector);
    if label.le64(8) != number || label.le32(16) != checksum(sector.get(20..).unwrap_or_default()) {
        return Err(damaged("the checksum of a label is wrong, or it is in another sector"));
    }
    let header = usize::try_from(label.le32(20)).ok().filter(|at| (32..=464).contains(at));
    let header = header.ok_or_else(|| damaged("the label has no header of a physical volume"))?;
    let uuid = sector.get(header..).and_then(|rest| rest.get(..32)).unwrap_or_default().to_vec();
    // A list of areas with content, and one of areas with texts; each ends with zeros.
    let places: Vec<(u64, u64)> = sector
        .get(header.saturating_add(40)..)
        .unwrap_or_default()
        .chunks_exact(16)
        .map(|area| (Fields(area).le64(0), Fields(area).le64(8)))
        .collect();
    let mut lists = places.split(|(start, _)| *start == 0);
    let areas = lists.nth(1).unwrap_or_default();
    let (mut is_read, mut first_error) = (false, None);
    for (start, size) in areas.iter().take(MOST_AREAS) {
        // One of two areas is enough; where both are sound, the newer text counts.
        match read_text(&device, *start, *size) {
            Ok(text) => {
                is_read = true;
                let new = text.filter(|text| !texts.contains(text));
                let total = texts.iter().chain(&new).map(Vec::len).fold(0, usize::saturating_add);
                if total > MOST_TEXT {
                    return Err(Error::TooMuchWork);
                }
                texts.extend(new);
            }
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match first_error {
        Some(error) if !is_read => Err(error),
        _ => Ok(uuid),
    }
}

/// Reads the text in an area; none if there is none, as in a physical volume without a group.
fn read_text(device: &Device, start: u64, size: u64) -> Result<Option<Vec<u8>>> {
    let bytes = read_bytes(device, start, AREA_HEADER)?;
    let header = Fields(&bytes);
    if bytes.get(4..20) != Some(AREA_MAGIC) || header.le32(0) != checksum(bytes.get(4..).unwrap_or_default()) {
        return Err(damaged("the checksum of the header of a metadata area is wrong"));
    }
    if header.le32(20) != 1 || header.le64(24) != start || header.le64(32) != size {
        return Err(damaged("the header of a metadata area is not that of its place, or of another version"));
    }
    let (offset, length) = (header.le64(40), header.le64(48));
    if offset == 0 || length == 0 || header.le32(60) & IS_IGNORED != 0 {
        return Ok(None);
    }
    if length > LONGEST_TEXT {
        return Err(Error::unsupported(KIND, format!("{length} bytes of metadata, more than are read")));
    }
    let room = size.checked_sub(AREA_HEADER).filter(|room| length <= *room);
    if room.is_none() || !(AREA_HEADER..size).contains(&offset) {
        return Err(damaged("the metadata lie outside of their area"));
    }
    let first = length.min(size.saturating_sub(offset));
    let mut text = read_bytes(device, start.saturating_add(offset), first)?;
    text.extend(read_bytes(device, start.saturating_add(AREA_HEADER), length.saturating_sub(first))?);
    if checksum(&text) != header.le32(56) {
        return Err(damaged("the checksum of the metadata is wrong"));
    }
    Section::parse(&text).map_err(|reason| Error::damaged(KIND, format!("the metadata are no such text: {reason}")))?;
    Ok(Some(text))
}

/// A group, as a text describes it.
struct Group<'t> {
    name: String,
    /// Without hyphens.
    uuid: Vec<u8>,
    number: u64,
    /// Whether there is another description with this number.
    is_ambiguous: bool,
    text: Section<'t>,
}

fn plain(uuid: &[u8]) -> Vec<u8> {
    uuid.iter().copied().filter(|byte| *byte != b'-').collect()
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

impl<'t> Group<'t> {
    fn of(text: Section<'t>) -> Option<Self> {
        let (name, group) = text.sections().next()?;
        let (name, uuid, number) = (shown(name), plain(group.text("id")?), group.number("seqno")?);
        Some(Self { name, uuid, number, is_ambiguous: false, text })
    }

    fn section(&self) -> Option<&Section<'t>> {
        self.text.sections().next().map(|(_, group)| group)
    }

    /// Describes the volumes that users see.
    fn volumes(&self, physical: &[Physical]) -> Vec<LogicalVolume> {
        let Some(group) = self.section() else { return Vec::new() };
        let (mut places, mut is_partial) = (HashMap::new(), false);
        for (name, described) in group.section("physical_volumes").into_iter().flat_map(Section::sections) {
            let place = PhysicalPlace::of(described, physical);
            is_partial |= matches!(place, PhysicalPlace::Missing(_));
            places.insert(name, place);
        }
        let map = Map {
            extent: group.number("extent_size").and_then(|sectors| sectors.checked_mul(SECTOR)).unwrap_or(0),
            is_lvm2: group.text("format").is_none_or(|format| format == b"lvm2"),
            is_ambiguous: self.is_ambiguous,
            places,
            snapshots: group.section("logical_volumes").map(snapshots).unwrap_or_default(),
        };
        let volumes = group.section("logical_volumes").into_iter().flat_map(Section::sections);
        let visible = volumes.filter(|(_, volume)| volume.has_flag("status", "VISIBLE")).take(MOST_VOLUMES);
        let described = visible.map(|(name, volume)| {
            let extents = segments(volume)
                .iter()
                .fold(0_u64, |sum, segment| sum.saturating_add(segment.number("extent_count").unwrap_or(0)));
            let storage = map.storage(name, volume).map_err(|problem| {
                let reason = format!("{}/{}: {}", self.name, shown(name), problem.reason);
                match problem.is_unsupported {
                    true => Error::unsupported(KIND, reason),
                    false => Error::damaged(KIND, reason),
                }
            });
            LogicalVolume {
                group: self.name.clone(),
                name: shown(name),
                uuid: volume.text("id").map(shown).unwrap_or_default(),
                size: extents.saturating_mul(map.extent),
                storage,
                is_partial,
            }
        });
        described.collect()
    }
}

fn segments<'s, 't>(volume: &'s Section<'t>) -> Vec<&'s Section<'t>> {
    let mut found: Vec<_> =
        volume.sections().filter(|(name, _)| name.starts_with(b"segment")).map(|(_, segment)| segment).collect();
    found.sort_by_key(|segment| segment.number("start_extent"));
    found
}

/// What a snapshot makes of other volumes of its group.
#[derive(Clone, Copy)]
enum Snapshot {
    /// It holds what the snapshot keeps of its origin, in a form of its own.
    Store,
    /// The snapshot is on its way back into it.
    Merging,
}

fn snapshots<'t>(volumes: &Section<'t>) -> HashMap<&'t [u8], Snapshot> {
    let mut found = HashMap::new();
    for segment in volumes.sections().flat_map(|(_, volume)| segments(volume)) {
        if segment.text("type") != Some(b"snapshot") {
            continue;
        }
        for store in ["cow_store", "merging_store"] {
            if let Some(name) = segment.text(store) {
                found.insert(name, Snapshot::Store);
            }
        }
        if let (Some(origin), Some(_)) = (segment.text("origin"), segment.text("merging_store")) {
            found.insert(origin, Snapshot::Merging);
        }
    }
    found
}

/// Where the extents of a physical volume are.
enum PhysicalPlace {
    /// Its storage, the offset of its first extent in bytes, and the number of its extents.
    Here(Storage, u64, u64),
    /// It is not on this disk: why.
    Missing(String),
    /// It is not used, or not described: why.
    Unusable(String),
}

impl PhysicalPlace {
    fn of(described: &Section<'_>, physical: &[Physical]) -> Self {
        let uuid = described.text("id").unwrap_or_default();
        let name = shown(uuid);
        let Some(found) = physical.iter().find(|physical| physical.uuid == plain(uuid)) else {
            return Self::Missing(format!("it needs the physical volume {name}, which is not on this disk"));
        };
        if found.is_twice {
            return Self::Unusable(format!("the physical volume {name} is twice on this disk"));
        }
        if described.has_flag("flags", "MISSING") {
            return Self::Unusable(format!("the group was used without the physical volume {name}"));
        }
        let start = described.number("pe_start").and_then(|start| start.checked_mul(SECTOR));
        match start.zip(described.number("pe_count")) {
            Some((start, count)) => Self::Here(found.storage.clone(), start, count),
            None => Self::Unusable(format!("it is not said where the extents of the physical volume {name} are")),
        }
    }
}

/// Why a volume cannot be read.
struct Problem {
    reason: String,
    is_unsupported: bool,
}

impl Problem {
    fn unsupported(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_unsupported: true }
    }

    fn damaged(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_unsupported: false }
    }
}

/// What a group says about places.
struct Map<'t> {
    /// Size of an extent, in bytes.
    extent: u64,
    is_lvm2: bool,
    is_ambiguous: bool,
    places: HashMap<&'t [u8], PhysicalPlace>,
    snapshots: HashMap<&'t [u8], Snapshot>,
}

impl Map<'_> {
    fn storage(&self, name: &[u8], volume: &Section<'_>) -> Result<Storage, Problem> {
        match self.snapshots.get(name) {
            Some(Snapshot::Store) => return Err(Problem::unsupported("it is a snapshot")),
            Some(Snapshot::Merging) => return Err(Problem::unsupported("a snapshot is being merged into it")),
            None => {}
        }
        if self.extent == 0 || !self.is_lvm2 {
            return Err(Problem::damaged("its group has no size of extents, or another format"));
        }
        if self.is_ambiguous {
            return Err(Problem::unsupported("its group has two descriptions with the same number"));
        }
        let segments = segments(volume);
        let expected = volume.number("segment_count").and_then(|count| usize::try_from(count).ok());
        if segments.is_empty() || expected != Some(segments.len()) {
            return Err(Problem::damaged("segments are missing"));
        }
        let (mut parts, mut end) = (Vec::new(), 0_u64);
        for segment in segments {
            let count = segment.number("extent_count").filter(|count| *count > 0);
            let (Some(count), Some(start)) = (count, segment.number("start_extent")) else {
                return Err(Problem::damaged("a segment has no extents"));
            };
            if start != end {
                return Err(Problem::damaged("there is a gap between its segments, or they overlap"));
            }
            end = end.saturating_add(count);
            parts.push(self.part(segment, count)?);
        }
        let disk = parts.first().map(Storage::disk).ok_or_else(|| Problem::damaged("it has no segments"))?;
        Ok(Storage::joined(disk, &parts))
    }

    /// Where a segment lies.
    fn part(&self, segment: &Section<'_>, count: u64) -> Result<Storage, Problem> {
        let kind = segment.text("type").map(shown).unwrap_or_default();
        let stripes = segment.number("stripe_count");
        match (kind.as_str(), stripes) {
            ("striped" | "linear", Some(1)) => {}
            ("striped", Some(stripes)) => {
                return Err(Problem::unsupported(format!("it is striped over {stripes} physical volumes")));
            }
            _ => {
                return Err(Problem::unsupported(format!("a segment of it has the type {kind}; linear ones are read")));
            }
        }
        let Some([Value::Text(on), Value::Number(first)]) = segment.list("stripes") else {
            return Err(Problem::damaged("a segment does not say where it lies"));
        };
        let (storage, start, most) = match self.places.get(on) {
            Some(PhysicalPlace::Here(storage, start, most)) => (storage, *start, *most),
            Some(PhysicalPlace::Missing(why) | PhysicalPlace::Unusable(why)) => {
                return Err(Problem::unsupported(why.clone()));
            }
            // A volume that is moved lies on another one meanwhile.
            None => return Err(Problem::unsupported(format!("a segment of it lies on {}", shown(on)))),
        };
        if first.checked_add(count).is_none_or(|end| end > most) {
            return Err(Problem::damaged("a segment ends past the physical volume"));
        }
        let at = first.checked_mul(self.extent).and_then(|at| at.checked_add(start));
        let part = at.zip(count.checked_mul(self.extent)).and_then(|(at, length)| storage.part(at, length));
        part.ok_or_else(|| Problem::damaged("a segment ends past its partition"))
    }
}
