//! `vhdx hash` and `vhdx merge`.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::kit::builder::{FileLength, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Geometry, MIB};
use crate::support::{hex, temp_dir};

use super::{args, assert_fails, assert_has, content, keys, names_in, part, vhdx_run, write_image};

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Digest of a file by a program of the system: its output up to the first blank.
fn digest_by(program: &str, file: &Path) -> String {
    let output = Command::new(program).arg(file).output().unwrap();
    assert!(output.status.success(), "{program}");
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn hash_matches_the_raw_disk() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    let ran = vhdx_run(args!["hash", &path]).done();
    assert_eq!(ran.text(), format!("SHA256 ({}, disk) = {}\n", path.display(), sha256(&disk)));
    assert_eq!(ran.err, "");
    let ran = vhdx_run(args!["hash", "--range", "1M:512K", &path]).done();
    let part = sha256(&disk[1 << 20..3 << 19]);
    assert_eq!(ran.text(), format!("SHA256 ({}, disk 1048576:524288) = {part}\n", path.display()));

    // The same digests as those of common programs.
    let raw = folder.path().join("disk.raw");
    vhdx_run(args!["extract", &path, &raw]).done();
    let ran = vhdx_run(args!["hash", "-a", "sha256,md5,sha1", &path]).done();
    let name = path.display();
    let expected = [("SHA256", "sha256sum"), ("MD5", "md5sum"), ("SHA1", "sha1sum")]
        .map(|(algorithm, program)| format!("{algorithm} ({name}, disk) = {}\n", digest_by(program, &raw)));
    assert_eq!(ran.text(), expected.concat());
    for threads in ["1", "3"] {
        assert_eq!(vhdx_run(args!["hash", "-a", "sha256,md5,sha1", "--threads", threads, &path]).done().out, ran.out);
    }
}

#[test]
fn sha256sum_accepts_escaped_names() {
    // sha256sum accepts the list that `extract --hash` prints.
    let folder = temp_dir();
    let path = write_image(folder.path(), "a\nb\\c.vhdx", &Spec::default());
    let raw = folder.path().join("a\nb\\c.raw");
    let ran = vhdx_run(args!["extract", "--hash", "sha256", &path, &raw]).done();
    assert!(ran.text().starts_with('\\'), "{}", ran.text());
    let list = folder.path().join("list");
    std::fs::write(&list, &ran.out).unwrap();
    let checked = Command::new("sha256sum").arg("-c").arg(&list).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn hash_file_labels_disk_and_file() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let (disk, file) = (sha256(&content(&Spec::default())), sha256(&std::fs::read(&path).unwrap()));
    let name = path.display();
    let ran = vhdx_run(args!["hash", "--file", &path]).done();
    assert_eq!(ran.text(), format!("SHA256 ({name}, disk) = {disk}\n{file}  {name}\n"));
    let report = vhdx_run(args!["hash", "--file", "--output", "json", &path]).done().json();
    let expected =
        ["schema", "filename", "virtual-size", "log", "in-use", "chain", "range", "disk", "file-length", "file"];
    assert_eq!(keys(&report), expected);
    assert_has(
        &report,
        &json!({
            "filename": path.to_str(),
            "virtual-size": 8 * MIB,
            "log": "clean",
            "range": { "offset": 0, "length": 8 * MIB },
            "disk": { "sha256": disk },
            "file-length": path.metadata().unwrap().len(),
            "file": { "sha256": file },
        }),
    );
}

#[test]
fn hash_json_lists_chain_and_log_state() {
    let folder = temp_dir();
    let base = Spec::default();
    Dirty::ALL[0].build(&base).bytes.write_file(&folder.path().join("base.vhdx")).unwrap();
    let child = Spec::child_of(&base, "base.vhdx").block(3, part(8..16));
    let path = write_image(folder.path(), "child.avhdx", &child);
    let report = vhdx_run(args!["hash", "-a", "blake3,crc32", "--output", "json", "-q", &path]).done().json();
    let models = [child.build().model, base.build().model];
    let disk = crate::kit::Model::read(&[&models[0], &models[1]], 0, 8 << 20).unwrap();
    assert_eq!(report["disk"]["blake3"], blake3::hash(&disk).to_hex().to_string());
    assert_eq!(keys(&report["disk"]), ["blake3", "crc32"]);
    assert_has(
        &report["chain"],
        &json!([
            { "filename": path.to_str(), "log": "clean", "data-write-guid": child.data_write_guid },
            { "filename": folder.path().join("base.vhdx").to_str(), "log": "replayed" },
        ]),
    );
}

#[test]
fn hash_continues_after_an_unreadable_image() {
    let folder = temp_dir();
    let good = write_image(folder.path(), "good.vhdx", &Spec::default());
    let mut damaged = Spec::default();
    damaged.raw_bat.insert(6, 4);
    let bad = write_image(folder.path(), "bad.vhdx", &damaged);
    let missing = folder.path().join("missing.vhdx");
    let ran = vhdx_run(args!["hash", &bad, &missing, &good]);
    assert_fails(&ran, 65, &["bad.vhdx: BAT entry of payload block 6", "missing.vhdx: file: cannot be opened"]);
    assert_eq!(ran.text(), format!("SHA256 ({}, disk) = {}\n", good.display(), sha256(&content(&Spec::default()))));
    let report = vhdx_run(args!["hash", "--output", "json", &missing, &good]).json();
    assert_eq!(report.as_array().unwrap().len(), 2);
    assert!(report[0]["error"].as_str().unwrap().contains("cannot be opened"), "{report:#}");
}

#[test]
fn merged_shares_equal_the_whole_manifest() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let at = |name: &str| folder.path().join(name);
    let ran = vhdx_run(args!["hash", "--manifest", at("whole"), &path]).done();
    let root = format!("sha256-of-block-digests ({}) = ", path.display());
    assert!(ran.text().starts_with(&root) && ran.text().lines().count() == 1, "{}", ran.text());
    let whole = std::fs::read_to_string(at("whole")).unwrap();
    assert!(whole.contains(&ran.text()[root.len()..root.len() + 64]), "the last line has the root");
    assert_eq!(vhdx_run(args!["hash", "--manifest", "-", &path]).done().text(), whole);
    // An existing file is not replaced without --force.
    assert_fails(&vhdx_run(args!["hash", "--manifest", at("whole"), &path]), 73, &["exists already", "--force"]);
    vhdx_run(args!["hash", "-f", "--manifest", at("whole"), &path]).done();
    assert_fails(&vhdx_run(args!["hash", "-f", "--manifest", &path, &path]), 2, &["is the image itself"]);

    for share in ["3/3", "1/3", "2/3"] {
        let out = at(&share.replace('/', "-"));
        vhdx_run(args!["hash", "--manifest", out, "--shard", share, &path]).done();
    }
    let shares = args![at("3-3"), at("1-3"), at("2-3")];
    let merge = |more: Vec<std::ffi::OsString>| vhdx_run([args!["merge"], shares.clone(), more].concat());
    assert_eq!(merge(args![]).done().text(), whole);
    assert!(merge(args!["--manifest", at("merged")]).done().text().starts_with("sha256-of-block-digests ("));
    assert_eq!(std::fs::read_to_string(at("merged")).unwrap(), whole);
    assert_fails(&merge(args!["--manifest", at("merged")]), 73, &["exists already"]);
    let ran = vhdx_run(args!["merge", at("1-3"), at("3-3"), "--manifest", at("new")]);
    assert_fails(&ran, 65, &["3-3: shard 2/3 is missing"]);
    assert!(!at("new").exists());
}

#[test]
fn merged_digest_shares_equal_one_run() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let mut shares = Vec::new();
    for index in 1..=4 {
        let ran = vhdx_run(args!["hash", "-a", "blake3,crc32", "--shard", format!("{index}/4"), &path]).done();
        let share = folder.path().join(format!("shard{index}"));
        std::fs::write(&share, ran.out).unwrap();
        shares.push(share.into_os_string());
    }
    for output in ["human", "json"] {
        let one_run = vhdx_run(args!["hash", "-a", "blake3,crc32", "--output", output, &path]).done().text();
        let merged = vhdx_run([args!["merge", "--output", output], shares.clone()].concat()).done().text();
        assert_eq!(merged, one_run);
    }
    let ran = vhdx_run([args!["merge", "--manifest", folder.path().join("m")], shares].concat());
    assert_fails(&ran, 2, &["expected shards of a manifest"]);
    assert!(!folder.path().join("m").exists());
}

#[test]
fn hash_rejects_wrong_usage() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let path = path.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["hash"], "<IMAGE>"),
        (&["hash", "-a", "sha512", path], "not one of crc32, blake3, sha256, sha1 and md5"),
        (&["hash", "-a", "md5,crc32,md5", path], "md5: given twice"),
        (&["hash", "--shard", "3/2", "-a", "crc32", path], "not a shard such as 1/4"),
        (&["hash", "--shard", "0/2", path], "not a shard"),
        (&["hash", "--shard", "1/2", path], "sha256: cannot be merged from shards"),
        (&["hash", "--shard", "1/2", "--file", path], "--file"),
        (&["hash", "--manifest", "x", "--range", "0:1", path], "--range"),
        (&["hash", "--manifest", "x", path, path], "found 2, expected 1"),
        (&["hash", "--range", "7M:2M", path], "8388608"),
        (&["hash", "--force", path], "--manifest"),
        (&["hash", "-"], "standard input"),
        (&["merge"], "<SHARD>"),
    ];
    for (words, expected) in cases {
        assert_fails(&vhdx_run(*words), 2, &[expected]);
    }
    assert_fails(&vhdx_run(["merge", "/missing/shard"]), 66, &["/missing/shard", "cannot be opened"]);
    assert_fails(&vhdx_run(["merge", path]), 65, &["disk.vhdx: line 1"]);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"]);
}

/// Whether a system call creates a file.
#[cfg(target_os = "linux")]
fn creates_file(call: crate::traced::Call) -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_open = call.is_any(&[libc::SYS_open]);
    #[cfg(not(target_arch = "x86_64"))]
    let is_open = false;
    let flags = if is_open { call.args[1] } else { call.args[2] };
    let has = |flag: i32| flags & u64::try_from(flag).unwrap() == u64::try_from(flag).unwrap();
    (is_open || call.is_any(&[libc::SYS_openat])) && (has(libc::O_CREAT) || has(libc::O_TMPFILE))
}

#[cfg(target_os = "linux")]
#[test]
fn interrupted_manifest_leaves_no_file() {
    // Endless work that needs no space: all blocks have the same file offset, in a hole of the file.
    let folder = temp_dir();
    let mut spec = Spec { block_size: 256 << 20, file_length: FileLength::Exact(512 * MIB), ..Spec::empty(1 << 40) };
    for block in 0..4096 {
        spec.raw_bat.insert(Geometry::of(1 << 40, 256 << 20, 512, false).block_index(block), (16 * MIB) | 6);
    }
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let out = folder.path().join("out");
    let mut command = super::stops::command(args!["hash", "-a", "md5", "--manifest", &out, &path]);
    let Some(mut running) = crate::traced::Traced::start(&mut command) else { return };
    assert!(running.run_until(creates_file) && running.next_call().is_some(), "the file is begun");
    running.signal(2);
    let ran = crate::support::Ran::from(running.finish());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ran.status), Some(2), "{}", ran.err);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"], "{}", ran.err);
}
