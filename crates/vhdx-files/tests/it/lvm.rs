//! Logical volumes of LVM2, in groups that its own tools made.

use std::fs;
use std::path::Path;

use vhdx_files::Place;
use vhdx_testkit::lab::Rng;
use vhdx_testkit::lvm::Tools;
use vhdx_testkit::support::temp_dir;

use super::damage::fill_little;
use super::lab::{Lab, UNIX, compare};
use super::parts::{Parts, holds, place, ranges, refusal};

/// What lies before the extents of a physical volume.
const MEBIBYTE: usize = 1 << 20;

/// An ext4 file system with a few files, of some MiB.
fn ext4(mebibytes: u64) -> Option<Lab> {
    let lab =
        Lab::new(&["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-L", "inside"], mebibytes)?;
    fill_little(&lab.mount("")?.0);
    Some(lab)
}

/// Two partitions with a group: a volume of three segments on both of them, one beside it, and one that is swap.
fn made(folder: &Path) -> Option<(Parts, Lab, Lab)> {
    let (root, home) = (ext4(30)?, ext4(12)?);
    let parts = Parts::new(folder, &[24, 40]);
    let tools = Tools::new(folder, &parts.raw, &parts.parts)?;
    tools.group(&["--metadatacopies", "2"]);
    tools.create("root", "12", &[tools.device(0)]);
    tools.create("gone", "4", &[tools.device(0)]);
    tools.create("home", "12", &[tools.device(1)]);
    tools.run(&["lvextend", "-q", "-l", "20", "vg-0/root", tools.device(1)]);
    tools.run(&["lvremove", "-q", "-y", "vg-0/gone"]);
    // Into the gap that was left: the ring of the metadata has wrapped by then, since each change is a new text.
    for _ in 0..4 {
        tools.run(&["lvchange", "-q", "--addtag", "a".repeat(900).as_str(), "vg-0/home"]);
        tools.run(&["lvchange", "-q", "--deltag", "a".repeat(900).as_str(), "vg-0/home"]);
    }
    tools.run(&["lvextend", "-q", "-l", "24", "vg-0/root", tools.device(0)]);
    tools.run(&["lvextend", "-q", "-l", "30", "vg-0/root", tools.device(1)]);
    tools.create("swap", "2", &[]);
    assert!(tools.pieces()["root"].len() >= 3, "{:?}", tools.pieces());
    tools.fill("root", &root.raw);
    tools.fill("home", &home.raw);
    drop(tools);
    Some((parts, root, home))
}

#[test]
fn volumes_in_pieces_of_two_partitions() {
    let folder = temp_dir();
    let Some((parts, root, home)) = made(folder.path()) else { return };
    let places = parts.places();
    let names: Vec<(Option<u32>, &str)> = places.iter().map(|place| (place.partition, place.name.as_str())).collect();
    assert_eq!(names, [(Some(1), ""), (Some(2), ""), (None, "vg-0/root"), (None, "vg-0/home"), (None, "vg-0/swap")]);
    for (name, lab) in [("vg-0/root", &root), ("vg-0/home", &home)] {
        let place = place(&places, name);
        let storage = place.storage.as_ref().unwrap();
        assert!(holds(storage, &lab.raw), "{name}");
        assert_eq!((place.label.as_deref(), place.note.as_deref()), (Some("inside"), None));
        let volume = vhdx_files::open(storage.clone()).unwrap();
        let mount = lab.mount(",ro").unwrap();
        compare(&*volume, &mount.0, UNIX);
    }
    assert!(!place(&places, "vg-0/swap").is_readable());
    assert!(!places[0].is_readable() && places[0].storage.is_ok());
}

/// Whether the metadata of the disk wrap, and 40 changes are read as one.
#[test]
fn metadata_that_wrap() {
    let folder = temp_dir();
    let parts = Parts::new(folder.path(), &[16]);
    let Some(tools) = Tools::new(folder.path(), &parts.raw, &parts.parts) else { return };
    // An area of the smallest size, which a few texts fill.
    tools.run(&["pvcreate", "-q", "-y", "--metadatasize", "64k", "--dataalignment", "4k", tools.device(0)]);
    tools.run(&["vgcreate", "-q", "-y", "-s", "1m", "vg-0", tools.device(0)]);
    let (mut wraps, mut seen) = (0, Vec::new());
    for number in 0..40 {
        tools.create(&format!("volume{number}"), "1", &["--addtag", "t".repeat(1000).as_str()]);
        if number >= 5 {
            tools.run(&["lvremove", "-q", "-y", &format!("vg-0/volume{}", number - 5)]);
        }
        let places = parts.places();
        let mut names: Vec<String> = places.iter().skip(1).map(|place| place.name.clone()).collect();
        names.sort();
        let mut expected: Vec<String> = tools.pieces().into_keys().map(|name| format!("vg-0/{name}")).collect();
        expected.sort();
        assert_eq!(names, expected);
        let member = parts.read(0);
        let (_, at, length, size) = text_place(&member);
        wraps += usize::from(at + length > size);
        seen.push(at);
    }
    assert!(wraps > 0, "no text wrapped: {seen:?}");
}

/// Where the first metadata area begins; offset and length of its text in it; and its size.
fn text_place(member: &[u8]) -> (usize, usize, usize, usize) {
    let word = |at: usize| usize::try_from(u64::from_le_bytes(member[at..at + 8].try_into().unwrap())).unwrap();
    // The label in sector 1, the header of the volume behind it, its list of one data area and its end.
    let start = word(512 + 32 + 40 + 32);
    (start, word(start + 40), word(start + 48), word(start + 32))
}

/// The checksum of LVM, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// Repairs the checksums of a label and of the header of a metadata area.
fn repair(member: &mut [u8], area: usize) {
    let sum = checksum(&member[512 + 20..1024]);
    member[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
    let sum = checksum(&member[area + 4..area + 512]);
    member[area..area + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Puts another text in the place of that of a member.
fn replace_text(member: &mut [u8], change: impl FnOnce(String) -> String) {
    let (area, at, length, _) = text_place(member);
    let text = String::from_utf8(member[area + at..area + at + length].to_vec()).unwrap();
    // The checksum in the test is that of the tools.
    assert_eq!(member[area + 56..area + 60], checksum(text.as_bytes()).to_le_bytes());
    let text = change(text);
    member[area + at..area + at + text.len()].copy_from_slice(text.as_bytes());
    member[area + 48..area + 56].copy_from_slice(&u64::try_from(text.len()).unwrap().to_le_bytes());
    member[area + 56..area + 60].copy_from_slice(&checksum(text.as_bytes()).to_le_bytes());
    repair(member, area);
}

/// One partition with a group of one volume of two segments with 6 and 4 extents.
fn little(folder: &Path) -> Option<(Parts, Vec<u8>)> {
    let parts = Parts::new(folder, &[20]);
    let tools = Tools::new(folder, &parts.raw, &parts.parts)?;
    tools.group(&[]);
    tools.create("root", "6", &[]);
    tools.create("other", "4", &[]);
    tools.run(&["lvextend", "-q", "-l", "10", "vg-0/root"]);
    let lab = ext4(10)?;
    tools.fill("root", &lab.raw);
    drop(tools);
    fs::copy(&lab.raw, folder.join("root.raw")).unwrap();
    let member = parts.read(0);
    Some((parts, member))
}

#[test]
fn what_is_not_linear_is_refused_by_name() {
    let folder = temp_dir();
    let Some((parts, member)) = little(folder.path()) else { return };
    let image = parts.image();
    let with = |change: &dyn Fn(String) -> String| -> Vec<Place> {
        let mut changed = member[..MEBIBYTE].to_vec();
        replace_text(&mut changed, change);
        image.write(0, 0, &changed);
        image.places()
    };
    let places = with(&|text| text);
    assert!(holds(place(&places, "vg-0/root").storage.as_ref().unwrap(), &folder.path().join("root.raw")));
    for kind in ["thin", "thin-pool", "mirror", "raid1", "raid5_ls", "cache", "writecache", "vdo", "error", "zero"] {
        let places = with(&|text| text.replacen("type = \"striped\"", &format!("type = \"{kind}\""), 1));
        let why = refusal(place(&places, "vg-0/root"));
        assert!(why.starts_with("LVM2: not supported: vg-0/root: ") && why.contains(kind), "{why}");
        assert!(place(&places, "vg-0/other").storage.is_ok());
    }
    for (from, to, why) in [
        ("stripe_count = 1", "stripe_count = 2", "striped over 2"),
        ("\"pv0\", 0", "\"pvmove0\", 0", "lies on pvmove0"),
        ("start_extent = 6", "start_extent = 5", "gap between its segments"),
        ("segment_count = 2", "segment_count = 3", "segments are missing"),
        ("extent_count = 4\n", "extent_count = 4000000\n", "past the physical volume"),
        ("pe_count = 19", "pe_count = 9000000000000000000", ""),
        ("extent_size = 2048", "extent_size = 0", "no size of extents"),
        ("extent_size = 2048", "extent_size = 18446744073709551615", "no size of extents"),
        ("flags = []\ndev_size", "flags = [\"MISSING\"]\ndev_size", "used without the physical volume"),
        ("pe_start = 2048", "pe_start = 9223372036854775807", "not said where"),
        ("format = \"lvm2\"", "format = \"lvm1\"", "another format"),
    ] {
        let places = with(&|text| {
            assert!(text.contains(from), "{from}: {text}");
            text.replacen(from, to, 1)
        });
        let found = place(&places, "vg-0/root");
        if why.is_empty() {
            assert!(found.is_readable());
        } else {
            assert!(refusal(found).contains(why), "{to}: {}", refusal(found));
        }
    }
    // A snapshot, and the volume that keeps it.
    let snapshot = |store: &'static str| {
        move |text: String| {
            let segment = format!(
                "snapshot0 {{\nid = \"x\"\nstatus = [\"READ\"]\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n\
                 extent_count = 4\ntype = \"snapshot\"\norigin = \"root\"\n{store} = \"other\"\n}}\n}}\n"
            );
            text.replacen("logical_volumes {", &format!("logical_volumes {{\n{segment}"), 1)
        }
    };
    let places = with(&snapshot("cow_store"));
    assert!(place(&places, "vg-0/root").is_readable());
    assert!(refusal(place(&places, "vg-0/other")).contains("is a snapshot"));
    let places = with(&snapshot("merging_store"));
    assert!(refusal(place(&places, "vg-0/root")).contains("being merged"));
}

#[test]
fn physical_volumes_that_are_missing_or_twice() {
    let folder = temp_dir();
    let Some((parts, _, home)) = made(folder.path()) else { return };
    // Without the first partition, the volume on both of them is refused, and the one on the second can be read.
    let first = parts.read(0);
    parts.write(0, 0, &[0; 4096]);
    let places = parts.places();
    assert!(refusal(place(&places, "vg-0/root")).contains("which is not on this disk"));
    let found = place(&places, "vg-0/home");
    assert!(holds(found.storage.as_ref().unwrap(), &home.raw));
    assert!(found.note.as_ref().unwrap().contains("may have newer metadata"));
    // The second one again, in place of the first.
    let second = parts.read(1);
    parts.write(0, 0, &second[..first.len()]);
    assert!(refusal(place(&parts.places(), "vg-0/home")).contains("is twice on this disk"));
}

#[test]
fn of_two_descriptions_the_newer_counts() {
    let folder = temp_dir();
    let Some((_, member)) = little(folder.path()) else { return };
    let (area, at, length, _) = text_place(&member);
    let text = std::str::from_utf8(&member[area + at..area + at + length]).unwrap();
    let number: u64 = text.split("seqno = ").nth(1).unwrap().split('\n').next().unwrap().parse().unwrap();
    let other_folder = temp_dir();
    let two = Parts::new(other_folder.path(), &[20, 20]);
    for (newer, expected) in [(number + 1, Some("vg-0/renamed")), (number - 1, Some("vg-0/root")), (number, None)] {
        two.write(0, 0, &member[..MEBIBYTE]);
        let mut other = member[..MEBIBYTE].to_vec();
        // Another physical volume of the group, with a description of its own.
        other[512 + 32] ^= 1;
        replace_text(&mut other, |text| {
            text.replace("root {", "renamed {").replacen(&format!("seqno = {number}"), &format!("seqno = {newer}"), 1)
        });
        two.write(1, 0, &other);
        let places = two.places();
        match expected {
            Some(name) => {
                assert!(place(&places, name).storage.is_ok());
                assert_eq!(places.iter().filter(|place| place.logical_uuid.is_some()).count(), 2);
            }
            None => assert!(refusal(place(&places, "vg-0/other")).contains("two descriptions with the same number")),
        }
    }
}

/// What is damaged without its checksum is refused, or read as it was.
#[test]
fn damaged_metadata() {
    let folder = temp_dir();
    let Some((parts, member)) = little(folder.path()) else { return };
    let (area, at, length, _) = text_place(&member);
    let image = parts.image();
    let expected = ranges(place(&image.places(), "vg-0/root").storage.as_ref().unwrap());
    let fields: Vec<usize> = (512..1024).chain(area..area + 512).chain(area + at..area + at + length).collect();
    let mut rng = Rng::new(7);
    for index in (0..fields.len()).step_by(3) {
        let field = fields[index];
        let byte = member[field] ^ (1 << rng.below(8));
        image.write(0, field, &[byte]);
        for place in image.places().iter().filter(|place| place.is_readable()) {
            assert_eq!(place.name, "vg-0/root");
            assert_eq!(ranges(place.storage.as_ref().unwrap()), expected, "byte {field}");
        }
        image.write(0, field, &member[field..=field]);
    }
}

/// Damage that has its checksum: everything ends, and what can be opened lies inside the disk.
#[test]
fn crafted_metadata() {
    let folder = temp_dir();
    let Some((parts, member)) = little(folder.path()) else { return };
    let (area, at, length, _) = text_place(&member);
    let (image, mut rng) = (parts.image(), Rng::new(11));
    for round in 0..300 {
        let mut changed = member[..area + at + length].to_vec();
        let (from, to) = match round % 3 {
            0 => (512 + 20, 512 + 160),
            1 => (area + 4, area + 80),
            _ => (area + at, area + at + length),
        };
        for _ in 0..=rng.below(3) {
            let field = from + usize::try_from(rng.below(u64::try_from(to - from).unwrap())).unwrap();
            changed[field] = match rng.below(3) {
                0 => 0xff,
                1 => rng.bytes(1)[0],
                _ => rng.pick(b"0189\"{}[]=,# \0"),
            };
        }
        if round % 3 == 2 {
            let sum = checksum(&changed[area + at..area + at + length]);
            changed[area + 56..area + 60].copy_from_slice(&sum.to_le_bytes());
        }
        repair(&mut changed, area);
        image.write(0, 0, &changed);
        for place in image.places() {
            if let Ok(storage) = &place.storage {
                let end = storage.disk().size();
                assert!(ranges(storage).iter().all(|(_, range)| range.end <= end));
                let _ = vhdx_files::open(storage.clone());
            }
        }
    }
}
