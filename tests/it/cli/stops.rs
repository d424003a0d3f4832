//! What happens when somebody stops the command, or does not listen any more.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kit::builder::Spec;
use crate::kit::{Block, GIB, MIB};
use crate::support::{skip, temp_dir, vhdx, wait};

use super::{args, names_in, write_image};

/// The command, started, with a pipe on standard output, and with no signal ignored: whoever runs the tests in the
/// background has some that are.
pub(super) fn start(args: Vec<OsString>) -> Child {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM"]).arg(vhdx::<&str>([]).get_program()).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn text_that_nobody_reads_is_no_failure() {
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
    // Whoever has seen enough goes away in the midst of it.
    let mut child = start(args!["map", &path]);
    let mut some = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let ran = wait(child);
    assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""));
}

#[test]
fn an_answer_that_nobody_reads_is_not_taken_for_yes() {
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
fn bytes_of_the_disk_that_nobody_reads_end_it_by_sigpipe() {
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

/// A disk of 8 GiB of data, all of which is the same MiB of the file, so that extracting it takes seconds.
fn long_work(folder: &Path) -> PathBuf {
    let mut spec = Spec::empty(8 * GIB).block(0, Block::full().at(4 * MIB));
    for number in 1..8192 {
        // Of the chunks' bitmaps, the entries of which lie between those of the blocks, there is one for 4096 blocks.
        spec.raw_bat.insert(number + number / 4096, (4 * MIB) | 6);
    }
    write_image(folder, "disk.vhdx", &spec)
}

fn has_room(folder: &Path) -> bool {
    let found = rustix::fs::statvfs(folder).unwrap();
    found.f_bavail * found.f_frsize > 9 * GIB
}

/// Waits until something other than `known` in the folder has content.
fn wait_for_work(folder: &Path, known: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(Instant::now() < deadline, "the work does not begin");
        let is_new = |name: &String| !known.contains(&name.as_str());
        for name in names_in(folder).into_iter().filter(is_new) {
            if std::fs::metadata(folder.join(name)).is_ok_and(|metadata| metadata.blocks() > 0) {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send(signal: i32, child: &Child) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_signal_ends_an_extraction_and_nothing_is_left_of_it() {
    let folder = temp_dir();
    if !has_room(folder.path()) {
        return skip("room", "less than 9 GiB free for a long extraction");
    }
    let path = long_work(folder.path());
    let old = folder.path().join("old");
    std::fs::write(&old, "precious").unwrap();
    // Interrupt, hang-up and termination.
    for (signal, out) in [(2, "new"), (1, "new"), (15, "old")] {
        let child = start(args!["extract", "--quiet", "--force", &path, folder.path().join(out)]);
        wait_for_work(folder.path(), &["disk.vhdx", "old"]);
        assert!(!folder.path().join("new").exists(), "the output must not appear before it is complete");
        send(signal, &child);
        let ran = wait(child);
        assert_eq!(ran.status.signal(), Some(signal), "{}: {}", ran.status, ran.err);
        assert_eq!(ran.err.trim(), "");
        assert_eq!(names_in(folder.path()), ["disk.vhdx", "old"]);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "precious");
    }
}

#[test]
fn a_signal_that_is_ignored_does_not_end_an_extraction() {
    let folder = temp_dir();
    if !has_room(folder.path()) {
        return skip("room", "less than 9 GiB free for a long extraction");
    }
    let path = long_work(folder.path());
    // As `nohup` does it.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(vhdx::<&str>([]).get_program());
    command.arg("extract").arg(&path).arg(folder.path().join("out"));
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_work(folder.path(), &["disk.vhdx"]);
    send(1, &child);
    std::thread::sleep(Duration::from_millis(300));
    let ended = child.try_wait().unwrap();
    if ended.is_none() {
        send(15, &child);
    }
    let ran = wait(child);
    assert!(ended.is_none(), "{}: {}", ran.status, ran.err);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"]);
}

#[test]
fn a_device_of_which_a_part_was_written_is_told_as_such() {
    let folder = temp_dir();
    if !has_room(folder.path()) {
        return skip("room", "less than 9 GiB free for a long extraction");
    }
    let path = long_work(folder.path());
    let backing = folder.path().join("device.img");
    File::create(&backing).unwrap().set_len(8 * GIB).unwrap();
    let Some(device) = super::device::Loop::of(&backing) else { return };
    let child = start(args!["extract", "--force", &path, &device.0]);
    wait_for_work(folder.path(), &["disk.vhdx"]);
    send(2, &child);
    let ran = wait(child);
    assert_eq!(ran.status.signal(), Some(2), "{}: {}", ran.status, ran.err);
    assert!(ran.err.contains(device.0.to_str().unwrap()) && ran.err.contains("part"), "{}", ran.err);
}

#[test]
fn a_signal_ends_a_stream() {
    let folder = temp_dir();
    let path = long_work(folder.path());
    let mut child = start(args!["extract", "--quiet", &path, "-"]);
    let mut some = vec![0; 100_000];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    send(15, &child);
    let ran = wait(child);
    assert_eq!((ran.status.signal(), &*ran.err), (Some(15), ""));
    drop(out);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"]);
}

#[test]
fn a_limit_on_the_length_of_files_leaves_nothing_behind() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    // In blocks of 512 bytes or 1 KiB, as the shell counts: less than the disk has.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"]).arg(vhdx::<&str>([]).get_program());
    command.arg("extract").arg(&path).arg(folder.path().join("out"));
    let ran = crate::support::run(&mut command);
    assert_eq!(names_in(folder.path()), ["disk.vhdx"], "{}: {}", ran.status, ran.err);
    assert!(!ran.status.success());
    assert!(File::open(folder.path().join("out")).is_err());
}

#[test]
fn a_signal_ends_a_delta_and_a_merge_and_nothing_is_left_of_them() {
    let folder = temp_dir();
    if !has_room(folder.path()) {
        return skip("room", "less than 9 GiB free for a long extraction");
    }
    let base = write_image(folder.path(), "base.vhdx", &Spec::empty(8 * GIB));
    let mut spec = Spec::child_of(&Spec::empty(8 * GIB), "base.vhdx").block(0, Block::full().at(4 * MIB));
    for number in 1..8192 {
        spec.raw_bat.insert(number + number / 4096, (4 * MIB) | 6);
    }
    let child = write_image(folder.path(), "child.avhdx", &spec);
    let delta = folder.path().join("delta");
    let running = start(args!["diff", "--quiet", "--allocated", &child, "--delta", &delta]);
    wait_for_work(folder.path(), &["base.vhdx", "child.avhdx"]);
    send(2, &running);
    let ran = wait(running);
    assert_eq!((ran.status.signal(), &*ran.err), (Some(2), ""));
    assert_eq!(names_in(folder.path()), ["base.vhdx", "child.avhdx"]);

    // The second share comes from a pipe, and takes its time.
    let shares = ["1/2", "2/2"].map(|shard| {
        let share = folder.path().join(format!("share{}", &shard[..1]));
        super::vhdx_run(args!["hash", "--manifest", &share, "--shard", shard, &base]).done();
        share
    });
    let slow = folder.path().join("slow");
    assert!(Command::new("mkfifo").arg(&slow).status().unwrap().success());
    let merged = folder.path().join("merged");
    let running = start(args!["merge", &shares[0], &slow, "--manifest", &merged]);
    let mut pipe = File::options().write(true).open(&slow).unwrap();
    let share = std::fs::read(&shares[1]).unwrap();
    let header = share.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    std::io::Write::write_all(&mut pipe, &share[..header]).unwrap();
    let known = ["base.vhdx", "child.avhdx", "share1", "share2", "slow"];
    let deadline = Instant::now() + Duration::from_secs(60);
    while names_in(folder.path()).len() == known.len() {
        assert!(Instant::now() < deadline, "the work does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    send(2, &running);
    std::thread::sleep(Duration::from_millis(50));
    std::io::Write::write_all(&mut pipe, &share[header..]).unwrap();
    drop(pipe);
    let ran = wait(running);
    assert_eq!((ran.status.signal(), &*ran.err), (Some(2), ""));
    assert_eq!(names_in(folder.path()), known);
}
