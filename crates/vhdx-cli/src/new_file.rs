//! A new file that gets its name when it is complete. If the program is killed before, nothing is left of it where the
//! system has files without a name, and otherwise a file with a temporary name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// File that is written before it has its name.
pub(crate) enum NewFile {
    /// Without any name.
    #[cfg(target_os = "linux")]
    Unnamed {
        file: File,
        /// Where the system shows it as long as it is open.
        path: PathBuf,
        folder: PathBuf,
    },
    /// With a temporary name in the folder.
    Named(NamedTempFile),
}

/// Reason why a file did not get its name.
pub(crate) struct NotNamed {
    pub(crate) error: io::Error,
    /// The complete file, unless it is lost with its folder.
    pub(crate) kept: Option<PathBuf>,
}

impl NewFile {
    /// Creates a file in a folder.
    ///
    /// # Errors
    /// Fails if a file with a temporary name cannot be created either.
    pub(crate) fn create_in(folder: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(unnamed) = unnamed(folder) {
            return Ok(unnamed);
        }
        let mut builder = builder();
        if let Some(permissions) = permissions() {
            builder.permissions(permissions);
        }
        builder.tempfile_in(folder).map(Self::Named)
    }

    pub(crate) fn file(&self) -> &File {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed { file, .. } => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Path by which this program can open the file again.
    pub(crate) fn path(&self) -> &Path {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed { path, .. } => path,
            Self::Named(file) => file.path(),
        }
    }

    /// Gives the file its name, with `replace` also if there is a file of that name.
    pub(crate) fn name(self, path: &Path, replace: bool) -> Result<(), NotNamed> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed { path: open, folder, .. } => {
                if !replace && link(&open, path).is_ok() {
                    return Ok(());
                }
                // An existing file is replaced by a file with a name.
                let named = builder().make_in(&folder, |temporary| link(&open, temporary));
                named.map_err(|error| NotNamed { error, kept: None }).and_then(|named| rename(named, path, replace))
            }
            Self::Named(file) => rename(file, path, replace),
        }
    }
}

fn rename<F>(file: NamedTempFile<F>, path: &Path, replace: bool) -> Result<(), NotNamed> {
    let named = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    named.map(drop).map_err(|failed| {
        let is_there = failed.file.path().exists();
        let kept = if is_there { failed.file.keep().ok().map(|(_, kept)| kept) } else { None };
        NotNamed { error: failed.error, kept }
    })
}

fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vhdx-").suffix(".partial");
    builder
}

/// A file without a name; none where the system has no such files, or would not give it a name later.
#[cfg(target_os = "linux")]
fn unnamed(folder: &Path) -> Option<NewFile> {
    let folder = folder.to_path_buf();
    // Whether such a file would get a name is seen by an empty one: not without /proc, or against a rule of the system.
    let (_file, path) = open_unnamed(&folder)?;
    drop(builder().make_in(&folder, |temporary| link(&path, temporary)).ok()?);
    let (file, path) = open_unnamed(&folder)?;
    Some(NewFile::Unnamed { file, path, folder })
}

/// A file without a name, and where the system shows it.
#[cfg(target_os = "linux")]
fn open_unnamed(folder: &Path) -> Option<(File, PathBuf)> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{Mode, OFlags};

    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?);
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Some((file, path))
}

#[cfg(target_os = "linux")]
fn link(open: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};

    Ok(rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Permissions before the umask. tempfile would let only the owner read the file.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "`None` on other systems")]
fn permissions() -> Option<std::fs::Permissions> {
    Some(std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

#[cfg(not(unix))]
fn permissions() -> Option<std::fs::Permissions> {
    None
}
