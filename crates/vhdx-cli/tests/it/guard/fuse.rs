//! The command, with a file system that fails to read some bytes of an image.

use std::ffi::OsStr;
use std::path::Path;

use vhdx_testkit::dense::{BLOCKS_OF_WORK as BLOCKS, FIRST_BLOCK, content, dense};
use vhdx_testkit::fuse::Mounted;

use crate::kit::MIB;
use crate::support::{loss_map, run, temp_dir, vhdx};

/// Process that serves the file system. Without its environment variable, this is not a test.
#[test]
fn serve() {
    vhdx_testkit::fuse::serve();
}

#[test]
fn unreadable_tables_are_errors() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    // Headers, region tables, metadata.
    for bad in [0..1, 64 << 10..192 << 10, 192 << 10..320 << 10, 2 * MIB..2 * MIB + 1] {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["info"]).arg(mounted.path()));
        assert_eq!(ran.status.code(), Some(74), "{}", ran.err);
        assert!(ran.err.contains("cannot be read any more"), "{}", ran.err);
    }
}

#[test]
fn unreadable_range_is_named() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let manifest = folder.path().join("manifest");
    run(vhdx(["hash", "-a", "crc32", "--manifest"]).arg(&manifest).arg(&image)).done();
    let bad = FIRST_BLOCK + 9 * MIB..FIRST_BLOCK + 9 * MIB + 1;
    let out = folder.path().join("out");
    let cases: [&[&OsStr]; 9] = [
        &["hash".as_ref(), "-a".as_ref(), "crc32".as_ref(), "IMAGE".as_ref()],
        &["hash".as_ref(), "-a".as_ref(), "sha256".as_ref(), "IMAGE".as_ref()],
        &["extract".as_ref(), "IMAGE".as_ref(), out.as_ref()],
        &["extract".as_ref(), "IMAGE".as_ref(), "-".as_ref()],
        &["extract".as_ref(), "--hash".as_ref(), "blake3".as_ref(), "IMAGE".as_ref(), "-".as_ref()],
        &["compare".as_ref(), "IMAGE".as_ref(), image.as_ref()],
        &["verify".as_ref(), "IMAGE".as_ref(), "--manifest".as_ref(), manifest.as_ref()],
        &["read".as_ref(), "--range".as_ref(), "0:".as_ref(), "IMAGE".as_ref()],
        &["read".as_ref(), "--hex".as_ref(), "--range".as_ref(), "0:".as_ref(), "IMAGE".as_ref()],
    ];
    for words in cases {
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let path = mounted.path();
        let args = words.iter().map(|word| if *word == "IMAGE" { path.as_os_str() } else { *word });
        let ran = run(&mut vhdx(args));
        assert_eq!(ran.status.code(), Some(74), "{words:?}: {}", ran.err);
        assert!(
            ran.err.contains("disk.vhdx: file at 0x") && ran.err.contains("cannot be read"),
            "{words:?}: {}",
            ran.err
        );
        assert!(ran.err.contains("hint: ") && !out.exists(), "{words:?}: {}", ran.err);
        // The other bytes can be read.
        let ran = run(vhdx(["hash", "-a", "crc32", "--range", "0:6M"]).arg(&path)).done();
        let expected = format!(" = {}\n", crc32_of(&content(BLOCKS)[..6 << 20]));
        assert!(
            ran.text().contains(&format!(", disk 0:{}) = ", 6 * MIB)) && ran.text().ends_with(&expected),
            "{}",
            ran.text()
        );
    }
}

/// The digest line, computed without the command.
fn crc32_of(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// Lost ranges of a loss map: start and length.
pub(super) fn losses(map: &Path) -> Vec<(u64, u64)> {
    let report = loss_map(map);
    let range = |loss: &serde_json::Value| (loss["start"].as_u64().unwrap(), loss["length"].as_u64().unwrap());
    report["losses"].as_array().unwrap().iter().map(range).collect()
}

#[test]
fn salvage_loses_only_unreadable_pages() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let [out, map] = ["out", "map"].map(|name| folder.path().join(name));
    for bad in [9 * MIB + 8192..9 * MIB + 8193, 5 * MIB - 1..5 * MIB + 1, 11 * MIB..12 * MIB + 5000] {
        let (start, end) = (bad.start / 4096 * 4096, bad.end.next_multiple_of(4096));
        let mut expected = content(BLOCKS);
        expected[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
        let bad = FIRST_BLOCK + bad.start..FIRST_BLOCK + bad.end;
        for more in [&[][..], &["--hash", "crc32"], &["--threads", "1", "--cache", "drop"], &["--direct"]] {
            let Some(mounted) = Mounted::new(&image, &bad) else { return };
            let mut command = vhdx(["extract", "--force", "--salvage", "--loss-map"]);
            let ran = run(command.arg(&map).args(more).arg(mounted.path()).arg(&out));
            if more == ["--direct"] && ran.status.code() == Some(73) {
                continue;
            }
            assert_eq!(ran.status.code(), Some(65), "{more:?}: {}", ran.err);
            assert_eq!(losses(&map), [(start, end - start)], "{more:?}");
            assert!(std::fs::read(&out).unwrap() == expected, "{more:?}");
            if more.contains(&"--hash") {
                assert!(ran.text().starts_with(&crc32_of(&expected)), "{}", ran.text());
            }
        }
        // As a stream, and as a digest.
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["extract", "--salvage"]).arg(mounted.path()).arg("-"));
        assert!(ran.out == expected && ran.status.code() == Some(65), "{}", ran.err);
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["hash", "--salvage", "-a", "crc32"]).arg(mounted.path()));
        assert!(ran.text().trim_end().ends_with(&crc32_of(&expected)), "{}{}", ran.text(), ran.err);
        assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
        // A check that reads all content finds the same.
        let Some(mounted) = Mounted::new(&image, &bad) else { return };
        let ran = run(vhdx(["check", "--payload", "--output", "json"]).arg(mounted.path()));
        assert_eq!(ran.status.code(), Some(2), "{}{}", ran.text(), ran.err);
        let report = &ran.json()["findings"];
        assert_eq!(report.as_array().unwrap().len(), 1, "{report}");
        let report = ["code", "severity", "structure", "offset", "range"].map(|key| report[0][key].clone());
        let range = serde_json::json!({ "start": start, "length": end - start });
        assert_eq!(report, ["P2".into(), "corruption".into(), "file".into(), (FIRST_BLOCK + start).into(), range]);
    }
}

#[test]
fn salvage_loses_blocks_with_unreadable_entries() {
    let folder = temp_dir();
    let image = dense(folder.path(), "image", BLOCKS);
    let [out, map] = ["out", "map"].map(|name| folder.path().join(name));
    let Some(mounted) = Mounted::new(&image, &(3 * MIB..3 * MIB + 1)) else { return };
    let mut command = vhdx(["extract", "--force", "--salvage", "--loss-map"]);
    let ran = run(command.arg(&map).arg(mounted.path()).arg(&out));
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    // Each block has its own loss, for the same reason.
    assert_eq!(losses(&map), [(0, BLOCKS * MIB)]);
}
