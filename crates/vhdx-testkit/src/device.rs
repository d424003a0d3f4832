//! Block devices and file systems for tests. Only root can make them.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::MIB;
use crate::dense::{BLOCKS_OF_WORK, content, cut, dense};
use crate::support::skip;

/// Runs a program and returns its output; `None` if it fails.
pub fn output_of(program: &str, args: &[&std::ffi::OsStr]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// A loop device.
pub struct Loop(pub PathBuf);

impl Loop {
    pub fn of(file: &Path) -> Option<Self> {
        Self::attached(&[file.as_ref()])
    }

    pub fn attached(args: &[&std::ffi::OsStr]) -> Option<Self> {
        let device = output_of("losetup", &[&["--find".as_ref(), "--show".as_ref()], args].concat());
        if device.is_none() {
            skip("mount", "no loop devices (they need root)");
        }
        device.map(|device| Self(device.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        output_of("losetup", &["--detach".as_ref(), self.0.as_ref()]);
    }
}

/// A mounted file system.
pub struct Mount(pub PathBuf);

impl Mount {
    pub fn new(folder: &Path, args: &[&std::ffi::OsStr]) -> Option<Self> {
        let point = folder.join("mount");
        std::fs::create_dir_all(&point).unwrap();
        let mut all = args.to_vec();
        all.push(point.as_ref());
        if output_of("mount", &all).is_none() {
            skip("mount", "nothing can be mounted (it needs root)");
            return None;
        }
        Some(Self(point))
    }

    pub fn tmpfs(folder: &Path, size: &str) -> Option<Self> {
        let size = format!("size={size}");
        Self::new(folder, &["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), size.as_ref(), "tmpfs".as_ref()])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Children of other tests have open files for a moment, until they run their programs.
        let is_unmounted = |_: &u32| output_of("umount", &[self.0.as_ref()]).is_some();
        (0..200).find(is_unmounted);
    }
}

/// A file system of some kind, with 512 MiB.
pub fn file_system(folder: &Path, kind: &str) -> Option<Mount> {
    let disk = folder.join(format!("{kind}.img"));
    std::fs::File::create(&disk).unwrap().set_len(512 * MIB).unwrap();
    if output_of(&format!("mkfs.{kind}"), &["-q".as_ref(), disk.as_ref()]).is_none() {
        skip("mkfs", &format!("no mkfs.{kind}"));
        return None;
    }
    Mount::new(folder, &["-o".as_ref(), "loop".as_ref(), disk.as_ref()])
}

/// A file system in a file, with an image in it. Truncating the file makes its drive disappear.
pub struct Torn {
    mount: Mount,
    _device: Loop,
    medium: PathBuf,
}

impl Torn {
    /// Mounted again, so that nothing of the image is in the page cache.
    pub fn new(folder: &Path) -> Option<Self> {
        let medium = folder.join("medium");
        File::create(&medium).unwrap().set_len(64 * MIB).unwrap();
        let device = Loop::of(&medium)?;
        if output_of(
            "mke2fs",
            &["-q", "-t", "ext4", "-b", "4096"]
                .map(OsStr::new)
                .into_iter()
                .chain([device.0.as_ref()])
                .collect::<Vec<_>>(),
        )
        .is_none()
        {
            skip("mount", "no mke2fs");
            return None;
        }
        let mount = Mount::new(folder, &[device.0.as_ref()])?;
        dense(&mount.0, "disk.vhdx", BLOCKS_OF_WORK);
        drop(mount);
        let mount = Mount::new(folder, &[OsStr::new("-o"), OsStr::new("ro"), device.0.as_ref()])?;
        Some(Self { mount, _device: device, medium })
    }

    pub fn path(&self) -> PathBuf {
        self.mount.0.join("disk.vhdx")
    }

    /// Ends the drive at an offset where some block of the image is.
    pub fn tear(&self) {
        let bytes = std::fs::read(&self.medium).unwrap();
        let block = &content(BLOCKS_OF_WORK)[10 << 20..(10 << 20) + 4096];
        let at = bytes.chunks(4096).position(|page| page == block).unwrap();
        cut(&self.medium, u64::try_from(at).unwrap() * 4096);
    }
}
