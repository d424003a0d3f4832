//! ISO 9660, made by two programs and compared with the trees that these were given.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use vhdx_files::{FileKind, Time, Volume, Walk};

use super::damage::{Victim, fill_little};
use super::lab::{Can, Facts, Lab, compare, damage, fill};

/// Times have whole seconds, and numbers of inodes are made up.
const ISO: Facts = Facts { is_unix: false, time_unit: 1_000_000_000, has_attributes: false };

fn made(tool: &str, options: &[&str], fill: impl FnOnce(&Path)) -> Option<Lab> {
    Lab::of_tree(fill, tool, |raw, tree| {
        let options = options.iter().map(OsString::from);
        options.chain([OsString::from("-o"), raw.into(), tree.into()]).collect()
    })
}

const XORRISO: [&str; 5] = ["-as", "mkisofs", "-quiet", "-iso-level", "3"];

/// Compares what the tree of Unix has besides names and contents.
fn compare_unix(volume: &dyn Volume, tree: &Path) {
    let mut count = 0;
    for found in Walk::new(volume, volume.root()).map(Result::unwrap).filter(|found| found.depth > 0) {
        let path = tree.join(OsStr::from_bytes(&found.path));
        let (expected, metadata) = (fs::symlink_metadata(&path).unwrap(), &found.metadata);
        assert_eq!(metadata.owner, Some((expected.uid(), expected.gid())), "{}", path.display());
        if metadata.kind != FileKind::Link {
            assert_eq!(metadata.mode, Some(expected.mode() & 0o7777), "{}", path.display());
        }
        let device = metadata.device.map_or(0, |(major, minor)| rustix::fs::makedev(major, minor));
        assert_eq!(device, expected.rdev(), "{}", path.display());
        if metadata.kind == FileKind::File {
            assert_eq!(metadata.links, Some(u32::try_from(expected.nlink()).unwrap()), "{}", path.display());
        }
        let time = |seconds| Some(Time::of_seconds(seconds));
        let whole = |time: Option<Time>| time.map(|time| Time { nanoseconds: 0, ..time });
        assert_eq!(whole(metadata.times.changed), time(expected.ctime()), "{}", path.display());
        count += 1;
    }
    assert!(count > 10);
}

#[test]
fn rock_ridge_of_xorriso() {
    let fill = |tree: &Path| {
        fill(tree, Can::Unix);
        // Separators that follow one another are lost.
        fs::remove_file(tree.join("link of 59")).unwrap();
        fs::remove_file(tree.join("link of 60")).unwrap();
        fs::remove_file(tree.join("long link")).unwrap();
        // Systems read numbers of devices of more than 16 bits as others than this tool writes.
        let old = [tree.join("block"), tree.join("character")];
        for (path, kind) in old.iter().zip(["b", "c"]).filter(|(path, _)| path.symlink_metadata().is_ok()) {
            fs::remove_file(path).unwrap();
            assert!(Command::new("mknod").arg(path).args([kind, "8", "1"]).status().unwrap().success());
        }
        std::os::unix::fs::symlink(format!("{}end", "far/".repeat(200)), tree.join("long link")).unwrap();
    };
    let Some(lab) = made("xorriso", &[&XORRISO[..], &["-R"]].concat(), fill) else { return };
    let volume = lab.open().unwrap();
    assert!(volume.about().is_experimental && !volume.about().ignores_case);
    let tree = lab.folder.path().join("tree");
    compare(&*volume, &tree, ISO);
    compare_unix(&*volume, &tree);
}

/// A tree whose directories are deeper than ISO 9660 allows, so that they are moved; links and names of many lengths.
/// Links are not longer, since genisoimage never ends then.
fn fill_deep(tree: &Path) {
    let mut deep = tree.to_owned();
    for level in 0..20 {
        deep.push(format!("level {level}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deepest"), b"down here").unwrap();
    for length in (1..=240).step_by(7) {
        fs::write(tree.join("n".repeat(length)), length.to_string()).unwrap();
        std::os::unix::fs::symlink(format!("/{}/../x//./y", "t".repeat(length)), tree.join(format!("link {length}")))
            .unwrap();
    }
    std::os::unix::fs::symlink("../a/b", tree.join("up")).unwrap();
    std::os::unix::fs::symlink("/", tree.join("root")).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 0);
    File::options().write(true).open(deep.join("deepest")).unwrap().set_modified(time).unwrap();
}

/// Targets of links are stored in parts, and `//` and a `/` at the end are lost.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let joined = parts.join(&b'/');
    if path.starts_with(b"/") { [b"/".as_slice(), &joined].concat() } else { joined }
}

#[test]
fn rock_ridge_of_genisoimage() {
    for options in [&["-quiet", "-R"][..], &["-quiet", "-R", "-D"]] {
        let Some(lab) = made("genisoimage", options, fill_deep) else { return };
        let (volume, tree) = (lab.open().unwrap(), lab.folder.path().join("tree"));
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for file in Walk::new(&*volume, volume.root()).map(Result::unwrap) {
            // The directory that moved ones are in is empty, but for those that are shown in their own places.
            if file.path == b"rr_moved" || file.depth == 0 {
                continue;
            }
            let content = match file.metadata.kind {
                FileKind::Link => normal(&volume.link_target(file.node).unwrap()),
                FileKind::File => content(&*volume, &file.path),
                _ => Vec::new(),
            };
            found.push((file.path, content));
        }
        let mut expected = Vec::new();
        let mut todo = vec![tree.clone()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let content = if kind.is_symlink() {
                    normal(fs::read_link(&path).unwrap().as_os_str().as_bytes())
                } else if kind.is_file() {
                    fs::read(&path).unwrap()
                } else {
                    todo.push(path.clone());
                    Vec::new()
                };
                expected.push((path.strip_prefix(&tree).unwrap().as_os_str().as_bytes().to_vec(), content));
            }
        }
        found.sort();
        expected.sort();
        let show = |list: &[(Vec<u8>, Vec<u8>)]| -> Vec<String> {
            list.iter()
                .map(|(path, content)| format!("{:?} {:?}", OsStr::from_bytes(path), OsStr::from_bytes(content)))
                .collect()
        };
        assert_eq!(show(&found), show(&expected), "{options:?}");
    }
}

fn content(volume: &dyn Volume, path: &[u8]) -> Vec<u8> {
    let node = vhdx_files::lookup(volume, path).unwrap();
    let content = volume.open(node, None).unwrap();
    let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
    content.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn joliet() {
    let names = ["Ünïcödé – 日本語.txt", "with spaces and more letters than eight.text", "a;b"];
    let fill = |tree: &Path| {
        for name in names {
            fs::write(tree.join(name), name).unwrap();
        }
        fs::create_dir_all(tree.join("Folder/Inner")).unwrap();
        fs::write(tree.join("Folder/Inner/file.bin"), vec![7; 100_000]).unwrap();
    };
    let Some(lab) = made("genisoimage", &["-quiet", "-J", "-joliet-long", "-input-charset", "utf-8"], fill) else {
        return;
    };
    let volume = lab.open().unwrap();
    assert!(volume.about().ignores_case);
    assert_eq!(content(&*volume, b"/folder/INNER/file.bin"), vec![7; 100_000]);
    let mut found: Vec<Vec<u8>> = volume.entries(volume.root()).unwrap().into_iter().map(|entry| entry.name).collect();
    found.sort();
    // Joliet has no semicolon in names, and the program puts a line there.
    assert_eq!(found, [b"Folder".as_slice(), b"a_b", names[1].as_bytes(), names[0].as_bytes()]);
    assert_eq!(content(&*volume, names[0].as_bytes()), names[0].as_bytes());
}

/// Names as they are without any extension; and files in several pieces.
#[test]
fn plain_names_and_files_in_pieces() {
    let fill = |tree: &Path| {
        fs::write(tree.join("file_a.txt"), vec![1; 2 * 2048]).unwrap();
        fs::write(tree.join("file_b.txt"), vec![2; 3000]).unwrap();
        fs::write(tree.join("noend"), b"x").unwrap();
        fs::create_dir(tree.join("folder")).unwrap();
    };
    let Some(lab) = made("genisoimage", &["-quiet"], fill) else { return };
    let names = |volume: &dyn Volume| -> Vec<Vec<u8>> {
        volume.entries(volume.root()).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    let volume = lab.open().unwrap();
    assert_eq!(names(&*volume), [b"FILE_A.TXT".as_slice(), b"FILE_B.TXT", b"FOLDER", b"NOEND"]);
    assert_eq!(content(&*volume, b"file_b.txt"), vec![2; 3000]);
    drop(volume);
    // The second file becomes a piece of the first: its name is that of the first, which goes on.
    let raw = fs::read(&lab.raw).unwrap();
    let name = |name: &[u8]| raw.windows(name.len()).position(|window| window == name).unwrap();
    let (first, second) = (name(b"FILE_A.TXT;1"), name(b"FILE_B.TXT;1"));
    let file = File::options().write(true).open(&lab.raw).unwrap();
    file.write_all_at(&[raw[first - 33 + 25] | 0x80], u64::try_from(first - 33 + 25).unwrap()).unwrap();
    file.write_all_at(b"FILE_A.TXT;1", u64::try_from(second).unwrap()).unwrap();
    let volume = lab.open().unwrap();
    assert_eq!(names(&*volume), [b"FILE_A.TXT".as_slice(), b"FOLDER", b"NOEND"]);
    assert_eq!(content(&*volume, b"/FILE_A.TXT"), [vec![1; 2 * 2048], vec![2; 3000]].concat());
    let node = vhdx_files::lookup(&*volume, b"/FILE_A.TXT").unwrap();
    assert_eq!(volume.metadata(node).unwrap().size, 2 * 2048 + 3000);
    // The last piece has no other behind it.
    file.write_all_at(b"FILE_C.TXT;1", u64::try_from(second).unwrap()).unwrap();
    let volume = lab.open().unwrap();
    assert!(volume.open(node, None).unwrap_err().to_string().contains("that of another"));
}

#[test]
fn what_is_refused() {
    let Some(lab) = made("genisoimage", &["-quiet", "-R", "-udf"], fill_deep) else { return };
    assert!(lab.open().unwrap_err().to_string().contains("UDF as well"));
    // Packed files.
    let fill = |tree: &Path| fs::write(tree.join("packed"), vec![b'x'; 100_000]).unwrap();
    let packed = Lab::of_tree(fill, "xorriso", |raw, tree| {
        let words = ["-outdev".into(), raw.into(), "-map".into(), tree.into(), "/".into()];
        let more = ["-set_filter_r", "--zisofs", "/", "--", "-commit"].map(OsString::from);
        words.into_iter().chain(more).collect()
    });
    let Some(lab) = packed else { return };
    let volume = lab.open().unwrap();
    let node = vhdx_files::lookup(&*volume, b"/packed").unwrap();
    assert_eq!(volume.metadata(node).unwrap().size, 100_000);
    assert!(volume.open(node, None).unwrap_err().to_string().contains("zisofs"));
}

#[test]
fn damaged() {
    let rock_ridge = [&XORRISO[..], &["-R"]].concat();
    for (tool, options) in [("xorriso", rock_ridge.as_slice()), ("genisoimage", &["-quiet", "-J"])] {
        let Some(lab) = made(tool, options, fill_little) else { return };
        // Structures have many zeros, and contents few.
        Victim::new(&lab.raw, |page| page.iter().filter(|byte| **byte == 0).count() > 500, |_| {}).suffer(200);
        damage(&lab, 20);
    }
}
