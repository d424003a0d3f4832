//! Names of files go through unchanged: into lists of digests, through `verify --check`, and into JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::kit::builder::Spec;
use crate::support::{skip, temp_dir, vhdx};

use super::{args, assert_fails, vhdx_run};

const NAMES: [&[u8]; 14] = [
    b"plain.vhdx",
    b"with blank.vhdx",
    b"\x1b[31mred\x1b[0m.vhdx",
    b"a\nb.vhdx",
    b"a\r.vhdx",
    b"a\\b.vhdx",
    b"a\\nb.vhdx",
    b"latin-\xe9.vhdx",
    b"\xff\xfe.vhdx",
    b"x, disk",
    b"x, disk 0:512",
    b"x) = y.vhdx",
    b"#a.vhdx",
    "gpj\u{202e}.vhdx".as_bytes(),
];

/// A folder with an image under each name. `None`, with a message, if the file system does not take such names.
fn images(folder: &Path) -> Option<Vec<PathBuf>> {
    let bytes = Spec::default().build().bytes;
    let mut all = Vec::new();
    for name in NAMES {
        let path = folder.join(OsStr::from_bytes(name));
        if std::fs::File::create(&path).is_err() {
            skip("filenames", "the file system does not take names that are not text");
            return None;
        }
        bytes.write_file(&path).unwrap();
        all.push(PathBuf::from(OsStr::from_bytes(name)));
    }
    Some(all)
}

fn run_in(folder: &Path, args: Vec<std::ffi::OsString>) -> crate::support::Ran {
    crate::support::run(vhdx(args).current_dir(folder))
}

#[test]
fn lists_of_all_names_can_be_verified() {
    let folder = temp_dir();
    let Some(names) = images(folder.path()) else { return };
    let names = || names.iter().map(|name| name.clone().into_os_string());
    for options in [
        &["-a", "sha256"][..],
        &["-a", "sha256", "--file"],
        &["-a", "crc32,sha256", "--file"],
        &["-a", "sha256", "--format", "sha256sum"],
        &["-a", "md5,crc32", "--format", "sha256sum"],
    ] {
        let command = args!["hash"].into_iter().chain(options.iter().map(Into::into)).chain(args!["--"]).chain(names());
        let hashed = run_in(folder.path(), command.collect()).done();
        for name in NAMES.iter().filter(|name| !name.iter().any(|byte| b"\n\r\\".contains(byte))) {
            assert!(hashed.out.windows(name.len()).any(|window| window == *name), "{:?}", name.escape_ascii());
        }
        let list = folder.path().join("list");
        std::fs::write(&list, &hashed.out).unwrap();
        let verified = run_in(folder.path(), args!["verify", "--check", &list]).done();
        let lines = hashed.out.split(|byte| *byte == b'\n').count();
        assert_eq!(verified.out.split(|byte| *byte == b'\n').count(), lines, "{:?}", verified.out.escape_ascii());
        for name in [&b"latin-\xe9.vhdx"[..], b"\x1b[31mred\x1b[0m.vhdx"] {
            assert!(verified.out.windows(name.len()).any(|window| window == name));
        }
    }
}

#[test]
fn other_programs_take_digests_of_files_and_never_those_of_disks() {
    let folder = temp_dir();
    let Some(names) = images(folder.path()) else { return };
    let names = || names.iter().map(|name| name.clone().into_os_string());
    let check = |lines: &[u8]| {
        let list = folder.path().join("list");
        std::fs::write(&list, lines).unwrap();
        Command::new("sha256sum").args(["--check", "--strict"]).arg(&list).current_dir(folder.path()).output().unwrap()
    };
    let command = args!["hash", "--file", "--"].into_iter().chain(names());
    let hashed = run_in(folder.path(), command.collect()).done().out;
    let lines: Vec<&[u8]> = hashed.split_inclusive(|byte| *byte == b'\n').collect();
    let (disks, files): (Vec<&[u8]>, Vec<&[u8]>) = lines.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    let checked = check(&files.concat());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // As the guide says: those of disks are no obstacle.
    let list = folder.path().join("both");
    std::fs::write(&list, &hashed).unwrap();
    let mut program = Command::new("sha256sum");
    let checked = program.args(["--check", "--ignore-missing"]).arg(&list).current_dir(folder.path()).output().unwrap();
    let files = String::from_utf8_lossy(&checked.stdout).matches(": OK").count();
    assert_eq!((checked.status.success(), files), (true, NAMES.len()));
    // A digest of a disk names no file.
    let checked = String::from_utf8_lossy(&check(&disks.concat()).stdout).into_owned();
    assert!(!checked.contains("OK") && checked.matches("FAILED open or read").count() == NAMES.len(), "{checked}");
}

#[test]
fn lines_without_a_tag_may_be_of_the_disk_or_of_the_file() {
    let folder = temp_dir();
    let path = super::write_image(folder.path(), "disk.vhdx", &Spec::default());
    let raw = folder.path().join("disk.raw");
    vhdx_run(args!["extract", &path, &raw]).done();
    let list = folder.path().join("list");
    for (program, algorithm) in [("sha256sum", "sha256"), ("md5sum", "md5")] {
        for tag in [&[][..], &["--tag"]] {
            let summed = |file: &Path| Command::new(program).args(tag).arg(file).output().unwrap().stdout;
            let of_file = String::from_utf8(summed(&path)).unwrap();
            let of_disk = String::from_utf8(summed(&raw)).unwrap().replace("disk.raw", "disk.vhdx");
            std::fs::write(&list, of_file + &of_disk).unwrap();
            let ran = vhdx_run(args!["verify", "--check", &list]).done();
            let name = path.display();
            assert_eq!(ran.text(), format!("{name} (file): OK ({algorithm})\n{name}: OK ({algorithm})\n"));
        }
    }
    // A damaged image is still the file that was hashed.
    let mut file = std::fs::read(&path).unwrap();
    file[..8].fill(0);
    std::fs::write(&path, file).unwrap();
    let summed = Command::new("sha256sum").arg(&path).output().unwrap().stdout;
    std::fs::write(&list, &summed).unwrap();
    let ran = vhdx_run(args!["verify", "--check", &list]).done();
    assert_eq!(ran.text(), format!("{} (file): OK (sha256)\n", path.display()));
    std::fs::write(&list, "0".repeat(64) + &String::from_utf8(summed).unwrap()[64..]).unwrap();
    let ran = vhdx_run(args!["verify", "--check", &list]);
    assert_fails(&ran, 65, &["disk.vhdx"]);
    assert!(ran.text().ends_with("disk.vhdx: FAILED to open or read\n"), "{}", ran.text());
}

#[test]
fn json_has_the_bytes_of_names_that_are_not_unicode() {
    let folder = temp_dir();
    let Some(_) = images(folder.path()) else { return };
    // "/5//" would be of other bytes: the name is 0xff 0xfe and ".vhdx".
    let (name, base64) = (OsStr::from_bytes(b"\xff\xfe.vhdx"), "//4udmhkeA==");
    let list = folder.path().join("list");
    let hashed = run_in(folder.path(), args!["hash", name]).done();
    std::fs::write(&list, &hashed.out).unwrap();
    for command in [
        args!["info", "--output", "json", name],
        args!["hash", "--output", "json", name],
        args!["check", "--output", "json", name],
        args!["chain", "--output", "json", name],
        args!["verify", "--check", &list, "--output", "json"],
    ] {
        let report = run_in(folder.path(), command.clone()).done().json();
        let of_name = [&report, &report["layers"][0], &report[0]];
        let of_name = of_name.into_iter().find(|value| value.get("filename").is_some()).unwrap();
        assert_eq!(of_name["filename"], "\u{fffd}\u{fffd}.vhdx", "{command:?}");
        assert_eq!(of_name["filename-bytes"], base64, "{command:?}");
    }
    let report = run_in(folder.path(), args!["info", "--output", "json", "plain.vhdx"]).done().json();
    assert_eq!(report.get("filename-bytes"), None);
    // Shards keep the name.
    let shard = run_in(folder.path(), args!["hash", "-a", "crc32", "--shard", "1/1", name]).done();
    std::fs::write(folder.path().join("shard"), &shard.out).unwrap();
    let merged = run_in(folder.path(), args!["merge", "shard"]).done();
    assert_eq!(merged.out, run_in(folder.path(), args!["hash", "-a", "crc32", name]).done().out);
    assert_eq!(
        json!(base64),
        run_in(folder.path(), args!["merge", "--output", "json", "shard"]).done().json()["filename-bytes"]
    );
}

#[test]
fn json_has_the_bytes_of_all_paths() {
    let folder = temp_dir();
    let Some(_) = images(folder.path()) else { return };
    let name = |bytes: &'static [u8]| folder.path().join(OsStr::from_bytes(bytes));
    let spec = Spec::default();
    std::fs::create_dir(name(b"new")).unwrap();
    let in_new = |bytes: &'static [u8]| name(b"new").join(OsStr::from_bytes(bytes));
    let (base, child) = (in_new(b"\xff\xfe.vhdx"), in_new(b"child.avhdx"));
    spec.build().bytes.write_file(&base).unwrap();
    Spec::child_of(&spec, "base.vhdx").build().bytes.write_file(&child).unwrap();
    // A child of the child, whose name is not Unicode either, and what cannot be read.
    for bytes in [&b"\xfd.avhdx"[..], b"\xfc.vhdx"] {
        std::fs::write(in_new(bytes), vec![7; 2 << 20]).unwrap();
    }
    let run = |words: Vec<std::ffi::OsString>| run_in(&name(b"new"), words).done().json();
    let (base, name) = (OsStr::from_bytes(b"\xff\xfe.vhdx"), "//4udmhkeA==");

    let info = run(args!["info", "--json", "--parent", base, "child.avhdx"]);
    assert_eq!(info["full-backing-filename-bytes"], name, "{info:#}");
    let data = &info["format-specific"]["data"];
    assert_eq!((&data["parent"]["filename-bytes"], &data["chain-bytes"]), (&json!(name), &json!([null, name])));
    // 0xfd and ".avhdx"; 0xfc and ".vhdx".
    let found = &data["checkpoints"];
    assert_eq!((&found["unreadable-bytes"], found.get("files-bytes")), (&json!(["/S5hdmhkeA=="]), None), "{found}");
    assert_eq!(found["damaged-bytes"], json!(["/C52aGR4"]), "{found}");
    let info = run(args!["info", "--json", base]);
    assert_eq!(info["children"][0]["info"]["filename-bytes"], name);
    let map = run(args!["map", "--json", "--parent", base, "child.avhdx"]);
    let extents = map["extents"].as_array().unwrap();
    let is_right = |extent: &&serde_json::Value| (extent["depth"] == 1) == (extent["layer-bytes"] == name);
    assert!(extents.iter().all(|extent| is_right(&extent)) && extents.iter().any(|extent| extent["depth"] == 1));
    let compared = run(args!["compare", "--json", base, base]);
    assert_eq!(compared["filenames-bytes"], json!([name, name]));
    run_in(folder.path(), args!["hash", "--manifest", OsStr::from_bytes(b"\xff\xfe.vhdx.m"), "plain.vhdx"]).done();
    let manifest = OsStr::from_bytes(b"\xff\xfe.vhdx.m");
    let verified = run_in(folder.path(), args!["verify", "--json", "--manifest", manifest, "plain.vhdx"]).done().json();
    assert_eq!(verified["manifest-bytes"], "//4udmhkeC5t", "{verified}");
    let compared = run_in(folder.path(), args!["compare", "--json", "plain.vhdx", "plain.vhdx"]).done().json();
    assert_eq!(compared.get("filenames-bytes"), None);
}

#[test]
fn digest_formats_that_would_mislead_are_refused() {
    let folder = temp_dir();
    let path = super::write_image(folder.path(), "disk.vhdx", &Spec::default());
    for option in [&["--file"][..], &["--range", "0:512"]] {
        let options = option.iter().map(Into::into);
        let ran = vhdx_run(args!["hash", "--format", "sha256sum", &path].into_iter().chain(options));
        assert_fails(&ran, 2, &["cannot say what a digest is of", "leave out --format"]);
    }
    assert_fails(&vhdx_run(args!["hash", "--format", "gnu", &path]), 2, &["gnu"]);
}
