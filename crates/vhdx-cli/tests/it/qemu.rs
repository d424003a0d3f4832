//! Images that both this project and qemu-img read, compared.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use rustix::fs::{SeekFrom, seek};
use serde_json::Value;

use crate::kit::builder::Spec;
use crate::kit::log::{Dirty, worked_example};
use crate::kit::{Block, FileBytes, GIB, MIB, Model, SparseBytes, pattern};
use crate::support::{run, skip, temp_dir, vhdx};

/// Words of an argument list, some of which are paths.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        vec![$(OsString::from($arg)),*]
    };
}

/// Whether qemu-img and qemu-io exist; prints a message if not.
fn has_qemu() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| {
        ["qemu-img", "qemu-io"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok())
    });
    if !*FOUND {
        skip("qemu", "no qemu-img or qemu-io");
    }
    *FOUND
}

/// Runs a program that must succeed.
#[track_caller]
fn done(program: &str, args: Vec<OsString>) -> Vec<u8> {
    let ran = run(Command::new(program).args(&args));
    assert!(ran.status.success(), "{program} {args:?}: {}{}", ran.err, String::from_utf8_lossy(&ran.out));
    ran.out
}

/// Where a file has data, as far as the system knows.
fn data_of(file: &File) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(start)).unwrap();
        all.push((start, at));
    }
    all
}

/// Asserts that two files are equal to the last byte.
#[track_caller]
fn assert_equal(one: &Path, other: &Path) {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    assert_eq!(one.file_len(), other.file_len());
    // Where neither file has data, both are zero.
    for (start, end) in data_of(&one).into_iter().chain(data_of(&other)) {
        for at in (start..end).step_by(1 << 20) {
            let length = usize::try_from((end - at).min(MIB)).unwrap();
            assert!(one.bytes_at(at, length) == other.bytes_at(at, length), "they differ at {at:#x} or soon after");
        }
    }
}

/// Numbers of blocks that hold something other than zeros, in order.
fn blocks_with_content(raw: &Path, block_size: u64) -> Vec<u64> {
    let file = File::open(raw).unwrap();
    let mut blocks = Vec::new();
    for (start, end) in data_of(&file) {
        for at in (start..end).step_by(4096) {
            let length = usize::try_from((end - at).min(4096)).unwrap();
            if file.bytes_at(at, length).iter().any(|byte| *byte != 0) {
                blocks.push(at / block_size);
            }
        }
    }
    blocks.dedup();
    blocks
}

/// Extracts a disk with both programs and compares the results. Returns the raw disk, `raw` in `folder`.
#[track_caller]
fn assert_same_disk(folder: &Path, image: &Path) {
    let (ours, theirs) = (folder.join("raw"), folder.join("raw-of-qemu"));
    done("qemu-img", args!["convert", "-f", "vhdx", "-O", "raw", image, &theirs]);
    run(&mut vhdx(args!["extract", "--force", image, &ours])).done();
    assert_equal(&ours, &theirs);
    std::fs::remove_file(theirs).unwrap();
}

/// Asserts that every key of qemu-img has the same value here.
#[track_caller]
fn assert_same_info(image: &Path) {
    fn assert_within(theirs: &Value, ours: &Value, place: &str) {
        match (theirs, ours) {
            (Value::Object(theirs), Value::Object(ours)) => {
                for (key, value) in theirs {
                    assert_within(value, ours.get(key).unwrap_or(&Value::Null), &format!("{place}/{key}"));
                }
            }
            (Value::Array(theirs), Value::Array(ours)) => {
                assert_eq!(theirs.len(), ours.len(), "{place}");
                theirs.iter().zip(ours).for_each(|(theirs, ours)| assert_within(theirs, ours, place));
            }
            _ => assert_eq!(theirs, ours, "{place}"),
        }
    }

    // The space that a file occupies is known once it is on the drive.
    File::open(image).unwrap().sync_all().unwrap();
    let theirs = done("qemu-img", args!["info", "-f", "vhdx", "--output", "json", image]);
    let theirs: Value = serde_json::from_slice(&theirs).unwrap();
    let ours = run(&mut vhdx(args!["info", "--output", "json", image])).done().json();
    for key in ["virtual-size", "filename", "cluster-size", "format", "actual-size", "dirty-flag", "children"] {
        assert!(!theirs[key].is_null(), "qemu-img has no {key} any more");
    }
    assert_within(&theirs, &ours, "");
}

/// Data ranges of the map, with their file offsets; adjacent ranges are merged.
fn data_in_map(image: &Path) -> Vec<(u64, u64, u64)> {
    let map = run(&mut vhdx(args!["map", "--output", "json", image])).done().json();
    let number = |extent: &Value, key: &str| extent[key].as_u64().unwrap();
    let data = map.as_array().unwrap().iter().filter(|extent| extent["data"] == true);
    data.map(|extent| {
        let (start, length) = (number(extent, "start"), number(extent, "length"));
        (start, start + length, number(extent, "offset"))
    })
    .collect()
}

/// Asserts that the map has data exactly where the content is, block by block, at the right file offsets.
#[track_caller]
fn assert_true_map(image: &Path, raw: &Path, block_size: u64, is_fixed: bool) {
    let data = data_in_map(image);
    let (file, disk) = (File::open(image).unwrap(), File::open(raw).unwrap());
    for (start, end, offset) in &data {
        for at in (*start..*end).step_by(1 << 20) {
            let length = usize::try_from((end - at).min(MIB)).unwrap();
            assert!(file.bytes_at(offset + (at - start), length) == disk.bytes_at(at, length), "{at:#x}");
        }
    }
    let blocks: Vec<u64> =
        data.iter().flat_map(|(start, end, _)| start / block_size..end.div_ceil(block_size)).collect();
    if is_fixed {
        assert_eq!(blocks, (0..disk.file_len().div_ceil(block_size)).collect::<Vec<_>>());
    } else {
        assert_eq!(blocks, blocks_with_content(raw, block_size));
    }
}

/// A raw disk of a size with these pieces in it.
fn write_raw(path: &Path, size: u64, pieces: &[(u64, Vec<u8>)]) {
    let mut disk = SparseBytes::new(size);
    for (offset, bytes) in pieces {
        disk.write(*offset, bytes);
    }
    assert_eq!(disk.len(), size);
    disk.write_file(path).unwrap();
}

#[test]
fn qemu_images_of_every_block_size_read_equally() {
    if !has_qemu() {
        return;
    }
    let folder = temp_dir();
    let (original, image) = (folder.path().join("original"), folder.path().join("disk.vhdx"));
    for shift in 20..=28 {
        let block_size: u64 = 1 << shift;
        // Not a multiple of the block size, nor of anything except sectors.
        let size = 5 * block_size.min(8 * MIB) + 12_345 * 512;
        let last = size - 512;
        write_raw(
            &original,
            size,
            &[(0, pattern(1, 0, 3)), (size / 2 - 700, pattern(2, 0, 5000)), (last, pattern(3, 0, 512))],
        );
        for (subformat, zero) in [("dynamic", "on"), ("fixed", "off")] {
            let options = format!("subformat={subformat},block_size={block_size},block_state_zero={zero}");
            done("qemu-img", args!["convert", "-f", "raw", "-O", "vhdx", "-o", options, &original, &image]);
            assert_same_disk(folder.path(), &image);
            let raw = folder.path().join("raw");
            // The size that qemu makes of it: it rounds down to sectors, and this is a multiple of those.
            assert_equal(&raw, &original);
            assert_same_info(&image);
            assert_true_map(&image, &raw, block_size, subformat == "fixed");
        }
    }
}

#[test]
fn qemu_dense_disk_reads_equally() {
    if !has_qemu() {
        return;
    }
    let folder = temp_dir();
    let (original, image) = (folder.path().join("original"), folder.path().join("disk.vhdx"));
    let size = 48 * MIB + 512;
    write_raw(&original, size, &[(0, pattern(7, 0, usize::try_from(size).unwrap()))]);
    for options in
        ["subformat=dynamic,block_size=1M", "subformat=dynamic,block_size=32M,log_size=4M", "subformat=fixed"]
    {
        done("qemu-img", args!["convert", "-f", "raw", "-O", "vhdx", "-o", options, &original, &image]);
        assert_same_disk(folder.path(), &image);
        assert_equal(&folder.path().join("raw"), &original);
        assert_same_info(&image);
    }
}

#[test]
fn qemu_disk_of_several_chunks_reads_equally() {
    if !has_qemu() {
        return;
    }
    let folder = temp_dir();
    let (original, image) = (folder.path().join("original"), folder.path().join("disk.vhdx"));
    let size = 13 * GIB + 7 * 512;
    // On both sides of chunk boundaries, at multiples of 4 GiB, and at both ends of the disk.
    let pieces: Vec<(u64, Vec<u8>)> =
        [0, 4 * GIB - 9000, 4 * GIB + 8 * MIB, 8 * GIB - 512, 8 * GIB, 12 * GIB - MIB, size - 1000]
            .into_iter()
            .zip(1..)
            .map(|(offset, seed)| (offset, pattern(seed, offset, 1000)))
            .chain([(4 * GIB - 4000, pattern(99, 0, 10_000))])
            .collect();
    write_raw(&original, size, &pieces);
    for (megabytes, zero) in [(1, "on"), (1, "off"), (8, "off"), (32, "on")] {
        let options = format!("subformat=dynamic,block_size={megabytes}M,block_state_zero={zero}");
        done("qemu-img", args!["convert", "-f", "raw", "-O", "vhdx", "-o", options, &original, &image]);
        assert_same_disk(folder.path(), &image);
        let raw = folder.path().join("raw");
        assert_equal(&raw, &original);
        assert_true_map(&image, &raw, megabytes * MIB, false);
        assert_same_info(&image);
    }
}

#[test]
fn qemu_guest_writes_read_equally() {
    if !has_qemu() {
        return;
    }
    let folder = temp_dir();
    let image = folder.path().join("disk.vhdx");
    for options in ["block_size=1M", "block_size=2M,log_size=2M", "block_size=16M", "subformat=fixed,block_size=1M"] {
        done("qemu-img", args!["create", "-q", "-f", "vhdx", "-o", options, &image, "40M"]);
        assert_same_disk(folder.path(), &image);
        // Unordered, overlapping, within a block and across block boundaries.
        let writes: [(u64, u64, u8); 9] = [
            (30 * MIB, 4096, 0x11),
            (0, 512, 0x22),
            (5 * MIB - 512, 1024, 0x33),
            (40 * MIB - 512, 512, 0x44),
            (7 * MIB + 1536, 6 * MIB, 0x55),
            (8 * MIB, MIB, 0x66),
            (30 * MIB + 2048, 1024, 0),
            (20 * MIB, 65536, 0x77),
            (512, 512, 0x88),
        ];
        let mut expected = SparseBytes::new(40 * MIB);
        for (offset, length, byte) in writes {
            let write = format!("write -P {byte} {offset} {length}");
            done("qemu-io", args!["-f", "vhdx", "-c", write, &image]);
            expected.write(offset, &vec![byte; usize::try_from(length).unwrap()]);
        }
        assert_same_disk(folder.path(), &image);
        let wanted = folder.path().join("wanted");
        expected.write_file(&wanted).unwrap();
        assert_equal(&folder.path().join("raw"), &wanted);
        assert_same_info(&image);
    }
}

/// The model of an image as a raw disk.
fn write_model(model: &Model, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(model.size).unwrap();
    for at in (0..model.size).step_by(1 << 20) {
        let length = usize::try_from((model.size - at).min(MIB)).unwrap();
        let bytes = Model::read(&[model], at, length).unwrap();
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(&bytes, at).unwrap();
        }
    }
}

#[test]
fn built_images_read_equally_in_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = temp_dir();
    let mut states = Spec::empty(40 * MIB + 512);
    for (number, state) in (0..).zip([6, 0, 1, 2, 3, 6, 6, 0, 3]) {
        states = states.block(number, Block::new(state));
    }
    let cases = [
        Spec::default(),
        states.clone(),
        Spec { block_size: 32 << 20, ..Spec::empty(100 * MIB) }.block(3, Block::full()),
        Spec { leave_blocks_allocated: true, sequence: [5, 4], ..states },
        Spec { bat_offset: 20 * MIB, log_offset: 9 * MIB, metadata_offset: 30 * MIB, ..Spec::default() },
        Spec::empty(6 * GIB).block(4095, Block::full()).block(4096, Block::full()).block(6143, Block::full()),
    ];
    for spec in cases {
        let image = folder.path().join("disk.vhdx");
        spec.build().bytes.write_file(&image).unwrap();
        assert_same_disk(folder.path(), &image);
        let wanted = folder.path().join("wanted");
        write_model(&spec.build().model, &wanted);
        assert_equal(&folder.path().join("raw"), &wanted);
        assert_same_info(&image);
    }
}

/// Whether qemu replays such a log according to the format. It does not begin at the tail, and does not understand
/// every ring that wraps, sequence of many descriptors or extension of the file.
fn is_replayed_right_by_qemu(dirty: Dirty) -> bool {
    use Dirty::{
        FullRing, Growth, LostTail, ManyDescriptors, OlderRun, StaleBeforeTail, StaleBehindHead, WrapBetween,
        WrapInside,
    };

    !matches!(
        dirty,
        WrapBetween
            | WrapInside
            | FullRing
            | StaleBeforeTail
            | StaleBehindHead
            | LostTail
            | Growth
            | ManyDescriptors
            | OlderRun
    )
}

#[test]
fn log_replay_in_memory_matches_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = temp_dir();
    let spec = Spec::empty(8 * MIB).block(1, Block::full()).block(4, Block::full()).block(7, Block::full());
    let cases = Dirty::ALL.into_iter().filter(|dirty| is_replayed_right_by_qemu(*dirty));
    let cases =
        cases.map(|dirty| (format!("{dirty:?}"), dirty.build(&spec))).chain([("example".into(), worked_example())]);
    for (name, image) in cases {
        let (path, copy) = (folder.path().join("dirty.vhdx"), folder.path().join("repaired.vhdx"));
        image.bytes.write_file(&path).unwrap();
        std::fs::copy(&path, &copy).unwrap();
        run(Command::new("qemu-img").args(["check", "-q", "-f", "vhdx", "-r", "all"]).arg(&copy)).done();
        let (ours, theirs, wanted) =
            (folder.path().join("raw"), folder.path().join("raw-of-qemu"), folder.path().join("wanted"));
        done("qemu-img", args!["convert", "-f", "vhdx", "-O", "raw", &copy, &theirs]);
        run(&mut vhdx(args!["extract", "--force", &path, &ours])).done();
        write_model(&image.model, &wanted);
        assert!(std::panic::catch_unwind(|| assert_equal(&theirs, &wanted)).is_ok(), "qemu reads {name} otherwise");
        assert_equal(&ours, &wanted);
        // After qemu has repaired an image, it is clean and reads equally here.
        let report = run(&mut vhdx(args!["info", "--output", "json", &copy])).done().json();
        assert_eq!(report["dirty-flag"], false, "{name}");
        run(&mut vhdx(args!["extract", "--force", &copy, &ours])).done();
        assert_equal(&ours, &wanted);
    }
}
