//! A file system that fails to read some bytes of its one file, or holds a read until it is released, or goes away.

use vhdx_testkit::fuse::{HELD, Mounted};

use super::{BLOCKS_OF_WORK as BLOCKS, FIRST_BLOCK, WAYS, content, dense, lost_at, open};
use crate::kit::MIB;
use crate::support::temp_dir;

/// The process that serves it: not a test, unless it is asked to serve.
#[test]
fn serve() {
    vhdx_testkit::fuse::serve();
}

/// The file system reads in pieces of some length, and all of a piece is lost.
const MOST_AT_ONCE: u64 = 2 * MIB;

#[test]
fn unreadable_bytes_are_an_error_in_every_way() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let bad = FIRST_BLOCK + 9 * MIB + 8192..FIRST_BLOCK + 9 * MIB + 8193;
    for (name, way) in WAYS {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let disk = open(&mounted.path());
        let error = way(&disk).map(|()| name).unwrap_err();
        let at = lost_at(&error);
        assert!(at <= bad.start && bad.start - at < MOST_AT_ONCE, "{name}: {error}");
        // Readable bytes are correct.
        let mut good = vec![0; 6 << 20];
        assert_eq!(disk.read_at(&mut good, 0).unwrap(), good.len());
        assert!(good == content(BLOCKS)[..good.len()], "{name}");
        assert!(!disk.image().source().has_changed().unwrap());
    }
}

#[test]
fn unreadable_tables_are_an_error() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    // Headers, region tables, metadata.
    for bad in [0..1, 64 << 10..192 << 10, 192 << 10..320 << 10, 2 * MIB..2 * MIB + 1] {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let error = vhdx_mmap::Image::open(super::map(&mounted.path()), vhdx_mmap::LogPolicy::Replay).unwrap_err();
        super::touched_at(&error);
    }
    // The block allocation table.
    let Some(mounted) = Mounted::new(&image, &(3 * MIB..3 * MIB + 1)) else { return };
    let disk = open(&mounted.path());
    assert_eq!(super::touched_at(&disk.extents(..).next().unwrap().unwrap_err()), 3 * MIB);
    super::touched_at(&disk.image().block_states().unwrap_err());
    super::touched_at(&disk.block(0).unwrap_err());
    for (name, way) in WAYS {
        super::touched_at(&way(&disk).map(|()| name).unwrap_err());
    }
}

#[test]
fn slow_read_is_awaited() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", 4);
    for (name, way) in &WAYS[..3] {
        let held = FIRST_BLOCK + MIB..FIRST_BLOCK + MIB + 4096;
        let Some(mut mounted) = Mounted::holding(&image, &held) else { return };
        let path = mounted.path();
        std::thread::scope(|scope| {
            let working = scope.spawn(|| way(&open(&path)));
            assert!(mounted.wait_for(HELD), "{name}");
            assert!(!working.is_finished(), "{name}");
            mounted.release();
            working.join().unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        });
    }
}

#[test]
fn vanished_file_system_is_an_error() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    for (name, way) in WAYS {
        let held = FIRST_BLOCK + 5 * MIB..FIRST_BLOCK + 6 * MIB;
        let Some(mut mounted) = Mounted::holding(&image, &held) else { return };
        let disk = open(&mounted.path());
        std::thread::scope(|scope| {
            let working = scope.spawn(|| way(&disk));
            assert!(mounted.wait_for(HELD), "{name}");
            mounted.kill();
            let error = working.join().unwrap().map(|()| name).unwrap_err();
            lost_at(&error);
        });
    }
}
