//! Images made by other programs, with their expected content. They are not part of the project: `VHDX_CORPUS` names
//! the folder, with the default `../shared/corpus`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use vhdx_mmap::{Disk, Error, OpenOptions, Parents};

use crate::kit::optional::stride;
use crate::lab::Door;
use crate::support::{is_zero, sha256, skip, with_parents_beside};

/// Returns the unpacked corpus. Without one, prints that the tests are skipped.
fn corpus() -> Option<&'static PathBuf> {
    static UNPACKED: LazyLock<Option<PathBuf>> = LazyLock::new(unpack);
    UNPACKED.as_ref()
}

fn unpack() -> Option<PathBuf> {
    let packed = std::env::var_os("VHDX_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from);
    if !packed.join("unpack.sh").exists() {
        skip("corpus", "no corpus of foreign images (VHDX_CORPUS names its folder)");
        return None;
    }
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus");
    let status = Command::new("bash").arg(packed.join("unpack.sh")).arg(&unpacked).status().unwrap();
    assert!(status.success(), "unpack.sh: {status}");
    Some(unpacked)
}

fn records(folder: &Path) -> Vec<Value> {
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["images"].as_array().unwrap().clone()
}

/// Opens an image through a door, with parents that lie beside it under the names that it stores.
fn open(door: Door, path: &Path, expected: &str) -> Result<Disk, Error> {
    let beside = match door {
        Door::Map => with_parents_beside(),
        Door::Memory | Door::Open => OpenOptions::new().parents(Parents::Beside),
        // A reader has no path, and a search in a folder also finds parents that have other names.
        Door::Reader if expected != "read" => OpenOptions::new().parents(Parents::Explicit(Vec::new())),
        Door::Reader => OpenOptions::new().parents(Parents::Within(vec![path.parent().unwrap().to_path_buf()])),
    };
    Disk::open(door.source(path)?, &beside)
}

/// Returns the difference between an image and its record, if any.
fn verdict(folder: &Path, record: &Value, door: Door) -> Result<(), String> {
    let path = folder.join(record["file"].as_str().unwrap());
    let read = open(door, &path, record["expect"].as_str().unwrap())
        .map_err(|error| format!("refused: {error}"))
        .and_then(|disk| {
            let recorded = |key: &str| record[key].as_u64().unwrap();
            let image = disk.image();
            let same = disk.size() == recorded("virtual_size")
                && disk.block_size() == recorded("block_size")
                && u64::from(image.logical_sector_size()) == recorded("logical_sector_size")
                && image.physical_sector_size().map(u64::from) == Some(recorded("physical_sector_size"))
                && image.header().is_dirty() == record["dirty_log"].as_bool().unwrap();
            if !same {
                return Err(format!("other sizes or log state: {image:?}"));
            }
            content(&disk, record).map_err(|error| format!("reads wrong: {error}"))
        });
    match record["expect"].as_str().unwrap() {
        "read" => read,
        "refuse" => match read {
            Err(error) if error.starts_with("refused") => Ok(()),
            other => Err(format!("not refused: {other:?}")),
        },
        "either" => match read {
            Err(error) if error.starts_with("refused") => Ok(()),
            other => other,
        },
        other => Err(format!("unknown expectation {other}")),
    }
}

fn content(disk: &Disk, record: &Value) -> Result<(), String> {
    let said = |error: Error| error.to_string();
    if let Some(expected) = record["sha256"].as_str() {
        let found = sha256(disk, 0..disk.size()).map_err(said)?;
        // One manifest has lost a digit of a digest.
        let same = if expected.len() == 64 { found == expected } else { lost_one_digit(&found, expected) };
        if !same {
            return Err(format!("sha256 {found}, expected {expected}"));
        }
    }
    let Some(extents) = record["nonzero_extents"].as_array() else { return Ok(()) };
    let mut at = 0;
    for extent in extents {
        let (start, length) = (extent[0].as_u64().unwrap(), extent[1].as_u64().unwrap());
        if !is_zero(disk, at..start).map_err(said)? {
            return Err(format!("not zero between {at} and {start}"));
        }
        let found = sha256(disk, start..start + length).map_err(said)?;
        if Some(found.as_str()) != extent[2].as_str() {
            return Err(format!("extent at {start}: sha256 {found}, expected {}", extent[2]));
        }
        at = start + length;
    }
    if !is_zero(disk, at..disk.size()).map_err(said)? {
        return Err(format!("not zero after {at}"));
    }
    Ok(())
}

/// Returns whether `expected` is `found` without one of its digits.
fn lost_one_digit(found: &str, expected: &str) -> bool {
    expected.len() == 63
        && (0..64).any(|lost| found[..lost] == expected[..lost] && found[lost + 1..] == expected[lost..])
}

fn all_images_of(name: &str) {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join(name);
    let records = records(&folder);
    assert!(!records.is_empty());
    // Each image through every door, or through some.
    let all = records.iter().flat_map(|record| Door::ALL.map(|door| (record, door)));
    let wrong: Vec<String> = all
        .step_by(stride())
        .filter_map(|(record, door)| {
            Some(format!("{} by {door:?}: {}", record["file"], verdict(&folder, record, door).err()?))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} images:\n{}", wrong.len(), records.len(), wrong.join("\n"));
}

#[test]
fn images_made_by_windows_read_correctly() {
    all_images_of("windows");
}

#[test]
fn images_made_by_other_programs_read_correctly() {
    all_images_of("foreign");
}
