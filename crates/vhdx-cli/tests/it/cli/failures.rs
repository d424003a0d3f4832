//! What a command that failed leaves on standard output, and with which exit code.

use serde_json::Value;

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{run, temp_dir, vhdx};

use super::{args, assert_fails, keys, vhdx_run, write_image};

/// An image whose fourth block has a reserved state.
fn with_reserved_state() -> Spec {
    let mut spec = Spec::default();
    spec.raw_bat.insert(3, 4);
    spec
}

#[test]
fn every_failure_is_a_document() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    std::fs::write(&path, "no image").unwrap();
    let out = folder.path().join("out.raw");
    for words in [
        args!["info", &path],
        args!["map", &path],
        args!["log", &path],
        args!["chain", &path],
        args!["hash", &path],
        args!["compare", &path, &path],
        args!["diff", &path],
        args!["extract", &path, &out],
        args!["merge", &path],
        args!["verify", "--manifest", &path, &path],
        args!["verify", "--check", &path],
    ] {
        for json in ["--json", "--output=json"] {
            let ran = run(vhdx(&words).arg(json));
            let document = ran.json();
            // Merged shards and lists of digests are no images anyway.
            let is_of_image = words[0] != "merge" && !words.iter().any(|word| word == "--check");
            let expected = ["filename", "error", "looks-like", "schema"];
            let expected = expected.into_iter().filter(|key| *key != "looks-like" || is_of_image);
            assert_eq!(keys(&document), expected.collect::<Vec<_>>(), "{words:?}");
            assert_eq!(document["filename"], path.to_str().unwrap());
            // What is said on standard error.
            let error = format!("vhdx: error: {}\n", document["error"].as_str().unwrap());
            assert!(ran.err.contains(&error), "{words:?}: {}", ran.err);
            assert_eq!(ran.status.code(), vhdx_run(&words).status.code(), "{words:?}");
        }
    }
    // The document of a disk that goes to standard output is on standard error.
    let ran = vhdx_run(args!["extract", "--json", &path, "-"]);
    assert_eq!(ran.text(), "");
    assert!(ran.err.starts_with("{\n  \"filename\""), "{}", ran.err);
}

#[test]
fn lists_are_closed_with_the_error() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &with_reserved_state());
    let whole = write_image(folder.path(), "whole.vhdx", &Spec::default());
    let child = Spec::child_of(&with_reserved_state(), "disk.vhdx").block(0, Block::full());
    let child = write_image(folder.path(), "child.avhdx", &child);
    let manifest = folder.path().join("manifest");
    vhdx_run(args!["hash", "--manifest", &manifest, &whole]).done();
    for (words, list) in [
        (args!["map", "--json", &path], "extents"),
        (args!["compare", "--all", "--json", &path, &whole], "differences"),
        (args!["diff", "--json", &child], "changes"),
        (args!["verify", "--json", "--manifest", &manifest, &path], "mismatches"),
    ] {
        let ran = vhdx_run(&words);
        let document = ran.json();
        assert!(document[list].is_array(), "{document:#}");
        assert_eq!(keys(&document).last(), Some(&"error"));
        assert!(document["error"].as_str().unwrap().contains("reserved state (found 4, expected"), "{document:#}");
        assert_fails(&ran, 65, &["reserved state"]);
    }
    let ran = vhdx_run(args!["map", "--json", &path]).json();
    let extents: Vec<&Value> = ran["extents"].as_array().unwrap().iter().map(|extent| &extent["start"]).collect();
    assert_eq!(extents, [0, MIB, 2 * MIB]);
}

#[test]
fn exit_codes_do_not_depend_on_the_reader_of_messages() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &with_reserved_state());
    for (words, code) in [
        (args!["info", "--bogus", &path], 2),
        (args!["nonsense"], 2),
        (args!["mount", &path], 2),
        (args!["hash", &path], 65),
        (args!["extract", "--json", &path, "-"], 65),
        (args!["check", &path], 2),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = vhdx(&words).stdout(std::process::Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}

/// The path of an image is beside what is wrong with it, and not in that, too.
#[test]
fn errors_beside_a_path_do_not_repeat_it() {
    let folder = temp_dir();
    let no_image = folder.path().join("bad.vhdx");
    std::fs::write(&no_image, [b'x'; 5000]).unwrap();
    let base = Spec::default();
    let orphan = write_image(folder.path(), "orphan.avhdx", &Spec::child_of(&base, "missing.vhdx"));
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    for path in [&no_image, &orphan] {
        for format in ["table", "csv"] {
            let ran = vhdx_run(args!["list", "--output", format, path]);
            assert_eq!(ran.text().matches(&name(path)).count(), 1, "{}", ran.text());
        }
    }
    let row = vhdx_run(args!["list", "--output", "json", &no_image]).json();
    let broken = vhdx_run(args!["list", "--output", "json", &orphan]).json();
    let info = vhdx_run(args!["info", "--output", "json", &orphan]).json();
    let chain = vhdx_run(args!["chain", "--output", "json", &orphan]).json();
    let of_info = &info["format-specific"]["data"];
    for (error, path) in [
        (&row["error"], &no_image),
        (&broken["problem"], &orphan),
        (&broken["contents"]["error"], &orphan),
        (&of_info["contents"]["error"], &orphan),
        (&of_info["parent"]["error"], &orphan),
        (&chain["error"], &orphan),
    ] {
        let text = error.as_str().unwrap_or_else(|| panic!("{error} of {broken:#}\n{info:#}"));
        assert!(!text.contains(&name(path)), "{text}");
    }
}
