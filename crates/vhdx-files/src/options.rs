//! How a file system is opened, and what it has to be warned of.

use std::fmt;

/// How a file system is opened: see [`crate::open_with`].
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    ignores_journal: bool,
}

impl VolumeOptions {
    /// Makes the options of [`crate::open`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads ext, XFS, Btrfs and NTFS as they are on the disk, and leaves out what their journal holds, as the options
    /// `noload`, `norecovery` and `nologreplay` of `mount` do. This reads a volume whose journal is damaged, or cannot
    /// be replayed. What was written last may be missing, and structures may contradict one another:
    /// [`VolumeWarning::JournalIgnored`] says so of a volume whose journal holds anything.
    #[must_use]
    pub fn ignore_journal(mut self, ignores: bool) -> Self {
        self.ignores_journal = ignores;
        self
    }

    pub(crate) fn ignores_journal(&self) -> bool {
        self.ignores_journal
    }
}

/// What users have to know of a volume that can be read.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeWarning {
    /// The journal holds changes that were left out, since [`VolumeOptions::ignore_journal`] asks for that.
    JournalIgnored,
    /// The volume was not unmounted, and has no journal that would say what is missing.
    NotUnmounted,
    /// The system that used the volume has found it damaged, and it was not repaired since.
    HasErrors,
    /// Windows has marked the volume for a check.
    CheckScheduled,
    /// Windows hibernates, or was shut down with fast startup: changes that it has in memory are not on the volume.
    Hibernated,
}

impl VolumeWarning {
    /// Returns a short name, as JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JournalIgnored => "journal-ignored",
            Self::NotUnmounted => "not-unmounted",
            Self::HasErrors => "has-errors",
            Self::CheckScheduled => "check-scheduled",
            Self::Hibernated => "hibernated",
        }
    }
}

impl fmt::Display for VolumeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JournalIgnored => {
                "the journal is ignored: changes in it are missing, and files can be outdated or damaged"
            }
            Self::NotUnmounted => "the volume was not unmounted: what was written last may be missing or damaged",
            Self::HasErrors => "the volume is marked as damaged by the system that used it: files may be, too",
            Self::CheckScheduled => "the volume is marked dirty, and Windows would check it: it may be damaged",
            Self::Hibernated => {
                "Windows is hibernated on the volume (or was shut down with fast startup): files may be outdated"
            }
        })
    }
}
