//! `vhdx diff`: changes and deltas.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::temp_dir;

use super::{args, assert_fails, assert_has, keys, names_in, part, vhdx_run, write_image};

/// A chain of three: the middle writes sectors of block 2, and repeats the bytes of the base in block 3; the top makes
/// block 5 zero.
fn chain(folder: &Path) -> [PathBuf; 3] {
    let base = Spec::default().block(3, Block::full());
    let mut middle = Spec::child_of(&base, "base.vhdx").block(2, part(8..16)).block(3, part(0..8));
    middle.blocks.get_mut(&3).unwrap().fill = Some(crate::kit::Fill::Pattern(base.seed));
    let top = Spec::child_of(&middle, "middle.avhdx").block(5, Block::zero());
    [("base.vhdx", base), ("middle.avhdx", middle), ("top.avhdx", top)]
        .map(|(name, spec)| write_image(folder, name, &spec))
}

fn changes(report: &Value) -> Vec<(u64, u64, bool)> {
    let change = |change: &Value| {
        let number = |key: &str| change[key].as_u64().unwrap();
        (number("start"), number("length"), change["zero"].as_bool().unwrap())
    };
    report["changes"].as_array().unwrap().iter().map(change).collect()
}

#[test]
fn diff_lists_content_and_allocated_changes() {
    let folder = temp_dir();
    let [base, middle, top] = chain(folder.path());
    let json =
        |words: Vec<std::ffi::OsString>| vhdx_run([args!["diff", "--output", "json"], words].concat()).done().json();
    let (sectors, same, zero) = ((2 * MIB + 4096, 4096, false), (3 * MIB, 4096, false), (5 * MIB, MIB, true));

    assert_eq!(changes(&json(args![&top])), [zero]);
    assert_eq!(changes(&json(args![&top, &middle])), [zero]);
    assert_eq!(changes(&json(args!["--content", &top, &base])), [sectors, zero]);
    assert_eq!(changes(&json(args!["--allocated", &top, &base])), [sectors, same, zero]);
    assert_eq!(changes(&json(args!["--allocated", &middle])), [sectors, same]);

    let report = json(args!["--allocated", &top, &base]);
    let expected = [
        "schema",
        "filename",
        "ancestor",
        "ancestor-depth",
        "virtual-size",
        "in-use",
        "mode",
        "changes",
        "changed-ranges",
        "changed-bytes",
        "zero-bytes",
    ];
    assert_eq!(keys(&report), expected);
    assert_has(
        &report,
        &json!({
            "filename": top.to_str(),
            "ancestor": base.to_str(),
            "ancestor-depth": 2,
            "virtual-size": 8 * MIB,
            "mode": "allocated",
            "changed-ranges": 3,
            "changed-bytes": MIB + 8192,
            "zero-bytes": MIB,
        }),
    );
    let text = vhdx_run(args!["diff", &top, &base]).done().text();
    let lines: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "Offset Length Content",
            "0x201000 0x1000 data",
            "0x500000 0x100000 zeros",
            "1.00 MiB (1052672 bytes) changed"
        ]
    );
}

#[test]
fn diff_delta_holds_changed_bytes_at_their_offsets() {
    let folder = temp_dir();
    let [base, _, top] = chain(folder.path());
    for flavour in ["--content", "--allocated"] {
        let delta = folder.path().join("delta");
        let words = args!["diff", flavour, "--output", "json", "--delta", &delta, "-f", &top, &base];
        let report = vhdx_run(words).done().json();
        // Applied to the ancestor, the delta yields the disk.
        let bytes = std::fs::read(&delta).unwrap();
        assert_eq!(bytes.len(), 8 << 20);
        assert!(delta.metadata().unwrap().blocks() * 512 < 2 * MIB, "what has not changed is a hole");
        let mut disk = vhdx_run(args!["extract", &base, "-"]).done().out;
        for (start, length, _) in changes(&report) {
            let range = usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap();
            disk[range.clone()].copy_from_slice(&bytes[range]);
        }
        assert!(disk == vhdx_run(args!["extract", &top, "-"]).done().out, "{flavour}");
    }
    let delta = folder.path().join("delta");
    assert_fails(&vhdx_run(args!["diff", "--delta", &delta, &top]), 73, &["exists already", "--force"]);
    assert_fails(&vhdx_run(args!["diff", "--delta", &base, "-f", &top]), 2, &["one of its parents"]);
    assert_fails(&vhdx_run(args!["diff", "--delta", "/dev/null", "-f", &top]), 2, &["/dev/null: not a regular file"]);
}

#[test]
fn diff_rejects_files_outside_the_chain() {
    let folder = temp_dir();
    let [base, middle, top] = chain(folder.path());
    let stranger = write_image(folder.path(), "stranger.vhdx", &Spec::default());
    assert_fails(&vhdx_run(args!["diff", &base]), 2, &["base.vhdx: has no parent", "vhdx compare"]);
    assert_fails(
        &vhdx_run(args!["diff", &top, &stranger]),
        2,
        &["stranger.vhdx: not an ancestor of", "hint: `vhdx chain "],
    );
    assert_fails(&vhdx_run(args!["diff", &middle, &top]), 2, &["not an ancestor of"]);
    assert_fails(&vhdx_run(args!["diff", &top, &top]), 2, &["is the image itself"]);
    assert_fails(&vhdx_run(args!["diff", &top, folder.path().join("missing")]), 66, &["missing: cannot be opened"]);
    assert_fails(&vhdx_run(args!["diff", "--content", "--allocated", &top]), 2, &["cannot be used with"]);
    assert_fails(&vhdx_run(args!["diff", "--force", &top]), 2, &["--delta"]);
    // By any path.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&base, &link).unwrap();
    vhdx_run(args!["diff", &top, &link]).done();
}

#[test]
fn diff_leaves_no_delta_after_a_read_error() {
    let folder = temp_dir();
    let base = Spec::default();
    let mut child = Spec::child_of(&base, "base.vhdx").block(2, part(8..16)).block(5, Block::full());
    child.raw_bat.insert(5, 4);
    write_image(folder.path(), "base.vhdx", &base);
    let child = write_image(folder.path(), "child.avhdx", &child);
    for flavour in ["--content", "--allocated"] {
        let ran = vhdx_run(args!["diff", flavour, "--delta", folder.path().join("delta"), &child]);
        assert_fails(&ran, 65, &["child.avhdx", "BAT entry of payload block 5"]);
        let message = ran.err.lines().next().unwrap();
        assert_eq!(message.matches("child.avhdx").count(), 1, "{message}");
        let report = vhdx_run(args!["diff", flavour, "--output", "json", &child]);
        assert_eq!(keys(&report.json()).last(), Some(&"error"), "a list that is cut off says so");
    }
    assert_eq!(names_in(folder.path()), ["base.vhdx", "child.avhdx"]);
}
