//! Hints: none of them names the command that was just run.

use std::path::Path;

use super::salvage::{patched, write};
use crate::kit::builder::{BAT_REGION, DISK_SIZE, FILE_PARAMETERS, FileLength, Image, LOGICAL_SECTOR, Spec};
use crate::kit::log::{Descriptor, Journal, LOG_GUID};
use crate::kit::{KIB, MIB, PAGE};
use crate::lab::size;
use crate::support::{run, temp_dir, vhdx};

/// Images with damage of all kinds.
fn images() -> Vec<(&'static str, Image)> {
    let with = |change: &dyn Fn(&mut Spec)| {
        let mut spec = Spec::default();
        change(&mut spec);
        spec.build()
    };
    vec![
        ("signature", patched(|image| image.bytes.write(0, b"x"))),
        ("headers", patched(|image| (1..=2).for_each(|copy| image.patch_header_raw(copy, 0, &[0; 80])))),
        (
            "two of one number",
            patched(|image| {
                image.patch_headers(8, &[9]);
                image.patch_header(2, 16, &[1]);
            }),
        ),
        ("version", patched(|image| image.patch_headers(66, &[2, 0]))),
        ("log", patched(|image| image.patch_headers(48, &[1; 16]))),
        (
            "dirty log",
            patched(|image| {
                Journal::new(0, 1).append(image, &[Descriptor::Data(3 * MIB + PAGE, vec![7; 4096])]);
                image.patch_headers(48, &LOG_GUID.to_bytes_le());
            }),
        ),
        ("region tables", patched(|image| (1..=2).for_each(|copy| image.patch_region_table_raw(copy, 300, b"x")))),
        ("no BAT", with(&|spec| spec.regions = Some(Vec::new()))),
        ("no region table", patched(|image| image.bytes.write(192 * KIB, &[0; 128 << 10]))),
        (
            "no region table, and no BAT",
            patched(|image| {
                image.bytes.write(192 * KIB, &[0; 128 << 10]);
                image.bytes.write(3 * MIB, &[0; 4096]);
            }),
        ),
        ("no header section, and no metadata", patched(|image| image.bytes.write(0, &vec![0; size(3 * MIB)]))),
        ("no disk size", with(&|spec| spec.omit(DISK_SIZE))),
        ("no block size", with(&|spec| spec.omit(FILE_PARAMETERS))),
        ("no sector size", with(&|spec| spec.omit(LOGICAL_SECTOR))),
        ("truncated", with(&|spec| spec.file_length = FileLength::Exact(5 * MIB + 100))),
        ("truncated in the BAT", with(&|spec| spec.file_length = FileLength::Exact(3 * MIB))),
        ("truncated in the headers", with(&|spec| spec.file_length = FileLength::Exact(900 * KIB))),
        ("reserved state", with(&|spec| spec.raw_bat.extend([(0, 5)]))),
        ("far block", with(&|spec| spec.raw_bat.extend([(0, (1 << 40) | 6)]))),
        ("overlap", with(&|spec| spec.raw_bat.extend([(0, (2 << 20) | 6)]))),
        ("no parent", Spec::child_of(&Spec::default(), "missing.vhdx").build()),
        ("no locator", with(&|spec| spec.has_parent = true)),
        (
            "BAT outside",
            with(&|spec| {
                spec.regions = Some(vec![crate::kit::builder::Region {
                    guid: BAT_REGION,
                    offset: 64 * MIB,
                    length: 1 << 20,
                    required: 1,
                }])
            }),
        ),
    ]
}

fn commands(path: &Path, folder: &Path) -> Vec<(&'static str, bool, std::process::Command)> {
    let words: [(&[&'static str], bool); 15] = [
        (&["info"], false),
        (&["info", "--salvage"], true),
        (&["map"], false),
        (&["map", "--salvage"], true),
        (&["extract"], false),
        (&["extract", "--salvage"], true),
        (&["hash"], false),
        (&["hash", "--salvage"], true),
        (&["read", "--range", "0:512"], false),
        (&["log"], false),
        (&["chain"], false),
        (&["check"], false),
        (&["diff"], false),
        (&["compare"], false),
        (&["info", "--log", "refuse"], false),
    ];
    let made = words.into_iter().map(|(words, is_salvage)| {
        let mut command = vhdx(words.iter());
        command.arg(path);
        match words[0] {
            "extract" => drop(command.arg("--force").arg(folder.join("out.raw"))),
            "compare" => drop(command.arg(path)),
            _ => {}
        }
        (words[0], is_salvage, command)
    });
    made.collect()
}

#[test]
fn no_hint_names_the_command_that_was_run() {
    let folder = temp_dir();
    let mut hints = 0;
    for (what, image) in images() {
        let path = write(folder.path(), &image);
        for (name, is_salvage, mut command) in commands(&path, folder.path()) {
            let ran = run(&mut command);
            for hint in ran.err.lines().filter_map(|line| line.strip_prefix("vhdx: hint: ")) {
                hints += 1;
                for named in hint.split('`').skip(1).step_by(2) {
                    let mut words = named.split(' ');
                    if words.next() != Some("vhdx") {
                        continue;
                    }
                    let same = words.next() == Some(name) && (named.contains(" --salvage") == is_salvage);
                    // With another option, it is another command.
                    let adds = named.contains("--assume");
                    assert!(!same || adds, "{what}: {name} (salvage: {is_salvage}): {hint}");
                }
            }
        }
    }
    assert!(hints > 100, "only {hints} hints");
}
