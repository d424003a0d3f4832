//! `vhdx mount --fuse`: the process that serves the files, and the files as other programs see them.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use vhdx_serve::fuse::is_mounted;

use crate::cli::stops::command;
use crate::kit::dense::{FIRST_BLOCK, cut, dense};
use crate::kit::{MIB, pattern};
use crate::schema::assert_valid;
use crate::support::{Ran, run, skip, temp_dir, vhdx, wait};

use super::{
    Point, args, assert_corpus, assert_fails, assert_files, child_and_parent, damaged, disk_of, file_system, files,
    has, hinted, read, vhdx_run, write_image,
};

/// Whether files can be mounted.
fn can_mount() -> bool {
    static CAN: LazyLock<bool> = LazyLock::new(|| {
        let can = File::options().read(true).write(true).open("/dev/fuse").is_ok();
        let has_helper = Command::new("fusermount3").arg("-V").output().is_ok();
        if !can || !(has_helper || rustix::process::getuid().is_root()) {
            skip("fuse", "no /dev/fuse, or no fusermount3");
            return false;
        }
        true
    });
    *CAN
}

/// Mounts images.
#[track_caller]
fn mount(point: &Point, arguments: Vec<OsString>) -> Ran {
    vhdx_run([args!["mount", "--fuse", "--quiet"], arguments, args![point.path()]].concat())
}

/// The process that serves a directory.
fn server_of(point: &Point) -> Pid {
    let path = point.path();
    let is_server = |entry: &PathBuf| {
        let words = std::fs::read(entry.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == path.as_os_str().as_encoded_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<PathBuf> = all.filter(is_server).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let number = found[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
    Pid::from_raw(number).unwrap()
}

/// Waits for the end of a process.
fn wait_for_end(pid: Pid, act: impl FnOnce()) {
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    act();
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
}

/// Waits until something is mounted on a directory.
fn wait_for_mount(point: &Point) {
    let table = File::open("/proc/self/mounts").unwrap();
    while !is_mounted(&point.path()).unwrap() {
        poll(&mut [PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI)], None).unwrap();
    }
}

#[test]
fn server_ends_when_the_directory_is_unmounted() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let [child, parent] = child_and_parent();
    let paths = [folder.path().join("child, 1.avhdx"), folder.path().join("parent.vhdx")];
    child.bytes.write_file(&paths[0]).unwrap();
    parent.bytes.write_file(&paths[1]).unwrap();
    for options in [args![], args!["--direct"], args!["--threads", "1"], args!["--no-mmap"]] {
        let point = Point::new();
        // The command has ended, and all that it has passed on is closed.
        let ran = mount(&point, [options, args![&paths[0], &paths[1]]].concat()).done();
        assert_eq!((&*ran.out, &*ran.err), (&b""[..], ""));
        let content = |path: &str| std::fs::read(point.path().join(path)).unwrap();
        assert!(content("child, 1/disk.raw") == read(&[&child, &parent]));
        assert!(content("child, 1/layers/1.raw") == read(&[&parent]));
        assert!(content("parent/disk.raw") == read(&[&parent]));
        let info: serde_json::Value = serde_json::from_slice(&content("child, 1/info.json")).unwrap();
        assert_valid(Some("info"), &info);
        assert_eq!(info["virtual-size"], 8 * MIB);
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(&*point.path().to_string_lossy().replace(' ', "\\040")));
        let line = line.unwrap();
        assert!(line.contains(" ro,nosuid,nodev") && line.contains(" fuse.vhdx "), "{line}");
        assert!(line.contains("child,\\0401.avhdx") && line.contains("default_permissions"), "{line}");
        wait_for_end(server_of(&point), || point.umount());
    }
}

/// A lock or a pipe of a script would be held until the directory is unmounted.
#[test]
fn server_keeps_no_file_of_its_caller() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &crate::kit::builder::Spec::default());
    let held = folder.path().join("held");
    std::fs::write(&held, "").unwrap();
    let point = Point::new();
    let script = "exec 9<\"$0\"; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&held).arg(env!("CARGO_BIN_EXE_vhdx"));
    run(command.args(args!["mount", "--fuse", "--quiet", &image, point.path()])).done();
    let server = server_of(&point);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.as_raw_nonzero())).unwrap();
    let open: Vec<PathBuf> = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(open.contains(&image) && !open.contains(&held), "{open:?}");
    wait_for_end(server, || point.umount());
}

#[test]
fn signals_unmount_and_end_the_server() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 4);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let point = Point::new();
        let server = command(args!["mount", "--fuse", "--foreground", &path, point.path()]).spawn().unwrap();
        wait_for_mount(&point);
        assert!(std::fs::read(point.path().join("disk.raw")).unwrap() == pattern(1, 0, 4 << 20));
        // Also if a file is open.
        let file = (signal == Signal::TERM).then(|| File::open(point.path().join("disk.raw")).unwrap());
        kill_process(Pid::from_child(&server), signal).unwrap();
        let ran = wait(server);
        assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""), "{signal:?}");
        assert!(point.is_empty());
        drop(file);
        // In the background, too.
        run(&mut command(args!["mount", "--fuse", "--quiet", &path, point.path()])).done();
        let server = server_of(&point);
        wait_for_end(server, || kill_process(server, signal).unwrap());
        assert!(point.is_empty());
    }
}

#[test]
fn mount_of_a_killed_server_can_be_unmounted() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 4);
    let point = Point::new();
    mount(&point, args![&path]).done();
    let server = server_of(&point);
    wait_for_end(server, || kill_process(server, Signal::KILL).unwrap());
    // Not connected.
    assert_eq!(std::fs::read_dir(point.path()).unwrap_err().raw_os_error(), Some(107));
    assert!(is_mounted(&point.path()).unwrap());
    point.umount();
    mount(&point, args![&path]).done();
    point.umount();
}

#[test]
fn failures_are_those_of_the_command() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let point = Point::new();
    let missing = folder.path().join("missing.vhdx");
    assert_fails(&mount(&point, args![&missing]), 66, &["missing.vhdx"]);
    let junk = folder.path().join("junk.vhdx");
    std::fs::write(&junk, [7; 70_000]).unwrap();
    assert_fails(&mount(&point, args![&junk]), 65, &["junk.vhdx"]);
    assert!(point.is_empty());
}

#[test]
fn reasons_of_errors_go_to_a_file() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = dense(folder.path(), "disk.vhdx", 8);
    let log = folder.path().join("log");
    let point = Point::new();
    let mut command = vhdx(args!["mount", "--fuse", &path, point.path()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    assert!(command.status().unwrap().success());
    let file = File::open(point.path().join("disk.raw")).unwrap();
    cut(&path, FIRST_BLOCK + 3 * MIB + 100);
    for _ in 0..2 {
        let mut piece = vec![0; 4096];
        assert_eq!(file.read_at(&mut piece, 3 * MIB).unwrap_err().raw_os_error(), Some(5));
        file.read_exact_at(&mut piece, MIB).unwrap();
        assert!(piece == pattern(1, MIB, 4096));
    }
    drop(file);
    wait_for_end(server_of(&point), || point.umount());
    let text = std::fs::read_to_string(&log).unwrap();
    // The same reason is printed once; in the end, the image has changed.
    assert!(text.contains("error: disk.raw: ") && text.contains("changed"), "{text}");
    let lines: std::collections::BTreeSet<&str> = text.lines().collect();
    assert_eq!(lines.len(), text.lines().count(), "{text}");
}

#[test]
fn users_other_than_root_mount_by_fusermount3() {
    /// A user without rights.
    const USER: u32 = 65_534;

    if !can_mount() || !rustix::process::getuid().is_root() {
        return;
    }
    // The user must reach the image, the program and the directory.
    let folder = tempfile::Builder::new().prefix("vhdx-").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dense(folder.path(), "disk, 1.vhdx", 4);
    let program = folder.path().join("vhdx");
    // By another process: programs that this one starts meanwhile must not hold the file open for writing.
    run(Command::new("cp").arg(vhdx::<&str>([]).get_program()).arg(&program)).done();
    let point = Point { folder };
    std::fs::create_dir(point.path()).unwrap();
    std::os::unix::fs::chown(point.path(), Some(USER), Some(USER)).unwrap();
    let as_user =
        |arguments: Vec<OsString>| run(Command::new(&program).args(arguments).uid(USER).gid(USER).current_dir("/"));
    as_user(args!["mount", "--quiet", &path, point.path()]).done();
    let ran = run(Command::new("cat").arg(point.path().join("disk.raw")).uid(USER).gid(USER)).done();
    assert!(ran.out == pattern(1, 0, 4 << 20));
    // Not even root.
    File::open(point.path().join("disk.raw")).unwrap_err();
    let server = server_of(&point);
    wait_for_end(server, || drop(as_user(args!["umount", point.path()]).done()));
    assert!(!is_mounted(&point.path()).unwrap());
    // The server itself has to ask fusermount3, too.
    as_user(args!["mount", "--quiet", &path, point.path()]).done();
    let server = server_of(&point);
    wait_for_end(server, || kill_process(server, Signal::TERM).unwrap());
    assert!(!is_mounted(&point.path()).unwrap());
}

#[test]
fn salvaged_disk_has_no_zeros_for_lost_bytes() {
    if !can_mount() {
        return;
    }
    let folder = temp_dir();
    let path = damaged(folder.path());
    for options in [args![], args!["--salvage"]] {
        let point = Point::new();
        mount(&point, [options, args![&path]].concat()).done();
        let file = File::open(point.path().join("disk.raw")).unwrap();
        let mut bytes = vec![0; 4096];
        for at in [2 * MIB, 3 * MIB - 4096] {
            assert_eq!(file.read_exact_at(&mut bytes, at).unwrap_err().raw_os_error(), Some(5));
        }
        for at in [2 * MIB - 4096, 3 * MIB] {
            file.read_exact_at(&mut bytes, at).unwrap();
            assert!(bytes == pattern(1, at, 4096));
        }
        drop(file);
        point.umount();
    }
}

#[test]
fn corpus_through_fuse() {
    if can_mount() {
        assert_corpus("--fuse");
    }
}

/// A disk with a partition that has a file system of [`files`], as `mkfs` makes it and `copy` fills it.
fn with_partition(folder: &Path, mkfs: &[&str]) -> PathBuf {
    let raw = folder.join("raw");
    File::create(&raw).unwrap().set_len(40 * MIB).unwrap();
    run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&raw)).done();
    let from = folder.join("from");
    for (name, content) in files() {
        std::fs::write(&from, content).unwrap();
        run(Command::new("mcopy").arg("-i").arg(&raw).arg(&from).arg(format!("::/{name}"))).done();
    }
    write_image(folder, "disk.vhdx", &disk_of(&raw, Some(MIB)))
}

#[test]
fn mtools_and_sleuthkit_read_files() {
    if !can_mount() || !has("mkfs", "mkfs.fat") || !has("mkfs", "mcopy") || !has("sleuthkit", "fls") {
        return;
    }
    let folder = temp_dir();
    let image = with_partition(folder.path(), &["mkfs.fat"]);
    let point = Point::new();
    mount(&point, args![&image]).done();
    for (name, content) in files() {
        let part = point.path().join("part1.raw");
        let ran = run(Command::new("mtype").arg("-i").arg(part).arg(format!("::/{name}"))).done();
        assert!(ran.out == content, "{name}");
    }
    let disk = point.path().join("disk.raw");
    let listed = run(Command::new("mmls").arg(&disk)).done().text();
    assert!(listed.contains("0000002048"), "{listed}");
    let listed = run(Command::new("fls").args(["-o", "2048"]).arg(&disk)).done().text();
    for (name, content) in files() {
        let line =
            listed.lines().find(|line| line.ends_with(&format!("\t{name}"))).unwrap_or_else(|| panic!("{listed}"));
        let number = line.split([' ', ':']).nth(1).unwrap();
        let ran = run(Command::new("icat").args(["-o", "2048"]).arg(&disk).arg(number)).done();
        assert!(ran.out == content, "{line}");
    }
    point.umount();
}

#[test]
fn loop_devices_on_the_files() {
    if !can_mount() || !rustix::process::getuid().is_root() {
        return;
    }
    let folder = temp_dir();
    let Some(raw) = file_system(folder.path(), &["mkfs.ext4", "-q"], 40 * MIB) else { return };
    let image = write_image(folder.path(), "disk.vhdx", &disk_of(&raw, Some(MIB)));
    let point = Point::new();
    let ran = mount(&point, args![&image]).done();
    let second = folder.path().join("second");
    std::fs::create_dir(&second).unwrap();
    run(Command::new("sh").args(["-c", &hinted(&ran, &second)])).done();
    assert_files(&second);
    // All of it ends, in order.
    wait_for_end(server_of(&point), || point.umount());
    assert!(std::fs::read_dir(&second).unwrap().next().is_none());
}

#[test]
fn ntfs_3g_on_a_partition() {
    if !can_mount() || !has("mkfs", "mkfs.ntfs") || !has("mkfs", "ntfs-3g") {
        return;
    }
    let folder = temp_dir();
    let raw = folder.path().join("raw");
    File::create(&raw).unwrap().set_len(40 * MIB).unwrap();
    run(Command::new("mkfs.ntfs").args(["-q", "-F", "-Q"]).arg(&raw)).done();
    let from = folder.path().join("from");
    for (name, content) in files() {
        std::fs::write(&from, content).unwrap();
        run(Command::new("ntfscp").arg("-q").arg(&raw).arg(&from).arg(&name)).done();
    }
    let image = write_image(folder.path(), "disk.vhdx", &disk_of(&raw, Some(MIB)));
    let (point, second) = (Point::new(), Point::new());
    mount(&point, args![&image]).done();
    let part = point.path().join("part1.raw");
    run(Command::new("ntfs-3g").args(["-o", "ro"]).arg(part).arg(second.path())).done();
    assert_files(&second.path());
    run(Command::new("umount").arg(second.path())).done();
    point.umount();
}
