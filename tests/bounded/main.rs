//! What the command takes of time and memory for images that are made to take much: a test of its own, since the peak that
//! the system tells of a child begins with what its parent has.
//!
//! `cargo test --release --test bounded -- --ignored --nocapture` prints the table of `docs/hostile-input.md`.
#![cfg(all(target_os = "linux", feature = "cli"))]
#![expect(
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is a failed test, and what was measured is worth a line"
)]

#[path = "../it/kit/mod.rs"]
mod kit;

mod inputs;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inputs::{Input, Make, Size};
use kit::MIB;

/// What no command may take of memory.
const MOST_MEMORY: u64 = 100 * MIB;

/// What no command may take of processor time, in a build that is optimised as a release is.
const MOST_TIME: Duration = Duration::from_secs(2);

/// How much slower the build may be that is under test.
const SLOWER: u32 = if cfg!(debug_assertions) { 4 } else { 1 };

/// What hangs is stopped, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// Those that look at structures: what the others take depends on how much they are to read.
const COMMANDS: [&str; 7] = ["info", "map", "log", "chain", "check", "info --salvage", "map --salvage"];

/// What a run took.
#[derive(Debug)]
struct Cost {
    /// How it ended; none if it had to be stopped.
    code: Option<i32>,
    wall: Duration,
    processor: Duration,
    peak: u64,
}

/// Waits for the end of a child, and tells what it took.
fn wait(child: Child, since: Instant) -> Cost {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: `rusage` is a plain structure of numbers, for which zeros are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    loop {
        // SAFETY: both pointers are to places of the right types that live until the call returns.
        let waited = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
        match waited {
            0 if since.elapsed() > PATIENCE => {
                // SAFETY: a plain call; the child has not been waited for, so the number is still its own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            0 => std::thread::sleep(Duration::from_micros(200)),
            found => {
                assert_eq!(found, pid, "{}", io::Error::last_os_error());
                break;
            }
        }
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Cost {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        wall: since.elapsed(),
        processor: time(usage.ru_utime) + time(usage.ru_stime),
        peak: usage.ru_maxrss.unsigned_abs() << 10,
    }
}

/// Runs a command on an image; what it prints goes to a file.
fn run(command: &str, path: &Path, out: &Path) -> Cost {
    run_with(&command.split(' ').map(Path::new).chain([path]).collect::<Vec<_>>(), File::create(out).unwrap())
}

fn run_with(words: &[&Path], out: File) -> Cost {
    // The peak of this process begins anew: the child's begins with it.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let mut vhdx = Command::new(env!("CARGO_BIN_EXE_vhdx"));
    vhdx.args(words).stdin(Stdio::null()).stderr(Stdio::null());
    let since = Instant::now();
    let child = vhdx.stdout(out).spawn().unwrap();
    wait(child, since)
}

fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs every command on every input, so many times each; of the runs of one command, the one in the middle is judged.
fn for_each_run(size: Size, times: usize, mut judge: impl FnMut(&Input, &str, Cost)) {
    let folder = temp_dir();
    let out = folder.path().join("out");
    for make in inputs::ALL {
        let inside = tempfile::tempdir_in(folder.path()).unwrap();
        let input = make(inside.path(), size);
        for command in COMMANDS {
            let mut costs: Vec<Cost> = (0..times).map(|_| run(command, &input.path, &out)).collect();
            costs.sort_by_key(|cost| cost.wall);
            judge(&input, command, costs.swap_remove(times / 2));
        }
    }
}

#[test]
fn hostile_images_take_neither_memory_nor_time() {
    let mut wrong = Vec::new();
    let (mut runs, mut slowest) = (0, Duration::ZERO);
    for_each_run(Size::Small, 1, |input, command, cost| {
        (runs, slowest) = (runs + 1, slowest.max(cost.processor));
        if cost.peak > MOST_MEMORY || cost.processor > MOST_TIME * SLOWER {
            wrong.push(format!("{command} of {}: {cost:?}", input.name));
        }
        // The image is as bad as it is meant to be, and no worse.
        let expected = input.codes[COMMANDS.iter().position(|name| *name == command).unwrap()];
        if cost.code != Some(expected) {
            wrong.push(format!("{command} of {}: {cost:?} instead of code {expected}", input.name));
        }
    });
    println!("{slowest:?} of the processor at most");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(runs >= COMMANDS.len() * 15, "{runs}");
}

/// Of what is not there, those that read everything take no more than those that look at structures.
#[test]
fn what_is_not_there_costs_nothing_to_read() {
    let folder = temp_dir();
    // The command, with `IMAGE` for the image.
    let rows: [(Make, &[&str]); 3] = [
        (
            inputs::empty_disk,
            &[
                "check --payload IMAGE",
                "extract IMAGE /dev/null",
                "extract --salvage IMAGE /dev/null",
                "extract IMAGE -",
            ],
        ),
        (inputs::written_table, &["check --payload IMAGE", "extract IMAGE /dev/null"]),
        (inputs::many_gaps, &["check IMAGE"]),
    ];
    for (make, commands) in rows {
        let inside = tempfile::tempdir_in(folder.path()).unwrap();
        let input = make(inside.path(), Size::Small);
        for command in commands {
            let word = |word| if word == "IMAGE" { input.path.as_path() } else { Path::new(word) };
            let null = File::options().write(true).open("/dev/null").unwrap();
            let cost = run_with(&command.split(' ').map(word).collect::<Vec<_>>(), null);
            let is_bounded = cost.peak <= MOST_MEMORY && cost.processor <= MOST_TIME * SLOWER;
            assert!(is_bounded && cost.code == Some(0), "{command} of {}: {cost:?}", input.name);
        }
    }
}

/// That the measure measures: a process that takes memory and time is seen to do so.
#[test]
fn what_takes_memory_and_time_is_seen() {
    let since = Instant::now();
    let script = "x=$(head -c 120000000 /dev/zero | tr '\\0' 'x'); [ ${#x} = 120000000 ]";
    let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
    let cost = wait(child, since);
    assert_eq!(cost.code, Some(0));
    assert!(cost.peak > MOST_MEMORY && cost.processor > Duration::from_millis(10), "{cost:?}");
}

#[test]
#[ignore = "prints the table of the documentation, from files of several GiB"]
fn table() {
    println!("| input | command | exit code | time | of the processor | peak memory |\n|---|---|---|---|---|---|");
    for_each_run(Size::Large, 3, |input, command, cost| {
        let code = cost.code.map_or("none".to_owned(), |code| code.to_string());
        let [wall, processor] = [cost.wall, cost.processor].map(|time| time.as_secs_f64());
        let peak = cost.peak >> 20;
        println!("| {} | `{command}` | {code} | {wall:.3} s | {processor:.3} s | {peak} MiB |", input.name);
    });
}
