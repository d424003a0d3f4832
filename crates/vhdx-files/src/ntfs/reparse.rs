//! Reparse points: what a file is that is no plain file, and where links lead.

use super::raw::{Fields, damaged};
use crate::error::Result;
use crate::names::{from_utf16, units};
use crate::volume::FileKind;

/// Largest value of a reparse point, in bytes, with its header.
pub(super) const LARGEST: u64 = 64 << 10;

const MOUNT_POINT: u32 = 0xa000_0003;
const SYMBOLIC_LINK: u32 = 0xa000_000c;
const LX_SYMBOLIC_LINK: u32 = 0xa000_001d;
const UNIX_SOCKET: u32 = 0x8000_0023;
const LX_PIPE: u32 = 0x8000_0024;
const LX_CHARACTER_DEVICE: u32 = 0x8000_0025;
const LX_BLOCK_DEVICE: u32 = 0x8000_0026;

/// Bit of tags whose reparse point stands for another file.
const STANDS_FOR_ANOTHER: u32 = 0x2000_0000;

/// Bits of the tags of files in a cloud that differ from one of its folders to the next.
const CLOUD: u32 = 0x9000_001a;
const CLOUD_BITS: u32 = 0xffff_0fff;

/// Tags whose files have content elsewhere, and what they are called.
const ELSEWHERE: [(u32, &str); 9] = [
    (0x8000_0017, "a file in the system's compression (WOF)"),
    (0x8000_0013, "a file whose content was deduplicated"),
    (0x8000_0007, "a file in a single-instance store"),
    (0x8000_0008, "a file in a Windows image (WIM)"),
    (0xc000_0004, "a file in hierarchical storage"),
    (0x8000_0006, "a file in hierarchical storage"),
    (0x8000_0021, "a file in a cloud"),
    (0x8000_0014, "a special file of an NFS server"),
    (0x8000_0018, "a file in a container"),
];

/// Reparse point of a file.
#[derive(Debug)]
pub(super) struct Reparse {
    tag: u32,
    /// What follows the header.
    data: Vec<u8>,
}

impl Reparse {
    pub(super) fn parse(value: &[u8]) -> Result<Self> {
        let tag = value.u32(0)?;
        let length = usize::from(value.u16(4)?);
        // Tags of others than Microsoft have a GUID in the header.
        let header: usize = if tag & 0x8000_0000 == 0 { 24 } else { 8 };
        Ok(Self { tag, data: value.part(header, length)?.to_vec() })
    }

    /// Returns the kind of the file; none if it is what it would be without the reparse point.
    pub(super) fn kind(&self, is_directory: bool, size: u64) -> Option<FileKind> {
        match self.tag {
            MOUNT_POINT | SYMBOLIC_LINK | LX_SYMBOLIC_LINK => Some(FileKind::Link),
            UNIX_SOCKET => Some(FileKind::Socket),
            LX_PIPE => Some(FileKind::Pipe),
            LX_CHARACTER_DEVICE => Some(FileKind::CharacterDevice),
            LX_BLOCK_DEVICE => Some(FileKind::BlockDevice),
            tag if is_directory => (tag & STANDS_FOR_ANOTHER != 0).then_some(FileKind::Other),
            // Without content of its own it is whatever its owner makes of it.
            _ => (size == 0 && self.refusal().is_none() && !self.is_of_cloud()).then_some(FileKind::Other),
        }
    }

    /// Returns whether the file may be in a cloud, or here.
    pub(super) fn is_of_cloud(&self) -> bool {
        self.tag & CLOUD_BITS == CLOUD
    }

    /// Returns what the file is whose content is not where content is otherwise, if its kind is known.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        ELSEWHERE.iter().find_map(|(tag, text)| (*tag == self.tag).then_some(*text))
    }

    /// Returns the tag.
    pub(super) fn tag(&self) -> u32 {
        self.tag
    }

    /// Returns the target of a link. `has_letter` is asked whether a drive letter is that of this volume.
    pub(super) fn target(&self, has_letter: impl FnOnce(u8) -> Result<bool>) -> Result<Vec<u8>> {
        let data = self.data.as_slice();
        if self.tag == LX_SYMBOLIC_LINK {
            return Ok(data.get(4..).unwrap_or_default().to_vec());
        }
        let (names, is_relative) = match self.tag {
            MOUNT_POINT => (8, false),
            SYMBOLIC_LINK => (12, data.u32(8)? & 1 != 0),
            tag => return Err(damaged(format!("a reparse point with the tag {tag:#x} is no link"))),
        };
        let name = |at: usize| -> Result<Vec<u16>> {
            let start = usize::from(data.u16(at)?).saturating_add(names);
            let length = usize::from(data.u16(at.saturating_add(2))?);
            Ok(units(data.part(start, length)?).collect())
        };
        let (substitute, shown) = (name(0)?, name(4)?);
        if is_relative {
            return Ok(with_slashes(&substitute));
        }
        // What the system follows is `\??\C:\folder`, what it shows `C:\folder`.
        let prefix: Vec<u16> = r"\??\".encode_utf16().collect();
        let path = substitute.strip_prefix(prefix.as_slice()).unwrap_or(&substitute);
        if let [letter, colon, rest @ ..] = path
            && let Ok(letter) = u8::try_from(*letter)
            && letter.is_ascii_alphabetic()
            && *colon == u16::from(b':')
            && has_letter(letter.to_ascii_uppercase())?
        {
            let target = with_slashes(rest);
            return Ok(if target.is_empty() { b"/".to_vec() } else { target });
        }
        // The target is on another volume, or may be; backslashes keep it from being taken for a path of this one.
        let text = if shown.is_empty() { path } else { shown.as_slice() };
        Ok(from_utf16(text))
    }
}

/// Converts a path of Windows to one with slashes.
fn with_slashes(path: &[u16]) -> Vec<u8> {
    let (backslash, slash) = (u16::from(b'\\'), u16::from(b'/'));
    let path: Vec<u16> = path.iter().map(|unit| if *unit == backslash { slash } else { *unit }).collect();
    from_utf16(&path)
}

/// Returns the kind of a system file that Services for Unix, or ntfs-3g, made to be something else, and the target of a
/// link or the numbers of a device; none if it is a file.
pub(super) fn special(content: &[u8]) -> Option<(FileKind, Vec<u8>)> {
    let (kind, magic) = [
        (FileKind::Link, b"IntxLNK\x01"),
        (FileKind::CharacterDevice, b"IntxCHR\0"),
        (FileKind::BlockDevice, b"IntxBLK\0"),
    ]
    .into_iter()
    .find(|(_, magic)| content.starts_with(*magic))?;
    let rest = content.get(magic.len()..).unwrap_or_default();
    match kind {
        FileKind::Link => Some((kind, from_utf16(&units(rest).collect::<Vec<_>>()))),
        // The numbers of the device.
        _ => (rest.len() == 16).then(|| (kind, rest.to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reparse point with the names at the ends of its header.
    fn point(tag: u32, header: &[u16], substitute: &str, shown: &str) -> Reparse {
        let bytes = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let (substitute, shown) = (bytes(substitute), bytes(shown));
        let lengths = [0, substitute.len(), substitute.len(), shown.len()].map(|length| length.try_into().unwrap());
        let fields = [lengths.as_slice(), header].concat();
        let mut data: Vec<u8> = fields.into_iter().flat_map(u16::to_le_bytes).collect();
        data.extend(substitute);
        data.extend(shown);
        let mut value = tag.to_le_bytes().to_vec();
        value.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
        value.extend([0, 0]);
        value.extend(data);
        Reparse::parse(&value).unwrap()
    }

    #[test]
    fn targets_are_paths_only_if_they_are_in_the_volume() {
        let target = |point: &Reparse| {
            let target = point.target(|letter| Ok(letter == b'C')).unwrap();
            String::from_utf8(target).unwrap()
        };
        assert_eq!(target(&point(SYMBOLIC_LINK, &[1, 0], r"..\a\b", r"..\a\b")), "../a/b");
        assert_eq!(target(&point(SYMBOLIC_LINK, &[1, 0], r"\a", r"\a")), "/a");
        assert_eq!(target(&point(SYMBOLIC_LINK, &[0, 0], r"\??\c:\a\b", r"c:\a\b")), "/a/b");
        assert_eq!(target(&point(MOUNT_POINT, &[], r"\??\C:\Users", r"C:\Users")), "/Users");
        assert_eq!(target(&point(MOUNT_POINT, &[], r"\??\C:", "")), "/");
        assert_eq!(target(&point(MOUNT_POINT, &[], r"\??\D:\Users", r"D:\Users")), r"D:\Users");
        assert_eq!(target(&point(MOUNT_POINT, &[], r"\??\D:\Users", "")), r"D:\Users");
        assert_eq!(target(&point(SYMBOLIC_LINK, &[0, 0], r"\??\UNC\host\a", r"\\host\a")), r"\\host\a");
    }

    #[test]
    fn damaged_links_are_refused() {
        let mut short = point(SYMBOLIC_LINK, &[1, 0], "a", "a");
        short.data.truncate(13);
        short.target(|_| Ok(false)).unwrap_err();
        Reparse::parse(&[0x0c, 0, 0, 0xa0, 9, 0, 0, 0]).unwrap_err();
    }

    #[test]
    fn kinds_of_reparse_points() {
        let kind = |tag, is_directory, size| Reparse { tag, data: Vec::new() }.kind(is_directory, size);
        assert_eq!(kind(0x8000_0017, false, 0), None);
        assert_eq!(kind(0x9000_601a, true, 0), None);
        assert_eq!([kind(0x9000_601a, false, 0), kind(0x9000_601a, false, 5)], [None, None]);
        assert_eq!(kind(0x8000_001b, false, 0), Some(FileKind::Other));
        assert_eq!(kind(0xa000_0027, true, 0), Some(FileKind::Other));
        assert_eq!(kind(UNIX_SOCKET, false, 0), Some(FileKind::Socket));
    }
}
