//! `vhdx plan`, and --split and --shard of the commands that work on shares.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::kit::builder::Spec;
use crate::kit::{Block, Fill, MIB, Model};
use crate::support::{skip, temp_dir, vhdx};

use super::{args, assert_fails, content, keys, names_in, part, vhdx_run, write_image};

/// A chain of two, and the content of its disk of 16 MiB.
fn chain(folder: &Path) -> (PathBuf, Vec<u8>) {
    let zeros = Block::full().fill(Fill::Pieces(Vec::new()));
    let base = [1, 2, 4, 7, 9].into_iter().fold(Spec::empty(16 * MIB), |spec, block| spec.block(block, Block::full()));
    let base = base.block(12, zeros).block(15, Block::full());
    let child = Spec::child_of(&base, "base.vhdx")
        .block(2, part(8..16))
        .block(4, Block::zero())
        .block(8, Block::full())
        .block(9, Block::full());
    let models = [child.build().model, base.build().model];
    write_image(folder, "base.vhdx", &base);
    let disk = Model::read(&[&models[0], &models[1]], 0, 16 << 20).unwrap();
    (write_image(folder, "child.avhdx", &child), disk)
}

/// Names one of four shares, counted from 1.
type Division = Box<dyn Fn(u32) -> Vec<OsString>>;

/// Runs a command for each of four shares, with results in files.
fn results(folder: &Path, command: Vec<OsString>, division: &Division) -> Vec<PathBuf> {
    (1..=4)
        .map(|index| {
            let result = folder.join(format!("result{index}"));
            vhdx_run([command.clone(), division(index), args!["--result", &result]].concat());
            result
        })
        .collect()
}

/// The ways to name one of four shares.
fn divisions(folder: &Path, image: &Path) -> Vec<(&'static str, Division)> {
    let plan = folder.join("plan.json");
    std::fs::write(&plan, vhdx_run(args!["plan", image, "--splits", "4"]).done().out).unwrap();
    let lines = vhdx_run(args!["plan", image, "--splits", "4", "--lines"]).done().text();
    let splits: Vec<PathBuf> = lines
        .lines()
        .zip(1..)
        .map(|(line, index)| {
            crate::schema::assert_valid(Some("split"), &serde_json::from_str(line).unwrap());
            let path = folder.join(format!("split{index}.json"));
            std::fs::write(&path, line).unwrap();
            path
        })
        .collect();
    let at = |index: u32| usize::try_from(index - 1).unwrap();
    let (named, again) = (image.to_path_buf(), image.to_path_buf());
    vec![
        ("shard", Box::new(move |index| args![&named, "--shard", format!("{index}/4")])),
        (
            "shard, from 0",
            Box::new(move |index| args![&again, "--shard-base", "0", "--shard", format!("{}/4", index - 1)]),
        ),
        ("split of a plan", Box::new(move |index| args!["--split", &plan, "--shard", format!("{index}/4")])),
        ("split", Box::new(move |index| args!["--split", &splits[at(index)]])),
    ]
}

fn merge(results: &[PathBuf]) -> crate::support::Ran {
    let mut words = args!["merge", "--json"];
    // In any order.
    words.extend(results.iter().rev().map(OsString::from));
    vhdx_run(words)
}

/// Merges results that come through pipes, which can be read only once.
fn merge_pipes(results: &[PathBuf]) -> crate::support::Ran {
    /// Substitutes a process for each of four results.
    const SCRIPT: &str = r#""$0" merge --json <(cat "$1") <(cat "$2") <(cat "$3") <(cat "$4")"#;

    let program = vhdx::<&str>([]);
    let mut command = std::process::Command::new("bash");
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    crate::support::run(command.arg("-c").arg(SCRIPT).arg(program.get_program()).args(results))
}

#[test]
fn merge_reads_pipes() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    if std::process::Command::new("bash").arg("--version").output().is_err() {
        return skip("bash", "no bash");
    }
    for command in [args!["hash", "-a", "crc32"], args!["check"], args!["diff", "--content"]] {
        let shard: Division = Box::new(|index| args!["--shard", format!("{index}/4")]);
        let files = results(folder.path(), [command, args![&image]].concat(), &shard);
        assert_eq!(merge_pipes(&files).done().json(), merge(&files).done().json());
    }
}

#[test]
fn plan_describes_the_chain_and_covers_the_disk() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    let report = vhdx_run(args!["plan", &image, "--splits", "3", "--overlap", "4K"]).done().json();
    let expected = ["schema", "virtual-size", "block-size", "state", "layers", "data-bytes", "overlap", "splits"];
    assert_eq!(keys(&report), expected);
    assert_eq!((&report["schema"], &report["overlap"]), (&"vhdx-mmap/plan/1".into(), &4096.into()));
    let layers = report["layers"].as_array().unwrap();
    let names: Vec<_> = layers.iter().map(|layer| layer["filename"].as_str().unwrap()).collect();
    assert_eq!(names, [image.to_str().unwrap(), folder.path().join("base.vhdx").to_str().unwrap()]);
    assert_eq!(layers[0]["len"], image.metadata().unwrap().len());
    let expected =
        ["filename", "len", "modified", "data-write-guid", "file-write-guid", "sequence-number", "log-crc32c"];
    assert_eq!(keys(&layers[0]), expected);
    let splits = report["splits"].as_array().unwrap();
    let ends: u64 = splits.iter().map(|split| split["length"].as_u64().unwrap()).sum();
    assert_eq!((splits.len(), ends), (3, 16 * MIB));
    let data: u64 = splits.iter().map(|split| split["data-bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["data-bytes"], data);

    let copies = vhdx_run(args!["plan", &image, "--no-times"]).done().json();
    assert_eq!(copies["layers"][0]["modified"], Value::Null);
    assert_eq!((&copies["state"], copies["splits"].as_array().unwrap().len()), (&report["state"], 1));
    let of_size = vhdx_run(args!["plan", &image, "--split-size", "1M"]).done().json();
    assert_eq!(of_size["splits"].as_array().unwrap().len(), usize::try_from(data.div_ceil(MIB)).unwrap());
    // Paths are absolute, wherever the plan is made.
    let mut ran = vhdx(args!["plan", "child.avhdx"]);
    let ran = crate::support::run(ran.current_dir(folder.path())).done().json();
    assert_eq!(ran["layers"][0]["filename"], std::fs::canonicalize(&image).unwrap().to_str().unwrap());
}

#[test]
fn merged_digests_equal_those_of_one_run() {
    let folder = temp_dir();
    let (image, disk) = chain(folder.path());
    for (name, division) in divisions(folder.path(), &image) {
        let files = results(folder.path(), args!["hash", "-a", "blake3,crc32"], &division);
        let merged = merge(&files).done().json();
        assert_eq!(merged["disk"]["blake3"], blake3::hash(&disk).to_hex().to_string(), "{name}");
        assert_eq!(merged["disk"]["crc32"], format!("{:08x}", crc32fast::hash(&disk)), "{name}");
        let whole = vhdx_run(args!["hash", "-a", "blake3,crc32", "--json", &image]).done().json();
        assert_eq!(merged, whole, "{name}");
    }
    // A manifest of splits is the manifest of one run.
    let whole = vhdx_run(args!["hash", "--manifest", "-", &image]).done().out;
    let parts: Vec<OsString> = (1..=4)
        .map(|index| {
            let part = folder.path().join(format!("part{index}"));
            let split = folder.path().join(format!("split{index}.json"));
            vhdx_run(args!["hash", "--manifest", &part, "--split", &split]).done();
            part.into()
        })
        .collect();
    assert_eq!(vhdx_run([args!["merge"], parts].concat()).done().out, whole);
}

#[test]
fn merged_checks_and_changes_equal_those_of_one_run() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    for (name, division) in divisions(folder.path(), &image) {
        let files = results(folder.path(), args!["check"], &division);
        let merged = merge(&files).done().json();
        let whole = vhdx_run(args!["check", "--payload", "--json", &image]).done().json();
        assert_eq!(merged, whole, "{name}");
        for mode in ["--content", "--allocated"] {
            let files = results(folder.path(), args!["diff", mode], &division);
            let merged = merge(&files).done().json();
            let whole = vhdx_run(args!["diff", mode, "--json", &image]).done().json();
            assert_eq!(merged, whole, "{name} {mode}");
        }
    }
    // The exit code is that of the check of the whole image.
    let mut damaged = Spec::default();
    damaged.raw_bat.insert(6, 4);
    let bad = write_image(folder.path(), "bad.vhdx", &damaged);
    let shard: Division = Box::new(|index| args!["--shard", format!("{index}/4")]);
    let files = results(folder.path(), args!["check", &bad], &shard);
    let (merged, whole) = (merge(&files), vhdx_run(args!["check", "--payload", "--json", &bad]));
    assert_eq!((merged.status.code(), merged.json()), (whole.status.code(), whole.json()));
    assert_eq!(merged.status.code(), Some(2));
}

#[test]
fn workers_write_one_file() {
    let folder = temp_dir();
    let (image, disk) = chain(folder.path());
    for (name, division) in divisions(folder.path(), &image) {
        for sparse in ["zeros", "blocks", "none"] {
            let out = folder.path().join("out.raw");
            // Other bytes, and more of them than the disk has.
            std::fs::write(&out, vec![0xa5; disk.len() + 777]).unwrap();
            let command = |index| {
                let result = folder.path().join(format!("result{index}"));
                let options = args!["extract", "-n", "--verify", "--sparse", sparse, "--result", &result];
                (result, vhdx([options, division(index), args![&out]].concat()))
            };
            // All at once.
            let mut running = Vec::new();
            for index in 1..=4 {
                let (result, mut command) = command(index);
                running.push((result, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
            }
            let mut files = Vec::new();
            for (result, child) in running {
                crate::support::wait(child).done();
                files.push(result);
            }
            let written = std::fs::read(&out).unwrap();
            assert!(written[..disk.len()] == disk, "{name} {sparse}");
            assert!(written[disk.len()..] == [0xa5; 777], "{name}: bytes after the disk stay");
            let merged = merge(&files).done().json();
            let bytes = |key: &str| merged[key].as_u64().unwrap();
            assert_eq!(bytes("data-bytes") + bytes("zero-bytes"), 16 * MIB);
            assert_eq!((&merged["verified"], bytes("output-length")), (&true.into(), 16 * MIB));
            assert_eq!(merged["range"]["length"], 16 * MIB);
        }
        // A file that does not exist, or is too short, is made or extended, by whichever comes first.
        let new = folder.path().join("new.raw");
        for length in [None, Some(1000), Some(9 << 20)] {
            let _ = std::fs::remove_file(&new);
            if let Some(length) = length {
                File::create(&new).unwrap().set_len(length).unwrap();
            }
            for index in [3, 1, 4, 2] {
                vhdx_run([args!["extract", "--in-place"], division(index), args![&new]].concat()).done();
                assert_eq!(new.metadata().unwrap().len(), 16 * MIB);
            }
            assert!(std::fs::read(&new).unwrap() == disk, "{name} {length:?}");
        }
    }
}

#[test]
fn workers_write_one_vhd() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    let whole = folder.path().join("whole.vhd");
    vhdx_run(args!["extract", &image, &whole]).done();
    let shared = folder.path().join("shared.vhd");
    for index in [2, 3, 1] {
        vhdx_run(args!["extract", "-n", "--shard", format!("{index}/3"), &image, &shared]).done();
    }
    let (mut one, mut other) = (std::fs::read(&whole).unwrap(), std::fs::read(&shared).unwrap());
    // The time, and the checksum over it.
    for bytes in [&mut one, &mut other] {
        let footer = bytes.len() - 512;
        bytes[footer + 24..footer + 28].fill(0);
        bytes[footer + 64..footer + 68].fill(0);
    }
    assert!(one == other);
}

#[test]
fn changed_files_are_refused() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    let split = folder.path().join("split.json");
    std::fs::write(&split, vhdx_run(args!["plan", &image, "--lines", "--splits", "1"]).done().out).unwrap();
    let base = folder.path().join("base.vhdx");
    let bytes = std::fs::read(&base).unwrap();
    let out = folder.path().join("out.raw");
    let commands = [
        args!["hash", "-a", "crc32", "--split", &split],
        args!["hash", "-a", "crc32", "--split", &split, &image],
        args!["diff", "--split", &split],
        args!["extract", "-n", "--split", &split, &out],
        args!["check", "--split", &split],
    ];
    for command in &commands {
        vhdx_run(command.clone()).done();
    }
    std::fs::write(&base, [&bytes[..], &[0; 1 << 20]].concat()).unwrap();
    for command in commands {
        let is_check = command[0] == "check";
        let ran = vhdx_run(command);
        assert_fails(&ran, if is_check { 1 } else { 74 }, &["layer 1", "length differs from the expected fingerprint"]);
        assert!(ran.out.is_empty(), "{}", ran.text());
    }
    // A result that could not be completed has no name.
    let result = folder.path().join("result");
    assert_fails(&vhdx_run(args!["hash", "-a", "crc32", "--split", &split, "--result", &result]), 74, &["length"]);
    assert!(!result.exists());
}

#[test]
fn wrong_shares_are_refused() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    let plan = folder.path().join("plan.json");
    std::fs::write(&plan, vhdx_run(args!["plan", &image, "--splits", "3"]).done().out).unwrap();
    let split = folder.path().join("split.json");
    let lines = vhdx_run(args!["plan", &image, "--splits", "3", "--lines"]).done().text();
    std::fs::write(&split, lines.lines().nth(1).unwrap()).unwrap();
    let out = folder.path().join("out.raw");
    let hash = |words: Vec<OsString>| [args!["hash", "-a", "crc32"], words].concat();
    for (command, code, words) in [
        (hash(args!["--split", &plan]), 2, "pass --shard I/N"),
        (hash(args!["--split", &plan, "--shard", "1/4"]), 2, "has 3 splits (expected I/3)"),
        (hash(args!["--split", &split, "--shard", "1/3"]), 2, "is split 2/3"),
        (hash(args!["--split", &image]), 66, "cannot be read"),
        (hash(args!["--split", folder.path().join("missing")]), 66, "cannot be opened"),
        (hash(args!["--shard", "0/3", &image]), 2, "--shard 0/3: not a shard (expected 1/3 to 3/3)"),
        (hash(args!["--shard", "3/3", "--shard-base", "0", &image]), 2, "not a shard (expected 0/3 to 2/3)"),
        (hash(args!["--shard", "4/3", &image]), 2, "not a shard such as 1/4"),
        (hash(args!["--shard", "1/3", &image, &image]), 2, "several images"),
        (args!["check", "--shard", "1/3", &image, &image], 1, "several images"),
        (args!["extract", "--shard", "1/3", &image, &out], 2, "pass --in-place"),
        (args!["extract", "-n", "--shard", "1/3", "--hash", "crc32", &image, &out], 2, "--hash cannot be combined"),
        (args!["extract", "-n", "--shard", "1/3", &image, "-"], 2, "a share cannot be written there"),
        (args!["extract", "-n", "--shard", "1/3", "--range", "0:1M", &image, &out], 2, "--range"),
        (args!["diff", "--shard", "1/3", "--delta", &out, &image], 2, "--delta"),
        (args!["hash", "--shard", "1/3", "--result", &image, "-a", "crc32", &image], 2, "is the image itself"),
        (args!["check", "--shard", "1/3", "--result", &image, &image], 1, "is the image itself"),
        (args!["extract", "-n", "--shard", "1/3", &image, &image], 2, "is the image itself"),
        (args!["hash", "--result", &out, &image], 2, "--result"),
        (args!["plan", "--splits", "0", &image], 2, "--splits"),
        (args!["plan", "--splits", "2", "--split-size", "1M", &image], 2, "--split-size"),
        (args!["hash"], 2, "<IMAGE>"),
        (args!["extract"], 2, "<OUT>"),
        (args!["diff"], 2, "<CHILD>"),
    ] {
        let ran = vhdx_run(&command);
        assert_fails(&ran, code, &[words]);
    }
    assert!(!out.exists());

    // A split that was changed by hand.
    let text = std::fs::read_to_string(&split).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["offset"] = 512.into();
    std::fs::write(&split, json.to_string()).unwrap();
    let ran = vhdx_run(hash(args!["--split", &split]));
    assert_fails(&ran, 65, &["split.json: not a plan or a split", "not a range of blocks"]);
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&plan).unwrap()).unwrap();
    json["splits"][1]["offset"] = json["splits"][0]["offset"].clone();
    std::fs::write(&plan, json.to_string()).unwrap();
    assert_fails(&vhdx_run(hash(args!["--split", &plan, "--shard", "1/3"])), 65, &["split 2 overlaps"]);
}

#[test]
fn merge_refuses_results_that_are_not_all_of_one_work() {
    let folder = temp_dir();
    let (image, _) = chain(folder.path());
    let other = write_image(folder.path(), "other.vhdx", &Spec::empty(16 * MIB).block(3, Block::full()));
    for command in [args!["check"], args!["diff"], args!["extract", "-n"]] {
        let run = |image: &Path, shard: &str, name: &str| {
            let result = folder.path().join(name);
            let out = (command[0] == "extract").then(|| folder.path().join("out.raw"));
            let words = args!["--shard", shard, "--result", &result, image];
            vhdx_run([command.clone(), words, out.into_iter().map(OsString::from).collect()].concat()).done();
            result
        };
        let [one, two, three] = [1, 2, 3].map(|index| run(&image, &format!("{index}/3"), &format!("of-{index}")));
        let refused = |results: &[&PathBuf], words: &[&str]| {
            let results: Vec<PathBuf> = results.iter().copied().cloned().collect();
            let ran = vhdx_run([args!["merge"], results.iter().map(OsString::from).collect()].concat());
            assert_fails(&ran, 65, words);
        };
        refused(&[&one, &three], &["of-3: share 2/3 is missing"]);
        refused(&[&two, &one, &three, &two], &["of-2: share 2/3 occurs twice"]);
        let of_two = run(&image, "2/2", "of-two");
        refused(&[&one, &of_two], &["of-two: wrong share (found 2/2, expected a share of 3)"]);
        let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&two).unwrap()).unwrap();
        json["share"]["offset"] = (json["share"]["offset"].as_u64().unwrap() - MIB).into();
        let moved = folder.path().join("moved");
        std::fs::write(&moved, json.to_string()).unwrap();
        refused(&[&one, &moved, &three], &["moved: share 2/3 overlaps"]);
        let truncated = folder.path().join("truncated");
        let bytes = std::fs::read(&two).unwrap();
        std::fs::write(&truncated, &bytes[..bytes.len() - 10]).unwrap();
        refused(&[&one, &truncated, &three], &["truncated: "]);
        if command[0] != "diff" {
            let of_other = run(&other, "2/3", "of-other");
            refused(&[&one, &of_other, &three], &["of-other: the share is of another disk"]);
        }
        let hashed = folder.path().join("hashed");
        vhdx_run(args!["hash", "-a", "crc32", "--shard", "2/3", "--result", &hashed, &image]).done();
        refused(&[&one, &hashed, &three], &["hashed: not a result of the same command"]);
        let manifest = folder.path().join("manifest");
        let ran = vhdx_run(args!["merge", "--manifest", &manifest, &one, &two, &three]);
        assert_fails(&ran, 2, &["no shards of a manifest"]);
    }
    assert!(!names_in(folder.path()).iter().any(|name| name.ends_with(".partial")));
}

#[test]
fn empty_splits_are_merged_like_others() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    let shares: Vec<PathBuf> = (1..=20)
        .map(|index| {
            let share = folder.path().join(format!("share{index}"));
            vhdx_run(args!["check", "--shard", format!("{index}/20"), "--result", &share, &image]).done();
            let out = folder.path().join("out.raw");
            vhdx_run(args!["extract", "-n", "--shard", format!("{index}/20"), &image, &out]).done();
            share
        })
        .collect();
    assert_eq!(merge(&shares).done().json(), vhdx_run(args!["check", "--payload", "--json", &image]).done().json());
    assert!(std::fs::read(folder.path().join("out.raw")).unwrap() == disk);
}
