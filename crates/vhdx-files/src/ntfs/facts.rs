//! What files are: their kinds, times, attributes, and where their links lead.

use super::Ntfs;
use super::file::File;
use super::raw::{Fields, damaged, to_usize};
use super::record::{Attribute, DATA, EXTENDED, INDEX_ALLOCATION, REPARSE_POINT, STANDARD_INFORMATION};
use super::reparse::{self, Reparse};
use crate::error::{Error, Result};
use crate::time::Time;
use crate::volume::{Attribute as Extended, FileKind, Node, Times, Volume};

/// Attribute of DOS of system files.
pub(super) const SYSTEM: u32 = 4;

/// Largest system file that is looked at for being a link or a device, in bytes.
const LARGEST_SPECIAL: u64 = 16 << 10;

/// Most bytes that extended attributes have.
const LARGEST_EXTENDED: u64 = 64 << 10;

/// What a file is.
pub(super) struct Facts {
    pub(super) kind: FileKind,
    pub(super) size: u64,
    /// Attributes of DOS and Windows.
    pub(super) attributes: u32,
    pub(super) times: Times,
    pub(super) reparse: Option<Reparse>,
    /// What a system file says that is a link or a device in the way of Services for Unix: its target, or its numbers.
    pub(super) special: Option<Vec<u8>>,
}

impl Ntfs {
    /// Reads the attributes of a file that say what it is.
    pub(super) fn facts_of(&self, file: &File) -> Result<Facts> {
        let information = file.all(STANDARD_INFORMATION)?;
        let information = information.first().ok_or_else(|| damaged("a file has no standard information"))?;
        let information = information.resident()?;
        let times = times([information.u64(0)?, information.u64(8)?, information.u64(0x10)?, information.u64(0x18)?]);
        let attributes = information.u32(0x20)?;
        let is_directory = file.is_directory();
        let pieces = file.pieces(REPARSE_POINT, &[])?;
        let reparse = if pieces.is_empty() {
            None
        } else {
            let value = self.view.value(&pieces.iter().collect::<Vec<_>>(), reparse::LARGEST)?;
            Some(Reparse::parse(&value)?)
        };
        let content = first_of(file.pieces(DATA, &[])?);
        let size = match &content {
            _ if is_directory => first_of(file.all(INDEX_ALLOCATION)?).map_or(0, |blocks| blocks.size()),
            content => content.as_ref().map_or(0, Attribute::size),
        };
        let plain = if is_directory { FileKind::Directory } else { FileKind::File };
        let mut facts = Facts { kind: plain, size, attributes, times, reparse, special: None };
        match (&facts.reparse, content) {
            (Some(reparse), _) => facts.kind = reparse.kind(is_directory, size).unwrap_or(plain),
            (None, Some(content)) if attributes & SYSTEM != 0 && !is_directory && size <= LARGEST_SPECIAL => {
                if content.flags == 0
                    && let Ok(value) = self.view.value(&[&content], LARGEST_SPECIAL)
                    && let Some((kind, value)) = reparse::special(&value)
                {
                    facts.kind = kind;
                    facts.special = Some(value);
                }
            }
            _ => {}
        }
        Ok(facts)
    }

    /// Reads a file with the attributes that [`Ntfs::facts_of`] needs, and those that `is_wanted` names.
    pub(super) fn file(&self, node: Node, is_wanted: impl Fn(u32) -> bool) -> Result<File> {
        self.view.file(node, |kind, first| {
            let is_fact = match kind {
                STANDARD_INFORMATION | REPARSE_POINT => true,
                DATA | INDEX_ALLOCATION => first == 0,
                _ => false,
            };
            is_fact || is_wanted(kind)
        })
    }

    /// Returns whether a drive letter is that of this volume: C, if Windows is on it. Which letters other volumes had
    /// is only known to the system that used them.
    pub(super) fn has_letter(&self, letter: u8) -> Result<bool> {
        if letter != b'C' {
            return Ok(false);
        }
        if let Some(is_of_windows) = self.is_of_windows.get() {
            return Ok(*is_of_windows);
        }
        let mut node = Some(self.root);
        for name in ["Windows", "System32"] {
            let Some(folder) = node else { break };
            node = match self.find(folder, name.as_bytes()) {
                Err(Error::NotDirectory(_)) => None,
                found => found?,
            };
        }
        // What a link would lead to is not asked: it might lead back here.
        let kind = node
            .map(|node| -> Result<FileKind> { Ok(self.facts_of(&self.file(node, |_| false)?)?.kind) })
            .transpose()?;
        Ok(*self.is_of_windows.get_or_init(|| kind == Some(FileKind::Directory)))
    }

    /// Returns the extended attributes, with their names as they are.
    pub(super) fn extended(&self, file: &File) -> Result<Vec<Extended>> {
        let pieces = file.pieces(EXTENDED, &[])?;
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        let value = self.view.value(&pieces.iter().collect::<Vec<_>>(), LARGEST_EXTENDED)?;
        let mut rest = value.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (next, name_length) = (to_usize(rest.u32(0)?), usize::from(rest.u8(5)?));
            let (value_at, value_length) = (name_length.saturating_add(9), usize::from(rest.u16(6)?));
            found.push(Extended {
                name: rest.part(8, name_length)?.to_vec(),
                value: rest.part(value_at, value_length)?.to_vec(),
            });
            if next != 0 && next < value_at.saturating_add(value_length) {
                return Err(damaged("extended attributes overlap"));
            }
            rest = if next == 0 { &[] } else { rest.get(next..).unwrap_or_default() };
        }
        Ok(found)
    }
}

pub(super) fn first_of(attributes: Vec<Attribute<'_>>) -> Option<Attribute<'_>> {
    attributes.into_iter().next()
}

/// Converts a time: units of 100 ns since the beginning of 1601.
fn time(ticks: u64) -> Time {
    const PER_SECOND: u64 = 10_000_000;
    const SECONDS_TO_1970: i64 = 11_644_473_600;
    let (seconds, rest) = (ticks / PER_SECOND, ticks % PER_SECOND);
    Time {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX).saturating_sub(SECONDS_TO_1970),
        nanoseconds: u32::try_from(rest).unwrap_or(0).saturating_mul(100),
    }
}

/// Converts the times of a file, in the order in which the file system has them.
pub(super) fn times([created, modified, changed, accessed]: [u64; 4]) -> Times {
    let time = |ticks| Some(time(ticks));
    Times { modified: time(modified), accessed: time(accessed), changed: time(changed), created: time(created) }
}

/// Returns numbers of a device of 64 bits each, as Services for Unix has them.
pub(super) fn device_of(numbers: &[u8]) -> Option<(u32, u32)> {
    let number = |at| numbers.u64(at).ok().and_then(|number| u32::try_from(number).ok());
    Some((number(0)?, number(8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1601_to_the_year_60056() {
        let at = |seconds, nanoseconds| Time { seconds, nanoseconds };
        assert_eq!(time(0), at(-11_644_473_600, 0));
        assert_eq!(time(116_444_736_000_000_000), at(0, 0));
        assert_eq!(time(116_444_735_999_999_999), at(-1, 999_999_900));
        assert_eq!(time(u64::MAX), at(1_833_029_933_770, 955_161_500));
    }
}
