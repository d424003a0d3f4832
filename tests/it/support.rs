//! What several tests need.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vhdx_mmap::{Disk, OpenOptions, Parents, Result, Segment, Source};

#[cfg(feature = "cli")]
pub(crate) use command::{Ran, run, run_to, vhdx, wait};

pub(crate) use crate::optional::{say, skip};

/// Options of a user who trusts the folder in which the image lies.
pub(crate) fn with_parents_beside() -> OpenOptions {
    mapped(OpenOptions::new().parents(Parents::Beside))
}

/// The same options, with parents mapped.
#[expect(unsafe_code, reason = "a promise about files that only this test process knows")]
pub(crate) fn mapped(options: OpenOptions) -> OpenOptions {
    // SAFETY: no test changes a file while it has it mapped.
    unsafe { options.map_parents() }
}

/// Opens a disk as most users do.
pub(crate) fn open(path: &Path) -> Result<Disk> {
    Disk::open(map(path), &with_parents_beside())
}

/// Maps a file that only this test process knows.
#[expect(unsafe_code, reason = "the library's one unsafe function")]
pub(crate) fn map(path: &Path) -> Source {
    // SAFETY: no test changes a file while it has it mapped.
    unsafe { Source::map(path) }.unwrap()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a range of a disk.
pub(crate) fn sha256(disk: &Disk, range: std::ops::Range<u64>) -> Result<String> {
    let mut hasher = Sha256::new();
    for segment in disk.segments(range) {
        segment?.slices().for_each(|slice| hasher.update(slice));
    }
    Ok(hex(&hasher.finalize()))
}

/// Whether a range of a disk reads as zeros.
pub(crate) fn is_zero(disk: &Disk, range: std::ops::Range<u64>) -> Result<bool> {
    for segment in disk.segments(range) {
        if let Segment::Data(bytes) = segment?
            && bytes.iter().any(|byte| *byte != 0)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A folder below the build's own for temporary files, which are removed with it.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(base).unwrap()
}

/// Running programs, and the command first of all.
#[cfg(feature = "cli")]
mod command {
    use std::ffi::OsStr;
    use std::io::Read;
    use std::process::{Child, Command, ExitStatus, Stdio};

    use crate::watchdog::Watchdog;

    /// What a run of a program gave.
    #[derive(Debug)]
    pub(crate) struct Ran {
        /// How it ended.
        pub(crate) status: ExitStatus,
        /// All of its standard output, unless that went elsewhere.
        pub(crate) out: Vec<u8>,
        /// All of its standard error.
        pub(crate) err: String,
    }

    impl Ran {
        /// Standard output as text.
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.out.clone()).unwrap()
        }

        /// Standard output as JSON.
        pub(crate) fn json(&self) -> serde_json::Value {
            assert!(!self.out.is_empty(), "no JSON, but: {}", self.err);
            serde_json::from_slice(&self.out).unwrap()
        }

        /// The same run, if it was a success.
        #[track_caller]
        pub(crate) fn done(self) -> Self {
            assert!(self.status.success(), "{}: {}", self.status, self.err);
            self
        }
    }

    #[cfg(target_os = "linux")]
    impl From<crate::traced::Ended> for Ran {
        fn from(ended: crate::traced::Ended) -> Self {
            let err = String::from_utf8_lossy(&ended.err).into_owned();
            assert!(!err.contains("panicked"), "{}: {err}", ended.status);
            Self { status: ended.status, out: ended.out, err }
        }
    }

    /// The command, with these arguments, in an environment that says nothing of colours or of the width of a terminal.
    pub(crate) fn vhdx<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhdx"));
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
            command.env_remove(name);
        }
        command.args(args);
        command
    }

    /// Runs a program without input and to its end.
    #[track_caller]
    pub(crate) fn run(command: &mut Command) -> Ran {
        run_to(command, Stdio::piped())
    }

    /// The same, with another standard output.
    #[track_caller]
    pub(crate) fn run_to(command: &mut Command, out: Stdio) -> Ran {
        let mut child = command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdin.take());
        wait(child)
    }

    /// Waits for the end of a program, reading what it writes meanwhile.
    #[track_caller]
    pub(crate) fn wait(mut child: Child) -> Ran {
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
