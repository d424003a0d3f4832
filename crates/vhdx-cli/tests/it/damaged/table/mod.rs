//! Images that break one rule: `vhdx check` reports the rule, its severity, the offset in the file and the range of the
//! disk, and ends with the right exit code. There are rows for every code in `docs/checks.md`.

mod blocks;
mod chain;
mod headers;
mod log;
mod metadata;
mod regions;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::kit::builder::{Image, Spec};
use crate::support::{run, temp_dir, vhdx};

/// Images with damage, and all findings expected.
#[derive(Clone)]
struct Row {
    what: &'static str,
    /// Child first; the files are `0.vhdx`, `1.vhdx` and so on.
    chain: Vec<Image>,
    /// Options of the command.
    args: &'static [&'static str],
    /// In the format of [`in_short`], in any order. With [`AND_MORE`] among them, there may be others.
    found: Vec<&'static str>,
}

/// For findings that follow from another one, and are not what the row is about.
const AND_MORE: &str = "...";

fn row(what: &'static str, image: Image, found: &[&'static str]) -> Row {
    Row { what, chain: vec![image], args: &[], found: found.to_vec() }
}

/// The default image, patched.
fn patched(patch: impl FnOnce(&mut Image)) -> Image {
    let mut image = Spec::default().build();
    patch(&mut image);
    image
}

/// The default image with a changed specification.
fn with(change: impl FnOnce(&mut Spec)) -> Image {
    let mut spec = Spec::default();
    change(&mut spec);
    spec.build()
}

/// A finding in short: the layer, if it is a parent; code, severity, structure; offset in the file; start and length of
/// the affected range of the disk.
fn in_short(finding: &Value) -> String {
    let text = |key: &str| finding[key].as_str().unwrap().to_owned();
    let mut out = format!("{} {} {}", text("code"), text("severity"), text("structure"));
    if finding["layer"] != 0 {
        out.insert_str(0, &format!("{}: ", finding["layer"]));
    }
    if let Some(offset) = finding["offset"].as_u64() {
        out += &format!(" @{offset:#x}");
    }
    if let (Some(start), Some(length)) = (finding["range"]["start"].as_u64(), finding["range"]["length"].as_u64()) {
        out += &format!(" [{start:#x}+{length:#x}]");
    }
    out
}

/// Code and severity of a finding in short.
fn kind_of(found: &str) -> (&str, &str) {
    let found = found.split_once(": ").map_or(found, |(_, found)| found);
    let mut words = found.split(' ');
    (words.next().unwrap(), words.next().unwrap())
}

/// The exit code for these findings, according to `docs/checks.md`.
fn exit_code(found: &[&str], strict: bool) -> i32 {
    let has =
        |severity: &str| found.iter().filter(|found| **found != AND_MORE).any(|found| kind_of(found).1 == severity);
    match () {
        () if has("corruption") || strict && has("warning") => 2,
        () if has("unsupported") => 63,
        () if has("unchecked") => 1,
        () if has("leak") => 3,
        () => 0,
    }
}

/// Checks the images of all rows, and fails once for all differences.
fn try_all(rows: &[Row]) {
    let mut wrong = Vec::new();
    for Row { what, chain, args, found: expected } in rows {
        let folder = temp_dir();
        for (layer, image) in chain.iter().enumerate() {
            image.bytes.write_file(&folder.path().join(format!("{layer}.vhdx"))).unwrap();
        }
        let check = |more: &[&str]| run(vhdx(["check", "0.vhdx"]).args(*args).args(more).current_dir(folder.path()));
        let ran = check(&["--output", "json"]);
        let report = ran.json();
        let findings = report["findings"].as_array().unwrap();
        let mut found: Vec<String> = findings.iter().map(in_short).collect();
        let mut missing: Vec<&str> = expected.iter().copied().filter(|expected| *expected != AND_MORE).collect();
        found.retain(|found| {
            let at = missing.iter().position(|missing| missing == found);
            at.map(|at| missing.swap_remove(at)).is_none()
        });
        if !missing.is_empty() || !(found.is_empty() || expected.contains(&AND_MORE)) {
            wrong.push(format!("{what}: not found: {missing:?}, found besides: {found:?}"));
        }
        // Each finding is counted, and its text names the location and the code.
        let counted: u64 =
            report["counts"].as_array().unwrap().iter().map(|kind| kind["count"].as_u64().unwrap()).sum();
        assert_eq!(counted, crate::lab::wide(findings.len()), "{what}");
        let text = check(&["-v"]).text();
        for finding in findings {
            let line = format!("{}: 0.vhdx: ", finding["severity"].as_str().unwrap());
            let code = format!("[{}]", finding["code"].as_str().unwrap());
            let is_match = |shown: &str| shown.starts_with(&line) && shown.contains(&code);
            assert!(text.lines().any(is_match), "{what}: {text}");
        }
        let mut ends = vec![(false, ran.status.code())];
        if expected.iter().any(|found| *found != AND_MORE && kind_of(found).1 == "warning") {
            ends.push((true, check(&["--strict"]).status.code()));
        }
        for (strict, found) in ends {
            let expected = exit_code(expected, strict);
            if found != Some(expected) {
                wrong.push(format!("{what}: ends with {found:?} instead of {expected} (strict: {strict})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_documented_code_has_a_row() {
    // V27 is reported with V25 or V26; V74 and V75 find nothing in an image; P2 needs a failing drive (see `guard`).
    let elsewhere = ["V27", "V74", "V75", "P2"];
    let is_code = |cell: &&str| {
        let number = cell.strip_prefix(['V', 'L', 'N', 'P']);
        number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let page = include_str!("../../../../../../docs/checks.md");
    let first_cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let mut codes: BTreeSet<&str> = first_cells.filter(is_code).collect();
    assert!(codes.len() > 80, "{codes:?}");
    assert!(elsewhere.iter().all(|code| codes.remove(code)));
    let rows =
        [headers::rows(), log::rows(), regions::rows(), metadata::rows(), blocks::rows(), chain::rows()].concat();
    let found = rows.iter().flat_map(|row| row.found.iter().filter(|found| **found != AND_MORE));
    let found: BTreeSet<&str> = found.map(|found| kind_of(found).0).collect();
    assert_eq!(found, codes);
}
