//! A file system that loses its medium: a loop device whose file becomes shorter.

use vhdx_testkit::device::Torn;

use super::{WAYS, lost_at, open};
use crate::support::temp_dir;

#[test]
fn removed_medium_is_an_error() {
    let folder = temp_dir();
    for (name, way) in WAYS {
        let Some(torn) = Torn::new(folder.path()) else { return };
        let disk = open(&torn.path());
        // The metadata of the file system for the file has been read.
        disk.read_at(&mut [0; 4096], 0).unwrap();
        torn.tear();
        let error = way(&disk).map(|()| name).unwrap_err();
        lost_at(&error);
        assert!(!disk.image().source().has_changed().unwrap());
        drop(disk);
    }
}
