//! Signals and closed pipes.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::kit::builder::Spec;
use crate::kit::{Block, GIB, MIB};
use crate::support::{Ran, temp_dir, vhdx, wait};
use crate::traced::{Call, Traced};

use super::{args, names_in, write_image};

/// The command with pipes and without ignored signals: a shell that runs the tests in the background ignores some.
pub(super) fn command(args: Vec<OsString>) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM"]).arg(vhdx::<&str>([]).get_program()).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(args: Vec<OsString>) -> Child {
    command(args).spawn().unwrap()
}

/// Whether a system call writes to a file at or below this path, or shares blocks of another file with it.
pub(super) fn writes_to(call: Call, path: &Path) -> bool {
    let into = |arg| call.file(arg).is_some_and(|file| file.starts_with(path));
    (call.is_any(&[libc::SYS_write, libc::SYS_pwrite64, libc::SYS_ioctl]) && into(0))
        || (call.is_any(&[libc::SYS_copy_file_range]) && into(2))
}

/// Starts the command, and holds it at the first write to a file below a folder, in the middle of its work. `None` if
/// programs cannot be traced.
pub(super) fn start_and_hold(command: &mut Command, folder: &Path) -> Option<Traced> {
    let mut running = Traced::start(command)?;
    assert!(running.run_until(|call| writes_to(call, folder)), "nothing is written");
    Some(running)
}

#[test]
fn closed_pipe_is_no_failure_for_text() {
    let folder = temp_dir();
    // Many lines: more than a pipe holds.
    let mut spec = Spec::empty(4 * GIB);
    for number in (0..4096).step_by(2) {
        spec = spec.block(number, Block::zero());
    }
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    for args in [
        args!["map", &path],
        args!["map", "--output", "json", &path],
        args!["info", &path],
        args!["info", "--output", "json", &path],
        args!["log", &path],
        args!["chain", &path],
        args!["--help"],
    ] {
        let mut child = start(args.clone());
        drop(child.stdout.take());
        let ran = wait(child);
        assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""), "{args:?}");
    }
    // A reader that closes the pipe after a part of the output.
    let mut child = start(args!["map", &path]);
    let mut some = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let ran = wait(child);
    assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""));
}

#[test]
fn closed_pipe_is_a_failure_for_answers() {
    let folder = temp_dir();
    let [one, other] = ["one.vhdx", "other.vhdx"].map(|name| {
        let spec = if name == "one.vhdx" { Spec::default() } else { Spec::empty(8 * MIB) };
        write_image(folder.path(), name, &spec)
    });
    let manifest = folder.path().join("manifest");
    super::vhdx_run(args!["hash", "--manifest", &manifest, &other]).done();
    for args in [
        args!["compare", &one, &other],
        args!["compare", "--all", "--output", "json", &one, &other],
        args!["verify", &one, "--manifest", &manifest],
    ] {
        let mut child = start(args.clone());
        drop(child.stdout.take());
        let ran = wait(child);
        assert_eq!((ran.status.signal(), &*ran.err), (Some(13), ""), "{args:?}");
    }
}

#[test]
fn closed_pipe_ends_data_output_by_sigpipe() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for args in [args!["read", "--range", "0:", &path], args!["extract", &path, "-"]] {
        let mut child = start(args.clone());
        let mut some = [0; 1000];
        child.stdout.take().unwrap().read_exact(&mut some).unwrap();
        assert!(some == crate::kit::pattern(1, 0, 1000)[..]);
        let ran = wait(child);
        assert_eq!((ran.status.signal(), &*ran.err), (Some(13), ""), "{args:?}");
    }
}

/// Blocks of a disk that takes many system calls to read.
const BLOCKS: u64 = 64;

/// Makes every block of a disk the same MiB of its file.
fn repeat_block(spec: Spec) -> Spec {
    let mut spec = spec.block(0, Block::full().at(4 * MIB));
    spec.raw_bat.extend((1..BLOCKS).map(|number| (number, (4 * MIB) | 6)));
    spec
}

fn long_work(folder: &Path) -> PathBuf {
    write_image(folder, "disk.vhdx", &repeat_block(Spec::empty(BLOCKS * MIB)))
}

/// The content of such a disk.
fn repeated() -> Vec<u8> {
    crate::kit::pattern(1, 0, 1 << 20).repeat(usize::try_from(BLOCKS).unwrap())
}

fn has_files_without_name(folder: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;

    let is_possible = File::options().write(true).custom_flags(libc::O_TMPFILE).open(folder).is_ok();
    if !is_possible {
        crate::kit::optional::skip("unnamed", "the file system has no files without a name");
    }
    is_possible
}

#[test]
fn signal_ends_extract_and_leaves_no_file() {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let old = folder.path().join("old");
    std::fs::write(&old, "precious").unwrap();
    // Interrupt, hang-up and termination; and what no program can prepare for, where files need no name.
    let mut signals = vec![(2, "new"), (1, "new"), (15, "old")];
    if has_files_without_name(folder.path()) {
        signals.extend([(9, "new"), (9, "old")]);
    }
    for (signal, out) in signals {
        let mut command = command(args!["extract", "--quiet", "--force", &path, folder.path().join(out)]);
        let Some(mut running) = start_and_hold(&mut command, folder.path()) else { return };
        assert!(!folder.path().join("new").exists(), "the output must not appear before it is complete");
        running.signal(signal);
        let ran = Ran::from(running.finish());
        assert_eq!(ran.status.signal(), Some(signal), "{}: {}", ran.status, ran.err);
        assert_eq!(ran.err.trim(), "");
        assert_eq!(names_in(folder.path()), ["disk.vhdx", "old"]);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "precious");
    }
}

#[test]
fn ignored_signal_does_not_end_extract() {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let out = folder.path().join("out");
    // Like `nohup`.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(vhdx::<&str>([]).get_program());
    command.arg("extract").arg(&path).arg(&out).stdin(Stdio::null()).stderr(Stdio::piped());
    let Some(running) = start_and_hold(&mut command, folder.path()) else { return };
    let status = Command::new("kill").arg("-HUP").arg(running.id().to_string()).status().unwrap();
    assert!(status.success());
    Ran::from(running.finish()).done();
    assert!(std::fs::read(&out).unwrap() == repeated());
}

#[test]
fn interrupted_extract_to_a_device_warns() {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let backing = folder.path().join("device.img");
    File::create(&backing).unwrap().set_len(BLOCKS * MIB).unwrap();
    let Some(device) = crate::device::Loop::of(&backing) else { return };
    let mut command = command(args!["extract", "--force", &path, &device.0]);
    let Some(mut running) = Traced::start(&mut command) else { return };
    let is_write = |call: Call| call.is_any(&[libc::SYS_write, libc::SYS_pwrite64]) && writes_to(call, &device.0);
    assert!(running.run_until(is_write));
    running.signal(2);
    let ran = Ran::from(running.finish());
    assert_eq!(ran.status.signal(), Some(2), "{}: {}", ran.status, ran.err);
    assert!(ran.err.contains(device.0.to_str().unwrap()) && ran.err.contains("part"), "{}", ran.err);
}

#[test]
fn signal_ends_extract_to_a_stream() {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let mut child = start(args!["extract", "--quiet", &path, "-"]);
    let mut some = vec![0; 100_000];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    // More is left than the pipe holds.
    let status = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
    let ran = wait(child);
    assert_eq!((ran.status.signal(), &*ran.err), (Some(15), ""));
    drop(out);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"]);
}

#[test]
fn file_size_limit_leaves_no_file() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    // In blocks of 512 bytes or 1 KiB, depending on the shell: less than the disk has.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"]).arg(vhdx::<&str>([]).get_program());
    command.arg("extract").arg(&path).arg(folder.path().join("out"));
    let ran = crate::support::run(&mut command);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"], "{}: {}", ran.status, ran.err);
    assert!(!ran.status.success());
    assert!(File::open(folder.path().join("out")).is_err());
}

#[test]
fn signal_ends_diff_and_merge_and_leaves_no_file() {
    let folder = temp_dir();
    let size = BLOCKS * MIB;
    let base = write_image(folder.path(), "base.vhdx", &Spec::empty(size));
    let spec = repeat_block(Spec::child_of(&Spec::empty(size), "base.vhdx"));
    let child = write_image(folder.path(), "child.avhdx", &spec);
    let delta = folder.path().join("delta");
    let mut making = command(args!["diff", "--quiet", "--allocated", &child, "--delta", &delta]);
    let Some(mut running) = start_and_hold(&mut making, folder.path()) else { return };
    running.signal(2);
    let ran = Ran::from(running.finish());
    assert_eq!((ran.status.signal(), &*ran.err), (Some(2), ""));
    assert_eq!(names_in(folder.path()), ["base.vhdx", "child.avhdx"]);

    // The second share comes from a pipe.
    let shares = ["1/2", "2/2"].map(|shard| {
        let share = folder.path().join(format!("share{}", &shard[..1]));
        super::vhdx_run(args!["hash", "--manifest", &share, "--shard", shard, &base]).done();
        share
    });
    let pipe = folder.path().join("pipe");
    super::target::make_pipe(&pipe);
    let merged = folder.path().join("merged");
    let share = std::fs::read(&shares[1]).unwrap();
    std::thread::scope(|scope| {
        // Opening a pipe waits for the other side.
        scope.spawn(|| std::fs::write(&pipe, &share).unwrap());
        let mut merging = command(args!["merge", &shares[0], &pipe, "--manifest", &merged]);
        let Some(mut running) = Traced::start(&mut merging) else {
            drop(std::fs::read(&pipe));
            return;
        };
        let reads_pipe = |call: Call| call.is_any(&[libc::SYS_read]) && call.file(0).as_ref() == Some(&pipe);
        assert!(running.run_until(reads_pipe));
        let known = ["base.vhdx", "child.avhdx", "pipe", "share1", "share2"];
        running.signal(2);
        let ran = Ran::from(running.finish());
        assert_eq!((ran.status.signal(), &*ran.err), (Some(2), ""));
        assert_eq!(names_in(folder.path()), known);
    });
}
