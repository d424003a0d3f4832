//! The places of a disk where file systems can be: partitions, what members of a RAID hold, and logical volumes.

use std::sync::Arc;

use vhdx_mmap::ops::{self, Volume as Kind, VolumeDetails};
use vhdx_mmap::{Disk, DiskRange};

use crate::error::{Error, Result};
use crate::lvm::{self, LogicalVolume};
use crate::raid;
use crate::storage::Storage;

/// Place on a disk where a file system can be.
#[non_exhaustive]
#[derive(Debug)]
pub struct Place {
    /// Number of the partition; none for the whole disk, and for a logical volume.
    pub partition: Option<u32>,
    /// Name of the partition in its table, or `GROUP/NAME` of a logical volume; empty if there is none. As all texts,
    /// it is from the disk, and must be escaped before it is printed.
    pub name: String,
    /// UUID of the logical volume; none for anything else.
    pub logical_uuid: Option<String>,
    /// What it holds, if it is known.
    pub kind: Option<Kind>,
    /// Label of what it holds.
    pub label: Option<String>,
    /// UUID of what it holds.
    pub uuid: Option<String>,
    /// Size, in bytes.
    pub size: u64,
    /// Where it lies, or why that cannot be read.
    pub storage: Result<Storage>,
    /// What must be known of its content, in words.
    pub note: Option<String>,
}

impl Place {
    /// Returns whether it holds a file system whose files can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.storage.is_ok() && self.kind.is_some_and(crate::can_read)
    }

    /// Returns the group and the name of a logical volume; none for anything else.
    #[must_use]
    pub fn logical_name(&self) -> Option<(&str, &str)> {
        self.logical_uuid.as_ref().and_then(|_| self.name.split_once('/'))
    }

    /// Returns whether this is the same place of another state of the disk, with the same kind of file system.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let start = |place: &Self| {
            place.storage.as_ref().ok().and_then(|storage| storage.in_disk(0..1).next()).map(|(_, range)| range.start)
        };
        let is_there = match (&self.logical_uuid, &other.logical_uuid) {
            (Some(one), Some(other)) => one == other,
            (None, None) => start(self) == start(other),
            _ => false,
        };
        is_there && self.kind == other.kind
    }

    fn new(storage: Storage, kind: Option<Kind>, details: Option<VolumeDetails>) -> Self {
        let details = details.unwrap_or_default();
        Self {
            partition: None,
            name: String::new(),
            logical_uuid: None,
            kind,
            label: details.label,
            uuid: details.uuid,
            size: storage.size(),
            storage: Ok(storage),
            note: None,
        }
    }
}

/// Finds the places of a disk where file systems can be: its partitions, or else the whole disk, and the logical
/// volumes of LVM2 in these. What a member of a RAID of level 1 holds takes the place of the member.
///
/// # Errors
/// Fails if a sector with a partition table cannot be read.
pub fn places(disk: &Arc<Disk>) -> Result<Vec<Place>> {
    let layout = ops::detect(disk)?;
    let mut places = Vec::new();
    for partition in layout.partition_table.iter().flat_map(|table| &table.partitions) {
        // Partitions can claim more than the disk has.
        let end = partition.start.saturating_add(partition.len).min(disk.size());
        let range = DiskRange::new(Arc::clone(disk), partition.start.min(end)..end)?;
        places.push(Place {
            partition: Some(partition.number),
            name: partition.name.clone(),
            size: partition.len,
            ..Place::new(range.into(), partition.volume, partition.details.clone())
        });
    }
    if places.is_empty() || layout.volume.is_some() {
        let whole = DiskRange::whole(Arc::clone(disk)).into();
        places.push(Place::new(whole, layout.volume, layout.details));
    }
    let is_member = layout.volume == Some(Kind::MdRaid);
    open_raid(&mut places);
    if is_member {
        note_whole_member(&mut places);
    }
    add_logical(&mut places);
    Ok(places)
}

/// Recognises what is in a storage.
pub(crate) fn detect(storage: &Storage) -> Result<Option<(Kind, VolumeDetails)>> {
    Ok(ops::detect_volume_in(storage.size(), |buffer, offset| storage.read_at(buffer, offset))?)
}

/// Puts what members of a RAID hold in their place. Of several members of one array, the newest is taken.
fn open_raid(places: &mut [Place]) {
    let mut newest = Vec::<([u8; 16], u64, Option<u32>)>::new();
    let mut members = Vec::new();
    for place in places.iter_mut().filter(|place| place.kind == Some(Kind::MdRaid)) {
        let Ok(storage) = &place.storage else { continue };
        match raid::read(storage) {
            Ok(member) => {
                let number = place.partition;
                match newest.iter_mut().find(|(array, ..)| *array == member.array) {
                    Some(known) if member.events > known.1 => *known = (member.array, member.events, number),
                    Some(_) => {}
                    None => newest.push((member.array, member.events, number)),
                }
                members.push((place, member));
            }
            Err(error) => place.storage = Err(error),
        }
    }
    for (place, member) in members {
        let best = newest.iter().find(|(array, ..)| *array == member.array);
        if let Some((.., number)) = best.filter(|(.., number)| *number != place.partition) {
            let which = number.map_or_else(|| "the whole disk".to_owned(), |number| format!("partition {number}"));
            let reason = format!("{which} is a member of the same array, as new or newer, and is read instead");
            place.storage = Err(Error::unsupported(Kind::MdRaid, reason));
            continue;
        }
        place.note = member.note();
        match detect(&member.storage) {
            Ok(found) => {
                let (kind, details) = found.unzip();
                let details = details.unwrap_or_default();
                (place.kind, place.label, place.uuid) = (kind, details.label, details.uuid);
                place.size = member.storage.size();
                place.storage = Ok(member.storage);
            }
            Err(error) => place.storage = Err(error),
        }
    }
}

/// Says of partitions of a disk that is a member of a RAID as a whole how far they can be relied on, as of the array.
fn note_whole_member(places: &mut [Place]) {
    let whole = places.iter().find(|place| place.partition.is_none());
    let note = whole.and_then(|whole| match &whole.storage {
        Ok(_) => whole.note.clone(),
        Err(error) => {
            Some(format!("the whole disk has the superblock of a RAID, and is not read as its member: {error:#}"))
        }
    });
    for place in places.iter_mut().filter(|place| place.partition.is_some()) {
        place.note = place.note.take().or_else(|| note.clone());
    }
}

/// Adds the logical volumes of the physical ones among places.
fn add_logical(places: &mut Vec<Place>) {
    let (mut indexes, mut storages, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (index, place) in places.iter().enumerate().filter(|(_, place)| place.kind == Some(Kind::Lvm)) {
        if let Ok(storage) = &place.storage {
            indexes.push(index);
            storages.push(storage.clone());
            notes.extend(place.note.clone());
        }
    }
    if storages.is_empty() {
        return;
    }
    let (volumes, failed) = lvm::read(&storages);
    for (index, error) in failed {
        if let Some(place) = indexes.get(index).and_then(|index| places.get_mut(*index)) {
            place.storage = Err(error);
        }
    }
    for LogicalVolume { group, name, uuid, size, storage, is_partial } in volumes {
        let found = match &storage {
            Ok(storage) => detect(storage),
            Err(_) => Ok(None),
        };
        let (found, storage) = match found {
            Ok(found) => (found, storage),
            Err(error) => (None, Err(error)),
        };
        let (kind, details) = found.unzip();
        let details = details.unwrap_or_default();
        let partial = is_partial.then(|| {
            format!("other physical volumes of the group {group} are not on this disk, and may have newer metadata")
        });
        let note: Vec<String> = partial.into_iter().chain(notes.iter().cloned()).collect();
        places.push(Place {
            partition: None,
            name: format!("{group}/{name}"),
            logical_uuid: Some(uuid),
            kind,
            label: details.label,
            uuid: details.uuid,
            size,
            storage,
            note: (!note.is_empty()).then(|| note.join("; ")),
        });
    }
}
