//! What several tests need.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vhdx_mmap::{Disk, OpenOptions, Parents, Result, Segment, Source};

/// Whether a check that needs something from outside must not be skipped: `VHDX_REQUIRE` lists such checks, with commas.
fn is_required(what: &str) -> bool {
    std::env::var("VHDX_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == what || item == "all"))
}

/// Says that a check is skipped, past the capture of the test harness; fails where it must not be skipped.
pub(crate) fn skip(what: &str, why: &str) {
    assert!(!is_required(what), "{what} is required by VHDX_REQUIRE: {why}");
    // To the stream itself: what goes through `eprintln!` is shown for failing tests only.
    let text = format!("SKIPPED ({what}): {why}\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// Options of a user who trusts the folder in which the image lies.
pub(crate) fn with_parents_beside() -> OpenOptions {
    OpenOptions::new().parents(Parents::Beside)
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
