//! Metadata for loop devices, as kernels before 6.12 need it.

use std::process::Command;

use vhdx_serve::erofs::Options;
use vhdx_testkit::builder::{Image, Spec};
use vhdx_testkit::device::{Loop, Mount};
use vhdx_testkit::lab::Expected;
use vhdx_testkit::log::Dirty;
use vhdx_testkit::{Block, MIB};

use super::{Files, Written, assert_content, can_mount, tree_of};

fn assert_read_by_loops(chain: &[&Image], most_index: u64, what: &str) {
    let mut options = Options::default();
    options.for_loop_devices = true;
    options.most_index = most_index;
    let (files, disk) = Files::open(chain);
    let written = Written::with(&tree_of(disk), &options);
    let mut loops = Vec::new();
    for (layer, device) in written.metadata.devices.iter().enumerate() {
        let (start, path) = (device.start.to_string(), files.path(layer));
        let args = ["--read-only".as_ref(), "--offset".as_ref(), start.as_ref(), path.as_os_str()];
        let Some(device) = Loop::attached(&args) else { return };
        loops.push(device);
    }
    let devices = loops.iter().map(|device| format!(",device={}", device.0.display()));
    let devices = format!("ro,loop{}", devices.collect::<String>());
    let metadata = written.path();
    let mounted = Mount::new(
        written.folder.path(),
        &["-t".as_ref(), "erofs".as_ref(), "-o".as_ref(), devices.as_ref(), metadata.as_os_str()],
    );
    let Some(mounted) = mounted else { return };
    for layer in 0..chain.len() {
        let file = mounted.0.join(format!("layers/{layer}.raw"));
        assert_content(&file, &Expected::of(&chain[layer..]), what);
    }
}

/// The child's blocks end where those of the parent begin, in their files, and the other way round.
#[test]
fn devices_whose_parts_meet_at_a_block_are_not_confused() {
    if !can_mount() || Command::new("losetup").arg("--version").output().is_err() {
        return;
    }
    for first in [4, 5, 6, 7] {
        let parent =
            (0..8).fold(Spec::empty(8 * MIB), |spec, number| spec.block(number, Block::full().at((4 + number) * MIB)));
        let child = Spec::child_of(&parent, "1.vhdx")
            .block(0, Block::full().at(first * MIB))
            .block(2, Block::full().at((first + 1) * MIB))
            .block(4, Block::full().at((first + 2) * MIB))
            .block(6, Block::partial(&[0..9, 1000..1024]).at((first + 3) * MIB));
        let child = Dirty::ManyEntries.build(&child);
        for most_index in [u64::MAX, 0] {
            let what = format!("from {first} MiB on, index of at most {most_index}");
            assert_read_by_loops(&[&child, &parent.build()], most_index, &what);
        }
    }
}
