//! A file system whose medium is torn away: a loop device, the file behind which becomes shorter.

use vhdx_testkit::device::Torn;

use super::{WAYS, lost_at, open};
use crate::support::temp_dir;

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
