//! Whether another program has a file open for writing, as far as its locks say. Locks are looked up, never taken.

use std::fs::File;

/// Bytes that QEMU locks, shared, while it has an image open for writing or resizing (`block/file-posix.c`): 100 and
/// the number of the permission.
#[cfg(target_os = "linux")]
const WRITERS_OF_QEMU: [u64; 2] = [101, 103];

/// All bytes that QEMU locks for permissions.
#[cfg(target_os = "linux")]
const LOCKS_OF_QEMU: std::ops::Range<u64> = 100..200;

/// Returns whether a lock or lease of another process says that it writes to the file; `None` if the system does not
/// list all locks.
#[cfg(target_os = "linux")]
pub(super) fn is_in_use(file: &File) -> Option<bool> {
    let place = place_of(file)?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    if locks.lines().any(|line| is_writer(line, &place.text, std::process::id())) {
        return Some(true);
    }
    (place.is_certain && sees_all_processes()).then_some(false)
}

/// Whether locks of all processes are listed. A container has a namespace of its own, and sees only the locks of its
/// own processes.
#[cfg(target_os = "linux")]
fn sees_all_processes() -> bool {
    /// `PROC_PID_INIT_INO` of Linux: the number of the first namespace of processes.
    const FIRST: &str = "pid:[4026531836]";

    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == FIRST)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_in_use(_: &File) -> Option<bool> {
    None
}

/// A file, as `/proc/locks` names it.
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Device and inode.
    text: String,
    /// Whether the system says so; otherwise locks of the file may have another name.
    is_certain: bool,
}

/// Device and inode, as `/proc/locks` writes them. On some file systems they differ from those of `stat`: each
/// subvolume of Btrfs and each layer of overlayfs has a device of its own there.
#[cfg(target_os = "linux")]
fn place_of(file: &File) -> Option<Place> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    let metadata = file.metadata().ok()?;
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    Some(named(&about, &mounts, device, metadata.ino()))
}

/// Names a file after `/proc/self/fdinfo` and `/proc/self/mountinfo`, or else after `stat`. Both are read for each file
/// anew, while it is open: the system gives the number of a mount that is gone to another one.
#[cfg(target_os = "linux")]
fn named(about: &str, mounts: &str, of_stat: (u32, u32), inode_of_stat: u64) -> Place {
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let device = field("mnt_id").and_then(|id| {
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let mut mount = mounts.find_map(|mut mount| (mount.next()? == id).then_some(mount))?;
        let (major, minor) = mount.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    let inode: Option<u64> = field("ino").and_then(|inode| inode.parse().ok());
    // Linux before 5.14 does not say the inode. It is that of `stat` where the device is.
    let is_certain = device.is_some() && (inode.is_some() || device == Some(of_stat));
    let (major, minor) = device.unwrap_or(of_stat);
    let inode = inode.unwrap_or(inode_of_stat);
    Place { text: format!("{major:02x}:{minor:02x}:{inode}"), is_certain }
}

/// Whether a line of `/proc/locks` is of a writer of the file, in another process.
///
/// The fields are: number, `->` if the lock is waited for, kind, `ADVISORY` or the state of a lease, `READ` or `WRITE`,
/// process, file, first and last byte.
#[cfg(target_os = "linux")]
fn is_writer(line: &str, wanted: &str, this_process: u32) -> bool {
    let fields: Vec<&str> = line.split_whitespace().skip(1).filter(|field| *field != "->").collect();
    let [kind, state, access, process, file, first, last] = fields.as_slice() else { return false };
    if *file != wanted || process.parse() == Ok(this_process) {
        return false;
    }
    let first = first.parse().unwrap_or(0);
    let last = last.parse().unwrap_or(u64::MAX);
    let is_of_qemu = LOCKS_OF_QEMU.contains(&first) && LOCKS_OF_QEMU.contains(&last);
    match (*kind, *access) {
        ("LEASE" | "DELEG", access) => access == "WRITE" || *state == "BREAKING",
        (_, "WRITE") => true,
        ("POSIX" | "OFDLCK", "READ") => is_of_qemu && WRITERS_OF_QEMU.iter().any(|byte| (first..=last).contains(byte)),
        _ => false,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{Place, is_writer, named};

    #[test]
    fn locks_of_writers_are_known() {
        for (line, expected) in [
            ("1: POSIX  ADVISORY  WRITE 1441 fe:00:12 0 EOF", true),
            ("1: POSIX  ADVISORY  READ 1441 fe:00:12 0 EOF", false),
            ("1: POSIX  ADVISORY  WRITE 7 fe:00:12 0 EOF", false),
            ("1: POSIX  ADVISORY  WRITE 1441 fe:00:123 0 EOF", false),
            ("1: POSIX  ADVISORY  WRITE 1441 fe:01:12 0 EOF", false),
            ("1: FLOCK  ADVISORY  WRITE 1441 fe:00:12 0 EOF", true),
            ("1: FLOCK  ADVISORY  READ 1441 fe:00:12 0 EOF", false),
            ("3: -> POSIX  ADVISORY  WRITE 1441 fe:00:12 0 EOF", true),
            // QEMU: a reader, a writer, and a program that may resize.
            ("2: OFDLCK ADVISORY  READ -1 fe:00:12 100 100", false),
            ("2: OFDLCK ADVISORY  READ -1 fe:00:12 201 201", false),
            ("2: OFDLCK ADVISORY  READ -1 fe:00:12 100 101", true),
            ("2: OFDLCK ADVISORY  READ -1 fe:00:12 103 103", true),
            ("2: OFDLCK ADVISORY  READ -1 fe:00:12 0 EOF", false),
            ("4: LEASE  ACTIVE    READ 1441 fe:00:12 0 EOF", false),
            ("4: LEASE  ACTIVE    WRITE 1441 fe:00:12 0 EOF", true),
            ("4: LEASE  BREAKING  READ 1441 fe:00:12 0 EOF", true),
            ("", false),
        ] {
            assert_eq!(is_writer(line, "fe:00:12", 7), expected, "{line}");
        }
    }

    #[test]
    fn files_have_the_device_of_their_mount() {
        // A subvolume of Btrfs, whose device for `stat` is another one.
        let mounts = "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 30 0:40 /vms /vms rw - btrfs /dev/sdb rw\n";
        let place = |text: &str, is_certain| Place { text: text.to_owned(), is_certain };
        let about = "pos:\t0\nflags:\t0100000\nmnt_id:\t31\nino:\t257\n";
        assert_eq!(named(about, mounts, (0, 52), 257), place("00:28:257", true));
        let without_inode = "mnt_id:\t31\n";
        assert_eq!(named(without_inode, mounts, (0, 52), 257), place("00:28:257", false));
        assert_eq!(named("mnt_id:\t30\n", mounts, (8, 1), 12), place("08:01:12", true));
        // A mount that is not listed, such as a detached one: nothing says that its locks have the device of `stat`.
        assert_eq!(named("mnt_id:\t3\nino:\t257\n", mounts, (0, 52), 257), place("00:34:257", false));
        assert_eq!(named(about, "", (0, 52), 257), place("00:34:257", false));
    }
}
