//! A file system whose medium is torn away: a loop device, the file behind which becomes shorter.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::{BLOCKS_OF_WORK as BLOCKS, WAYS, content, cut, dense, lost_at, open};
use crate::cli::device::{Loop, Mount, said};
use crate::kit::MIB;
use crate::support::{run, skip, temp_dir, vhdx};

/// A file system in a file, with an image in it.
struct Torn {
    mount: Mount,
    _device: Loop,
    medium: PathBuf,
}

impl Torn {
    /// Mounted anew, so that nothing of the image is in memory.
    fn new(folder: &Path) -> Option<Self> {
        let medium = folder.join("medium");
        File::create(&medium).unwrap().set_len(64 * MIB).unwrap();
        let device = Loop::of(&medium)?;
        if said(
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
        dense(&mount.0, "disk.vhdx", BLOCKS);
        drop(mount);
        let mount = Mount::new(folder, &[OsStr::new("-o"), OsStr::new("ro"), device.0.as_ref()])?;
        Some(Self { mount, _device: device, medium })
    }

    fn path(&self) -> PathBuf {
        self.mount.0.join("disk.vhdx")
    }

    /// Where some block of the image lies on the medium.
    fn tear(&self) {
        let bytes = std::fs::read(&self.medium).unwrap();
        let block = &content(BLOCKS)[10 << 20..(10 << 20) + 4096];
        let at = bytes.chunks(4096).position(|page| page == block).unwrap();
        cut(&self.medium, u64::try_from(at).unwrap() * 4096);
    }
}

#[test]
fn a_medium_that_is_torn_away_is_an_error() {
    let folder = temp_dir();
    for (name, way) in WAYS {
        let Some(torn) = Torn::new(folder.path()) else { return };
        let disk = open(&torn.path());
        // What is needed to find the file's blocks has been read.
        disk.read_at(&mut [0; 4096], 0).unwrap();
        torn.tear();
        let error = way(&disk).map(|()| name).unwrap_err();
        lost_at(&error);
        assert!(!disk.image().source().has_changed().unwrap());
        drop(disk);
    }
}

#[test]
fn the_command_says_so() {
    let folder = temp_dir();
    let cases: [&[&str]; 4] = [
        &["hash", "-a", "crc32"],
        &["hash", "-a", "sha256"],
        &["read", "--range", "0:"],
        &["read", "--hex", "--range", "0:"],
    ];
    for words in cases {
        let Some(torn) = Torn::new(folder.path()) else { return };
        let disk = open(&torn.path());
        disk.read_at(&mut [0; 4096], 0).unwrap();
        torn.tear();
        let ran = run(vhdx(words).arg(torn.path()));
        assert_eq!(ran.status.code(), Some(74), "{words:?}: {}", ran.err);
        assert!(
            ran.err.contains("disk.vhdx: file at 0x") && ran.err.contains("cannot be read"),
            "{words:?}: {}",
            ran.err
        );
        drop(disk);
    }
}
