//! `vhdx chain`, and the options that control the search for parents.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::kit::builder::{Locator, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB};
use crate::support::{temp_dir, vhdx};

use super::{args, assert_fails, assert_lines, keys, vhdx_run, write_image};

fn json_of(path: &Path) -> Value {
    vhdx_run(args!["chain", "--output", "json", path]).done().json()
}

/// Three images, in the folders `top` and `below`.
fn chain_of_three(top: &Path, below: &Path) -> ([PathBuf; 3], [Spec; 3]) {
    let base = Spec::default();
    let middle = Spec::child_of(&base, "base.vhdx").block(1, Block::full());
    let child = Spec::child_of(&middle, "middle.avhdx").block(3, Block::full());
    let paths = [
        write_image(top, "child.avhdx", &child),
        write_image(below, "middle.avhdx", &middle),
        write_image(below, "base.vhdx", &base),
    ];
    (paths, [child, middle, base])
}

#[test]
fn chain_json_lists_layers_and_how_each_was_found() {
    let folder = temp_dir();
    let (paths, specs) = chain_of_three(folder.path(), folder.path());
    let report = json_of(&paths[0]);
    assert_eq!(keys(&report), ["schema", "layers", "complete", "error"]);
    assert_eq!((&report["complete"], &report["error"]), (&json!(true), &Value::Null));
    let layer = |depth: usize, found: Option<&str>, parent: Option<&str>| {
        json!({
            "depth": depth,
            "filename": paths[depth],
            "kind": if depth < 2 { "differencing" } else { "dynamic" },
            "virtual-size": 8 * MIB,
            "log": "clean",
            "in-use": super::not_in_use(),
            "data-write-guid": specs[depth].data_write_guid.to_string(),
            "found-by": found,
            "linkage": found.map(|_| "parent_linkage"),
            "parent": parent,
            "parent-linkage": specs.get(depth + 1).map(|spec| spec.data_write_guid.to_string()),
        })
    };
    assert_eq!(
        report["layers"],
        json!([
            layer(0, None, Some(".\\middle.avhdx")),
            layer(1, Some("relative path"), Some(".\\base.vhdx")),
            layer(2, Some("relative path"), None),
        ])
    );
    let expected = [
        "depth",
        "filename",
        "kind",
        "virtual-size",
        "log",
        "in-use",
        "data-write-guid",
        "found-by",
        "linkage",
        "parent",
        "parent-linkage",
    ];
    assert_eq!(keys(&report["layers"][0]), expected);
}

#[test]
fn chain_text_lists_layers() {
    let folder = temp_dir();
    let (paths, specs) = chain_of_three(folder.path(), folder.path());
    let text = vhdx_run(args!["chain", &paths[0]]).done().text();
    let line = |depth: usize| format!("{depth}: {}", paths[depth].display());
    let guid = |depth: usize| specs[depth].data_write_guid;
    assert_eq!(
        text.lines().map(str::trim_start).collect::<Vec<_>>(),
        [
            &line(0),
            "the image itself",
            "differencing, virtual size 8.00 MiB (8388608 bytes), log clean",
            &format!("DataWriteGuid {}", guid(0)),
            &format!("needs .\\middle.avhdx, with DataWriteGuid {}", guid(1)),
            &line(1),
            "found by relative path, linked by parent_linkage",
            "differencing, virtual size 8.00 MiB (8388608 bytes), log clean",
            &format!("DataWriteGuid {}", guid(1)),
            &format!("needs .\\base.vhdx, with DataWriteGuid {}", guid(2)),
            &line(2),
            "found by relative path, linked by parent_linkage",
            "dynamic, virtual size 8.00 MiB (8388608 bytes), log clean",
            &format!("DataWriteGuid {}", guid(2)),
        ]
    );
}

#[test]
fn broken_chain_lists_layers_before_the_error() {
    let folder = temp_dir();
    let (paths, specs) = chain_of_three(folder.path(), folder.path());
    let layers = |words: &[&str], code: i32| {
        let ran = vhdx_run(args!["chain", "--output", "json", &paths[0]]);
        assert_fails(&ran, code, words);
        let report = ran.json();
        assert_eq!(report["complete"], false);
        assert!(ran.err.contains(report["error"].as_str().unwrap()), "{report}\n{}", ran.err);
        let text = vhdx_run(args!["chain", &paths[0]]);
        assert_fails(&text, code, words);
        assert!(text.text().starts_with(&format!("0: {}", paths[0].display())));
        report["layers"].as_array().unwrap().len()
    };
    let middle = "middle.avhdx";
    // Another image under the name of the base.
    let other = Spec { data_write_guid: Uuid::from_u128(99), ..specs[2].clone() };
    write_image(folder.path(), "base.vhdx", &other);
    let found = format!("DataWriteGuid {{{}}}", other.data_write_guid);
    let expected = format!("expected DataWriteGuid {{{}}}", specs[2].data_write_guid);
    assert_eq!(layers(&["layer 1", middle, "base.vhdx", &found, &expected, "hint: "], 82), 2);

    std::fs::remove_file(&paths[2]).unwrap();
    assert_eq!(layers(&["layer 1", middle, "base.vhdx", "not found", "no such file", "hint: pass --parent"], 81), 2);

    std::fs::write(&paths[2], "no image at all").unwrap();
    assert_eq!(layers(&["layer 2", "base.vhdx", "not a VHDX image"], 65), 2);

    std::fs::remove_file(&paths[2]).unwrap();
    std::fs::create_dir(&paths[2]).unwrap();
    assert_eq!(layers(&["layer 1", "base.vhdx (is a directory)", "hint: pass --parent"], 81), 2);

    let mut unknown = specs[1].clone();
    unknown.locator = Some(Locator::Pairs(Uuid::from_u128(77), Vec::new()));
    write_image(folder.path(), middle, &unknown);
    assert_eq!(layers(&["layer 1", middle, "unknown LocatorType"], 69), 2);

    let mut without = specs[1].clone();
    without.locator = None;
    write_image(folder.path(), middle, &without);
    assert_eq!(layers(&["layer 1", middle, "parent locator of a differencing image is missing"], 65), 2);

    // The first image must be readable.
    let ran = vhdx_run(args!["chain", "--output", "json", folder.path().join("nothing")]);
    assert_fails(&ran, 66, &[]);
    assert_eq!(keys(&ran.json()), ["filename", "error", "schema"]);
}

#[test]
fn chain_without_search_ends_at_the_image() {
    let folder = temp_dir();
    let (paths, _) = chain_of_three(folder.path(), folder.path());
    let ran = vhdx_run(args!["chain", "--parents", "none", "--output", "json", &paths[0]]).done();
    let report = ran.json();
    assert_eq!((&report["complete"], &report["error"]), (&json!(false), &Value::Null));
    assert_eq!(report["layers"].as_array().unwrap().len(), 1);
    let text = vhdx_run(args!["chain", "--parents", "none", &paths[0]]).done().text();
    assert!(text.contains("parent not searched (--parents none)"), "{text}");
}

#[test]
fn parents_can_be_given_in_any_order() {
    let (top, below) = (temp_dir(), temp_dir());
    let (paths, _) = chain_of_three(top.path(), below.path());
    assert_fails(&vhdx_run(args!["chain", &paths[0]]), 81, &[]);
    for given in [[&paths[1], &paths[2]], [&paths[2], &paths[1]]] {
        for more in [args![], args!["--parents", "none"], args!["--parent", below.path().join("missing.vhdx")]] {
            let args = args!["chain", "--output", "json", &paths[0], "--parent", given[0], "--parent", given[1]];
            let report = vhdx_run(args.into_iter().chain(more)).done().json();
            let found: Vec<&Value> = (1..3).map(|depth| &report["layers"][depth]["found-by"]).collect();
            assert_eq!(found, ["given", "given"]);
        }
    }
    // The middle image is given, and the base is in the same folder.
    let report = vhdx_run(args!["chain", "--output", "json", &paths[0], "--parent", &paths[1]]).done().json();
    assert_eq!(report["layers"][2]["found-by"], "relative path");
    // With --parents none, the base is not searched.
    let ran = vhdx_run(args!["chain", &paths[0], "--parents", "none", "--parent", &paths[1]]);
    assert_fails(&ran, 81, &["layer 1", "base.vhdx", "not found"]);
    // A file with another identity is reported as such.
    let ran = vhdx_run(args!["chain", &paths[0], "--parents", "none", "--parent", &paths[2]]);
    assert_fails(&ran, 82, &["base.vhdx", "DataWriteGuid"]);
}

#[test]
fn parents_can_be_searched_in_a_folder() {
    let (top, below) = (temp_dir(), temp_dir());
    let disks = below.path().join("disks");
    std::fs::create_dir(&disks).unwrap();
    let (paths, _) = chain_of_three(top.path(), &disks);
    let report = vhdx_run(args!["chain", "--parents", below.path(), "--output", "json", &paths[0]]).done().json();
    // Found by the end of its absolute path, C:\disks\middle.avhdx; its parent is in the same folder.
    assert_eq!(report["layers"][1]["filename"], json!(disks.join("middle.avhdx")));
    assert_eq!(
        (&report["layers"][1]["found-by"], &report["layers"][2]["found-by"]),
        (&json!("path below a root"), &json!("relative path"))
    );

    // The folder of the image comes first.
    std::fs::copy(&paths[1], top.path().join("middle.avhdx")).unwrap();
    let report = vhdx_run(args!["chain", "--parents", &disks, "--output", "json", &paths[0]]).done().json();
    assert_eq!(report["layers"][1]["found-by"], "relative path");
    assert_eq!(report["layers"][2]["found-by"], "path below a root");
}

#[test]
fn missing_parents_folder_is_named() {
    let (top, below) = (temp_dir(), temp_dir());
    let (paths, _) = chain_of_three(top.path(), below.path());
    // A typing mistake in `beside`.
    let ran = vhdx_run(args!["chain", &paths[0], "--parents", "beisde"]);
    assert!(matches!(ran.status.code(), Some(2 | 66 | 81)), "{}: {}", ran.status, ran.err);
    assert!(ran.err.contains("beisde"), "{}", ran.err);
}

#[test]
fn chain_works_from_the_folder_of_the_image() {
    let folder = temp_dir();
    chain_of_three(folder.path(), folder.path());
    let ran = crate::support::run(vhdx(["chain", "child.avhdx"]).current_dir(folder.path())).done();
    assert_eq!(ran.text().matches("found by relative path").count(), 2);
    assert_lines(&ran.text(), &["0: child.avhdx"]);
}

#[test]
fn log_option_applies_to_parents() {
    let folder = temp_dir();
    let (paths, specs) = chain_of_three(folder.path(), folder.path());
    Dirty::OneEntry.build(&specs[1]).bytes.write_file(&paths[1]).unwrap();
    let report = json_of(&paths[0]);
    let logs: Vec<&Value> = (0..3).map(|depth| &report["layers"][depth]["log"]).collect();
    assert_eq!(logs, ["clean", "replayed", "clean"]);
    let ran = vhdx_run(args!["chain", "--log", "refuse", &paths[0]]);
    assert_fails(&ran, 80, &["layer 1", "middle.avhdx", "log"]);
    let ran = vhdx_run(args!["map", &paths[0]]).done();
    assert!(ran.err.contains("middle.avhdx: the log was replayed in memory"), "{}", ran.err);
}

#[test]
fn circular_chain_fails() {
    let folder = temp_dir();
    let mut one = Spec::child_of(&Spec::default(), "two.avhdx");
    let two = Spec::child_of(&one, "one.avhdx");
    one.locator = Some(Locator::linked_to(two.data_write_guid, "two.avhdx"));
    let path = write_image(folder.path(), "one.avhdx", &one);
    write_image(folder.path(), "two.avhdx", &two);
    for command in ["chain", "map"] {
        assert_fails(&vhdx_run(args![command, &path]), 65, &["layer 1", "two.avhdx", "already in it"]);
    }
}
