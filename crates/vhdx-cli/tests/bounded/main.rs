//! Growth of the cost of the command with images that are made to be expensive.
//!
//! Nothing here depends on time. The tests count what the command does: page faults, system calls, peak memory, and,
//! with `valgrind`, instructions. Each input is made in two sizes, one four times the other: linear work costs four
//! times as much, quadratic work sixteen times. `cargo bench --bench hostile` measures times.
#![cfg(target_os = "linux")]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is a failed test, and what was measured is worth a line"
)]

mod instructions;

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use vhdx_testkit::MIB;
use vhdx_testkit::inputs::{self, COMMANDS, Input, Make, Size};
use vhdx_testkit::traced::{Ended, Traced};

/// Limit of the memory of a command.
const MOST_MEMORY: u64 = 100 * MIB;

/// Limit of the system calls of a command: it is stopped there, since it would only take longer to fail.
const MOST_CALLS: u64 = 50_000;

/// Cost of a run.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// The exit code; `None` if a signal ended the command.
    code: Option<i32>,
    peak: u64,
    faults: u64,
    /// System calls, except those by which threads wait for each other.
    calls: u64,
}

impl Cost {
    /// What is wrong with the growth from this cost to that of an input `times` as large. The constants allow for what
    /// varies from run to run: threads, and how many pages the system maps at once.
    fn growth_to(&self, larger: &Self, times: u64) -> Option<String> {
        let measures = [
            ("page faults", self.faults, larger.faults, 1000),
            ("system calls", self.calls, larger.calls, 200),
            ("bytes of memory", self.peak, larger.peak, 16 * MIB),
        ];
        let is_too_much = |(_, before, after, some): &(_, u64, u64, u64)| *after > times * before + some;
        let wrong = measures.into_iter().find(is_too_much);
        wrong.map(|(what, before, after, _)| format!("{before} {what} become {after}"))
    }
}

/// Runs a program to its end; `None` if programs cannot be traced.
fn cost_of(command: &mut Command) -> Option<Cost> {
    let mut traced = start(command)?;
    let mut calls = 0;
    while let Some(call) = traced.next_call() {
        calls += u64::from(!call.is_of_scheduling());
        if calls > MOST_CALLS {
            break;
        }
    }
    let ended = if calls > MOST_CALLS { traced.kill() } else { traced.finish() };
    Some(Cost { calls, ..cost_without_calls(&ended) })
}

fn start(command: &mut Command) -> Option<Traced> {
    Traced::start(command.stdin(Stdio::null()).stderr(Stdio::null()))
}

fn cost_without_calls(ended: &Ended) -> Cost {
    let faults = [ended.usage.ru_minflt, ended.usage.ru_majflt].map(i64::unsigned_abs).iter().sum();
    Cost { code: ended.status.code(), peak: ended.peak, faults, calls: 0 }
}

/// The command with these arguments; `IMAGE` stands for the image.
fn vhdx(words: &str, image: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhdx"));
    command.args(words.split(' ').map(|word| if word == "IMAGE" { image.as_os_str() } else { OsStr::new(word) }));
    command
}

/// Cost of a command for an image. Its output goes to a file.
fn cost(words: &str, image: &Path, out: &Path) -> Option<Cost> {
    cost_of(vhdx(words, image).stdout(File::create(out).unwrap()))
}

/// Cost of a command without its system calls, which is faster for large images.
fn cost_at_full_speed(words: &str, image: &Path, out: &Path) -> Option<Cost> {
    let traced = start(vhdx(words, image).stdout(File::create(out).unwrap()))?;
    Some(cost_without_calls(&traced.finish()))
}

fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Makes an input in several sizes, each in its own folder.
fn inputs_of<const N: usize>(make: Make, folder: &Path, parts: [u64; N]) -> [Input; N] {
    parts.map(|part| make(&tempfile::tempdir_in(folder).unwrap().keep(), Size::Part(part)))
}

#[test]
fn cost_of_hostile_images_is_linear_in_size() {
    let mut wrong = Vec::new();
    let mut grown = 0;
    for make in inputs::ALL {
        let folder = temp_dir();
        let out = folder.path().join("out");
        let [small, large, full] = inputs_of(*make, folder.path(), [16, 4, 1]);
        for (index, command) in COMMANDS.into_iter().enumerate() {
            let words = format!("{command} IMAGE");
            let mut is_wrong = |what: String| wrong.push(format!("{command} of {}: {what}", full.name));
            let Some(most) = cost_at_full_speed(&words, &full.path, &out) else { return };
            let mut codes = vec![most.code];
            if most.peak > MOST_MEMORY {
                is_wrong(format!("{} bytes of memory", most.peak));
            }
            // Some inputs have one size only.
            if small.name != large.name {
                let [Some(before), Some(after)] = [&small, &large].map(|input| cost(&words, &input.path, &out)) else {
                    return;
                };
                println!("{command} of {}: {before:?} {after:?} {most:?}", full.name);
                // Five times instead of four: memory for four times as much is allocated more often.
                if let Some(growth) = before.growth_to(&after, 5) {
                    is_wrong(growth);
                }
                codes.extend([before.code, after.code]);
                grown += 1;
            }
            // The image must be as bad as it is meant to be, and no worse.
            if codes.iter().any(|code| *code != Some(full.codes[index])) {
                is_wrong(format!("{codes:?} instead of code {}", full.codes[index]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(grown >= COMMANDS.len() * 15, "{grown}");
}

/// Commands that read all content cost hardly more for a disk with more unallocated space.
#[test]
fn reading_unallocated_space_is_free() {
    let rows: [(Make, u64, &[&str]); 3] = [
        (
            inputs::empty_disk,
            2,
            &[
                "check --payload IMAGE",
                "extract IMAGE /dev/null",
                "extract --salvage IMAGE /dev/null",
                "extract IMAGE -",
            ],
        ),
        // Here the whole table is written: it is read, but nothing else is.
        (inputs::written_table, 5, &["check --payload IMAGE", "extract IMAGE /dev/null"]),
        (inputs::many_gaps, 5, &["check IMAGE"]),
    ];
    for (make, times, commands) in rows {
        let folder = temp_dir();
        let [small, large] = inputs_of(make, folder.path(), [4, 1]);
        for command in commands {
            let null = Path::new("/dev/null");
            let costs = [&small, &large].map(|input| cost(command, &input.path, null));
            let [Some(before), Some(after)] = costs else { return };
            println!("{command} of {}: {before:?} {after:?}", large.name);
            let growth = before.growth_to(&after, times);
            assert_eq!(growth, None, "{command} of {}", large.name);
            assert!(after.peak <= MOST_MEMORY, "{command} of {}: {after:?}", large.name);
            assert_eq!([before.code, after.code], [Some(0); 2], "{command} of {}", large.name);
        }
    }
}

/// Checks the counters: a process that uses memory, touches pages and makes system calls is charged for them.
#[test]
fn counters_see_calls_and_memory() {
    let dd = |block: u64, count: u64| {
        let sizes = [format!("bs={block}"), format!("count={count}")];
        cost_of(Command::new("dd").args(["if=/dev/zero", "of=/dev/null"]).args(sizes).stdout(Stdio::null()))
    };
    let Some(memory) = dd(120 * MIB, 1) else { return };
    assert!(memory.code == Some(0) && memory.peak > MOST_MEMORY, "{memory:?}");
    // A read and a write for each block.
    let [some, linear, quadratic, endless] = [1000, 4000, 16_000, 1_000_000].map(|count| dd(1, count).unwrap());
    assert!((2000..2600).contains(&some.calls), "{some:?}");
    assert!((8000..8600).contains(&linear.calls), "{linear:?}");
    assert_eq!(some.growth_to(&linear, 5), None);
    assert!(some.growth_to(&quadratic, 5).unwrap().ends_with(&format!("system calls become {}", quadratic.calls)));
    assert!(endless.code.is_none() && endless.calls > MOST_CALLS, "{endless:?}");
    let few = Cost { faults: 1000, ..some };
    let more = |faults| Cost { faults, ..some };
    assert!(few.growth_to(&more(6000), 5).is_none() && few.growth_to(&more(6001), 5).is_some());
    assert!(memory.growth_to(&memory, 5).is_none());
    assert!(some.growth_to(&Cost { peak: memory.peak, ..some }, 5).unwrap().contains("bytes of memory"));
}
