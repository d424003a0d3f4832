//! Files in disks: ls, tree, cat, cp, df, find, tar, timeline, locate, and diff --files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::volumes::image_of;
use super::{args, assert_fails, assert_lines, disk_with, vhdx_run, write_image};
use crate::kit::builder::Spec;
use crate::kit::{Block, Fill, MIB};
use crate::schema::assert_valid;
use crate::support::{run, skip, temp_dir, vhdx};

/// A tree of files that has a bit of everything.
fn tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("home/me/deep/er")).unwrap();
    fs::create_dir(tree.join("home/empty")).unwrap();
    fs::write(tree.join("hello.txt"), "Hello from inside\n").unwrap();
    fs::write(tree.join("home/me/notes.md"), "notes").unwrap();
    fs::write(tree.join("home/me/.hidden"), "hidden").unwrap();
    fs::write(tree.join("home/me/deep/er/Ünïcödé"), "names").unwrap();
    fs::write(tree.join("home/me/large"), pattern(3_000_000)).unwrap();
    symlink("notes.md", tree.join("home/me/link")).unwrap();
    symlink("/hello.txt", tree.join("home/absolute")).unwrap();
    fs::hard_link(tree.join("hello.txt"), tree.join("home/hard")).unwrap();
    fs::set_permissions(tree.join("home/me/notes.md"), fs::Permissions::from_mode(0o640)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 0);
    fs::File::options().write(true).open(tree.join("hello.txt")).unwrap().set_modified(time).unwrap();
    tree
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 251).unwrap()).collect()
}

/// Bytes of which no part is twice.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Length of a file of which some blocks of the image hold nothing else.
const LARGE: usize = 17_000_000;

/// The number of a block of 1 MiB that holds content of that file alone.
fn block_of_large(raw: &[u8]) -> u64 {
    let middle = &noise(LARGE)[LARGE / 2..LARGE / 2 + 512];
    let at = raw.windows(512).position(|window| window == middle).unwrap();
    u64::try_from(at).unwrap() / MIB
}

/// A raw disk with an ext4 file system that holds a tree; none without its tool.
fn ext4_raw(folder: &Path, name: &str, tree: &Path, options: &[&str]) -> Option<PathBuf> {
    let raw = folder.join(name);
    fs::File::create(&raw).unwrap().set_len(32 * MIB).unwrap();
    let mut tool = Command::new("mke2fs");
    tool.args(["-q", "-F", "-t", "ext4", "-L", "inside", "-U", "6a9b2c1e-0000-4000-8000-0123456789ab"]);
    tool.args(options).arg("-d").args([tree, raw.as_path()]);
    match tool.output() {
        Ok(made) if made.status.success() => Some(raw),
        _ => {
            skip("mkfs", "mke2fs is not there");
            None
        }
    }
}

/// An image with an ext4 file system that holds a tree.
fn ext4(folder: &Path, tree: &Path) -> Option<PathBuf> {
    Some(image_of(folder, &ext4_raw(folder, "disk.raw", tree, &[])?))
}

/// A path inside an image.
fn inside(image: &Path, path: &str) -> OsString {
    let mut argument = image.as_os_str().to_owned();
    argument.push(path);
    argument
}

#[test]
fn ls_lists_directories_and_files() {
    let folder = temp_dir();
    let Some(image) = ext4(folder.path(), &tree(folder.path())) else { return };
    let ls = |path: &str, options: &[&str]| {
        let words = ["ls".into(), inside(&image, path)].into_iter().chain(options.iter().map(OsString::from));
        vhdx_run(words).done().text()
    };
    assert_eq!(ls(":/", &[]), "hello.txt\nhome\nlost+found\n");
    assert_eq!(ls("", &[]), ls(":/", &[]));
    assert_eq!(ls(":home/me", &[]), "deep\nlarge\nlink\nnotes.md\n");
    assert_eq!(ls(":/home/me", &["-a"]), ".hidden\ndeep\nlarge\nlink\nnotes.md\n");
    assert_eq!(ls(":/home/../home/./me/link", &[]), "/home/../home/./me/link\n");
    assert_eq!(ls(":/home/absolute", &[]), "/home/absolute\n");
    let recursive = ls(":/home", &["-R"]);
    assert_lines(&recursive, &["/home/me/deep/er/Ünïcödé", "/home/empty", "/home/me/link"]);
    let long = ls(":/", &["-l"]);
    let hello = long.lines().find(|line| line.ends_with("hello.txt")).unwrap();
    assert!(hello.starts_with("-rw-") && hello.contains(" 18 2001-09-09 01:46 "), "{hello}");
    let link = ls(":/home/me", &["-l"]);
    assert!(link.lines().any(|line| line.starts_with('l') && line.ends_with("link -> notes.md")), "{link}");
    let rows = rows("ls", &ls(":/home/me", &["--json"]));
    let notes = rows.iter().find(|row| row["path"] == "/home/me/notes.md").unwrap();
    assert_eq!((&notes["kind"], &notes["size"], &notes["mode"]), (&"file".into(), &5.into(), &"0640".into()));
    let csv = ls(":/home/me", &["--csv"]);
    assert!(csv.lines().any(|line| line.starts_with("/home/me/notes.md,file,5,")), "{csv}");
}

/// Rows of JSON, each as the schema says.
#[track_caller]
fn rows(schema: &str, text: &str) -> Vec<Value> {
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.iter().for_each(|row| assert_valid(Some(schema), row));
    assert!(!rows.is_empty());
    rows
}

#[test]
fn tree_and_find_show_what_is_below() {
    let folder = temp_dir();
    let Some(image) = ext4(folder.path(), &tree(folder.path())) else { return };
    let shown = vhdx_run(args!["tree", inside(&image, ":/home")]).done().text();
    assert_lines(
        &shown,
        &["├── absolute -> /hello.txt", "    ├── deep", "    │   └── er", "    └── notes.md", "4 directories, 6 files"],
    );
    let find = |options: &[&str]| {
        let words = ["find".into(), inside(&image, ":/")].into_iter().chain(options.iter().map(OsString::from));
        vhdx_run(words).done().text()
    };
    assert_eq!(find(&["--name", "*.md"]), "/home/me/notes.md\n");
    assert_eq!(find(&["--iname", "NOTES*"]), "/home/me/notes.md\n");
    assert_eq!(find(&["--larger", "1M"]), "/home/me/large\n");
    assert_eq!(find(&["--type", "l"]), "/home/absolute\n/home/me/link\n");
    assert_eq!(find(&["--older", "2001-09-10"]), "/hello.txt\n/home/hard\n");
    let sums = find(&["--name", "notes.md", "--sha256"]);
    // `printf notes | sha256sum`
    let expected = run(Command::new("sh").args(["-c", "printf notes | sha256sum | cut -c1-64"])).done().text();
    assert_eq!(sums, format!("{}  /home/me/notes.md\n", expected.trim()));
}

#[test]
fn cat_writes_content() {
    let folder = temp_dir();
    let Some(image) = ext4(folder.path(), &tree(folder.path())) else { return };
    let cat = |path: &str| vhdx_run(args!["cat", inside(&image, path)]);
    assert_eq!(cat(":/hello.txt").done().text(), "Hello from inside\n");
    assert_eq!(cat(":/home/absolute").done().text(), "Hello from inside\n");
    assert!(cat(":/home/me/large").done().out == pattern(3_000_000));
    assert_fails(&cat(":/missing"), 66, &["no such file or directory", "vhdx ls"]);
    assert_fails(&cat(":/home"), 66, &["is not a regular file"]);
    assert_fails(&cat(":/hello.txt/x"), 66, &["is not a directory"]);
    assert_fails(&cat(":9:/hello.txt"), 66, &["has no partition or volume 9", "the whole disk (ext4"]);
    assert_eq!(cat(":inside:/hello.txt").done().text(), "Hello from inside\n");
}

/// Compares two trees of this system.
fn assert_same(one: &Path, other: &Path) {
    let names = |folder: &Path| {
        let mut names: Vec<OsString> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "lost+found");
        names.sort();
        names
    };
    assert_eq!(names(one), names(other));
    for name in names(one) {
        let (one, other) = (one.join(&name), other.join(&name));
        let [was, is] = [&one, &other].map(|path| fs::symlink_metadata(path).unwrap());
        assert_eq!(was.file_type(), is.file_type(), "{}", other.display());
        assert_eq!(was.mtime(), is.mtime(), "{}", other.display());
        if was.is_symlink() {
            assert_eq!(fs::read_link(&one).unwrap(), fs::read_link(&other).unwrap());
            continue;
        }
        assert_eq!((was.mode(), was.nlink()), (is.mode(), is.nlink()), "{}", other.display());
        if was.is_dir() {
            assert_same(&one, &other);
        } else {
            assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap(), "{}", other.display());
        }
    }
}

#[test]
fn cp_copies_trees_and_files() {
    let folder = temp_dir();
    let tree = tree(folder.path());
    let Some(image) = ext4(folder.path(), &tree) else { return };
    let back = folder.path().join("back");
    vhdx_run(args!["cp", "-r", inside(&image, ":/"), &back]).done();
    assert_same(&tree, &back);
    // Into a folder that is there, under its own name; a single file under another one.
    vhdx_run(args!["cp", "-r", inside(&image, ":/home/me"), &back]).done();
    assert_same(&tree.join("home/me"), &back.join("me"));
    let file = folder.path().join("file");
    vhdx_run(args!["cp", inside(&image, ":/hello.txt"), &file]).done();
    assert_eq!(fs::read_to_string(&file).unwrap(), "Hello from inside\n");
    // What is there is not replaced without a word.
    let again = vhdx_run(args!["cp", inside(&image, ":/home/me/notes.md"), &file]);
    assert_fails(&again, 73, &[&format!("{}: cannot be made: File exists", file.display()), "pass --force"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "Hello from inside\n");
    vhdx_run(args!["cp", "--force", inside(&image, ":/home/me/notes.md"), &file]).done();
    assert_eq!(fs::read_to_string(&file).unwrap(), "notes");
    assert_fails(&vhdx_run(args!["cp", inside(&image, ":/home"), &file]), 2, &["is a directory", "--recursive"]);
    let missing = folder.path().join("no/such/folder");
    assert_fails(&vhdx_run(args!["cp", inside(&image, ":/hello.txt"), &missing]), 73, &["No such file"]);
    let shown = vhdx_run(args!["cp", "-rn", inside(&image, ":/home/me"), folder.path().join("dry")]).done().text();
    assert!(shown.contains("/home/me/deep/er/Ünïcödé -> ") && !folder.path().join("dry").exists(), "{shown}");
}

#[test]
fn cp_copies_large_files_with_their_holes() {
    let folder = temp_dir();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let (first, second) = (noise(5_000_001), pattern(9_000_000));
    let file = fs::File::create(tree.join("sparse")).unwrap();
    file.write_all_at(&first, 0).unwrap();
    file.write_all_at(&second, 20 * MIB).unwrap();
    file.set_len(40 * MIB).unwrap();
    let file = fs::File::create(tree.join("ends with data")).unwrap();
    file.write_all_at(&first, 30 * MIB).unwrap();
    let Some(image) = ext4(folder.path(), &tree) else { return };
    for threads in ["1", "3"] {
        let back = folder.path().join(format!("by {threads}"));
        vhdx_run(args!["cp", "-r", "--threads", threads, inside(&image, ":/"), &back]).done();
        for name in ["sparse", "ends with data"] {
            let (expected, found) = (tree.join(name), back.join(name));
            assert!(fs::read(&expected).unwrap() == fs::read(&found).unwrap(), "{name} by {threads}");
            let allocated = fs::metadata(&found).unwrap().blocks() * 512;
            assert!(allocated < 15 * MIB, "{name} by {threads}: {allocated} bytes");
        }
    }
}

/// Replaces bytes in the blocks of directories, of which there is one copy in a small disk without checksums.
fn rename_inside(raw: &Path, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(raw).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    fs::write(raw, bytes).unwrap();
}

#[test]
fn cp_never_leaves_its_target() {
    let folder = temp_dir();
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let tree = folder.path().join("hostile");
    fs::create_dir_all(tree.join("link-to-outside-2")).unwrap();
    fs::write(tree.join("link-to-outside-2/through-the-link"), "evil").unwrap();
    symlink(&outside, tree.join("link-to-outside-1")).unwrap();
    fs::write(tree.join("xx-xx-xx-escape"), "evil").unwrap();
    fs::write(tree.join("yy"), "evil").unwrap();
    fs::write(tree.join("zz"), "fine").unwrap();
    let options = ["-O", "^metadata_csum,^dir_index,^has_journal"];
    let Some(raw) = ext4_raw(folder.path(), "disk.raw", &tree, &options) else { return };
    rename_inside(&raw, b"xx-xx-xx-escape", b"../outside/evil");
    rename_inside(&raw, b"\x02\x01yy", b"\x02\x01..");
    // A link and a directory with the same name.
    rename_inside(&raw, b"link-to-outside-2", b"link-to-outside-1");
    let image = image_of(folder.path(), &raw);
    let target = folder.path().join("in/target");
    fs::create_dir(folder.path().join("in")).unwrap();
    let ran = vhdx_run(args!["cp", "-r", inside(&image, ":/"), &target]);
    assert_eq!(ran.status.code(), Some(73), "{}", ran.err);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path().join("in")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(target.join("zz")).unwrap(), "fine");
    assert_eq!(fs::read_to_string(target.join("..%2Foutside%2Fevil")).unwrap(), "evil");
    assert!(ran.err.contains("/..%2Foutside%2Fevil: written so"), "{}", ran.err);
    // Who unpacks an archive trusts it, too.
    let archive = vhdx_run(args!["tar", inside(&image, ":/")]);
    assert_fails(&archive, 65, &["/link-to-outside-1: ", "this name twice"]);
    let names = listed(folder.path(), &archive.out);
    assert!(names.iter().any(|name| name.ends_with("..%2Foutside%2Fevil")), "{names:?}");
    let unsafe_part = |name: &String| name.split('/').any(|part| part == "..");
    assert!(!names.iter().any(unsafe_part), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.contains("link-to-outside")).count(), 1, "{names:?}");
    for command in [args!["ls", "-aR", inside(&image, ":/")], args!["find", inside(&image, ":/")]] {
        let text = vhdx_run(&command).done().text();
        assert!(text.contains("/..%2Foutside%2Fevil\n") && !text.contains("/../"), "{text}");
    }
}

/// The names in an archive.
fn listed(folder: &Path, archive: &[u8]) -> Vec<String> {
    let path = folder.join("listed.tar");
    fs::write(&path, archive).unwrap();
    let text = run(Command::new("tar").args(["--quoting-style=literal", "-tPf"]).arg(&path)).done().text();
    text.lines().map(str::to_owned).collect()
}

/// Capabilities, modes of pipes, and attributes of links.
#[test]
fn cp_of_root_keeps_what_only_root_can_set() {
    if !rustix::process::geteuid().is_root() {
        return skip("nobody", "no root");
    }
    let folder = temp_dir();
    let tree = folder.path().join("special");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("ping"), "program").unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(tree.join("ping"), "security.capability", &capability, none).unwrap();
    fs::write(tree.join("passwd"), "program").unwrap();
    fs::set_permissions(tree.join("passwd"), fs::Permissions::from_mode(0o4755)).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    fs::set_permissions(tree.join("pipe"), fs::Permissions::from_mode(0o666)).unwrap();
    symlink("ping", tree.join("link")).unwrap();
    rustix::fs::lsetxattr(tree.join("link"), "trusted.of-link", b"value", none).unwrap();
    let Some(image) = ext4(folder.path(), &tree) else { return };
    let back = folder.path().join("back");
    vhdx_run(args!["cp", "-r", inside(&image, ":/"), &back]).done();
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(back.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
    let mode = |name: &str| fs::symlink_metadata(back.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("passwd"), mode("pipe")), (0o4755, 0o666));
    let length = rustix::fs::lgetxattr(back.join("link"), "trusted.of-link", &mut value).unwrap();
    assert_eq!(&value[..length], b"value");
}

#[test]
fn cp_names_what_cannot_be_written() {
    let folder = temp_dir();
    let Some(image) = ext4(folder.path(), &tree(folder.path())) else { return };
    let back = folder.path().join("back");
    vhdx_run(args!["cp", "-r", inside(&image, ":/home"), &back]).done();
    // Into the folder, under its own name.
    vhdx_run(args!["cp", "-r", inside(&image, ":/home"), &back]).done();
    let again = vhdx_run(args!["cp", "-r", inside(&image, ":/home"), &back]);
    let existing = format!("{}/home/me/notes.md: cannot be made: File exists", back.display());
    assert_fails(&again, 73, &[&existing, "pass --force to replace"]);
    vhdx_run(args!["cp", "-r", "--force", inside(&image, ":/home"), &back]).done();
}

#[test]
fn failures_of_file_commands_are_json_too() {
    let folder = temp_dir();
    let missing = folder.path().join("missing.vhdx");
    for command in [
        args!["ls", "--json", &missing],
        args!["find", "--json", &missing],
        args!["locate", "--json", "--offset", "0", &missing],
        args!["df", "--json", &missing],
        args!["diff", "--files", "--json", &missing],
    ] {
        let ran = vhdx_run(&command);
        assert_fails(&ran, 66, &["missing.vhdx"]);
        let report: Value = serde_json::from_slice(&ran.out).unwrap();
        assert!(report["error"].as_str().unwrap().contains("missing.vhdx"), "{report}");
        let lines = ran.text().lines().count();
        assert!(lines == 1 || command[0] == "df", "{}", ran.text());
    }
    let Some(image) = ext4(folder.path(), &tree(folder.path())) else { return };
    assert_fails(&vhdx_run(args!["tree", inside(&image, ":/hello.txt")]), 66, &["/hello.txt: is not a directory"]);
    let hint = vhdx_run(args!["ls", inside(&image, ":/no such")]);
    assert_fails(&hint, 66, &["no such file or directory"]);
}

#[test]
fn cp_goes_on_past_damaged_files() {
    let folder = temp_dir();
    let tree = tree(folder.path());
    fs::write(tree.join("home/me/damaged"), noise(LARGE)).unwrap();
    let Some(raw) = ext4_raw(folder.path(), "disk.raw", &tree, &["-O", "^metadata_csum"]) else { return };
    // The blocks of one file are in a payload block that the file has lost.
    let bytes = fs::read(&raw).unwrap();
    let lost = block_of_large(&bytes);
    let spec = Spec { block_size: 1 << 20, ..Spec::empty(32 * MIB) };
    let pieces = bytes.chunks(usize::try_from(MIB).unwrap()).zip(0_u64..);
    let spec = pieces.fold(spec, |spec, (piece, number)| {
        let is_used = piece.iter().any(|byte| *byte != 0);
        let block = Block::full().fill(Fill::Pieces(vec![(0, piece.to_vec())]));
        if is_used && number != lost { spec.block(number, block) } else { spec }
    });
    // Its entry says that it is present, far outside of the file.
    let mut built = spec.build();
    built.set_bat(lost, 1 << 40 | 6);
    let damaged = folder.path().join("damaged.vhdx");
    built.bytes.write_file(&damaged).unwrap();
    let back = folder.path().join("back");
    let ran = vhdx_run(args!["cp", "-r", "--salvage", inside(&damaged, ":/home"), &back]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    assert!(ran.err.contains("/home/me/damaged: "), "{}", ran.err);
    assert!(!back.join("me/damaged").exists());
    assert_eq!(fs::read_to_string(back.join("me/notes.md")).unwrap(), "notes");
    // The same file is named by the loss map.
    let map = folder.path().join("lost.json");
    let out = folder.path().join("out.raw");
    let extracted = vhdx_run(args!["extract", "--salvage", "--loss-map", &map, &damaged, &out]);
    assert_fails(&extracted, 65, &["1 file damaged:", "/home/me/damaged"]);
    let located = vhdx_run(args!["locate", "--salvage", "--loss-map", &map, &damaged]);
    assert_eq!(located.status.code(), Some(65), "{}", located.err);
    assert!(located.text().contains("/home/me/damaged  "), "{}", located.text());
    let located = vhdx_run(args!["locate", "--salvage", "--json", "--loss-map", &map, &damaged]).text();
    let located = rows("locate", &located);
    assert_eq!((located.len(), &located[0]["path"]), (1, &"/home/me/damaged".into()));
    let range = &located[0]["ranges"][0];
    assert!(range["offset"].as_u64().unwrap() / MIB == lost && range["length"].as_u64().unwrap() > 0, "{range}");
}

#[test]
fn df_shows_what_is_used() {
    let folder = temp_dir();
    let Some(image) = ext4(folder.path(), &tree(folder.path())) else { return };
    let text = vhdx_run(args!["df", &image]).done().text();
    assert!(text.lines().any(|line| line.contains("ext4") && line.ends_with("inside")), "{text}");
    let json = vhdx_run(args!["df", "--json", &image]).done().json();
    let volume = &json["volumes"][0];
    assert_eq!((&volume["type"], &volume["label"]), (&"ext4".into(), &"inside".into()));
    let number = |key: &str| volume[key].as_u64().unwrap();
    assert_eq!(number("size"), 32 * MIB);
    assert!(number("used") > 3_000_000 && number("free") + number("used") == number("size"), "{json}");
}

/// What `dumpe2fs` says: the size and the free space of a file system, in bytes.
fn size_and_free(raw: &Path) -> (u64, u64) {
    let text = run(Command::new("dumpe2fs").arg("-h").arg(raw)).done().text();
    let number = |key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().parse().unwrap()
    };
    let block = number("Block size:");
    (number("Block count:") * block, number("Free blocks:") * block)
}

#[test]
fn info_and_list_show_how_full_file_systems_are() {
    let folder = temp_dir();
    let tree = tree(folder.path());
    let Some(raw) = ext4_raw(folder.path(), "disk.raw", &tree, &[]) else { return };
    let (size, free) = size_and_free(&raw);
    let bytes = fs::read(&raw).unwrap();
    let pieces: Vec<(u64, &[u8])> = (0..).step_by(1 << 20).zip(bytes.chunks(1 << 20)).collect();
    // Every block is there, also those that the file system does not use.
    let image = write_image(folder.path(), "full.vhdx", &disk_with(32 * MIB, &pieces));
    let info = vhdx_run(args!["info", "--json", &image]).done().json();
    let details = &info["format-specific"]["data"]["contents"]["details"];
    let expected = json!({
        "size": size, "used": size - free, "free": free, "allocated": 32 * MIB, "reclaimable": 32 * MIB - (size - free)
    });
    assert_eq!(details["usage"], expected, "{details}");
    let text = vhdx_run(args!["info", &image]).done().text();
    assert!(text.lines().any(|line| line.contains(" of 32 MiB used (") && line.contains(" reclaimable)")), "{text}");
    // An inventory reads it where it is asked to.
    let list = |options: &[&str]| {
        let words = ["list".into(), image.clone().into_os_string()].into_iter();
        vhdx_run(words.chain(options.iter().map(OsString::from))).done()
    };
    assert_eq!(list(&["--json"]).json()["contents"]["details"].get("usage"), None);
    assert_eq!(list(&["--json", "--usage"]).json()["contents"]["details"]["usage"], expected);
    let csv = list(&["--output", "csv", "--usage"]).text();
    assert!(csv.lines().next().unwrap().ends_with(",file_systems_size,used,free,reclaimable"), "{csv}");
    let row = format!(",{size},{},{free},{}", size - free, 32 * MIB - (size - free));
    assert!(csv.trim_end().ends_with(&row), "{csv}");
    let text = list(&["--usage"]).text();
    assert!(text.lines().any(|line| line.starts_with("  disk (ext4): ") && line.contains(" of 32 MiB used")), "{text}");
}

#[test]
fn usage_that_cannot_be_read_is_no_failure() {
    let folder = temp_dir();
    // A super block of ext4 that promises more than there is.
    let mut block = vec![0; 1024];
    block[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    block[0x38..0x3A].copy_from_slice(&0xEF53_u16.to_le_bytes());
    block[0x4C] = 1;
    block[0x58..0x5A].copy_from_slice(&256_u16.to_le_bytes());
    let image = write_image(folder.path(), "broken.vhdx", &disk_with(8 * MIB, &[(1024, &block)]));
    let ran = vhdx_run(args!["info", &image]).done();
    assert!(ran.text().contains("note: the files of the file system cannot be read: "), "{}", ran.text());
    let info = vhdx_run(args!["info", "--json", &image]).done().json();
    let details = &info["format-specific"]["data"]["contents"]["details"];
    assert!(details.get("usage").is_none() && details["usage-error"].as_str().is_some(), "{details}");
}

#[test]
fn tar_and_timeline_have_every_file() {
    let folder = temp_dir();
    let tree = tree(folder.path());
    let Some(image) = ext4(folder.path(), &tree) else { return };
    let archive = folder.path().join("tree.tar");
    fs::write(&archive, vhdx_run(args!["tar", inside(&image, ":/")]).done().out).unwrap();
    let back = folder.path().join("unpacked");
    fs::create_dir(&back).unwrap();
    run(Command::new("tar").args(["-xpf".as_ref(), archive.as_os_str(), "-C".as_ref(), back.as_os_str()])).done();
    assert_same(&tree, &back);
    let body = vhdx_run(args!["timeline", inside(&image, ":/")]).done().text();
    let hello = body.lines().find(|line| line.contains("|/hello.txt|")).unwrap();
    let fields: Vec<&str> = hello.split('|').collect();
    assert_eq!((fields.len(), fields[0], fields[3], fields[6], fields[8]), (11, "0", "-rw-r--r--", "18", "1000000000"));
    let csv = vhdx_run(args!["timeline", "--format", "csv", inside(&image, ":/")]).done().text();
    assert!(csv.contains("2001-09-09T01:46:40Z,Content Modification Time,/hello.txt,18,"), "{csv}");
}

#[test]
fn diff_lists_files_that_have_changed() {
    let folder = temp_dir();
    let tree = tree(folder.path());
    let Some(before) = ext4_raw(folder.path(), "before.raw", &tree, &[]) else { return };
    fs::write(tree.join("home/me/notes.md"), "other notes").unwrap();
    fs::remove_file(tree.join("home/me/large")).unwrap();
    fs::write(tree.join("home/new"), "new").unwrap();
    let Some(after) = ext4_raw(folder.path(), "after.raw", &tree, &[]) else { return };
    let [before, after] = [before, after].map(|raw| fs::read(raw).unwrap());
    let blocks = |bytes: &[u8]| -> Vec<(u64, Vec<u8>)> {
        (0..).step_by(1 << 20).zip(bytes.chunks(1 << 20)).map(|(at, piece)| (at, piece.to_vec())).collect()
    };
    let all: Vec<(u64, Vec<u8>)> = blocks(&before);
    let pieces: Vec<(u64, &[u8])> = all.iter().map(|(at, piece)| (*at, piece.as_slice())).collect();
    let base = disk_with(32 * MIB, &pieces);
    write_image(folder.path(), "base.vhdx", &base);
    let mut child = Spec::child_of(&base, "base.vhdx");
    for ((at, was), (_, is)) in blocks(&before).into_iter().zip(blocks(&after)) {
        if was != is {
            child = child.block(at / MIB, Block::full().fill(Fill::Pieces(vec![(0, is)])));
        }
    }
    let child = write_image(folder.path(), "child.avhdx", &child);
    let text = vhdx_run(args!["diff", "--files", &child]).done().text();
    let ends = |letter: char, end: &str| text.lines().any(|line| line.starts_with(letter) && line.contains(end));
    assert!(ends('A', "/home/new") && ends('D', "/home/me/large") && ends('M', "/home/me/notes.md  ("), "{text}");
    assert!(!text.contains("hello.txt") || ends('M', "hello.txt"), "{text}");
    let json = vhdx_run(args!["diff", "--files", "--content", "--json", &child]).done().text();
    let rows = rows("diff-files", &json);
    let notes = rows.iter().find(|row| row["path"] == "/home/me/notes.md").unwrap();
    assert!(notes["what"].as_array().unwrap().contains(&"content".into()), "{notes}");
}

/// A journal that was never replayed, with a change to a block of a file.
#[test]
fn ignored_journals_are_warned_of() {
    let folder = temp_dir();
    let tree = tree(folder.path());
    let options = ["-b", "4096", "-O", "^metadata_csum"];
    let Some(raw) = ext4_raw(folder.path(), "dirty.raw", &tree, &options) else { return };
    let (block, script) = (folder.path().join("block"), folder.path().join("script"));
    fs::write(&block, [b'X'; 4096]).unwrap();
    let shown = run(Command::new("debugfs").args(["-R", "blocks /hello.txt"]).arg(&raw)).done();
    let place = shown.text().trim().to_owned();
    fs::write(&script, format!("jo\njw -b {place} {}\njc\n", block.display())).unwrap();
    run(Command::new("debugfs").arg("-wf").arg(&script).arg(&raw)).done();
    let image = image_of(folder.path(), &raw);
    let hello = inside(&image, ":/hello.txt");
    let replayed = vhdx_run(args!["cat", &hello]).done();
    assert_eq!(replayed.text(), "XXXXXXXXXXXXXXXXXX");
    assert_eq!(replayed.err, "");
    let ignored = vhdx_run(args!["cat", "--ignore-journal", &hello]).done();
    assert_eq!(ignored.text(), "Hello from inside\n");
    assert!(ignored.err.contains("warning: ") && ignored.err.contains("the journal is ignored"), "{}", ignored.err);
    let listed: Value = vhdx_run(args!["ls", "--json", "--ignore-journal", &hello]).json();
    assert_eq!(listed["volume-warnings"], serde_json::json!(["journal-ignored"]));
    let df: Value = vhdx_run(args!["df", "--json", "--ignore-journal", &image]).json();
    assert_eq!(df["volumes"][0]["warnings"], serde_json::json!(["journal-ignored"]));
}

#[test]
fn what_has_no_files_is_named() {
    let folder = temp_dir();
    let empty = write_image(folder.path(), "empty.vhdx", &Spec::empty(8 * MIB));
    assert_fails(&vhdx_run(args!["ls", &empty]), 69, &["no file system", "vhdx info"]);
    let luks = disk_with(8 * MIB, &[(0, b"LUKS\xba\xbe\x00\x02")]);
    let luks = write_image(folder.path(), "luks.vhdx", &luks);
    assert_fails(&vhdx_run(args!["ls", &luks]), 69, &["found LUKS", "cryptsetup open"]);
    let missing = folder.path().join("missing.vhdx");
    assert_fails(&vhdx_run(args!["ls", inside(&missing, ":/home")]), 66, &["missing.vhdx"]);
    assert_fails(&run(&mut vhdx(["locate", "x"])), 2, &["--offset"]);
}

/// Writes the images that the page about files names.
fn images_of_page(folder: &Path) -> Option<()> {
    let tree = tree(folder);
    fs::write(tree.join("home/me/damaged"), noise(LARGE)).unwrap();
    let before = fs::read(ext4_raw(folder, "before.raw", &tree, &["-O", "^metadata_csum"])?).unwrap();
    fs::write(tree.join("home/me/notes.md"), "other notes").unwrap();
    let after = fs::read(ext4_raw(folder, "after.raw", &tree, &["-O", "^metadata_csum"])?).unwrap();
    let spec_of = |mut spec: Spec, bytes: &[u8], was: Option<&[u8]>| {
        let was = was.map(|was| was.chunks(1 << 20).collect::<Vec<_>>());
        for (number, piece) in (0_u64..).zip(bytes.chunks(1 << 20)) {
            let before = was.as_ref().map(|was| was[usize::try_from(number).unwrap()]);
            let is_same = before.map_or_else(|| piece.iter().all(|byte| *byte == 0), |was| was == piece);
            if !is_same {
                spec = spec.block(number, Block::full().fill(Fill::Pieces(vec![(0, piece.to_vec())])));
            }
        }
        spec
    };
    let base = spec_of(Spec { block_size: 1 << 20, ..Spec::empty(32 * MIB) }, &before, None);
    write_image(folder, "ext4.vhdx", &base);
    write_image(folder, "child.avhdx", &spec_of(Spec::child_of(&base, "ext4.vhdx"), &after, Some(&before)));
    let mut damaged = base.build();
    damaged.set_bat(block_of_large(&before), 1 << 40 | 6);
    damaged.bytes.write_file(&folder.join("damaged.vhdx")).unwrap();
    Some(())
}

#[test]
fn commands_of_the_page_do_what_it_says() {
    let folder = temp_dir();
    let Some(()) = images_of_page(folder.path()) else { return };
    let has_lvm = super::logical::rhel(folder.path()).is_some();
    let page = fs::read_to_string(crate::support::root().join("docs/files.md")).unwrap();
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 15, "{lines:?}");
    let program = vhdx(["--version"]).get_program().to_owned();
    let place = Path::new(&program).parent().unwrap();
    for line in lines.into_iter().filter(|line| has_lvm || !line.contains("rhel.vhdx")) {
        let path = std::env::join_paths([place, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        let mut shell = Command::new("sh");
        let ran = run(shell.args(["-c", line]).current_dir(folder.path()).env("PATH", path));
        let expected = if line.contains("damaged.vhdx") { 65 } else { 0 };
        assert_eq!(ran.status.code(), Some(expected), "{line}: {}", ran.err);
    }
    assert!(fs::read(folder.path().join("back/large")).unwrap() == pattern(3_000_000));
    let body = fs::read_to_string(folder.path().join("body.txt")).unwrap();
    assert!(body.contains("|/home/me/notes.md|"), "{body}");
}
