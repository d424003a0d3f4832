//! What every file system has in common.

use std::fmt;

use vhdx_mmap::ops::{Volume as Kind, VolumeDetails};

use crate::content::Content;
use crate::error::{Error, Result};
use crate::options::VolumeWarning;
use crate::time::Time;

/// Names a file, a directory or whatever else has a name, inside one volume: the number of the inode where the file
/// system has such numbers. Two names of one file have one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u64);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a file system says about itself.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Which file system it is.
    pub kind: Kind,
    /// Its label, empty if it has none. It is from the disk, and must be escaped before it is printed.
    pub label: String,
    /// Its UUID or serial number, as tools print it; empty if it has none.
    pub uuid: String,
    /// Size of what can hold files and their structures, in bytes.
    pub size: u64,
    /// What of the size is in use, in bytes, if the file system says so.
    pub used: Option<u64>,
    /// Size of a block or cluster, in bytes.
    pub block_size: u32,
    /// Whether a journal was replayed in memory, since the volume was not unmounted.
    pub is_replayed: bool,
    /// Whether the reader of this file system is young, and its results had better be compared with another's.
    pub is_experimental: bool,
    /// Whether names that differ in case alone are one name.
    pub ignores_case: bool,
    /// What users of its files have to know.
    pub warnings: Vec<VolumeWarning>,
}

impl About {
    /// Begins with what was recognised. Sizes and the rest are for the reader to fill in.
    pub(crate) fn new(kind: Kind, details: VolumeDetails) -> Self {
        Self {
            kind,
            label: details.label.unwrap_or_default(),
            uuid: details.uuid.unwrap_or_default(),
            size: 0,
            used: None,
            block_size: 0,
            is_replayed: false,
            is_experimental: false,
            ignores_case: false,
            warnings: Vec::new(),
        }
    }
}

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link; of NTFS also a junction.
    Link,
    /// Character device.
    CharacterDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Pipe,
    /// Socket.
    Socket,
    /// Something that the file system does not name, or a reparse point of NTFS that only its owner understands.
    Other,
}

impl FileKind {
    /// Returns the kind of the type bits of a Unix mode.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Link,
            0o020_000 => Self::CharacterDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Pipe,
            0o140_000 => Self::Socket,
            _ => Self::Other,
        }
    }

    /// Returns the letter that `ls -l` begins with.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Directory => 'd',
            Self::Link => 'l',
            Self::CharacterDevice => 'c',
            Self::BlockDevice => 'b',
            Self::Pipe => 'p',
            Self::Socket => 's',
            Self::Other => '?',
        }
    }

    /// Returns a short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::CharacterDevice => "character-device",
            Self::BlockDevice => "block-device",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
            Self::Other => "other",
        }
    }
}

/// Times of a file, as far as its file system has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When its content was changed.
    pub modified: Option<Time>,
    /// When it was read.
    pub accessed: Option<Time>,
    /// When its metadata were changed.
    pub changed: Option<Time>,
    /// When it was made.
    pub created: Option<Time>,
}

/// What a file system says about a file.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Kind of the file.
    pub kind: FileKind,
    /// Length of its content, in bytes; of a link that of its target, of a directory what the file system says.
    pub size: u64,
    /// What its content takes on the disk, in bytes, if the file system says so.
    pub allocated: Option<u64>,
    /// Its times.
    pub times: Times,
    /// The second set of times of NTFS, which belongs to its name (`$FILE_NAME`) and which programs cannot set.
    pub name_times: Option<Times>,
    /// Permission bits of Unix, with those for set-user-ID, set-group-ID and sticky.
    pub mode: Option<u32>,
    /// Owner: the number of the user and that of the group.
    pub owner: Option<(u32, u32)>,
    /// Number of its names.
    pub links: Option<u32>,
    /// Of a device: its major and minor number.
    pub device: Option<(u32, u32)>,
    /// Attributes of DOS and Windows: read-only 1, hidden 2, system 4, archive 32, and others.
    pub dos_attributes: Option<u32>,
    /// Whether its content is encrypted, and cannot be read.
    pub is_encrypted: bool,
}

impl Metadata {
    /// Makes metadata with a kind and a size, and nothing else.
    pub(crate) fn new(kind: FileKind, size: u64) -> Self {
        Self {
            kind,
            size,
            allocated: None,
            times: Times::default(),
            name_times: None,
            mode: None,
            owner: None,
            links: None,
            device: None,
            dos_attributes: None,
            is_encrypted: false,
        }
    }
}

/// Entry of a directory. `.` and `..` are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, in the bytes of the file system, or in UTF-8 where the file system has UTF-16. A surrogate without its
    /// other half is in the three bytes of WTF-8. Any byte can be in it, also `/` in a damaged or hostile file system.
    pub name: Vec<u8>,
    /// What it names.
    pub node: Node,
    /// Its kind, if the directory says so.
    pub kind: Option<FileKind>,
}

/// Named value of a file: an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name, with the namespace: `user.comment`.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Content of a file besides its main one: an alternate data stream of NTFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its name, in UTF-8.
    pub name: String,
    /// Its length, in bytes.
    pub size: u64,
}

/// A file system in a disk, opened for reading. Calls from several threads are allowed, and run side by side where the
/// reader of the file system lets them.
///
/// Every call is bounded: it ends, with [`Error::TooMuchWork`] at worst, whatever the disk holds.
pub trait Volume: fmt::Debug + Send + Sync {
    /// Says what it is.
    fn about(&self) -> &About;

    /// Returns the root directory.
    fn root(&self) -> Node;

    /// Returns the metadata of a file. Links are not followed.
    ///
    /// # Errors
    /// Fails if the structures of the file cannot be read, or are damaged.
    fn metadata(&self, node: Node) -> Result<Metadata>;

    /// Returns the entries of a directory, in its order.
    ///
    /// # Errors
    /// Fails if `directory` is no directory, and if its structures cannot be read, are damaged, or have encrypted
    /// names.
    fn entries(&self, directory: Node) -> Result<Vec<Entry>>;

    /// Returns what a name of a directory names; none if there is no such name.
    ///
    /// # Errors
    /// Those of [`Volume::entries`].
    fn find(&self, directory: Node, name: &[u8]) -> Result<Option<Node>> {
        Ok(find_among(self.entries(directory)?, name, self.about().ignores_case))
    }

    /// Opens the content of a regular file, or of one of its streams.
    ///
    /// # Errors
    /// Fails if the structures of the file cannot be read, are damaged, or use something that cannot be read, such as
    /// encryption; and if there is no such stream.
    fn open(&self, file: Node, stream: Option<&str>) -> Result<Content<'_>>;

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// Fails if `link` is no link, and if its structures cannot be read, or are damaged.
    fn link_target(&self, link: Node) -> Result<Vec<u8>> {
        let _ = link;
        Err(Error::unsupported(self.about().kind, "there are no links"))
    }

    /// Returns the extended attributes of a file. Empty where the file system or its reader has none.
    ///
    /// # Errors
    /// Fails if the structures of the file cannot be read, or are damaged.
    fn attributes(&self, node: Node) -> Result<Vec<Attribute>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Returns the streams of a file besides its main one.
    ///
    /// # Errors
    /// Fails if the structures of the file cannot be read, or are damaged.
    fn streams(&self, node: Node) -> Result<Vec<Stream>> {
        let _ = node;
        Ok(Vec::new())
    }
}

/// Finds a name among entries, as a volume with case or without it does.
pub(crate) fn find_among(entries: Vec<Entry>, name: &[u8], ignores_case: bool) -> Option<Node> {
    if let Some(found) = entries.iter().find(|entry| entry.name == name) {
        return Some(found.node);
    }
    let folded = |name: &[u8]| String::from_utf8_lossy(name).to_uppercase();
    let wanted = ignores_case.then(|| folded(name))?;
    entries.into_iter().find(|entry| folded(&entry.name) == wanted).map(|entry| entry.node)
}

/// Refuses a stream, where files have none.
pub(crate) fn refuse_stream(kind: Kind, stream: Option<&str>) -> Result<()> {
    if stream.is_some() { Err(Error::unsupported(kind, "files have no streams")) } else { Ok(()) }
}

/// Refuses what is not a directory.
pub(crate) fn require_directory(kind: FileKind, node: Node) -> Result<()> {
    if kind == FileKind::Directory { Ok(()) } else { Err(Error::NotDirectory(format!("node {node}").into_bytes())) }
}
