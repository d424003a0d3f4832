//! NTFS, compared with ntfs-3g.

mod journal;
mod raw;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, lsetxattr};
use vhdx_files::{Error, FileKind, Node, Time, Times, Volume, lookup, lookup_link};
use vhdx_testkit::device::{Loop, Mount};
use vhdx_testkit::lab::Rng;

use super::lab::{Can, Facts, Lab, compare, fill};
use raw::Raw;

/// Times are as exact as the file system has them.
const FACTS: Facts = Facts { is_unix: false, time_unit: 100, has_attributes: false };

/// Value of the extended attribute that makes ntfs-3g compress what is written into a directory.
const COMPRESSED: [u8; 4] = [0, 0, 8, 0];

/// Makes a file system with clusters and sectors of these sizes, in bytes.
fn made(cluster: &str, sector: &str, mebibytes: u64) -> Option<Lab> {
    let tool = ["mkfs.ntfs", "-q", "-F", "-f", "-L", "a läbel", "-c", cluster, "-s", sector];
    Lab::new(&tool, mebibytes)
}

/// A mounted file system. It is unmounted before its device is given up.
struct Point {
    path: PathBuf,
    _mount: Mount,
    _device: Loop,
}

/// Mounts through a loop device, so that all is written when the mount ends.
fn mount(lab: &Lab, options: &str) -> Option<Point> {
    let device = Loop::of(&lab.raw)?;
    let options = format!("rw{options}");
    let args = ["-t", "ntfs-3g", "-o", &options].map(OsStr::new);
    let mount = Mount::new(lab.folder.path(), &[&args[..], &[device.0.as_os_str()]].concat())?;
    Some(Point { path: mount.0.clone(), _mount: mount, _device: device })
}

fn agrees(cluster: &str, sector: &str) {
    let Some(lab) = made(cluster, sector, 128) else { return };
    let Some(point) = mount(&lab, "") else { return };
    fill(&point.path, Can::Names);
    fs::hard_link(point.path.join("of 4097"), point.path.join("few/hard link")).unwrap();
    symlink("of 100", point.path.join("link")).unwrap();
    symlink("../Ünïcödé – 日本語 🦀.txt", point.path.join("few/link")).unwrap();
    drop(point);
    let Some(point) = mount(&lab, ",ro") else { return };
    let volume = lab.open().unwrap();
    compare(&*volume, &point.path, FACTS);
    compare_metadata(&*volume, volume.root(), &point.path);
    compare_places(&lab, &*volume);
    let about = volume.about();
    assert_eq!(about.label, "a läbel");
    assert_eq!(about.block_size.to_string(), cluster);
    assert!(!about.is_replayed);
    let free = rustix::fs::statvfs(&point.path).unwrap();
    // The size of the volume leaves out the last sector, whose cluster does not count.
    let unit = u64::from(about.block_size);
    assert_eq!(about.size / unit - about.used.unwrap() / unit, free.f_bfree * free.f_frsize / unit);
    assert_eq!(about.uuid, format!("{:016X}", Raw::of(&lab).serial()));
}

/// Compares numbers of names, times of creation and attributes, which ntfs-3g shows as extended attributes.
fn compare_metadata(volume: &dyn Volume, directory: Node, tree: &Path) {
    for entry in volume.entries(directory).unwrap() {
        let path = tree.join(String::from_utf8(entry.name).unwrap());
        let found = volume.metadata(entry.node).unwrap();
        let expected = fs::symlink_metadata(&path).unwrap();
        let said = path.display();
        assert_eq!(entry.node.0 & 0xffff_ffff_ffff, expected.ino(), "{said}");
        if found.kind == FileKind::Directory {
            compare_metadata(volume, entry.node, &path);
        } else {
            assert_eq!(found.links, Some(u32::try_from(expected.nlink()).unwrap()), "{said}");
        }
        // Extended attributes of links cannot be read.
        if found.kind == FileKind::Link {
            continue;
        }
        let mut value = [0; 32];
        let length = getxattr(&path, "system.ntfs_times_be", &mut value).unwrap();
        assert_eq!(length, 32);
        // With the highest byte first.
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let [created, modified, accessed, changed] =
            [0, 8, 16, 24].map(|at| Some(raw::time(number(&value[at..at + 8]))));
        let modified_since = Times { modified, accessed, changed, created };
        assert_eq!(found.times, modified_since, "{said}");
        assert_eq!(getxattr(&path, "system.ntfs_attrib_be", &mut value).unwrap(), 4);
        let attributes = u32::try_from(number(&value[..4])).unwrap();
        let directory = if found.kind == FileKind::Directory { 0x10 } else { 0 };
        assert_eq!(found.dos_attributes, Some(attributes & !0x1000_0000 | directory), "{said}");
    }
}

/// Compares the places that contents say they lie in with the disk.
fn compare_places(lab: &Lab, volume: &dyn Volume) {
    let disk = Raw::of(lab);
    for name in ["pieces 1", "sparse", "of 3000001"] {
        let file = lookup(volume, name.as_bytes()).unwrap();
        let content = volume.open(file, None).unwrap();
        let (_, runs) = content.runs().unwrap();
        assert!(name != "sparse" || runs.iter().any(|run| run.at.is_none()), "{name}");
        for run in runs {
            let length = usize::try_from(run.length.min(1 << 20)).unwrap();
            let mut bytes = vec![1; length];
            content.read_at(&mut bytes, run.start).unwrap();
            match run.at {
                Some(at) => assert_eq!(bytes, disk.bytes[usize::try_from(at).unwrap()..][..length], "{name}"),
                None => assert!(bytes.iter().all(|byte| *byte == 0), "{name}"),
            }
        }
    }
}

#[test]
fn clusters_of_4096_bytes() {
    agrees("4096", "512");
}

#[test]
fn clusters_of_512_bytes() {
    agrees("512", "512");
}

#[test]
fn clusters_of_65536_bytes() {
    agrees("65536", "512");
}

#[test]
fn clusters_of_2_mebibytes() {
    agrees("2097152", "512");
}

#[test]
fn sectors_of_4096_bytes() {
    agrees("4096", "4096");
    agrees("65536", "4096");
}

#[test]
fn names_are_found_in_any_case_and_system_files_by_name_alone() {
    let Some(lab) = made("4096", "512", 32) else { return };
    let Some(point) = mount(&lab, "") else { return };
    for name in ["Ärger.TXT", "ärger2.txt", "both", "BOTH"] {
        fs::write(point.path.join(name), name).unwrap();
    }
    drop(point);
    let volume = lab.open().unwrap();
    let root = volume.root();
    let names: Vec<Vec<u8>> = volume.entries(root).unwrap().into_iter().map(|entry| entry.name).collect();
    let mut sorted: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, ["BOTH", "both", "Ärger.TXT", "ärger2.txt"].map(str::as_bytes));
    let find = |name: &str| volume.find(root, name.as_bytes()).unwrap();
    assert_eq!(find("äRGER.txt"), find("Ärger.TXT"));
    assert_ne!(find("both"), find("BOTH"));
    assert!(find("BoTh").is_some());
    assert_eq!(find("ärger"), None);
    assert_eq!(volume.find(root, b"\xff").unwrap(), None);
    let upcase = find("$upcase").unwrap();
    assert_eq!(volume.open(upcase, None).unwrap().size(), 131_072);
    let table = find("$MFT").unwrap();
    assert_eq!(volume.metadata(table).unwrap().kind, FileKind::File);
    let extend = find("$Extend").unwrap();
    let inside: Vec<Vec<u8>> = volume.entries(extend).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(inside.iter().any(|name| name == b"$Reparse"), "{inside:?}");
    // A reference to the file that had the record before.
    let stale = Node(find("both").unwrap().0.wrapping_add(1 << 48));
    assert!(matches!(volume.metadata(stale), Err(Error::FileSystem { is_unsupported: false, .. })));
    assert!(matches!(volume.entries(find("both").unwrap()), Err(Error::NotDirectory(_))));
    assert!(matches!(volume.open(root, None), Err(Error::NotFile(_))));
}

#[test]
fn names_that_are_not_unicode() {
    let Some(lab) = made("4096", "512", 16) else { return };
    let Some(point) = mount(&lab, "") else { return };
    fs::write(point.path.join("half of \u{1f980}"), b"lone").unwrap();
    drop(point);
    // The second half of the character becomes a letter, in the record and in the directory.
    let mut disk = Raw::of(&lab);
    let name: Vec<u8> = "half of \u{1f980}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let changed = disk.replace(&name, name.len() - 2, b"x\0");
    assert_eq!(changed, 2);
    disk.write(&lab);
    let volume = lab.open().unwrap();
    let entries = volume.entries(volume.root()).unwrap();
    let name = [b"half of \xed\xa0\xbe".as_slice(), b"x"].concat();
    assert_eq!(entries.iter().map(|entry| &entry.name).collect::<Vec<_>>(), [&name]);
    assert_eq!(volume.find(volume.root(), &name).unwrap(), Some(entries[0].node));
    assert_eq!(read(&*volume, entries[0].node, None), b"lone");
}

#[test]
fn short_names_are_found_and_not_listed() {
    let Some(lab) = made("4096", "512", 16) else { return };
    let Some(point) = mount(&lab, "") else { return };
    let name = "a long name of a file.txt";
    fs::write(point.path.join(name), b"content").unwrap();
    lsetxattr(point.path.join(name), "system.ntfs_dos_name", b"ALONGN~1.TXT", XattrFlags::empty()).unwrap();
    drop(point);
    let volume = lab.open().unwrap();
    let entries = volume.entries(volume.root()).unwrap();
    assert_eq!(entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), [name.as_bytes()]);
    assert_eq!(volume.find(volume.root(), b"alongn~1.txt").unwrap(), Some(entries[0].node));
    assert_eq!(volume.metadata(entries[0].node).unwrap().links, Some(1));
    // The record counts both names.
    let disk = Raw::of(&lab);
    assert_eq!(disk.u16(disk.record(entries[0].node.0) + 0x12), 2);
}

#[test]
fn attributes_of_the_linux_of_windows() {
    let Some(lab) = made("4096", "512", 16) else { return };
    let Some(point) = mount(&lab, "") else { return };
    fs::write(point.path.join("file"), b"").unwrap();
    let long = Rng::new(23).bytes(3000);
    let attributes: [(&[u8], &[u8]); 5] = [
        (b"$LXMOD", &0o100_640_u32.to_le_bytes()),
        (b"$LXUID", &1000_u32.to_le_bytes()),
        (b"$LXGID", &2000_u32.to_le_bytes()),
        (b"LX.USER.COMMENT", b"value"),
        (b"OTHER", &long),
    ];
    let mut value = Vec::new();
    for (name, data) in attributes {
        let length = (9 + name.len() + data.len()).next_multiple_of(4);
        let start = value.len();
        value.extend(u32::try_from(length).unwrap().to_le_bytes());
        value.extend([0, u8::try_from(name.len()).unwrap()]);
        value.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
        value.extend([name, b"\0", data].concat());
        value.resize(start + length, 0);
    }
    lsetxattr(point.path.join("file"), "system.ntfs_ea", &value, XattrFlags::empty()).unwrap();
    drop(point);
    let volume = lab.open().unwrap();
    let file = lookup(&*volume, b"file").unwrap();
    let metadata = volume.metadata(file).unwrap();
    assert_eq!((metadata.mode, metadata.owner), (Some(0o640), Some((1000, 2000))));
    let mut found = volume.attributes(file).unwrap();
    found.retain(|attribute| attribute.name != b"system.ntfs_acl");
    let names: Vec<&[u8]> = found.iter().map(|attribute| &*attribute.name).collect();
    let expected: [&[u8]; 5] = [b"ntfs.$LXMOD", b"ntfs.$LXUID", b"ntfs.$LXGID", b"ntfs.LX.USER.COMMENT", b"ntfs.OTHER"];
    assert_eq!(names, expected);
    assert_eq!((&*found[3].value, &found[4].value), (&b"value"[..], &long));
}

/// A security descriptor with an owner of its own.
fn descriptor(owner: u32) -> Vec<u8> {
    let identity =
        |last: u32| [[1, 5, 0, 0, 0, 0, 0, 5].as_slice(), &[21, 1, 2, 3, last].map(u32::to_le_bytes).concat()].concat();
    let (owner, group) = (identity(owner), identity(513));
    let entry = [[0, 0, 36, 0].as_slice(), &0x001f_01ff_u32.to_le_bytes(), &owner].concat();
    let list = [[2, 0, 44, 0, 1, 0, 0, 0].as_slice(), &entry].concat();
    // Relative to itself, with a list of rights; owner, group, no list for auditing, list.
    let header = [[1, 0, 4, 0x80].as_slice(), &[20_u32, 48, 0, 76].map(u32::to_le_bytes).concat()].concat();
    [header, owner, group, list].concat()
}

/// More of them than have room in one block of `$Secure`.
#[test]
fn security_descriptors() {
    let Some(lab) = made("4096", "512", 64) else { return };
    let Some(point) = mount(&lab, "") else { return };
    for number in 0..2000 {
        let path = point.path.join(format!("file {number}"));
        fs::write(&path, b"").unwrap();
        lsetxattr(&path, "system.ntfs_acl", &descriptor(1000 + number), XattrFlags::empty()).unwrap();
    }
    drop(point);
    let volume = lab.open().unwrap();
    let Some(point) = mount(&lab, ",ro") else { return };
    let mut different = std::collections::HashSet::new();
    for entry in volume.entries(volume.root()).unwrap() {
        let path = point.path.join(String::from_utf8(entry.name).unwrap());
        let mut expected = vec![0; 1 << 16];
        let length = getxattr(&path, "system.ntfs_acl", &mut expected).unwrap();
        expected.truncate(length);
        let found = volume.attributes(entry.node).unwrap();
        let found = found.into_iter().find(|attribute| attribute.name == b"system.ntfs_acl").unwrap();
        assert_eq!(found.value, expected, "{}", path.display());
        different.insert(found.value);
    }
    assert_eq!(different.len(), 2000);
    drop(point);
    // Without `$Secure`, files are read all the same.
    let mut disk = Raw::of(&lab);
    let record = disk.record(9);
    disk.put(record, b"BAAD");
    disk.write(&lab);
    let volume = lab.open().unwrap();
    let file = lookup(&*volume, b"file 7").unwrap();
    assert_eq!(volume.attributes(file).unwrap(), []);
    assert_eq!(read(&*volume, file, None), b"");
}

/// Reads content whole.
fn read(volume: &dyn Volume, node: Node, stream: Option<&str>) -> Vec<u8> {
    let content = volume.open(node, stream).unwrap();
    let mut bytes = vec![0xa5; usize::try_from(content.size()).unwrap()];
    assert_eq!(content.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn streams() {
    let Some(lab) = made("4096", "512", 32) else { return };
    let Some(point) = mount(&lab, ",streams_interface=windows") else { return };
    let mut rng = Rng::new(7);
    let (short, long) = (rng.bytes(50), rng.bytes(300_000));
    fs::write(point.path.join("file"), b"main").unwrap();
    fs::write(point.path.join("file:short"), &short).unwrap();
    fs::write(point.path.join("file:Läng"), &long).unwrap();
    fs::create_dir(point.path.join("folder")).unwrap();
    fs::write(point.path.join("folder:Zone.Identifier"), b"[ZoneTransfer]").unwrap();
    drop(point);
    let volume = lab.open().unwrap();
    let file = lookup(&*volume, b"file").unwrap();
    let mut streams: Vec<(String, u64)> =
        volume.streams(file).unwrap().into_iter().map(|stream| (stream.name, stream.size)).collect();
    streams.sort();
    assert_eq!(streams, [("Läng".to_owned(), 300_000), ("short".to_owned(), 50)]);
    assert_eq!(read(&*volume, file, None), b"main");
    assert_eq!(read(&*volume, file, Some("short")), short);
    assert_eq!(read(&*volume, file, Some("läng")), long);
    assert!(matches!(volume.open(file, Some("none")), Err(Error::NotFound(_))));
    let folder = lookup(&*volume, b"folder").unwrap();
    assert_eq!(read(&*volume, folder, Some("Zone.Identifier")), b"[ZoneTransfer]");
    assert!(volume.streams(volume.root()).unwrap().is_empty());
}

#[test]
fn compressed_files() {
    for cluster in ["512", "1024", "4096"] {
        let Some(lab) = made(cluster, "512", 64) else { return };
        let Some(point) = mount(&lab, ",compression") else { return };
        let folder = point.path.join("compressed");
        fs::create_dir(&folder).unwrap();
        lsetxattr(&folder, "system.ntfs_attrib_be", &COMPRESSED, XattrFlags::empty()).unwrap();
        let mut rng = Rng::new(3);
        let text: Vec<u8> = (0..40_000_u32).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
        let mixed: Vec<u8> =
            (0..90_u8).flat_map(|piece| if piece % 3 == 0 { rng.bytes(9_000) } else { vec![piece; 9_000] }).collect();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
        write("text", &text);
        write("random", &rng.bytes(500_000));
        write("zeros", &vec![0; 400_000]);
        write("mixed", &mixed);
        write("short", b"short");
        for size in [4095, 4096, 4097, 65_535, 65_536, 65_537] {
            write(&format!("of {size}"), &text[..size]);
        }
        let sparse = fs::File::create(folder.join("sparse")).unwrap();
        for at in [70_000, 1 << 20, 9 << 20] {
            sparse.write_all_at(&text[..20_000], at).unwrap();
        }
        drop(sparse);
        drop(point);
        let Some(point) = mount(&lab, ",ro") else { return };
        let volume = lab.open().unwrap();
        compare(&*volume, &point.path, FACTS);
        let text = lookup(&*volume, b"compressed/text").unwrap();
        let content = volume.open(text, None).unwrap();
        assert!(content.runs().is_none(), "it was not compressed");
        let metadata = volume.metadata(text).unwrap();
        assert!(metadata.allocated.unwrap() < metadata.size);
        assert_eq!(metadata.dos_attributes.unwrap() & 0x800, 0x800);
        let sparse = volume.open(lookup(&*volume, b"compressed/sparse").unwrap(), None).unwrap();
        assert_eq!(sparse.run_at(2 << 20).map(|(_, is_data)| is_data), Some(false));
    }
}

#[test]
fn content_past_the_initialised_size_reads_as_zeros() {
    let Some(lab) = made("4096", "512", 32) else { return };
    let Some(point) = mount(&lab, "") else { return };
    let bytes = Rng::new(11).bytes(100_000);
    fs::write(point.path.join("file"), &bytes).unwrap();
    drop(point);
    let file = lookup(&*lab.open().unwrap(), b"file").unwrap();
    let mut disk = Raw::of(&lab);
    let data = disk.attribute(file.0, 0x80);
    assert_eq!(disk.u64(data + 0x38), 100_000);
    disk.put(data + 0x38, &50_001_u64.to_le_bytes());
    disk.write(&lab);
    let volume = lab.open().unwrap();
    let mut expected = bytes;
    expected[50_001..].fill(0);
    assert_eq!(read(&*volume, file, None), expected);
    let content = volume.open(file, None).unwrap();
    assert_eq!(content.run_at(50_001), Some((49_999, false)));
}

#[test]
fn both_sets_of_times() {
    let Some(lab) = made("4096", "512", 16) else { return };
    let Some(point) = mount(&lab, "") else { return };
    fs::write(point.path.join("a file with times"), b"").unwrap();
    drop(point);
    let file = lookup(&*lab.open().unwrap(), b"a file with times").unwrap();
    let mut disk = Raw::of(&lab);
    let information = disk.value(disk.attribute(file.0, 0x10));
    let name = disk.value(disk.attribute(file.0, 0x30));
    let ticks = [0, u64::MAX, 116_444_736_000_000_001, 133_000_000_012_345_678];
    for (index, ticks) in (0..).zip(ticks) {
        disk.put(information + index * 8, &ticks.to_le_bytes());
        disk.put(name + 8 + (3 - index) * 8, &ticks.to_le_bytes());
    }
    disk.write(&lab);
    let [created, modified, changed, accessed] = ticks.map(|ticks| Some(raw::time(ticks)));
    assert_eq!(created, Some(Time { seconds: -11_644_473_600, nanoseconds: 0 }));
    let metadata = lab.open().unwrap().metadata(file).unwrap();
    assert_eq!(metadata.times, Times { created, modified, changed, accessed });
    let reversed = Times { created: accessed, modified: changed, changed: modified, accessed: created };
    assert_eq!(metadata.name_times, Some(reversed));
}

/// Value of a reparse point of Microsoft.
fn reparse(tag: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&tag.to_le_bytes()[..], &length.to_le_bytes(), &[0, 0], data].concat()
}

/// Value of a junction, or of a symbolic link with `flags`.
fn link(target: &str, flags: Option<u32>) -> Vec<u8> {
    let name: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = u16::try_from(name.len()).unwrap();
    // The second name, which is shown, follows the end of the first one.
    let fields = [0, length, length + 2, length].map(u16::to_le_bytes).concat();
    let flags = flags.map_or(Vec::new(), |flags| flags.to_le_bytes().to_vec());
    let tag = if flags.is_empty() { 0xa000_0003 } else { 0xa000_000c };
    reparse(tag, &[&fields[..], &flags, &name, &[0, 0], &name, &[0, 0]].concat())
}

#[test]
fn reparse_points() {
    let Some(lab) = made("4096", "512", 32) else { return };
    let Some(point) = mount(&lab, "") else { return };
    let set = |name: &str, value: &[u8]| {
        let set = lsetxattr(point.path.join(name), "system.ntfs_reparse_data", value, XattrFlags::empty());
        set.unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    fs::create_dir_all(point.path.join("Windows/System32")).unwrap();
    fs::write(point.path.join("Windows/here"), b"here").unwrap();
    for (name, value) in [
        ("relative", link(r"Windows\here", Some(1))),
        ("rooted", link(r"\Windows\here", Some(1))),
        ("absolute", link(r"\??\C:\Windows\here", Some(0))),
        ("LX link", reparse(0xa000_001d, b"\x02\0\0\0Windows/here")),
        ("WOF", reparse(0x8000_0017, &[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
        ("deduplicated", reparse(0x8000_0013, &[1; 16])),
        ("cloud", reparse(0x9000_601a, &[1; 16])),
        ("unknown", reparse(0x8000_7777, &[1; 16])),
    ] {
        let has_content = matches!(name, "WOF" | "deduplicated" | "cloud" | "unknown");
        fs::write(point.path.join(name), if has_content { "bytes" } else { "" }).unwrap();
        set(name, &value);
    }
    for (name, value) in [
        ("junction", link(r"\??\C:\Windows", None)),
        ("junction elsewhere", link(r"\??\D:\Windows", None)),
        ("cloud folder", reparse(0x9000_601a, &[1; 16])),
    ] {
        fs::create_dir(point.path.join(name)).unwrap();
        set(name, &value);
    }
    drop(point);
    let volume = lab.open().unwrap();
    let node = |name: &str| lookup_link(&*volume, name.as_bytes()).unwrap();
    let kind = |name: &str| volume.metadata(node(name)).unwrap().kind;
    let target = |name: &str| String::from_utf8(volume.link_target(node(name)).unwrap()).unwrap();
    for (name, expected) in [
        ("relative", "Windows/here"),
        ("rooted", "/Windows/here"),
        ("absolute", "/Windows/here"),
        ("LX link", "Windows/here"),
        ("junction", "/Windows"),
        ("junction elsewhere", r"\??\D:\Windows"),
    ] {
        assert_eq!((name, kind(name), &*target(name)), (name, FileKind::Link, expected));
        assert_eq!(volume.metadata(node(name)).unwrap().size, u64::try_from(expected.len()).unwrap());
    }
    assert_eq!(lookup(&*volume, b"absolute").unwrap(), node("Windows/here"));
    assert_eq!(lookup(&*volume, b"junction/here").unwrap(), node("Windows/here"));
    assert!(matches!(lookup(&*volume, b"junction elsewhere"), Err(Error::NotFound(_))));
    assert!(matches!(volume.entries(node("junction")), Err(Error::NotDirectory(_))));
    assert!(volume.entries(node("cloud folder")).unwrap().is_empty());
    for (name, expected) in [("WOF", "(WOF)"), ("deduplicated", "deduplicated"), ("unknown", "0x80007777")] {
        assert_eq!(kind(name), FileKind::File, "{name}");
        let error = volume.open(node(name), None).unwrap_err();
        assert!(matches!(error, Error::FileSystem { is_unsupported: true, .. }), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    // A file of a cloud whose content is here is read.
    assert_eq!(read(&*volume, node("cloud"), None), b"bytes");
    // Listings do not say what reparse points are.
    let entries = volume.entries(volume.root()).unwrap();
    let said = entries.iter().find(|entry| entry.name == b"relative").unwrap();
    assert_eq!(said.kind, None);
}

#[test]
fn special_files_of_two_kinds() {
    // Those of the Linux of Windows, and those of Services for Unix.
    for options in [",special_files=wsl", ""] {
        let Some(lab) = made("4096", "512", 32) else { return };
        let Some(point) = mount(&lab, options) else { return };
        symlink("a/target – of it", point.path.join("link")).unwrap();
        let run = |program: &str, args: &[&str]| {
            let done = std::process::Command::new(program).current_dir(&point.path).args(args).status();
            assert!(done.unwrap().success(), "{program}");
        };
        run("mknod", &["character", "c", "1", "300"]);
        run("mknod", &["block", "b", "8", "17"]);
        if !options.is_empty() {
            run("mkfifo", &["pipe"]);
            std::os::unix::net::UnixListener::bind(point.path.join("socket")).unwrap();
        }
        drop(point);
        let Some(point) = mount(&lab, &format!(",ro{options}")) else { return };
        let volume = lab.open().unwrap();
        compare(&*volume, &point.path, FACTS);
        let device = |name: &str| volume.metadata(lookup_link(&*volume, name.as_bytes()).unwrap()).unwrap().device;
        assert_eq!([device("character"), device("block")], [Some((1, 300)), Some((8, 17))]);
    }
}

#[test]
fn encrypted_files_are_refused() {
    let Some(lab) = made("4096", "512", 16) else { return };
    let Some(point) = mount(&lab, "") else { return };
    fs::write(point.path.join("secret"), vec![7; 10_000]).unwrap();
    drop(point);
    let file = lookup(&*lab.open().unwrap(), b"secret").unwrap();
    let mut disk = Raw::of(&lab);
    let data = disk.attribute(file.0, 0x80);
    disk.put(data + 0xc, &0x4000_u16.to_le_bytes());
    disk.write(&lab);
    let volume = lab.open().unwrap();
    let metadata = volume.metadata(file).unwrap();
    assert!(metadata.is_encrypted);
    assert_eq!(metadata.size, 10_000);
    let error = volume.open(file, None).unwrap_err();
    assert!(matches!(error, Error::FileSystem { is_unsupported: true, .. }), "{error}");
    assert!(error.to_string().contains("encrypted"), "{error}");
}

#[test]
fn files_in_many_pieces_have_lists_of_attributes() {
    let Some(lab) = made("512", "512", 64) else { return };
    let Some(point) = mount(&lab, "") else { return };
    let mut rng = Rng::new(5);
    let files = ["one", "two"].map(|name| fs::File::create(point.path.join(name)).unwrap());
    for piece in 0..2000 {
        for file in &files {
            // Every other place stays a hole.
            file.write_all_at(&rng.bytes(512), piece * 1024).unwrap();
        }
    }
    // A record with many names needs others for them.
    for number in 0..100 {
        fs::hard_link(point.path.join("one"), point.path.join(format!("{}{number:03}", "name ".repeat(20)))).unwrap();
    }
    drop(files);
    drop(point);
    let Some(point) = mount(&lab, ",ro") else { return };
    let volume = lab.open().unwrap();
    compare(&*volume, &point.path, FACTS);
    compare_metadata(&*volume, volume.root(), &point.path);
    let file = lookup(&*volume, b"one").unwrap();
    assert_eq!(volume.metadata(file).unwrap().links, Some(101));
    // There is such a list.
    Raw::of(&lab).attribute(file.0, 0x20);
}

#[test]
fn file_records_in_many_pieces() {
    let Some(lab) = made("1024", "512", 16) else { return };
    let Some(point) = mount(&lab, "") else { return };
    // Files take all space; then the records of more of them find room only where some were removed.
    let fill_with = |name: &str, bytes: &[u8]| {
        let path = |number: usize| point.path.join(format!("{name} {number:05}"));
        let count = (0..).find(|number| fs::write(path(*number), bytes).is_err()).unwrap();
        let _ = fs::remove_file(path(count));
        count
    };
    let count = fill_with("large", &[7; 3000]);
    for number in (0..count).step_by(3) {
        fs::remove_file(point.path.join(format!("large {number:05}"))).unwrap();
    }
    fill_with("small", b"in the record");
    drop(point);
    let Some(point) = mount(&lab, ",ro") else { return };
    compare(&*lab.open().unwrap(), &point.path, FACTS);
    let pieces = Raw::of(&lab).run_count(0);
    assert!(pieces > 10, "{pieces}");
}

/// Reads all that a volume has, and returns how many calls gave an error.
fn walk(volume: &dyn Volume, directory: Node, depth: u32, left: &mut u32) -> u32 {
    let Ok(entries) = volume.entries(directory) else { return 1 };
    let mut errors = 0;
    for entry in entries {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let mut note = |is_error: bool| errors += u32::from(is_error);
        note(volume.find(directory, &entry.name).is_err());
        note(volume.streams(entry.node).is_err());
        note(volume.attributes(entry.node).is_err());
        let kind = volume.metadata(entry.node).map(|metadata| metadata.kind);
        note(kind.is_err());
        match kind {
            Ok(FileKind::Directory) if depth < 40 => errors += walk(volume, entry.node, depth + 1, left),
            Ok(FileKind::Link) => note(volume.link_target(entry.node).is_err()),
            _ => note(volume.open(entry.node, None).is_ok_and(|content| {
                let mut bytes = [0; 70_000];
                let end = content.size().saturating_sub(1000);
                content.read_at(&mut bytes, 0).is_err() || content.read_at(&mut bytes, end).is_err()
            })),
        }
    }
    errors
}

#[test]
fn damage_ends_in_errors() {
    let Some(lab) = made("1024", "512", 8) else { return };
    let Some(point) = mount(&lab, ",compression,streams_interface=windows") else { return };
    fs::create_dir(point.path.join("many")).unwrap();
    lsetxattr(point.path.join("many"), "system.ntfs_attrib_be", &COMPRESSED, XattrFlags::empty()).unwrap();
    for number in 0..300 {
        fs::write(point.path.join(format!("many/a long name of a file with the number {number}")), b"x").unwrap();
    }
    fs::write(point.path.join("many/compressed"), "compressed ".repeat(20_000)).unwrap();
    fs::write(point.path.join("file"), vec![9; 30_000]).unwrap();
    fs::write(point.path.join("file:stream"), vec![9; 3_000]).unwrap();
    symlink("file", point.path.join("link")).unwrap();
    for number in 0..40 {
        fs::hard_link(point.path.join("file"), point.path.join(format!("{}{number:03}", "name ".repeat(20)))).unwrap();
    }
    drop(point);
    let sound = Raw::of(&lab).into_image();
    let structures = sound.structures();
    assert!(structures.len() > 300, "{}", structures.len());
    let mut rng = Rng::new(1);
    let mut errors = 0;
    for _ in 0..400 {
        let mut image = sound.clone();
        for _ in 0..=rng.below(3) {
            let (start, length) = rng.pick(&structures);
            let at = start + usize::try_from(rng.below(u64::try_from(length).unwrap())).unwrap();
            let old = image.byte(at);
            let random = rng.bytes(1)[0];
            let new = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, random, old.wrapping_add(1), old ^ 0x40]);
            image.set(at, new);
        }
        match vhdx_files::open(image.open()) {
            Ok(volume) => errors += walk(&*volume, volume.root(), 0, &mut 2000),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 100, "{errors}");
}
