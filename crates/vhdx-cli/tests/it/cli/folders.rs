//! Folders of images: `vhdx list`, `vhdx chain --tree`, --recursive, and warnings of checkpoints beside an image.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB, Model};
use crate::schema;
use crate::support::{Ran, run, run_to, skip, temp_dir, vhdx};

use super::{args, assert_fails, assert_has, keys, vhdx_run, write_image};

/// A base with two checkpoints, an image that names the base but does not match, and a file that is no image.
fn family(folder: &Path) -> [PathBuf; 3] {
    let base = Spec::default();
    let first = Spec::child_of(&base, "SQL01.vhdx").block(1, Block::full());
    let second = Spec::child_of(&first, "SQL01_1.avhdx").block(3, Block::full());
    [("SQL01.vhdx", base), ("SQL01_1.avhdx", first), ("SQL01_2.avhdx", second)]
        .map(|(name, spec)| write_image(folder, name, &spec))
}

fn other(number: u128) -> Spec {
    Spec { data_write_guid: Uuid::from_u128(number), ..Spec::default() }
}

/// The lines of JSON that a list printed, each validated.
#[track_caller]
fn json_rows(ran: &Ran) -> Vec<Value> {
    let rows: Vec<Value> = ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.iter().for_each(|row| schema::assert_valid(Some("list"), row));
    rows
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["filename"].as_str().unwrap().rsplit('/').next().unwrap()).collect()
}

#[test]
fn base_with_checkpoints_is_a_warning() {
    let folder = temp_dir();
    let [base, first, second] = family(folder.path());
    let out = folder.path().join("out.raw");
    let expected = "warning: ".to_owned()
        + base.to_str().unwrap()
        + ": 2 checkpoints depend on this disk; the newest is SQL01_2.avhdx; this image alone is an old state";
    for words in [
        args!["extract", &base, &out],
        args!["hash", &base],
        args!["map", &base],
        args!["read", &base, "--range", "0:16"],
        args!["compare", &base, &base],
    ] {
        let ran = vhdx_run(words).done();
        assert!(ran.err.contains(&expected), "{}", ran.err);
    }
    for option in ["--no-siblings", "--quiet"] {
        assert_eq!(vhdx_run(args!["hash", option, &base]).done().err, "");
    }
    let ran = vhdx_run(args!["hash", &first]).done();
    assert!(ran.err.contains("1 checkpoint depends on this disk; the newest is SQL01_2.avhdx"), "{}", ran.err);
    // The leaf is the current state.
    assert_eq!(vhdx_run(args!["hash", &second]).done().err, "");

    let text = vhdx_run(args!["info", &base]).done().text();
    assert!(text.contains("checkpoints: 2 checkpoints depend on this disk; the newest is SQL01_2.avhdx\n"), "{text}");
    let data = |words: Vec<std::ffi::OsString>| {
        let report = vhdx_run([args!["info", "--output", "json"], words].concat()).done().json();
        report["format-specific"]["data"]["checkpoints"].clone()
    };
    let expected = json!({
        "count": 2,
        "newest": second.to_str(),
        "leaves": 1,
        "files": [first.to_str(), second.to_str()],
        "stale": [],
        "complete": true,
        "unreadable": [],
        "damaged": [],
    });
    assert_eq!(data(args![&base]), expected);
    assert_eq!(data(args![&base, "--no-siblings"]), Value::Null);
    assert_eq!(data(args![&second])["count"], 0);

    // The base was changed after its checkpoint was made.
    write_image(folder.path(), "SQL01.vhdx", &other(77));
    let ran = vhdx_run(args!["hash", &base]).done();
    let words = "SQL01_1.avhdx names this disk as its parent, but the disk was changed after SQL01_1.avhdx was made";
    assert!(ran.err.contains(words) && !ran.err.contains("depend"), "{}", ran.err);
    assert_eq!(data(args![&base])["stale"], json!([first.to_str()]));
}

#[test]
fn siblings_in_the_current_folder_are_found_by_a_bare_name() {
    let folder = temp_dir();
    family(folder.path());
    let ran = run(vhdx(["hash", "SQL01.vhdx"]).current_dir(folder.path())).done();
    assert!(ran.err.contains("2 checkpoints depend on this disk"), "{}", ran.err);
    write_image(folder.path(), "SQL01.vhdx", &other(77));
    let ran = run(vhdx(["hash", "SQL01.vhdx"]).current_dir(folder.path())).done();
    assert!(ran.err.contains("SQL01_1.avhdx names this disk as its parent"), "{}", ran.err);
}

#[test]
fn list_has_a_row_for_every_image_also_for_those_that_fail() {
    let folder = temp_dir();
    let root = folder.path();
    let vms = root.join("vms");
    std::fs::create_dir_all(vms.join("a")).unwrap();
    family(&vms.join("a"));
    write_image(&vms, "plain", &other(5));
    std::fs::write(vms.join("page.vhdx"), "<html>").unwrap();
    std::fs::write(vms.join("notes.txt"), "notes").unwrap();
    symlink(root, vms.join("up")).unwrap();
    write_image(root, "outside.vhdx", &other(6));
    mknodat(CWD, vms.join("pipe.vhdx"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let missing = root.join("missing.vhdx");

    let ran = vhdx_run(args!["list", "--output", "json", &missing, &vms]);
    assert_fails(&ran, 66, &["1 symbolic link in folders was not followed"]);
    let rows = json_rows(&ran);
    let expected = ["missing.vhdx", "SQL01.vhdx", "SQL01_1.avhdx", "SQL01_2.avhdx", "page.vhdx", "plain"];
    assert_eq!(names(&rows), expected);
    assert!(rows[0]["error"].as_str().unwrap().contains("No such file"), "{}", rows[0]);
    assert!(rows[4]["error"].as_str().unwrap().contains("not a VHDX"), "{}", rows[4]);
    assert_eq!((&rows[4]["kind"], &rows[4]["file-length"]), (&Value::Null, &json!(6)));
    assert_has(
        &rows[2],
        &json!({
            "kind": "differencing",
            "virtual-size": 8 * MIB,
            "allocated-size": MIB,
            "log": "clean",
            "parent": "found",
            "checkpoints": 1,
            "health": "ok",
            "problem": null,
            "error": null,
            "schema": "vhdx-mmap/list/1",
        }),
    );
    assert_eq!(rows[1]["checkpoints"], 2);
    assert!(rows[5].get("disk").is_none());

    let ran = vhdx_run(args!["list", &missing, &vms]);
    assert_fails(&ran, 66, &[]);
    let text = ran.text();
    assert!(text.starts_with("HEALTH"), "{text}");
    assert!(text.ends_with("6 images: 4 ok, 2 cannot be opened\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("unreadable ")).count(), 2, "{text}");

    let csv = vhdx_run(args!["list", "--output", "csv", &vms]).text();
    let lines: Vec<&str> = csv.lines().collect();
    let header = "filename,kind,virtual_size,file_length,actual_size,allocated_size,log,parent,checkpoints,health,\
                  contents,problem,error,in_use";
    assert_eq!((lines[0], lines.len()), (header, 6));
    assert!(lines[1].contains("SQL01.vhdx,dynamic,8388608,"), "{csv}");

    let ran = vhdx_run(args!["list", "--output", "json", "--sort", "allocated", vms.join("a")]).done();
    assert_eq!(names(&json_rows(&ran)), ["SQL01.vhdx", "SQL01_1.avhdx", "SQL01_2.avhdx"]);
    let ran = vhdx_run(args!["list", "--output", "json", "--sort", "health", &vms]);
    assert_eq!(names(&json_rows(&ran))[0], "page.vhdx");
}

#[test]
fn list_deep_reads_the_content() {
    let folder = temp_dir();
    let zeros = Block::full().fill(crate::kit::Fill::Pieces(Vec::new()));
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default().block(6, zeros));
    let digest = vhdx_run(args!["hash", "--output", "json", &path]).done().json()["disk"]["sha256"].clone();
    let row = json_rows(&vhdx_run(args!["list", "--deep", "--output", "json", folder.path()]).done()).remove(0);
    assert_eq!((&row["disk"]["sha256"], &row["zero-blocks"]), (&digest, &json!(1)));
    let text = vhdx_run(args!["list", "--deep", folder.path()]).done().text();
    assert!(text.contains(digest.as_str().unwrap()) && text.contains("1 allocated block of zeros"), "{text}");
    let csv = vhdx_run(args!["list", "--deep", "--output", "csv", folder.path()]).done().text();
    assert!(csv.lines().next().unwrap().contains(",sha256,zero_blocks,fragmented_blocks,"), "{csv}");
    assert!(csv.contains(digest.as_str().unwrap()), "{csv}");
}

#[test]
fn list_fits_any_terminal() {
    let folder = temp_dir();
    family(folder.path());
    let long = "long name ".repeat(12) + ".vhdx";
    write_image(folder.path(), &long, &other(9));
    std::fs::write(folder.path().join("page.vhdx"), "<html>").unwrap();
    for columns in [8, 20, 45, 80, 132, 200] {
        let ran = run(vhdx(["list", "."]).current_dir(folder.path()).env("COLUMNS", columns.to_string()));
        assert_fails(&ran, 65, &[]);
        let text = ran.text();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns, "{columns} {widest}:\n{text}");
        // Nothing of a name is lost.
        let joined: String = text.split_whitespace().collect();
        for name in ["SQL01.vhdx", "SQL01_2.avhdx", "page.vhdx"] {
            assert!(columns < 20 || joined.contains(name), "{columns}:\n{text}");
        }
    }
}

#[test]
fn names_of_every_kind_come_through() {
    let folder = temp_dir();
    let names: [&[u8]; 5] = [b"a\nb.vhdx", b"c\x1b[31m.vhdx", b"d\xff\xfe.vhdx", b"e,\"f\".vhdx", b"-g.vhdx"];
    for name in names {
        write_image(folder.path(), "x", &other(3));
        std::fs::rename(folder.path().join("x"), folder.path().join(OsStr::from_bytes(name))).unwrap();
    }
    let text = vhdx_run(args!["list", folder.path()]).done().text();
    assert!(text.contains("a\\nb.vhdx") && text.contains("c\\u{1b}[31m.vhdx"), "{text}");
    assert!(text.contains("5 images: 5 ok"), "{text}");
    let csv = vhdx_run(args!["list", "--output", "csv", folder.path()]).done().out;
    let has = |bytes: &[u8]| csv.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"a\nb.vhdx\",") && has(b"c\x1b[31m.vhdx,") && has(b"d\xff\xfe.vhdx,") && has(b"e,\"\"f\"\".vhdx\","));
    assert_eq!(json_rows(&vhdx_run(args!["list", "--output", "json", folder.path()]).done()).len(), 5);
    let tree = vhdx_run(args!["chain", "--tree", folder.path()]).done().text();
    assert!(tree.contains("a\\nb.vhdx: dynamic"), "{tree}");
    let dot = vhdx_run(args!["chain", "--tree", "--dot", folder.path()]).done().text();
    assert!(dot.contains("e,\\\"f\\\".vhdx") && dot.contains("a\\\\nb.vhdx"), "{dot}");
    assert_eq!(vhdx_run(args!["hash", "-r", folder.path()]).done().err, "vhdx: 5 images: 5 hashed\n");
}

#[test]
fn closed_standard_output_ends_quietly() {
    let folder = temp_dir();
    for number in 0..20 {
        write_image(folder.path(), &format!("{number}.vhdx"), &other(number + 1));
    }
    for words in [
        args!["list", folder.path()],
        args!["list", "--output", "json", folder.path()],
        args!["list", "--output", "csv", "--sort", "name", folder.path()],
        args!["chain", "--tree", folder.path()],
        args!["info", "-r", folder.path()],
        args!["info", "-r", "--output", "json", folder.path()],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = run_to(&mut vhdx(&words), Stdio::from(writer));
        assert_eq!((ran.status.code(), ran.err.as_str()), (Some(0), ""), "{words:?}");
    }
    // A full drive is a failure.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = run_to(&mut vhdx(args!["list", folder.path()]), Stdio::from(full));
    assert_fails(&ran, 74, &["standard output"]);
}

#[test]
fn folder_without_rights_is_a_row_and_the_others_are_listed() {
    let folder = temp_dir();
    let secret = folder.path().join("b");
    std::fs::create_dir(&secret).unwrap();
    write_image(folder.path(), "a.vhdx", &other(1));
    write_image(folder.path(), "c.vhdx", &other(2));
    std::fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&secret).is_ok() {
        skip("permissions", "this user may read everything");
        return;
    }
    let ran = vhdx_run(args!["list", "--output", "json", folder.path()]);
    assert_fails(&ran, 66, &[]);
    let rows = json_rows(&ran);
    assert_eq!(names(&rows), ["a.vhdx", "b", "c.vhdx"]);
    assert!(rows[1]["error"].as_str().unwrap().contains("ermission denied"), "{}", rows[1]);
    let ran = vhdx_run(args!["hash", "-r", folder.path()]);
    assert_fails(&ran, 66, &["b: ", "ermission denied"]);
    assert_eq!(ran.text().lines().count(), 2);
    assert_fails(&vhdx_run(args!["list", &secret]), 66, &[]);
    std::fs::set_permissions(&secret, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn chain_tree_shows_the_forest() {
    let folder = temp_dir();
    let root = folder.path();
    let [base, first, second] = family(root);
    write_image(root, "branch.avhdx", &{
        let parent = Spec::default();
        Spec { data_write_guid: Uuid::from_u128(40), ..Spec::child_of(&parent, "renamed.vhdx") }
    });
    write_image(root, "orphan.avhdx", &{
        Spec { data_write_guid: Uuid::from_u128(41), ..Spec::child_of(&other(500), "gone.vhdx") }
    });
    write_image(root, "stale.avhdx", &{
        Spec { data_write_guid: Uuid::from_u128(42), ..Spec::child_of(&other(501), "SQL01.vhdx") }
    });
    write_image(root, "twin.vhdx", &Spec::default());
    std::fs::write(root.join("page.vhdx"), "<html>").unwrap();

    let ran = vhdx_run(args!["chain", "--tree", root]);
    assert_fails(&ran, 65, &["page.vhdx: ", "not a VHDX"]);
    let text = ran.text();
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert!(
        lines[0].starts_with(&format!("{}: dynamic, 8.0 MiB; parent of 1 checkpoint by name", name(&base))),
        "{text}"
    );
    assert!(lines[1].starts_with(&format!("|-- {}: ", name(&first))), "{text}");
    assert!(lines[2].starts_with(&format!("|   `-- {}: ", name(&second))), "{text}");
    assert!(lines[3].starts_with("`-- ") && lines[3].contains("branch.avhdx"), "{text}");
    assert!(lines[2..4].iter().any(|line| line.ends_with("newest of several branches")), "{text}");
    assert!(lines[4].contains("orphan: needs .\\gone.vhdx {00000000-0000-0000-0000-0000000001f4}"), "{text}");
    assert!(lines[5].contains("stale: ") && lines[5].contains("SQL01.vhdx was changed"), "{text}");
    assert!(lines[6].contains("same identity as ") && lines[6].contains("SQL01.vhdx"), "{text}");

    let report = vhdx_run(args!["chain", "--tree", "--output", "json", root]).json();
    assert_eq!(keys(&report), ["schema", "images", "failed"]);
    let states: Vec<&str> =
        report["images"].as_array().unwrap().iter().map(|image| image["parent-state"].as_str().unwrap()).collect();
    assert_eq!(states, ["base", "found", "found", "found", "orphan", "stale", "base"]);
    assert_eq!(report["images"][0]["children"], json!([1, 3]));
    assert_eq!(report["images"][6]["duplicate-of"], 0);
    assert!(report["failed"][0]["filename"].as_str().unwrap().ends_with("page.vhdx"));

    let dot = vhdx_run(args!["chain", "--tree", "--dot", root]).text();
    assert!(dot.starts_with("digraph images {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("  n1 -> n0;\n") && dot.contains("  n5 -> n0 [style=dashed, color=red, label=\"stale\"];\n"));

    assert_fails(&vhdx_run(args!["chain", &first, &second]), 2, &["several images", "--tree"]);
    assert_fails(&vhdx_run(args!["chain", "--dot", &first]), 2, &["--tree"]);
}

#[test]
fn chain_tree_of_a_long_chain_is_short() {
    let folder = temp_dir();
    let mut parent = Spec::empty(2 * MIB);
    write_image(folder.path(), "000.vhdx", &parent);
    for number in 1..60 {
        let child = Spec::child_of(&parent, &format!("{:03}.vhdx", number - 1));
        write_image(folder.path(), &format!("{number:03}.vhdx"), &child);
        parent = child;
    }
    let ran = run(vhdx(["chain", "--tree", "."]).current_dir(folder.path()).env("COLUMNS", "20")).done();
    let text = ran.text();
    assert!(text.contains("(level 59) ./059.vhdx: differencing"), "{text}");
    assert!(text.lines().all(|line| line.len() < 120), "{text}");
}

#[test]
fn recursive_takes_folders_and_keeps_the_order() {
    let folder = temp_dir();
    let root = folder.path();
    std::fs::create_dir(root.join("b")).unwrap();
    let last = write_image(root, "z.vhdx", &other(1));
    let inside = write_image(&root.join("b"), "a.vhdx", &other(2));
    let bad = root.join("b/bad.vhdx");
    std::fs::write(&bad, "no image").unwrap();
    let folder_b = root.join("b");
    let expected = [&last, &inside, &bad].map(|path| path.to_str().unwrap());
    for (command, code, reported) in [("info", 65, 65), ("hash", 65, 65), ("check", 1, 1)] {
        let ran = vhdx_run(args![command, "--recursive", "--output", "json", &last, &folder_b]);
        assert_fails(&ran, code, &[]);
        let report = ran.json();
        let rows = report.as_array().unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row["filename"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{command}");
        let is_failed = |row: &&Value| row.get("error").is_some() || row["check-errors"].as_u64() > Some(0);
        assert_eq!(rows.iter().filter(is_failed).count(), 1, "{command}: {report:#}");
        // Without the option, a folder is an error with the way out, and an entry.
        let ran = vhdx_run(args![command, "--output", "json", &folder_b, &last]);
        let code = if command == "check" { reported } else { 66 };
        assert_fails(&ran, code, &["is a directory", "hint: pass --recursive (-r)"]);
        let report = ran.json();
        assert_eq!(report.as_array().unwrap().len(), 2);
        assert!(report[0]["error"].as_str().unwrap().contains("is a directory"), "{report:#}");
    }
    // One image that fails has an entry, too.
    let report = vhdx_run(args!["hash", "--output", "json", &bad]).json();
    assert!(report["error"].as_str().unwrap().contains("not a VHDX"), "{report:#}");
    assert_eq!(report["schema"], "vhdx-mmap/hash/1");
    // A folder without images.
    std::fs::create_dir(root.join("empty")).unwrap();
    let ran = vhdx_run(args!["hash", "-r", root.join("empty"), &last]);
    assert_fails(&ran, 66, &["empty: no images in this folder"]);
    assert_eq!(ran.text().lines().count(), 1);
    assert_fails(&vhdx_run(args!["map", &folder_b]), 66, &["`vhdx list"]);
}

#[test]
fn manifests_of_a_folder_are_written_and_verified() {
    let folder = temp_dir();
    let vms = folder.path().join("vms");
    std::fs::create_dir_all(vms.join("a")).unwrap();
    write_image(&vms, "x.vhdx", &other(1));
    let changed = write_image(&vms.join("a"), "y.vhdx", &other(2));
    let manifests = folder.path().join("manifests");
    assert_fails(&vhdx_run(args!["hash", "-r", &vms, "--manifest", &manifests]), 2, &["expected a folder"]);
    std::fs::create_dir(&manifests).unwrap();
    let report = vhdx_run(args!["hash", "-r", "--output", "json", &vms, "--manifest", &manifests]).done().json();
    assert_eq!(report.as_array().unwrap().len(), 2);
    assert!(manifests.join("a/y.vhdx.manifest").exists() && manifests.join("x.vhdx.manifest").exists());
    let verify = || vhdx_run(args!["verify", "-r", &vms, "--manifest", &manifests]);
    let text = verify().done().text();
    assert_eq!(text.matches(": OK (").count(), 2, "{text}");
    // One disk that differs, and one without a manifest.
    write_image(&vms.join("a"), "y.vhdx", &other(2).block(7, Block::full()));
    std::fs::rename(manifests.join("x.vhdx.manifest"), manifests.join("other")).unwrap();
    let ran = verify();
    assert_fails(&ran, 1, &["x.vhdx.manifest: cannot be read"]);
    assert!(ran.text().contains(&format!("{}: block 7 at", changed.display())), "{}", ran.text());
    let report = vhdx_run(args!["verify", "-r", &vms, "--output", "json", "--manifest", &manifests]).json();
    assert_eq!(report[0]["mismatches"].as_array().unwrap().len(), 1);
    assert!(report[1]["error"].as_str().unwrap().contains("cannot be read"), "{report:#}");
    // A manifest that ends in the middle: its entry ends with the error.
    let whole = std::fs::read(manifests.join("other")).unwrap();
    std::fs::write(manifests.join("x.vhdx.manifest"), &whole[..whole.len() / 2]).unwrap();
    let report = vhdx_run(args!["verify", "-r", &vms, "--output", "json", "--manifest", &manifests]).json();
    assert!(report[1]["error"].is_string(), "{report:#}");
}

#[test]
fn parent_under_another_name_is_found_and_named() {
    let folder = temp_dir();
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let base = Spec::default();
    let parent = write_image(&store, "copied.bak", &base);
    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "base.vhdx").block(1, Block::full()));
    let ran = vhdx_run(args!["hash", &child]);
    assert_fails(&ran, 81, &["base.vhdx\" not found", "hint: pass --parent PATH, or --parents DIR"]);
    let ran = vhdx_run(args!["hash", "--parents", &store, &child]).done();
    assert!(ran.err.contains("copied.bak: the parent was found by its identity, under another name"), "{}", ran.err);
    let text = vhdx_run(args!["info", "--parents", &store, &child]).done().text();
    let line = format!("backing file: {} (found by identity, under another name)\n", parent.display());
    assert!(text.contains(&line), "{text}");
    let report = vhdx_run(args!["chain", "--output", "json", "--parents", &store, &child]).done().json();
    assert_eq!(report["layers"][1]["found-by"], "identity, under another name");
    // A copy that was cut short is not taken, though it comes first by its name.
    let whole = std::fs::read(&parent).unwrap();
    let cut = store.join("a cut copy.vhdx");
    std::fs::write(&cut, &whole[..whole.len() - 4096]).unwrap();
    let ran = vhdx_run(args!["hash", "--parents", &store, &child]).done();
    assert!(ran.err.contains("copied.bak: the parent was found by its identity"), "{}", ran.err);
    assert!(ran.err.contains("of 2 files with that identity, it is the longest that can be used"), "{}", ran.err);
    std::fs::remove_file(&cut).unwrap();
    // The hint is not what was just done.
    std::fs::remove_file(&parent).unwrap();
    let ran = vhdx_run(args!["hash", "--parents", &store, &child]);
    assert_fails(&ran, 81, &["none of 0 images has this identity", "hint: pass --parent PATH if you know"]);
    assert!(!ran.err.contains("--parents DIR"), "{}", ran.err);
}

#[test]
fn diff_allocated_needs_no_parent() {
    let folder = temp_dir();
    let base = Spec::default();
    let child = Spec::child_of(&base, "gone.vhdx").block(1, Block::full()).block(5, Block::zero());
    let path = write_image(folder.path(), "child.avhdx", &child);
    for parents in ["beside", "none"] {
        let words = args!["diff", "--allocated", "--output", "json", "--parents", parents, &path];
        let report = vhdx_run(words).done().json();
        let expected = json!([
            { "start": MIB, "length": MIB, "zero": false },
            { "start": 5 * MIB, "length": MIB, "zero": true },
        ]);
        assert_eq!((&report["changes"], &report["ancestor"]), (&expected, &Value::Null));
    }
    let delta = folder.path().join("delta");
    vhdx_run(args!["diff", "--allocated", "--delta", &delta, &path]).done();
    let bytes = std::fs::read(&delta).unwrap();
    let size = usize::try_from(MIB).unwrap();
    let expected = Model::read(&[&child.build().model], MIB, size).unwrap();
    assert!(bytes[size..2 * size] == expected[..]);
    assert_fails(&vhdx_run(args!["diff", &path]), 81, &["not found"]);
    assert_fails(&vhdx_run(args!["diff", "--parents", "none", &path]), 2, &["--allocated"]);
}

#[test]
fn unreadable_file_beside_an_image_is_a_note() {
    let folder = temp_dir();
    let [base, ..] = family(folder.path());
    std::fs::write(folder.path().join("SQL01_3.avhdx"), vec![7; 2 << 20]).unwrap();
    let ran = vhdx_run(args!["hash", &base]).done();
    let words = "SQL01.vhdx: not all files beside it could be looked at for checkpoints: ";
    assert!(ran.err.contains(words) && ran.err.contains("SQL01_3.avhdx cannot be read"), "{}", ran.err);
    let text = vhdx_run(args!["info", &base]).done().text();
    assert!(text.contains("note: not all files beside it could be looked at"), "{text}");
    let report = vhdx_run(args!["info", "--output", "json", &base]).done().json();
    let found = &report["format-specific"]["data"]["checkpoints"];
    assert_eq!((&found["complete"], &found["damaged"]), (&json!(false), &json!([])));
    assert!(found["unreadable"][0].as_str().unwrap().ends_with("SQL01_3.avhdx"), "{found}");

    // A damaged base, and what is no image at all, say nothing about this disk.
    std::fs::rename(folder.path().join("SQL01_3.avhdx"), folder.path().join("other disk.vhdx")).unwrap();
    let [plain, verbose] = [&[][..], &["-v"]].map(|words| {
        let hash = vhdx_run([args!["hash", &base], words.iter().map(Into::into).collect()].concat()).done().err;
        let info = vhdx_run([args!["info", &base], words.iter().map(Into::into).collect()].concat()).done().text();
        [hash, info]
    });
    assert!(plain.iter().all(|text| !text.contains("other disk") && !text.contains("looked at")), "{plain:?}");
    assert!(verbose.iter().all(|text| text.contains("not looked at for checkpoints")), "{verbose:?}");
    let report = vhdx_run(args!["info", "--output", "json", &base]).done().json();
    let found = &report["format-specific"]["data"]["checkpoints"];
    assert_eq!((&found["complete"], &found["unreadable"]), (&json!(true), &json!([])));
    assert!(found["damaged"][0].as_str().unwrap().ends_with("other disk.vhdx"), "{found}");
}

#[test]
fn images_with_one_manifest_are_an_error_that_names_both() {
    let folder = temp_dir();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    for path in &paths {
        std::fs::create_dir(path).unwrap();
        write_image(path, "x.vhdx", &other(1));
    }
    let manifests = folder.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let [one, two] = paths.each_ref().map(|path| path.join("x.vhdx"));
    let words = format!("{}: has the same manifest as {} (", two.display(), one.display());
    for command in ["hash", "verify"] {
        let ran = vhdx_run(args![command, &one, &two, "--manifest", &manifests]);
        assert_fails(&ran, 2, &[&words]);
        assert_eq!(ran.err.matches("error: ").count(), 1, "{}", ran.err);
    }
    assert_fails(&vhdx_run(args!["verify", "-r", &paths[0], &paths[1], "--manifest", &manifests]), 2, &[&words]);
    // The folder that holds both has two manifests.
    vhdx_run(args!["hash", "-r", folder.path(), "--manifest", &manifests]).done();
    assert!(manifests.join("a/x.vhdx.manifest").exists() && manifests.join("b/x.vhdx.manifest").exists());
}

#[test]
fn folder_without_images_and_refused_links_are_errors() {
    let folder = temp_dir();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let base = write_image(folder.path(), "x.vhdx", &other(1));
    let link = folder.path().join("link.vhdx");
    symlink(&base, &link).unwrap();
    for words in [args!["list"], args!["chain", "--tree"], args!["info", "-r"]] {
        let ran = vhdx_run([words.clone(), args![&empty]].concat());
        assert_fails(&ran, 66, &["empty: no images in this folder"]);
        vhdx_run([words.clone(), args![&link]].concat()).done();
        let ran = vhdx_run([words, args!["--no-follow", &link]].concat());
        assert_fails(&ran, 66, &["link.vhdx: reached by a symbolic link"]);
    }
}

#[test]
fn list_deep_has_all_columns_and_knows_renamed_parents() {
    let folder = temp_dir();
    let base = Spec::default();
    write_image(folder.path(), "renamed.vhdx", &base);
    write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "base.vhdx").block(1, Block::full()));
    let rows = json_rows(&vhdx_run(args!["list", "--deep", "--output", "json", folder.path()]).done());
    assert_eq!((&rows[0]["parent"], &rows[0]["health"]), (&json!("renamed"), &json!("ok")), "{}", rows[0]);
    assert!(rows[0]["disk"]["sha256"].is_string());
    std::fs::write(folder.path().join("broken.vhdx"), "no image").unwrap();
    let ran = vhdx_run(args!["list", "--deep", "--output", "csv", folder.path()]);
    let fields = |line: &str| line.split(',').count();
    let text = ran.text();
    let columns = fields(text.lines().next().unwrap());
    let broken = text.lines().find(|line| line.contains("broken.vhdx")).unwrap();
    let quoted = broken.matches('"').count();
    assert!(fields(broken) >= columns && (quoted > 0 || fields(broken) == columns), "{text}");
    assert!(broken.ends_with(",,,"), "{text}");
}

#[test]
fn parents_that_are_no_folder_have_a_reason_of_their_own() {
    let folder = temp_dir();
    let base = Spec::default();
    let file = write_image(folder.path(), "other.vhdx", &other(3));
    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "base.vhdx"));
    let ran = vhdx_run(args!["hash", "--parents", &file, &child]);
    assert_fails(&ran, 81, &["other.vhdx (is not a folder)"]);
    let ran = vhdx_run(args!["hash", "--parents", folder.path().join("none"), &child]);
    assert_fails(&ran, 81, &["none (no such folder)"]);
    let store = folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    // Its headers are damaged, so its identity is unknown.
    let broken = write_image(&store, "broken.vhdx", &other(4));
    let mut bytes = std::fs::read(&broken).unwrap();
    bytes[64 << 10..192 << 10].fill(7);
    std::fs::write(&broken, bytes).unwrap();
    let ran = vhdx_run(args!["hash", "--parents", &store, &child]);
    assert_fails(&ran, 81, &["none of 0 images has this identity; 1 image or folder in it cannot be read"]);
    assert!(!ran.err.contains("too many"), "{}", ran.err);
}

#[test]
fn any_number_of_threads_prints_the_same_about_many_images() {
    let folder = temp_dir();
    let mut images = Vec::new();
    for number in 0..12_u8 {
        let spec = Spec::empty(8 * MIB).block(u64::from(number % 8), Block::full());
        let mut image = spec.build();
        match number % 4 {
            // Damage that is a warning, and a failure.
            1 => image.patch_header_raw(3 - image.current_header(), 0, b"lost"),
            2 => image.patch_region_tables(0, b"lost"),
            _ => {}
        }
        let path = folder.path().join(format!("{number}.vhdx"));
        image.bytes.write_file(&path).unwrap();
        images.push(path.to_str().unwrap().to_owned());
        if number == 5 {
            images.push(folder.path().join("missing.vhdx").to_str().unwrap().to_owned());
        }
    }
    let list = folder.path().join("list");
    for words in [&["hash", "-a", "crc32,sha256"][..], &["check"], &["info"], &["verify", "--check"]] {
        let run = |threads: &str| {
            let named: &[String] = if words[0] == "verify" { &[list.to_str().unwrap().to_owned()] } else { &images };
            vhdx_run(
                words
                    .iter()
                    .map(|word| (*word).to_owned())
                    .chain(named.to_vec())
                    .chain(["--threads".to_owned(), threads.to_owned()]),
            )
        };
        let one = run("1");
        assert_ne!(one.status.code(), Some(0));
        if words[0] == "hash" {
            assert_eq!(one.text().lines().count(), 18, "{}", one.text());
            std::fs::write(&list, one.text() + "SHA256 (missing.vhdx, disk) = " + &"0".repeat(64) + "\n").unwrap();
        }
        for threads in ["2", "7"] {
            let several = run(threads);
            let both = [&one, &several].map(|ran| (ran.status.code(), ran.text(), ran.err.clone()));
            assert_eq!(both[0], both[1], "{words:?} {threads}");
        }
    }
}

/// Results that wait for others keep no file open.
#[test]
fn many_images_at_once_need_few_open_files() {
    let folder = temp_dir();
    for number in 0..100 {
        write_image(folder.path(), &format!("{number}.vhdx"), &Spec::empty(8 * MIB));
    }
    for words in ["check", "info", "hash -a crc32"] {
        let line = format!("ulimit -n 48; exec \"$0\" {words} --threads 8 --recursive \"$1\"");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line]).arg(vhdx::<&str>([]).get_program()).arg(folder.path());
        let ran = crate::support::run(&mut command).done();
        assert!((ran.text() + &ran.err).contains("100 images: 100 "), "{words}: {}{}", ran.text(), ran.err);
    }
}
