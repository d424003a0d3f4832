//! What scripts rely on: JSON of every command, completions and manual pages.

use std::process::Command;

use serde_json::{Value, json};

use crate::kit::builder::Spec;
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB};
use crate::support::{hex, run, skip, temp_dir, vhdx};

use super::{STAMP, args, assert_fails, assert_has, content, keys, names_in, vhdx_run, write_image};

#[test]
fn json_is_output_json() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let child = write_image(folder.path(), "child.avhdx", &Spec::child_of(&Spec::default(), "disk.vhdx"));
    let (manifest, list) = (folder.path().join("manifest"), folder.path().join("list"));
    vhdx_run(args!["hash", "--manifest", &manifest, &path]).done();
    std::fs::write(&list, vhdx_run(args!["hash", &path]).done().out).unwrap();
    for command in [
        args!["info", &path],
        args!["info", &path, &child],
        args!["hash", &path],
        args!["verify", &path, "--manifest", &manifest],
        args!["verify", "--check", &list],
        args!["compare", &path, &child],
        args!["diff", &child],
        args!["log", &path],
        args!["chain", &child],
        args!["check", &path],
    ] {
        let with = |options: &[&str]| {
            let ran = vhdx_run(command.iter().cloned().chain(options.iter().map(Into::into))).done();
            (ran.out.clone(), ran.json())
        };
        let ((short, value), (long, _)) = (with(&["--json"]), with(&["--output", "json"]));
        assert!(short == long, "{command:?}");
        // Each document says what made it.
        let documents = value.as_array().cloned().unwrap_or_else(|| vec![value]);
        for document in documents {
            assert_eq!(document["tool"], "vhdx");
            assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(document["time"], "2024-02-29T23:59:59Z");
            assert!(document["schema"].as_str().unwrap().starts_with("vhdx-mmap/"), "{document}");
        }
    }
    // The time is that of the run, unless SOURCE_DATE_EPOCH says otherwise.
    let value = run(vhdx(args!["info", "--json", &path]).env_remove("SOURCE_DATE_EPOCH")).done().json();
    let time = value["time"].as_str().unwrap();
    assert!(time.len() == 20 && time > "2025" && time.ends_with('Z'), "{time}");
}

#[test]
fn map_document_has_extents_and_totals() {
    let folder = temp_dir();
    let spec = Spec::default().block(3, Block::zero());
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let array = vhdx_run(args!["map", "--output", "json", &path]).done().json();
    let map = vhdx_run(args!["map", "--json", &path]).done().json();
    assert_eq!(keys(&map), ["schema", "filename", "virtual-size", "in-use", "extents", "totals"]);
    assert!(STAMP.iter().all(|key| map[*key].is_string()));
    assert_eq!(map["extents"], array);
    let sum = |data: bool, present: bool| -> u64 {
        let extents = array.as_array().unwrap().iter();
        let of_kind = extents.filter(|extent| extent["data"] == data && extent["present"] == present);
        of_kind.map(|extent| extent["length"].as_u64().unwrap()).sum()
    };
    let expected = json!({
        "extents": array.as_array().unwrap().len(),
        "data-bytes": sum(true, true),
        "zero-bytes": sum(false, true),
        "unallocated-bytes": sum(false, false),
        "lost-bytes": 0,
    });
    assert_eq!(map["totals"], expected);
    assert!(sum(true, true) > 0 && sum(false, true) == MIB && sum(false, false) > 0, "{expected}");
    let empty = vhdx_run(args!["map", "--json", "-l", "0", &path]).done().json();
    assert_eq!((&empty["extents"], &empty["totals"]["extents"]), (&json!([]), &json!(0)));
}

#[test]
fn extract_reports_what_it_did() {
    use sha2::{Digest, Sha256};

    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let spec = Spec::default();
    Dirty::OneEntry.build(&spec).bytes.write_file(&path).unwrap();
    let out = folder.path().join("out");
    let digest = hex(&Sha256::digest(content(&spec)));
    let words = args!["extract", "--json", "--hash", "sha256", "--verify", &path, &out];
    let report = vhdx_run(words).done().json();
    assert_has(
        &report,
        &json!({
            "schema": "vhdx-mmap/extract/1",
            "filename": path.to_str(),
            "virtual-size": 8 * MIB,
            "log": "replayed",
            "chain": [{ "filename": path.to_str(), "log": "replayed" }],
            "range": { "offset": 0, "length": 8 * MIB },
            "output": out.to_str(),
            "format": "raw",
            "output-length": 8 * MIB,
            "verified": true,
            "digests": { "sha256": digest },
        }),
    );
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(number("data-bytes") + number("zero-bytes"), 8 * MIB);
    assert!(number("data-bytes") > 0 && number("zero-bytes") > 0 && report["seconds"].as_f64().unwrap() > 0.0);
    assert!(number("output-actual-size") < 8 * MIB);
    // A part of the disk, as a VHD, to standard output: the document goes to standard error.
    let ran = vhdx_run(args!["extract", "--json", "-q", "-O", "vhd", "--range", "1M:1M", &path, "-"]).done();
    assert_eq!(ran.out.len(), (1 << 20) + 512);
    let report: Value = serde_json::from_str(&ran.err).unwrap();
    crate::schema::assert_valid(Some("extract"), &report);
    assert_has(
        &report,
        &json!({
            "range": { "offset": MIB, "length": MIB },
            "output": "-",
            "format": "vhd",
            "output-length": MIB + 512,
            "output-actual-size": null,
            "verified": false,
            "digests": {},
        }),
    );
}

#[test]
fn completions_of_each_shell_have_all_commands() {
    let help = vhdx_run(["--help"]).done().text();
    assert!(help.contains("\n  completions ") && help.contains("\n  man "), "{help}");
    for (shell, check) in [("bash", Some("bash")), ("zsh", Some("zsh")), ("fish", Some("fish")), ("powershell", None)] {
        let script = vhdx_run(["completions", shell]).done().text();
        for word in ["extract", "convert", "loss-map-format", "ddrescue", "no-follow"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        let folder = temp_dir();
        let file = folder.path().join("script");
        std::fs::write(&file, script).unwrap();
        // The shells that are here can read it.
        if let Some(Ok(checked)) = check.map(|shell| Command::new(shell).arg("-n").arg(&file).output()) {
            assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    assert_fails(&vhdx_run(["completions", "tcsh"]), 2, &["tcsh"]);
    // In use: bash completes a command and an option.
    let folder = temp_dir();
    let script = folder.path().join("vhdx.bash");
    std::fs::write(&script, vhdx_run(["completions", "bash"]).done().out).unwrap();
    let complete = |words: &str| {
        let line = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _vhdx vhdx \"${{COMP_WORDS[COMP_CWORD]}}\" x; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let Ok(ran) = Command::new("bash").args(["-c", &line]).output() else { return None };
        Some(String::from_utf8(ran.stdout).unwrap().trim().to_owned())
    };
    let Some(found) = complete("vhdx ext") else { return skip("bash", "no bash") };
    assert_eq!(found, "extract");
    assert_eq!(complete("vhdx hash --man").unwrap(), "--manifest");
}

#[test]
fn manual_has_a_page_for_each_command() {
    let folder = temp_dir();
    vhdx_run(args!["man", folder.path()]).done();
    let names = names_in(folder.path());
    for name in ["vhdx.1", "vhdx-info.1", "vhdx-extract.1", "vhdx-check.1", "vhdx-completions.1"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    let page = std::fs::read_to_string(folder.path().join("vhdx-extract.1")).unwrap();
    assert!(page.contains("Example: vhdx extract disk.vhdx disk.raw"), "{page}");
    let page = std::fs::read_to_string(folder.path().join("vhdx.1")).unwrap();
    assert!(page.contains("interrupted") && page.contains("vhdx\\-extract(1)"), "{page}");
    assert_fails(&vhdx_run(args!["man", folder.path().join("missing")]), 73, &["missing", "hint"]);
}
