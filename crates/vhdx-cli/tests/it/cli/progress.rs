//! Progress for programs, and on request.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB};
use crate::support::{temp_dir, vhdx, wait};

use super::{args, vhdx_run, write_image};

/// A disk of 100 blocks, every second of which has data.
fn spec() -> Spec {
    (0..50).fold(Spec::empty(100 * MIB), |spec, number| spec.block(2 * number, Block::full()))
}

#[test]
fn plain_progress_counts_to_100_percent() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &spec());
    let out = folder.path().join("out");
    for command in [
        args!["extract", "-p", "--force", &path, &out],
        args!["convert", "-p", "-f", "vhdx", "-O", "raw", "--force", &path, &out],
        args!["extract", "--progress", "plain", "--force", &path, &out],
        args!["hash", "-p", &path],
        args!["hash", "--progress=plain", "-a", "crc32", &path],
        args!["compare", "-p", &path, &out],
        args!["check", "-p", "--payload", &path],
    ] {
        let ran = vhdx_run(&command).done();
        let percents: Vec<f64> = ran
            .err
            .lines()
            .filter_map(|line| line.strip_prefix("    (")?.strip_suffix("/100%)"))
            .map(|percent| percent.parse().unwrap())
            .collect();
        assert!(percents.len() > 2 && percents.len() <= 100, "{command:?}: {}", ran.err);
        assert!(percents.contains(&100.0) && percents.iter().all(|percent| *percent > 0.0), "{command:?}: {}", ran.err);
        let closing = ran.err.lines().last().unwrap();
        assert!(closing.contains(": 100.00 MiB (104857600 bytes) in "), "{command:?}: {}", ran.err);
    }
    let quiet = vhdx_run(args!["hash", "-p", "-q", &path]).done();
    assert_eq!(quiet.err, "");
    for none in [args!["hash", &path], args!["hash", "--progress", "none", &path]] {
        assert_eq!(vhdx_run(none).done().err, "");
    }
}

#[test]
fn json_progress_is_a_line_for_each_percent() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &spec());
    let ran = vhdx_run(args!["extract", "--progress", "json", &path, folder.path().join("out"), "--verify"]).done();
    let lines: Vec<Value> = ran.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (phase, name) in [("extract", "disk.vhdx"), ("verify", "out")] {
        let of_phase: Vec<&Value> = lines.iter().filter(|line| line["phase"] == phase).collect();
        let (last, others) = of_phase.split_last().unwrap();
        assert!(others.len() > 1 && others.len() <= 100, "{}", ran.err);
        assert!(others.iter().all(|line| line["finished"] == false && line["total-bytes"] == 100 * MIB));
        assert_eq!((&last["finished"], &last["done-bytes"]), (&json!(true), &json!(100 * MIB)), "{last}");
        assert!(last["filename"].as_str().unwrap().ends_with(name) && last["seconds"].is_number(), "{last}");
    }
}

#[test]
fn signal_prints_a_line_of_progress() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &spec());
    let mut command = vhdx(args!["extract", &path, "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The pipe is smaller than the disk, so the program waits for its reader.
    let mut first = [0; 4096];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    for _ in 0..2 {
        let killed = Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
    let ran = wait(child).done();
    assert_eq!(ran.out.len() + first.len(), usize::try_from(100 * MIB).unwrap());
    let line = ran.err.lines().next().unwrap_or_default();
    assert!(line.starts_with("vhdx: extract ") && line.contains(" of 100.00 MiB "), "{}", ran.err);
    assert!(line.contains("disk.vhdx: ") && line.ends_with("/s"), "{}", ran.err);
}
