//! Members of a RAID of Linux' md driver: of level 1, each has everything.
//!
//! The superblock is at the end (0.90 and 1.0), at the beginning (1.1) or 4 KiB behind it (1.2). A member that was
//! taken out of its array does not know; what can be seen on one member is whether it is one that is being filled, and
//! what it knew of the others when it was written last.

use vhdx_mmap::ops::Volume as Kind;

use crate::device::{Device, call};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::time::Time;

const KIND: Kind = Kind::MdRaid;

const MAGIC: u32 = 0xa92b_4efc;

const SECTOR: u64 = 512;

/// Length of a superblock, in bytes, with the longest list of members.
const SUPERBLOCK: u64 = 4096;

/// Member of a RAID of level 1.
#[derive(Clone, Debug)]
pub(crate) struct RaidMember {
    /// The UUID of the array, 16 bytes.
    pub(crate) array: [u8; 16],
    /// What it holds of the array.
    pub(crate) storage: Storage,
    /// Number of members of the array.
    pub(crate) members: u32,
    /// Number of changes of the superblock: of two members, the one with more is newer.
    pub(crate) events: u64,
    /// When the superblock was written last.
    pub(crate) updated: Time,
    /// Whether the array was in use, or the members are not known to be the same.
    pub(crate) is_dirty: bool,
    /// Whether the array was without another member when this one was written last, so that this is the newest, or one
    /// of them.
    pub(crate) is_degraded: bool,
}

/// Reads the superblock of a member, and finds its content.
pub(crate) fn read(storage: &Storage) -> Result<RaidMember> {
    call(
        KIND,
        |error: Error| error,
        || {
            let device = Device::new(storage.clone());
            let size = storage.size();
            let mut found = Vec::new();
            // Where the driver looks for them, from the size of the member.
            let at_end_0 = (size & !0xffff).checked_sub(0x1_0000);
            let at_end_1 = size.checked_sub(0x2000).map(|offset| offset & !0xfff);
            let places = [(Some(0x1000), "1.2"), (Some(0), "1.1"), (at_end_1, "1.0"), (at_end_0, "0.90")];
            for (place, version) in places {
                let Some(place) = place.filter(|place| place.saturating_add(SUPERBLOCK) <= size) else { continue };
                let mut bytes = vec![0; usize::try_from(SUPERBLOCK).unwrap_or(4096)];
                device.fill(place, &mut bytes).map_err(|error| Error::damaged(KIND, error))?;
                let superblock = Superblock { bytes, place };
                let major = u32::from(version != "0.90");
                if superblock.le32(0) == MAGIC && superblock.le32(4) == major {
                    found.push((superblock, version));
                }
            }
            match found.as_slice() {
                [] => Err(damaged("no superblock")),
                [(superblock, "0.90")] => superblock.read_0(storage),
                [(superblock, _)] => superblock.read_1(storage),
                [(_, one), (_, other), ..] => {
                    Err(Error::unsupported(KIND, format!("there are superblocks of versions {one} and {other}")))
                }
            }
        },
    )
}

fn damaged(reason: &str) -> Error {
    Error::damaged(KIND, reason)
}

fn refused<T>(reason: impl std::fmt::Display) -> Result<T> {
    Err(Error::unsupported(KIND, reason))
}

/// Refuses levels that spread content over members.
fn check_level(level: u32) -> Result<()> {
    match level.cast_signed() {
        1 => Ok(()),
        -1 => refused("the array is linear: its content goes on in other members"),
        -4 => refused("the array is one of multiple paths"),
        level @ (0 | 4 | 5 | 6 | 10) => refused(format!("RAID {level}: no member has the whole content")),
        level => refused(format!("level {level}")),
    }
}

struct Superblock {
    bytes: Vec<u8>,
    /// Its offset in the member, in bytes.
    place: u64,
}

impl Superblock {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// A word of version 0.90.
    fn word(&self, index: usize) -> u32 {
        self.le32(index.saturating_mul(4))
    }

    /// The sum of the words, without the checksum itself, folded to 32 bits; half a word at the end counts, too.
    fn sum(&self, length: usize, checksum_at: usize) -> u32 {
        let words = self.bytes.get(..length).unwrap_or_default().chunks(4).zip((0_usize..).step_by(4));
        let sum = words.filter(|(_, at)| *at != checksum_at).fold(0_u64, |sum, (word, _)| {
            let mut whole = [0; 4];
            whole.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            sum.wrapping_add(u64::from(u32::from_le_bytes(whole)))
        });
        let [low, high] = [sum & 0xffff_ffff, sum >> 32];
        u32::try_from(low.wrapping_add(high) & 0xffff_ffff).unwrap_or(0)
    }

    fn read_1(&self, storage: &Storage) -> Result<RaidMember> {
        /// The member is filled up to an offset.
        const IS_RECOVERING: u32 = 2;
        /// Features that do not change where content is, or whether it is right: a bitmap of changes.
        const HARMLESS: u32 = 1;
        const NAMES: [(u32, &str); 5] = [
            (IS_RECOVERING, "the member was being filled from others, and was not in sync"),
            (4, "the array was being reshaped"),
            (8, "the member has a list of bad blocks, whose content others have"),
            (16, "the member replaces another"),
            (0x200, "the array has a journal on another device"),
        ];

        let most_members = usize::try_from(self.le32(220)).unwrap_or(usize::MAX);
        let length = most_members.saturating_mul(2).saturating_add(256);
        if length > self.bytes.len() {
            return Err(damaged("the superblock has a list of members that is too long"));
        }
        if self.sum(length, 216) != self.le32(216) {
            return Err(damaged("the checksum of the superblock is wrong"));
        }
        if self.le64(144).checked_mul(SECTOR) != Some(self.place) {
            return Err(damaged("the superblock is that of another place"));
        }
        check_level(self.le32(72))?;
        let features = self.le32(8);
        if let Some((_, reason)) = NAMES.iter().find(|(bit, _)| features & bit != 0) {
            return refused(reason);
        }
        if features & !HARMLESS != 0 {
            return refused(format!("features {:#x}", features & !HARMLESS));
        }
        let members = self.le32(92);
        let roles: Vec<u16> =
            (0..most_members).map(|index| self.le16(index.saturating_mul(2).saturating_add(256))).collect();
        let own = usize::try_from(self.le32(160)).ok().and_then(|number| roles.get(number)).copied();
        let is_active = |role: &&u16| u32::from(**role) < members;
        match own {
            Some(0xfffe) | None => return refused("the member was taken out of its array as faulty"),
            Some(0xffff) => return refused("the member is a spare one, without content"),
            Some(0xfffd) => return refused("the member is the journal of its array"),
            Some(role) if !is_active(&&role) => {
                return Err(damaged("the member has a place that its array does not have"));
            }
            Some(_) => {}
        }
        let active = u32::try_from(roles.iter().filter(is_active).count()).unwrap_or(u32::MAX);
        let (start, most, used) = (self.le64(128), self.le64(136), self.le64(80));
        if used > most {
            return Err(damaged("the array is larger than its member"));
        }
        Ok(RaidMember {
            array: self.array(16),
            storage: content(storage, start, used)?,
            members,
            events: self.le64(200),
            // 40 bits of seconds, and microseconds above.
            updated: Time::of_seconds((self.le64(192) & 0xff_ffff_ffff).cast_signed()),
            is_dirty: self.le64(208) != u64::MAX,
            is_degraded: active < members,
        })
    }

    fn read_0(&self, storage: &Storage) -> Result<RaidMember> {
        const IS_CLEAN: u32 = 1;
        const FAULTY: u32 = 1;
        const ACTIVE: u32 = 2;
        const IN_SYNC: u32 = 4;
        /// Most members; each has a descriptor.
        const MOST: usize = 27;

        if self.sum(self.bytes.len(), 152) != self.word(38) {
            return Err(damaged("the checksum of the superblock is wrong"));
        }
        match self.word(2) {
            90 => {}
            91 => return refused("the array was being reshaped"),
            minor => return refused(format!("version 0.{minor} of the superblock")),
        }
        check_level(self.word(7))?;
        let state_of = |number: usize| self.word(number.saturating_mul(32).saturating_add(128).saturating_add(4));
        // Its own descriptor is behind those of all.
        let own = usize::try_from(self.word(992)).ok().filter(|number| *number < MOST);
        let own = own.ok_or_else(|| damaged("the member has a number that no array has"))?;
        let state = state_of(own);
        if state & FAULTY != 0 {
            return refused("the member was taken out of its array as faulty");
        }
        if state & IN_SYNC == 0 {
            return refused(if state & ACTIVE != 0 {
                "the member was being filled from others, and was not in sync"
            } else {
                "the member is a spare one, without content"
            });
        }
        let members = self.word(10);
        let in_sync = (0..MOST).filter(|number| state_of(*number) & (IN_SYNC | FAULTY) == IN_SYNC).count();
        let used = u64::from(self.word(8)).saturating_mul(2);
        if used.saturating_mul(SECTOR) > self.place {
            return Err(damaged("the array is larger than its member"));
        }
        let id = [5, 13, 14, 15].map(|index: usize| self.array::<4>(index.saturating_mul(4)));
        let mut array = [0; 16];
        array.iter_mut().zip(id.as_flattened()).for_each(|(to, from)| *to = *from);
        Ok(RaidMember {
            array,
            storage: content(storage, 0, used)?,
            members,
            events: (u64::from(self.word(40)) << 32) | u64::from(self.word(39)),
            updated: Time::of_seconds(i64::from(self.word(32))),
            is_dirty: self.word(33) & IS_CLEAN == 0,
            is_degraded: u32::try_from(in_sync).unwrap_or(u32::MAX) < members,
        })
    }
}

/// What a member holds; start and length in sectors.
fn content(storage: &Storage, start: u64, length: u64) -> Result<Storage> {
    let range = start.checked_mul(SECTOR).zip(length.checked_mul(SECTOR));
    let part = range.filter(|(_, length)| *length > 0).and_then(|(start, length)| storage.part(start, length));
    part.ok_or_else(|| damaged("the content of the member ends past its partition"))
}

impl RaidMember {
    /// Says how far the content can be relied on, in words; none if there is nothing to say.
    pub(crate) fn note(&self) -> Option<String> {
        let mut notes = Vec::new();
        if self.members > 1 && !self.is_degraded {
            notes.push(format!(
                "the other members of the array are not on this disk, and may be newer than {} ({} events)",
                self.updated, self.events
            ));
        }
        if self.is_dirty && self.members > 1 {
            notes.push("it was in use or being synchronised, so its members may differ".to_owned());
        }
        (!notes.is_empty()).then(|| format!("md RAID 1 of {} members: {}", self.members, notes.join("; ")))
    }
}
