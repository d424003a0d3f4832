//! What holds for every file system: several threads, and what a volume says of its own state.

use std::path::Path;
use std::sync::Barrier;
use std::{fs, thread};

use vhdx_files::{FileKind, Volume, VolumeWarning, Walk};

use super::damage::fill_little;
use super::lab::Lab;

/// Reads all of a volume, and returns what it says.
fn all_of(volume: &dyn Volume) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    let mut found = Vec::new();
    for file in Walk::new(volume, volume.root()).map(Result::unwrap) {
        let mut facts = format!("{:?} {:?}", file.metadata, volume.attributes(file.node).unwrap());
        facts += &format!("{:?}", volume.streams(file.node).unwrap());
        let mut bytes = Vec::new();
        match file.metadata.kind {
            FileKind::Link => bytes = volume.link_target(file.node).unwrap(),
            FileKind::File => {
                let content = volume.open(file.node, None).unwrap();
                bytes.resize(usize::try_from(content.size()).unwrap(), 0xa5);
                assert_eq!(content.read_at(&mut bytes, 0).unwrap(), bytes.len());
            }
            _ => {}
        }
        found.push((file.path, facts, bytes));
    }
    found
}

/// Eight threads read one volume at once, each as one alone does.
fn agree(volume: &dyn Volume) {
    let expected = all_of(volume);
    assert!(expected.len() > 400);
    let together = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                for _ in 0..3 {
                    assert!(all_of(volume) == expected);
                }
            });
        }
    });
}

#[test]
fn threads_read_the_same() {
    for (tool, size, options) in [
        (&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096"][..], 32, ""),
        (&["mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096"], 32, ""),
        (&["mkfs.xfs", "-q"], 300, ""),
        (&["mkfs.btrfs", "-q", "--mixed"], 64, ",compress-force=zstd"),
    ] {
        let Some(lab) = Lab::new(tool, size) else { continue };
        let Some(mount) = lab.mount(options) else { return };
        fill_little(&mount.0);
        drop(mount);
        agree(&*lab.open().unwrap());
    }
}

/// A journal, or a log, that has to be replayed.
#[test]
fn threads_read_the_same_after_a_replay() {
    for (tool, size) in [(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096"][..], 64), (&["mkfs.xfs", "-q"], 300)] {
        let Some(lab) = Lab::new(tool, size) else { continue };
        let Some(mount) = lab.mount("") else { return };
        fill_little(&mount.0);
        rustix::fs::syncfs(fs::File::open(&mount.0).unwrap()).unwrap();
        let copy = Lab::copy_of(&lab);
        drop(mount);
        let volume = copy.open().unwrap();
        assert!(volume.about().is_replayed);
        agree(&*volume);
    }
}

#[test]
fn threads_read_the_same_of_packed_trees() {
    let fill = |tree: &Path| fill_little(tree);
    let squashed = Lab::of_tree(fill, "mksquashfs", |raw, tree| {
        vec![tree.into(), raw.into(), "-quiet".into(), "-no-progress".into(), "-noappend".into()]
    });
    if let Some(lab) = squashed {
        agree(&*lab.open().unwrap());
    }
    let erofs = Lab::of_tree(fill, "mkfs.erofs", |raw, tree| vec!["-zlz4".into(), raw.into(), tree.into()]);
    if let Some(lab) = erofs {
        agree(&*lab.open().unwrap());
    }
}

fn warnings_after(lab: &Lab, changes: &[(usize, &[u8])]) -> Vec<VolumeWarning> {
    let sound = fs::read(&lab.raw).unwrap();
    let mut raw = sound.clone();
    for (at, bytes) in changes {
        raw[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    fs::write(&lab.raw, raw).unwrap();
    let warnings = lab.open().unwrap().about().warnings.clone();
    fs::write(&lab.raw, sound).unwrap();
    warnings
}

#[test]
fn fat_says_that_it_was_not_unmounted() {
    use VolumeWarning::{HasErrors, NotUnmounted};
    if let Some(lab) = Lab::new(&["mkfs.fat", "-F", "16", "-s", "1", "-R", "1"], 8) {
        assert_eq!(warnings_after(&lab, &[]), []);
        // What Linux marks.
        assert_eq!(warnings_after(&lab, &[(0x25, &[1])]), [NotUnmounted]);
        // What Windows marks, in the second entry of the table, which comes behind the boot sector.
        assert_eq!(warnings_after(&lab, &[(514, &[0xff, 0x7f])]), [NotUnmounted]);
        assert_eq!(warnings_after(&lab, &[(514, &[0xff, 0xbf])]), [HasErrors]);
    }
    if let Some(lab) = Lab::new(&["mkfs.fat", "-F", "32", "-s", "1", "-R", "32"], 40) {
        assert_eq!(warnings_after(&lab, &[]), []);
        assert_eq!(warnings_after(&lab, &[(0x41, &[1])]), [NotUnmounted]);
        let table = 32 * 512;
        assert_eq!(warnings_after(&lab, &[(table + 4, &[0xff, 0xff, 0xff, 0x07])]), [NotUnmounted]);
        assert_eq!(warnings_after(&lab, &[(table + 4, &[0xff, 0xff, 0xff, 0x03])]), [NotUnmounted, HasErrors]);
    }
    if let Some(lab) = Lab::new(&["mkfs.fat", "-F", "12"], 1) {
        assert_eq!(warnings_after(&lab, &[]), []);
    }
    if let Some(lab) = Lab::new(&["mkfs.exfat"], 8) {
        assert_eq!(warnings_after(&lab, &[]), []);
        assert_eq!(warnings_after(&lab, &[(106, &[2])]), [NotUnmounted]);
        assert_eq!(warnings_after(&lab, &[(106, &[6])]), [NotUnmounted, HasErrors]);
    }
}
