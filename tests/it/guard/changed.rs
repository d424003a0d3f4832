//! Images that are written to while they are read.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use vhdx_mmap::Source;
use vhdx_testkit::dense::make_old;

use super::{FIRST_BLOCK, dense, map};
use crate::kit::MIB;
use crate::support::temp_dir;

/// Waits until the clock of the file system has moved since a file was changed. The status change time cannot be set.
fn wait_for_clock(path: &Path) {
    let time = |path: &Path| path.metadata().map(|metadata| (metadata.ctime(), metadata.ctime_nsec())).unwrap();
    let probe = path.with_extension("probe");
    while {
        std::fs::write(&probe, "").unwrap();
        time(&probe) <= time(path)
    } {
        std::thread::yield_now();
    }
}

#[test]
fn has_changed_compares_size_and_time() {
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 1);
    make_old(&path);
    let changed = |source: &Source| source.has_changed().unwrap();
    let (mapped, copied) = (map(&path), Source::load(&path).unwrap());
    assert!(!changed(&mapped) && !changed(&copied) && !changed(&Source::from_vec(vec![1, 2])));
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", FIRST_BLOCK + 5).unwrap();
    assert!(changed(&mapped));
    // A copy does not change any more.
    assert!(!changed(&copied));
    assert!(mapped.check_lost().is_ok(), "nothing is lost");
    make_old(&path);
    let mapped = map(&path);
    file.set_len(FIRST_BLOCK + 2 * MIB).unwrap();
    assert!(changed(&mapped));
    assert!(mapped.check_lost().is_ok(), "nothing is lost of a file that grows");
    // A change is found even if its time is set back.
    let (mapped, before) = (map(&path), file.metadata().unwrap().modified().unwrap());
    wait_for_clock(&path);
    file.write_all_at(b"y", FIRST_BLOCK + 5).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), before);
    assert!(changed(&mapped));
}
