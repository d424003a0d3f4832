//! Instructions that the command executes, counted by `valgrind`: the same number on every machine, however busy.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use vhdx_testkit::inputs::{self, Make};
use vhdx_testkit::optional::skip;
use vhdx_testkit::watchdog::Watchdog;

use crate::{inputs_of, temp_dir, vhdx};

/// Instructions of a run; `None` without valgrind.
fn instructions(command: &Command, folder: &Path) -> Option<u64> {
    let log = folder.join("log");
    let mut counting = Command::new("valgrind");
    counting.args(["--tool=cachegrind", "--cache-sim=no", "--branch-sim=no", "--cachegrind-out-file=/dev/null"]);
    counting.arg(format!("--log-file={}", log.display())).arg(command.get_program()).args(command.get_args());
    let started = counting.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = started else {
        skip("valgrind", "valgrind is not installed");
        return None;
    };
    let watchdog = Watchdog::over(child.id());
    child.wait().unwrap();
    watchdog.assert_idle();
    let report = fs::read_to_string(&log).unwrap();
    // `I refs: 1,234`
    let line = report.lines().find(|line| line.contains("refs:"));
    assert!(line.is_some(), "no count: {report}");
    Some(line.unwrap().rsplit(' ').next().unwrap().replace(',', "").parse().unwrap())
}

/// Inputs whose structures the processor has to parse, with their parts of the size for tests, and a command that does
/// so.
const ROWS: [(Make, u64, &str); 14] = [
    (inputs::written_table, 64, "map --salvage"),
    (inputs::scattered_blocks, 64, "map --salvage"),
    (inputs::many_gaps, 1024, "map"),
    (inputs::lost_tail, 16, "check"),
    (inputs::long_claims, 16, "log"),
    (inputs::sparse_log, 4, "log"),
    (inputs::long_zeros, 1, "info"),
    (inputs::many_sectors, 4, "log"),
    (inputs::many_zeros, 4, "log"),
    (inputs::many_regions, 1, "info"),
    (inputs::overlapping_regions, 1, "check"),
    (inputs::many_items, 1, "info"),
    (inputs::shared_keys, 1, "check"),
    (inputs::many_keys, 8, "info"),
];

#[test]
fn instructions_are_linear_in_size() {
    let mut wrong = Vec::new();
    for (make, part, command) in ROWS {
        let folder = temp_dir();
        let [small, large] = inputs_of(make, folder.path(), [part * 4, part]);
        let words = format!("{command} IMAGE");
        let counts = [&small, &large].map(|input| instructions(&vhdx(&words, &input.path), folder.path()));
        let [Some(before), Some(after)] = counts else { return };
        println!("{command} of {}: {before} instructions become {after}", large.name);
        if after > 5 * before {
            wrong.push(format!("{command} of {}: {before} instructions become {after}", large.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
