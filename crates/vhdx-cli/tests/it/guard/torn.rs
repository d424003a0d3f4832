//! The command, with a file system whose drive disappears.

use vhdx_testkit::device::Torn;
use vhdx_testkit::support::open;

use crate::support::{run, temp_dir, vhdx};

#[test]
fn torn_image_is_an_error() {
    let folder = temp_dir();
    let cases: [&[&str]; 4] = [
        &["hash", "-a", "crc32"],
        &["hash", "-a", "sha256"],
        &["read", "--range", "0:"],
        &["read", "--hex", "--range", "0:"],
    ];
    for words in cases {
        let Some(torn) = Torn::new(folder.path()) else { return };
        // The metadata of the file system has been read by now; nothing here reads the drive after this.
        let disk = open(&torn.path()).unwrap();
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
