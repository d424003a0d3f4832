//! `vhdx verify`: manifests and lists of digests.

use serde_json::json;

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{temp_dir, vhdx};

use super::{args, assert_fails, assert_has, assert_lines, keys, vhdx_run, write_image};

/// A later state of the disk: block 2 has changed, block 5 is gone.
fn later() -> Spec {
    let mut spec = Spec::default().block(2, Block::full().bytes(b"later"));
    spec.blocks.remove(&5);
    spec
}

#[test]
fn verify_accepts_digests_of_parts() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let list = folder.path().join("list");
    let part = vhdx_run(args!["hash", "--range", "1M:4K", &path]).done().text();
    std::fs::write(&list, &part).unwrap();
    let ran = vhdx_run(args!["verify", "--check", &list]).done();
    assert!(ran.text().ends_with("disk.vhdx (bytes 1048576:4096): OK (sha256)\n"), "{}", ran.text());
    // The same digest of another part, past the end, and what is no digest.
    let wrong = part.replace("1048576:", "0:") + &part.replace("1048576:", "8388608:") + "no digest\n";
    std::fs::write(&list, wrong).unwrap();
    let ran = vhdx_run(args!["verify", "--json", "--check", &list]);
    // A mismatch counts most.
    assert_fails(&ran, 1, &["line 3: not a digest", "are not in the disk"]);
    let report = ran.json();
    assert!(report[0]["error"].as_str().unwrap().contains("line 3"), "{report:#}");
    assert_eq!((&report[1]["ok"], &report[1]["range"]), (&json!(false), &json!({ "offset": 0, "length": 4096 })));
    assert!(report[2]["error"].as_str().unwrap().contains("not in the disk"), "{report:#}");
}

#[test]
fn verify_compares_every_block() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let manifest = folder.path().join("manifest");
    vhdx_run(args!["hash", "-a", "blake3", "--manifest", &manifest, &path]).done();
    let ran = vhdx_run(args!["verify", &path, "--manifest", &manifest]).done();
    assert_eq!((ran.text(), ran.err.as_str()), (format!("{}: OK (8 blocks)\n", path.display()), ""));

    write_image(folder.path(), "disk.vhdx", &later());
    let ran = vhdx_run(args!["verify", &path, "--manifest", &manifest]);
    assert_fails(&ran, 1, &[]);
    let text = ran.text();
    assert!(text.starts_with("block 2 at 0x200000, 0x100000 bytes: blake3 mismatch (found "), "{text}");
    assert!(text.contains("\nblock 5 at 0x500000, 0x100000 bytes: "), "{text}");
    assert_lines(&text, &[&format!("{}: FAILED (2 of 8 blocks)", path.display())]);

    let ran = vhdx_run(args!["verify", &path, "--manifest", &manifest, "--output", "json"]);
    assert_fails(&ran, 1, &[]);
    let report = ran.json();
    let expected = [
        "schema",
        "filename",
        "manifest",
        "virtual-size",
        "in-use",
        "mismatches",
        "same-image",
        "range",
        "blocks",
        "mismatching-blocks",
        "ok",
    ];
    assert_eq!(keys(&report), expected);
    let mismatch = |block: u64| json!({ "block": block, "start": block * MIB, "length": MIB, "algorithm": "blake3" });
    assert_has(
        &report,
        &json!({
            "mismatches": [mismatch(2), mismatch(5)],
            "same-image": true,
            "blocks": 8,
            "mismatching-blocks": 2,
            "ok": false,
        }),
    );
}

#[test]
fn verify_rejects_manifests_that_do_not_match() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let manifest = folder.path().join("manifest");
    vhdx_run(args!["hash", "--manifest", &manifest, &path]).done();
    let text = std::fs::read_to_string(&manifest).unwrap();

    let other = Spec { data_write_guid: uuid::Uuid::from_u128(9), ..Spec::default() };
    let other = write_image(folder.path(), "other.vhdx", &other);
    let ran = vhdx_run(args!["verify", &other, "--manifest", &manifest]).done();
    assert!(
        ran.err.contains("note: ") && ran.err.contains("a different image, or of a different state"),
        "{}",
        ran.err
    );
    assert_eq!(vhdx_run(args!["verify", "-q", &other, "--manifest", &manifest]).done().err, "");

    let larger = write_image(folder.path(), "larger.vhdx", &Spec::empty(9 * MIB));
    assert_fails(
        &vhdx_run(args!["verify", &larger, "--manifest", &manifest]),
        1,
        &["larger.vhdx: ", "manifest: the manifest is of a disk of 8388608 bytes, and this disk has 9437184"],
    );
    std::fs::write(&manifest, &text[..text.len() - 40]).unwrap();
    assert_fails(&vhdx_run(args!["verify", &path, "--manifest", &manifest]), 65, &["manifest: line 8: ", "truncated"]);
    std::fs::write(&manifest, text.replace("\"FULLY_PRESENT\"", "\"ZERO\"")).unwrap();
    assert_fails(
        &vhdx_run(args!["verify", &path, "--manifest", &manifest]),
        65,
        &["manifest: line 8: ", "was changed"],
    );
    assert_fails(&vhdx_run(args!["verify", &path, "--manifest", &path]), 65, &["disk.vhdx: line 1: "]);
    let missing = folder.path().join("missing");
    assert_fails(&vhdx_run(args!["verify", &path, "--manifest", &missing]), 66, &["missing: cannot be read"]);
    let mut damaged = Spec::default();
    damaged.raw_bat.insert(5, 4);
    std::fs::write(&manifest, &text).unwrap();
    let damaged = write_image(folder.path(), "damaged.vhdx", &damaged);
    let ran = vhdx_run(args!["verify", &damaged, "--manifest", &manifest]);
    assert_fails(&ran, 65, &["damaged.vhdx: BAT entry of payload block 5"]);
}

#[test]
fn verify_checks_a_list_line_by_line() {
    let folder = temp_dir();
    let good = write_image(folder.path(), "good.vhdx", &Spec::default());
    let changed = write_image(folder.path(), "changed.vhdx", &Spec::default());
    let list = folder.path().join("list");
    let hashed = vhdx_run(args!["hash", "-a", "crc32,sha256", "--file", &good, &changed]).done();
    std::fs::write(&list, hashed.out).unwrap();
    let (name, other) = (good.display(), changed.display());
    let ran = vhdx_run(args!["verify", "-c", &list]).done();
    assert_eq!(ran.text().matches(": OK (").count(), 8, "{}", ran.text());
    assert_lines(&ran.text(), &[&format!("{name}: OK (sha256)"), &format!("{other} (file): OK (crc32)")]);

    write_image(folder.path(), "changed.vhdx", &later());
    let ran = vhdx_run(args!["verify", "-c", &list]);
    assert_fails(&ran, 1, &[]);
    assert_lines(&ran.text(), &[&format!("{name}: OK (sha256)"), &format!("{other}: FAILED (sha256)")]);
    let report = vhdx_run(args!["verify", "-c", &list, "--output", "json"]).json();
    assert_has(&report[0], &json!({ "filename": good.to_str(), "of": "disk", "algorithm": "crc32", "ok": true }));
    assert_has(
        &report[7],
        &json!({ "filename": changed.to_str(), "of": "disk-or-file", "algorithm": "sha256", "ok": false }),
    );

    std::fs::remove_file(&changed).unwrap();
    let ran = vhdx_run(args!["verify", "--check", &list]);
    assert_fails(&ran, 66, &["changed.vhdx: file: cannot be opened"]);
    assert_lines(&ran.text(), &[&format!("{name}: OK (sha256)"), &format!("{other}: FAILED to open or read")]);
}

#[test]
fn verify_accepts_lists_of_raw_disks_blake3_and_repeated_lines() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let raw = folder.path().join("disk.raw");
    let list = folder.path().join("list");
    let extracted = vhdx_run(args!["extract", &path, &raw, "--hash", "sha256"]).done();
    std::fs::write(&list, &extracted.out).unwrap();
    let ran = vhdx_run(args!["verify", "-c", &list]).done();
    assert_eq!(ran.text(), format!("{}: OK (sha256)\n", raw.display()));
    let blake3 = vhdx_run(args!["hash", "-a", "blake3", &path]).done().text();
    std::fs::write(&list, &blake3).unwrap();
    let ran = vhdx_run(args!["verify", "-c", &list]).done();
    assert_eq!(ran.text(), format!("{}: OK (blake3)\n", path.display()));
    // One thread per line would be too many.
    std::fs::write(&list, vhdx_run(args!["hash", &path]).done().text().repeat(5000)).unwrap();
    let ran = vhdx_run(args!["verify", "-c", &list]).done();
    assert_eq!(ran.text().matches(": OK (sha256)\n").count(), 5000);
    // The digest of a range is not one of the disk.
    let part = vhdx_run(args!["hash", "--range", "1M:", &path]).done().text();
    std::fs::write(&list, part.replace(", disk 1048576:7340032", ", disk")).unwrap();
    assert_fails(&vhdx_run(args!["verify", "-c", &list]), 1, &[]);
}

#[test]
fn verify_prints_the_range_of_a_shard() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let shares = ["1/2", "2/2"].map(|shard| {
        let share = folder.path().join(format!("shard{}", &shard[..1]));
        vhdx_run(args!["hash", "--manifest", &share, "--shard", shard, &path]).done();
        share
    });
    let ran = vhdx_run(args!["verify", &path, "--manifest", &shares[0]]).done();
    assert!(ran.text().contains(": only bytes 0x0 to 0x"), "{}", ran.text());
    let refused = vhdx_run(args!["merge", &shares[0], &shares[1], "--manifest", &shares[1], "--force"]);
    assert_fails(&refused, 2, &["shard2: is one of the inputs"]);
    let whole = folder.path().join("whole");
    let merge = args!["merge", &shares[0], &shares[1], "--manifest", &whole, "--output", "json"];
    let report = vhdx_run(merge).done().json();
    assert_eq!(report["root"][0]["name"], "sha256-of-block-digests");
    assert_fails(&vhdx_run(args!["merge", folder.path()]), 66, &["is a directory"]);
    assert_fails(&vhdx_run(args!["verify", &path, "--manifest", folder.path()]), 66, &["is read twice"]);
}

#[test]
fn verify_accepts_lists_of_other_programs() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let raw = folder.path().join("disk.raw");
    vhdx_run(args!["extract", &path, &raw]).done();
    // Output of sha256sum for the raw disk, with the name of the image: on standard input, relative to the folder.
    let summed = std::process::Command::new("sha256sum").arg(&raw).output().unwrap().stdout;
    let line = String::from_utf8(summed).unwrap().replace(raw.to_str().unwrap(), "disk.vhdx");
    let list = folder.path().join("list");
    std::fs::write(&list, line).unwrap();
    let mut command = vhdx(args!["verify", "-c", "-"]);
    command.current_dir(folder.path()).stdin(std::fs::File::open(&list).unwrap());
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(crate::support::wait(child).done().text(), "disk.vhdx: OK (sha256)\n");

    std::fs::write(&list, "nonsense\n\nffffffff  disk.vhdx\n").unwrap();
    let ran = crate::support::run(vhdx(args!["verify", "-c", &list]).current_dir(folder.path()));
    assert_fails(&ran, 1, &["line 1: not a digest and a name"]);
    assert_eq!(ran.text(), "disk.vhdx: FAILED (crc32)\n");
    std::fs::write(&list, "# nothing\n").unwrap();
    assert_fails(&vhdx_run(args!["verify", "-c", &list]), 65, &["no digests found"]);
    assert_fails(&vhdx_run(args!["verify", "-c", folder.path().join("missing")]), 66, &["missing: cannot be read"]);
    assert_fails(&vhdx_run(args!["verify"]), 2, &["<IMAGE>"]);
    assert_fails(&vhdx_run(args!["verify", &path]), 2, &["--manifest"]);
    assert_fails(&vhdx_run(args!["verify", &path, "-c", &list]), 2, &["cannot be used with"]);
}

#[test]
fn verify_rejects_a_shard_without_blocks() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let shares: Vec<_> = (1..=9).map(|index| folder.path().join(format!("shard{index}"))).collect();
    let mut empty = 0;
    for (share, index) in shares.iter().zip(1..) {
        vhdx_run(args!["hash", "--manifest", share, "--shard", format!("{index}/9"), &path]).done();
        let ran = vhdx_run(args!["verify", &path, "--manifest", share]);
        if std::fs::read_to_string(share).unwrap().contains(r#""length":0}"#) {
            let says = format!("shard {index}/9 covers no blocks, so it cannot verify anything");
            assert_fails(&ran, 65, &[&says, "hint: verify with the other shards"]);
            assert!(!ran.text().contains("OK"), "{}", ran.text());
            empty += 1;
        } else {
            assert!(ran.done().text().contains(": OK ("));
        }
    }
    assert!(empty > 0, "more shards than blocks");
    let whole = folder.path().join("whole");
    vhdx_run([args!["merge", "--manifest", &whole], shares.into_iter().map(Into::into).collect()].concat()).done();
    vhdx_run(args!["verify", &path, "--manifest", &whole]).done();
}
