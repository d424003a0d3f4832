//! `--salvage`: reads everything that can be read, and reports what is lost.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::kit::builder::{DISK_SIZE, FILE_PARAMETERS, Image, LOGICAL_SECTOR, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB};
use crate::lab::{Expected, size};
use crate::support::{Ran, loss_map, run, temp_dir, vhdx};

pub(super) fn write(folder: &Path, image: &Image) -> PathBuf {
    let path = folder.join("broken.vhdx");
    image.bytes.write_file(&path).unwrap();
    path
}

pub(super) fn patched(patch: impl FnOnce(&mut Image)) -> Image {
    let mut image = Spec::default().build();
    patch(&mut image);
    image
}

/// Extracts with --salvage, and returns the output and the losses.
pub(super) fn extract(path: &Path, more: &[&str]) -> (Ran, Vec<u8>, Value) {
    let (out, map) = (path.with_extension("raw"), path.with_extension("json"));
    let mut command = vhdx(["extract", "--force", "--salvage", "--loss-map"]);
    let ran = run(command.arg(&map).args(more).arg(path).arg(&out));
    let losses = map.exists().then(|| loss_map(&map));
    (ran, std::fs::read(out).unwrap_or_default(), losses.unwrap_or_default())
}

pub(super) fn ranges(losses: &Value) -> Vec<(u64, u64)> {
    let range = |loss: &Value| (loss["start"].as_u64().unwrap(), loss["length"].as_u64().unwrap());
    losses["losses"].as_array().unwrap().iter().map(range).collect()
}

fn content() -> Vec<u8> {
    Expected::of(&[&Spec::default().build()]).read(0..8 * MIB)
}

#[test]
fn salvage_truncated_file_keeps_prefix() {
    let folder = temp_dir();
    let image = Spec::default().build();
    let path = write(folder.path(), &image);
    // In the middle of a sector of the last block.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(6 * MIB + 70_001).unwrap();
    assert_eq!(run(&mut vhdx(["extract", path.to_str().unwrap(), "/dev/null"])).status.code(), Some(65));
    let (ran, bytes, losses) = extract(&path, &[]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    let start = 5 * MIB + 70_001;
    assert_eq!(ranges(&losses), [(start, 6 * MIB - start)]);
    let mut expected = content();
    expected[size(start)..size(6 * MIB)].fill(0);
    assert!(bytes == expected);
    let reason = losses["losses"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("payload block 5 at "), "{reason}");

    // With --fill, to a file and to a stream.
    expected[size(start)..size(6 * MIB)].fill(0xa5);
    let (_, bytes, _) = extract(&path, &["--fill", "0xa5"]);
    assert!(bytes == expected);
    let ran = run(vhdx(["extract", "--salvage", "--fill", "165"]).arg(&path).arg("-"));
    assert!(ran.out == expected && ran.status.code() == Some(65));

    // Formats of the loss map.
    let map = folder.path().join("mapfile");
    let mut command = vhdx(["map", "--salvage", "--loss-map-format", "ddrescue", "--loss-map"]);
    let ran = run(command.arg(&map).arg(&path));
    assert_eq!(ran.status.code(), Some(65));
    assert!(ran.text().contains("LOST"), "{}", ran.text());
    let lines = std::fs::read_to_string(map).unwrap();
    let lines: Vec<_> = lines.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
    let expected = [format!("{:#010x}  {start:#010x}  +", 0), format!("{start:#010x}  {:#010x}  -", 6 * MIB - start)];
    assert_eq!(lines[..2], expected);
    assert_eq!(lines[2], format!("{:#010x}  {:#010x}  +", 6 * MIB, 2 * MIB));
}

#[test]
fn salvage_damaged_structures_lose_no_content() {
    let folder = temp_dir();
    let both = |patch: &dyn Fn(&mut Image, usize)| {
        patched(|image| {
            patch(image, 1);
            patch(image, 2);
        })
    };
    let cases = [
        ("headers", both(&|image, copy| image.patch_header_raw(copy, 0, &[0; 80]))),
        ("region tables", both(&|image, copy| image.patch_region_table_raw(copy, 300, b"x"))),
        ("metadata signature", patched(|image| image.bytes.write(2 * MIB, &[0; 8]))),
        ("metadata count", patched(|image| image.bytes.write(2 * MIB + 10, &[0xff; 2]))),
        ("log", patched(|image| image.patch_headers(48, &[1; 16]))),
    ];
    // A damaged signature does not affect the rest of the file.
    let path = write(folder.path(), &patched(|image| image.bytes.write(0, &[0; 8])));
    let (ran, bytes, _) = extract(&path, &[]);
    assert_eq!((ran.status.code(), bytes == content()), (Some(0), true), "{}", ran.err);
    assert!(ran.err.contains("not a VHDX image"), "{}", ran.err);
    for (what, image) in cases {
        let path = write(folder.path(), &image);
        let (ran, bytes, losses) = extract(&path, &[]);
        // Content may be wrong, but nothing is lost.
        assert_eq!(ran.status.code(), Some(65), "{what}: {}", ran.err);
        assert_eq!(ranges(&losses), [], "{what}");
        assert!(bytes == content(), "{what}");
        assert!(ran.err.contains("corruption: "), "{what}: {}", ran.err);
        let info = run(vhdx(["info", "--salvage"]).arg(&path));
        assert_eq!(info.status.code(), Some(65), "{what}");
        assert!(info.text().contains("virtual size: 8.00 MiB"), "{what}: {}", info.text());
    }
}

#[test]
fn salvage_accepts_assumed_metadata() {
    let folder = temp_dir();
    let mut spec = Spec::default();
    spec.omit(DISK_SIZE);
    let path = write(folder.path(), &spec.build());
    let (ran, ..) = extract(&path, &[]);
    assert_eq!(ran.status.code(), Some(65));
    assert!(ran.err.contains("VirtualDiskSize"), "{}", ran.err);
    let (ran, bytes, _) = extract(&path, &["--assume", "disk-size=8M"]);
    // Nothing is lost, if the given size is right.
    assert_eq!((ran.status.code(), bytes == content()), (Some(65), true), "{}", ran.err);
    assert!(ran.err.contains("nothing is lost, but"), "{}", ran.err);
    // A value that differs from the one in the image.
    let healthy = write(folder.path(), &Spec::default().build());
    let (ran, bytes, _) = extract(&healthy, &["--assume", "disk-size=4M"]);
    assert_eq!((ran.status.code(), bytes == content()[..size(4 * MIB)]), (Some(65), true), "{}", ran.err);
    assert!(ran.err.contains("VirtualDiskSize differs from the value given with --assume"), "{}", ran.err);
    let (ran, ..) = extract(&healthy, &["--assume", "disk-size=8M"]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.err);

    let path = write(folder.path(), &patched(|image| image.bytes.write(2 * MIB, &vec![0; size(MIB)])));
    let all = ["--assume", "disk-size=8M", "--assume", "block-size=1M", "--assume", "sector-size=512"];
    let (ran, bytes, _) = extract(&path, &all);
    assert_eq!((ran.status.code(), bytes == content()), (Some(65), true), "{}", ran.err);
    let (ran, ..) = extract(&path, &all[..4]);
    assert!(ran.err.contains("LogicalSectorSize"), "{}", ran.err);
    for bad in ["block-size=3M", "sector-size=1K", "disk-size=65T", "size=1", "block-size"] {
        let (ran, ..) = extract(&path, &["--assume", bad]);
        assert_eq!(ran.status.code(), Some(2), "{bad}: {}", ran.err);
    }
    let ran = run(vhdx(["info", "--assume", "disk-size=8M"]).arg(&path));
    assert_eq!(ran.status.code(), Some(2), "{}", ran.err);
}

#[test]
fn salvage_accepts_each_assumed_value_alone() {
    let folder = temp_dir();
    let spec = Spec { block_size: 2 << 20, sector_size: 4096, ..Spec::default() };
    let whole = Expected::of(&[&spec.build()]).read(0..8 * MIB);
    let rows = [
        (FILE_PARAMETERS, "FileParameters", "block-size=2M"),
        (LOGICAL_SECTOR, "LogicalSectorSize", "sector-size=4K"),
        (DISK_SIZE, "VirtualDiskSize", "disk-size=8M"),
    ];
    for (item, name, value) in rows {
        let (mut gone, mut short) = (spec.clone(), spec.clone());
        gone.omit(item);
        short.item(item).length = Some(3);
        // The value changes nothing in an image that has it, and is all that an image without it needs.
        for (image, without, with) in [(&spec, 0, 0), (&gone, 65, 65), (&short, 65, 65)] {
            let path = write(folder.path(), &image.build());
            drop(std::fs::remove_file(path.with_extension("raw")));
            let (ran, bytes, _) = extract(&path, &[]);
            assert_eq!(ran.status.code(), Some(without), "{name}: {}", ran.err);
            assert!(bytes == if without == 0 { &whole[..] } else { &[] }, "{name}");
            assert_eq!(ran.err.contains("error: "), without != 0, "{name}: {}", ran.err);
            let (ran, bytes, losses) = extract(&path, &["--assume", value]);
            assert_eq!((ran.status.code(), ranges(&losses)), (Some(with), vec![]), "{name}: {}", ran.err);
            assert!(bytes == whole, "{name}");
            assert_eq!(ran.err.contains("corruption: "), with != 0, "{name}: {}", ran.err);
        }
    }
    // All values together, in a file that ends before the metadata.
    let image = Spec { metadata_offset: 30 * MIB, ..spec }.build();
    let path = write(folder.path(), &super::cuts::cut(&image, 30 * MIB));
    let all = ["--assume", "block-size=2M", "--assume", "sector-size=4K", "--assume", "disk-size=8M"];
    let (ran, bytes, losses) = extract(&path, &all);
    assert_eq!((ran.status.code(), ranges(&losses)), (Some(65), vec![]), "{}", ran.err);
    assert!(bytes == whole);
}

#[test]
fn salvage_uses_the_plausible_region_table() {
    const BAT_AT: u64 = 16 + 16;
    const METADATA_AT: u64 = 16 + 32 + 16;
    let folder = temp_dir();
    let mib = |count: u64| (count * MIB).to_le_bytes().to_vec();
    // The checksum of the first table is right, but its content is not.
    let nonsense: [(&str, u64, Vec<u8>); 9] = [
        ("BAT past the end of the file", BAT_AT, mib(1 << 20)),
        ("BAT in the header section", BAT_AT, mib(0)),
        ("BAT where the metadata are", BAT_AT, mib(2)),
        ("BAT at no MiB", BAT_AT, (3 * MIB + 512).to_le_bytes().to_vec()),
        ("BAT of no length", BAT_AT + 8, vec![0; 4]),
        ("metadata past the end of the file", METADATA_AT, mib(1 << 20)),
        ("metadata where a block is", METADATA_AT, mib(4)),
        ("metadata of an odd length", METADATA_AT + 8, vec![1, 0, 16, 0]),
        ("no entries", 8, vec![0; 4]),
    ];
    type Step = fn(&mut Image);
    let others: [(&str, Step, i32); 4] = [
        ("as it was", |_| (), 65),
        ("with a wrong checksum", |image| image.patch_region_table_raw(2, 300, b"x"), 65),
        (
            "both with wrong checksums",
            |image| {
                image.patch_region_table_raw(1, 300, b"x");
                image.patch_region_table_raw(2, 300, b"x");
            },
            65,
        ),
        // Now its content does not matter.
        ("the first without signature", |image| image.patch_region_table_raw(1, 0, b"REGI"), 0),
    ];
    for (what, at, bytes) in &nonsense {
        for (how, step, code) in others {
            let path = write(
                folder.path(),
                &patched(|image| {
                    image.patch_region_table(1, *at, bytes);
                    step(image);
                }),
            );
            let (ran, found, losses) = extract(&path, &[]);
            assert_eq!((ran.status.code(), ranges(&losses)), (Some(code), vec![]), "{what}, {how}: {}", ran.err);
            assert!(found == content(), "{what}, {how}");
        }
        // The content of the second table does not matter if the first is plausible.
        let path = write(folder.path(), &patched(|image| image.patch_region_table(2, *at, bytes)));
        let (ran, found, losses) = extract(&path, &[]);
        assert_eq!((ran.status.code(), ranges(&losses)), (Some(0), vec![]), "second {what}: {}", ran.err);
        assert!(found == content(), "second: {what}");
        assert!(ran.err.contains("region table 2"), "second {what}: {}", ran.err);
    }
}

#[test]
fn salvage_bad_bat_entry_loses_only_its_block() {
    let folder = temp_dir();
    let spec = Spec { raw_bat: [(2, 5), (3, (1 << 40) | 6)].into(), ..Spec::default() };
    let path = write(folder.path(), &spec.build());
    let (ran, bytes, losses) = extract(&path, &[]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    assert_eq!(ranges(&losses), [(2 * MIB, MIB), (3 * MIB, MIB)]);
    let mut expected = content();
    expected[size(2 * MIB)..size(4 * MIB)].fill(0);
    assert!(bytes == expected);
    let hashed = run(vhdx(["hash", "--salvage", "-a", "crc32"]).arg(&path));
    assert_eq!(hashed.status.code(), Some(65));
    assert_eq!(hashed.text().split_whitespace().last().unwrap(), format!("{:08x}", crc32fast::hash(&expected)));
}

/// Range of lost blocks, and the beginning of the reason.
type Run<'a> = (u64, u64, &'a str);

#[test]
fn adjacent_losses_of_one_kind_are_merged() {
    const FAR: u64 = 1 << 40 << 20 | 6;
    let folder = temp_dir();
    // The BAT entries of blocks 0 to 7, and what is lost with them.
    let rows: [([u64; 8], &[Run<'_>]); 5] = [
        ([4; 8], &[(0, 8, "BAT entry of payload block 0")]),
        ([0, 4, 4, 0, 4, 4, 5, 0], &[(1, 3, ""), (4, 6, ""), (6, 7, "BAT entry of payload block 6")]),
        ([FAR, FAR + (9 << 20), FAR, 0, 0, 0, 0, FAR], &[(0, 3, "payload block 0"), (7, 8, "payload block 7")]),
        ([7, 7, 4, FAR, 7, 0, 0, 0], &[(0, 2, ""), (2, 3, ""), (3, 4, "payload block 3"), (4, 5, "")]),
        // Inside the metadata region, the BAT region, and the first MiB.
        ([0, (2 << 20) | 6, (3 << 20) | 6, 6, 6, 0, 0, 0], &[(1, 2, ""), (2, 3, ""), (3, 5, "payload block 3")]),
    ];
    for (entries, expected) in rows {
        let spec = Spec { raw_bat: (0..8).zip(entries).collect(), ..Spec::default() };
        let path = write(folder.path(), &spec.build());
        let (ran, _, losses) = extract(&path, &[]);
        assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
        let report: Vec<_> = expected.iter().map(|(first, end, _)| (first * MIB, (end - first) * MIB)).collect();
        assert_eq!(ranges(&losses), report, "{losses:#}");
        for (loss, (.., reason)) in losses["losses"].as_array().unwrap().iter().zip(expected) {
            assert!(loss["reason"].as_str().unwrap().starts_with(reason), "{loss:#}");
        }
        assert_eq!(losses["lost-bytes"], report.iter().map(|(_, length)| length).sum::<u64>());
    }
}

#[test]
fn salvage_truncated_dirty_image_replays_log() {
    let folder = temp_dir();
    let image = Dirty::ManyEntries.build(&Spec::default().block(7, Block::full()));
    let path = write(folder.path(), &image);
    let whole = Expected::of(&[&image]).read(0..8 * MIB);
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length - MIB / 2).unwrap();
    let (ran, bytes, losses) = extract(&path, &[]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    let mut expected = whole;
    for (start, length) in ranges(&losses) {
        expected[size(start)..size(start + length)].fill(0);
    }
    assert!(bytes == expected && !ranges(&losses).is_empty());
}

#[test]
fn salvage_child_without_parent_keeps_own_blocks() {
    let folder = temp_dir();
    let child = Spec::child_of(&Spec::default(), "gone.vhdx").block(1, Block::full()).build();
    let path = write(folder.path(), &child);
    let (ran, bytes, losses) = extract(&path, &[]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    assert_eq!(ranges(&losses), [(0, MIB), (2 * MIB, 6 * MIB)]);
    assert!(bytes[size(MIB)..size(2 * MIB)] == child.bytes.read(child.block_at(1), size(MIB))[..]);
    assert!(ran.err.contains("gone.vhdx"), "{}", ran.err);
}
