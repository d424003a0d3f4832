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
    let wanted = place_of(file)?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    if locks.lines().any(|line| is_writer(line, &wanted, std::process::id())) {
        return Some(true);
    }
    sees_all_processes().then_some(false)
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

/// Device and inode, as `/proc/locks` writes them. On some file systems they differ from those of `stat`: each
/// subvolume of Btrfs and each layer of overlayfs has a device of its own there.
#[cfg(target_os = "linux")]
fn place_of(file: &File) -> Option<String> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    let metadata = file.metadata().ok()?;
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let device = field("mnt_id").and_then(|id| {
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let mut mount = mounts.find_map(|mut mount| (mount.next()? == id).then_some(mount))?;
        let (major, minor) = mount.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    let of_stat = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let (major, minor): (u32, u32) = device.unwrap_or(of_stat);
    let inode = field("ino").and_then(|inode| inode.parse().ok()).unwrap_or(metadata.ino());
    Some(format!("{major:02x}:{minor:02x}:{inode}"))
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
    use super::is_writer;

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
}
