//! Shared parts of the tests.

use std::path::Path;

use sha2::{Digest, Sha256};
use vhdx_mmap::{Disk, OpenOptions, Parents, Result, Segment, Source};

pub use program::{Ran, run_to, wait};

pub use crate::optional::{say, skip};

/// Options of a user who trusts the folder of the image.
pub fn with_parents_beside() -> OpenOptions {
    mapped(OpenOptions::new().parents(Parents::Beside))
}

/// Options of a user who trusts the folder of the image, with parents mapped.
#[expect(unsafe_code, reason = "a promise about files that only this test process knows")]
pub fn mapped(options: OpenOptions) -> OpenOptions {
    // SAFETY: no test changes a file while it is mapped.
    unsafe { options.map_parents() }
}

/// Opens a disk like most users.
pub fn open(path: &Path) -> Result<Disk> {
    Disk::open(map(path), &with_parents_beside())
}

/// Maps a file that only this test process uses.
#[expect(unsafe_code, reason = "the library's one unsafe function")]
pub fn map(path: &Path) -> Source {
    // SAFETY: no test changes a file while it is mapped.
    unsafe { Source::map(path) }.unwrap()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Passes on what lies in a range of a disk, in order: borrowed, or read where nothing can be borrowed.
pub fn each_piece(disk: &Disk, range: std::ops::Range<u64>, mut each: impl FnMut(Segment<'_>)) -> Result<()> {
    if disk.can_borrow() {
        return disk.segments(range).try_for_each(|segment| segment.map(&mut each));
    }
    let mut buffer = vec![0; 1 << 20];
    for extent in disk.extents(range) {
        let extent = extent?;
        if !extent.is_data() {
            each(Segment::Zero(extent.len));
            continue;
        }
        let mut at = extent.start;
        while at < extent.end() {
            let length = usize::try_from(extent.end() - at).unwrap().min(buffer.len());
            let read = disk.read_at(&mut buffer[..length], at)?;
            each(Segment::Data(&buffer[..read]));
            at += u64::try_from(read).unwrap();
        }
    }
    Ok(())
}

/// SHA-256 of a range of a disk.
pub fn sha256(disk: &Disk, range: std::ops::Range<u64>) -> Result<String> {
    let mut hasher = Sha256::new();
    each_piece(disk, range, |segment| segment.slices().for_each(|slice| hasher.update(slice)))?;
    Ok(hex(&hasher.finalize()))
}

/// Whether a range of a disk reads as zeros.
pub fn is_zero(disk: &Disk, range: std::ops::Range<u64>) -> Result<bool> {
    let mut is_zero = true;
    each_piece(disk, range, |segment| {
        is_zero &= !matches!(segment, Segment::Data(bytes) if bytes.iter().any(|byte| *byte != 0));
    })?;
    Ok(is_zero)
}

/// A folder below the build's folder for temporary files.
pub fn temp_dir() -> tempfile::TempDir {
    // `CARGO_TARGET_TMPDIR` is set for tests, but not for this crate. A test is `target/debug/deps/it`.
    let base = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("tmp");
    std::fs::create_dir_all(&base).unwrap();
    tempfile::tempdir_in(base).unwrap()
}

/// Helpers that run programs.
mod program {
    use std::io::Read;
    use std::process::{Child, Command, ExitStatus, Stdio};

    use crate::watchdog::Watchdog;

    /// Result of a run of a program.
    #[derive(Debug)]
    pub struct Ran {
        /// Exit status.
        pub status: ExitStatus,
        /// Standard output, unless it was redirected.
        pub out: Vec<u8>,
        /// Standard error.
        pub err: String,
    }

    #[cfg(target_os = "linux")]
    impl From<crate::traced::Ended> for Ran {
        fn from(ended: crate::traced::Ended) -> Self {
            let err = String::from_utf8_lossy(&ended.err).into_owned();
            assert!(!err.contains("panicked"), "{}: {err}", ended.status);
            Self { status: ended.status, out: ended.out, err }
        }
    }

    /// Runs a program without input to its end, with this standard output.
    #[track_caller]
    pub fn run_to(command: &mut Command, out: Stdio) -> Ran {
        let mut child = command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdin.take());
        wait(child)
    }

    /// Waits for the end of a program, reading its output meanwhile.
    #[track_caller]
    pub fn wait(mut child: Child) -> Ran {
        fn all_of(stream: Option<impl Read>) -> Vec<u8> {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            bytes
        }

        let (out, err) = (child.stdout.take(), child.stderr.take());
        let watchdog = Watchdog::over(child.id());
        let (status, out, err) = std::thread::scope(|scope| {
            let out = scope.spawn(|| all_of(out));
            let err = scope.spawn(|| all_of(err));
            (child.wait().unwrap(), out.join().unwrap(), err.join().unwrap())
        });
        let err = String::from_utf8_lossy(&err).into_owned();
        watchdog.assert_idle();
        assert!(!err.contains("panicked"), "{status}: {err}");
        Ran { status, out, err }
    }
}
