//! Behaviour that all commands share.

use serde_json::Value;

use crate::kit::builder::Spec;
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB};
use crate::support::{temp_dir, vhdx};

use super::{args, assert_fails, content, part, vhdx_run, write_image};

/// Commands that take one image, with the arguments after it.
const COMMANDS: [(&str, &[&str]); 7] = [
    ("info", &[]),
    ("map", &[]),
    ("extract", &["-"]),
    ("hash", &[]),
    ("read", &["--range", "0:"]),
    ("log", &[]),
    ("chain", &[]),
];

/// Commands with other arguments.
const OTHERS: [&str; 4] = ["verify", "compare", "diff", "merge"];

#[test]
fn missing_command_prints_help_and_ends_with_2() {
    let ran = vhdx_run::<&str>([]);
    assert_fails(&ran, 2, &["Usage: vhdx [OPTIONS] <COMMAND>", "Exit codes:"]);
    assert!(ran.out.is_empty());
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["-h"], &["help"], &["info", "--help"], &["help", "convert"]] {
        let ran = vhdx_run(args).done();
        assert!(ran.text().contains("Usage: vhdx"), "{args:?}: {}", ran.text());
        assert_eq!(ran.err, "", "{args:?}");
    }
    assert_eq!(vhdx_run(["--version"]).done().text(), format!("vhdx {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_has_examples_and_defaults() {
    for command in COMMANDS.map(|(command, _)| command).into_iter().chain(OTHERS) {
        let help = vhdx_run([command, "--help"]).done().text();
        assert!(help.contains(&format!("Example: vhdx {command} ")), "{help}");
        let options = help.lines().filter(|line| line.trim_start().starts_with("--") && line.contains('<'));
        // The range of `read` and the files of `--parent` have no default.
        let is_free = |line: &str| line.contains("--parent <") || (command == "read" && line.contains("--range"));
        for option in options.filter(|line| !is_free(line)) {
            let text = help.split(option).nth(1).unwrap();
            let text = text.split("\n  -").next().unwrap().split("\n      --").next().unwrap();
            assert!(text.contains("[default: "), "{command}: {option}{text}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_mistake() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let image = image.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["frobnicate"], "frobnicate"),
        (&["info", "-"], "standard input"),
        (&["info", "--parents", "", image], "the name of the folder is empty"),
        (&["extract", "-O", "vhd", "--range", "0:0", image, "-"], "a VHD cannot be empty"),
        (&["info"], "<IMAGE>"),
        (&["map", image, image], image),
        (&["extract", image], "no output is named"),
        (&["read", image], "--range"),
        (&["read", image, "--range", "512"], "is not a range"),
        (&["read", image, "--range", "0:1X"], "is not a size"),
        (&["read", image, "--range", "0:9M"], "8388608"),
        (&["read", image, "--range", "9M:"], "8388608"),
        (&["extract", image, "out", "--range", "8M:1"], "8388608"),
        (&["extract", image, "out", "--format", "qcow2"], "qcow2"),
        (&["map", image, "--start-offset", "-1"], "-1"),
        (&["map", image, "--start-offset", "9M"], "8388608"),
        (&["map", image, "--max-length", "1.5M"], "is not a size"),
        (&["map", image, "--output", "xml"], "xml"),
        (&["info", image, "--threads", "100000"], "100000"),
        (&["info", image, "--log", "erase"], "erase"),
        (&["info", image, "--color", "blue"], "blue"),
        (&["info", image, "--frobnicate"], "--frobnicate"),
    ];
    for (args, word) in cases {
        let ran = crate::support::run(vhdx(*args).current_dir(folder.path()));
        assert_fails(&ran, 2, &[word]);
        assert!(ran.out.is_empty(), "{args:?}");
    }
    assert_eq!(super::names_in(folder.path()), ["disk.vhdx"]);
}

#[test]
fn standard_output_holds_results_only() {
    let folder = temp_dir();
    let spec = Spec::default();
    let path = folder.path().join("dirty.vhdx");
    Dirty::ManyEntries.build(&spec).bytes.write_file(&path).unwrap();
    for command in ["info", "map", "hash", "log", "chain"] {
        let ran = vhdx_run(args![command, "--output", "json", &path]).done();
        assert!(!matches!(ran.json(), Value::Null), "{command}");
    }
    let disk = content(&spec);
    let note = "dirty.vhdx: the log was replayed in memory (";
    for (command, more) in COMMANDS.iter().filter(|(command, _)| ["extract", "read"].contains(command)) {
        let ran = vhdx_run(args![*command, &path].into_iter().chain(more.iter().map(Into::into))).done();
        assert!(ran.out == disk, "{command}");
        assert!(ran.err.starts_with("vhdx: note: ") && ran.err.contains(note), "{command}: {}", ran.err);
    }
}

#[test]
fn quiet_hides_notes_and_warnings_but_not_errors() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    let mut image = Dirty::OneEntry.build(&Spec::default());
    // The older header is damaged, which is a warning.
    image.patch_header_raw(1, 100, b"damage");
    image.bytes.write_file(&path).unwrap();
    for (command, more) in COMMANDS {
        let with = |option: &[&str]| {
            let more = more.iter().chain(option).map(Into::into);
            vhdx_run(args![command, &path].into_iter().chain(more)).done()
        };
        let (loud, quiet, short) = (with(&[]), with(&["--quiet"]), with(&["-q"]));
        assert_eq!((&*quiet.err, &*short.err), ("", ""), "{command}");
        // These show notes and warnings among their results.
        let is_result = !["info", "chain"].contains(&command);
        assert!(quiet.out == short.out && (loud.out == quiet.out) == is_result, "{command}");
        assert!(!quiet.out.windows(8).any(|text| text == b"header 1"), "{command}");
        if ["map", "extract", "hash", "read"].contains(&command) {
            assert!(loud.err.contains("vhdx: note: ") && loud.err.contains("vhdx: warning: "), "{}", loud.err);
            assert!(loud.err.contains("header 1"), "{}", loud.err);
        }
    }
    let ran = vhdx_run(args!["map", "--quiet", folder.path().join("missing.vhdx")]);
    assert_fails(&ran, 66, &["vhdx: error: "]);
}

#[test]
fn threads_and_mapping_do_not_change_results() {
    let folder = temp_dir();
    let mut base = Spec::empty(40 * MIB);
    for number in (0..40).step_by(3) {
        base = base.block(number, Block::full());
    }
    write_image(folder.path(), "base.vhdx", &base);
    let child = Spec::child_of(&base, "base.vhdx")
        .block(1, Block::full())
        .block(3, Block::partial(&[8..24, 100..101, 2040..2048]))
        .block(9, Block::zero())
        .block(39, part(0..1));
    let path = folder.path().join("child.avhdx");
    let built = Dirty::StaleBeforeTail.build(&child);
    built.bytes.write_file(&path).unwrap();
    let models = [&built.model, &base.build().model];
    let disk = crate::kit::Model::read(&models, 0, usize::try_from(40 * MIB).unwrap()).unwrap();
    for options in [&[][..], &["--threads", "0"], &["--threads", "1"], &["--threads", "4"], &["--no-mmap"]] {
        let options = || options.iter().map(Into::into);
        let out = folder.path().join("out");
        vhdx_run(args!["extract", "--force", "-q", &path, &out].into_iter().chain(options())).done();
        assert!(std::fs::read(&out).unwrap() == disk);
        let piped = vhdx_run(args!["extract", "-q", &path, "-"].into_iter().chain(options())).done();
        assert!(piped.out == disk);
        let read = vhdx_run(args!["read", "-q", &path, "--range", "3M:1M"].into_iter().chain(options())).done();
        assert!(read.out == disk[3 << 20..4 << 20]);
    }
}

#[test]
fn common_options_work_before_and_after_the_command() {
    let folder = temp_dir();
    let path = folder.path().join("dirty.vhdx");
    Dirty::OneEntry.build(&Spec::default()).bytes.write_file(&path).unwrap();
    for args in [args!["--log", "refuse", "map", &path], args!["map", &path, "--log", "refuse"]] {
        assert_fails(&vhdx_run(args), 80, &["log"]);
    }
}

#[test]
fn sizes_can_have_units() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let disk = content(&Spec::default());
    for (range, expected) in [
        ("1M:64K", &disk[1 << 20..(1 << 20) + (64 << 10)]),
        ("2m:4k", &disk[2 << 20..(2 << 20) + 4096]),
        ("0x200000:0x200", &disk[2 << 20..(2 << 20) + 512]),
        ("5MiB:1MB", &disk[5 << 20..6 << 20]),
        ("5242881:3", &disk[5_242_881..5_242_884]),
        ("7M:", &disk[7 << 20..]),
        ("8M:", &[]),
        ("8M:0", &[]),
    ] {
        let ran = vhdx_run(args!["read", &path, "--range", range]).done();
        assert!(ran.out == expected, "{range}");
    }
    let map = |start: &str, length: &str| {
        vhdx_run(args!["map", &path, "--output", "json", "--start-offset", start, "--max-length", length]).done().json()
    };
    assert_eq!(map("1M", "2G"), map("1048576", "0x80000000"));
    assert_eq!(map("64K", "1T")[0]["start"], 65536);
}

#[test]
fn log_option_replays_refuses_or_ignores() {
    let folder = temp_dir();
    let spec = Spec::default();
    let path = folder.path().join("dirty.vhdx");
    // The BAT in the file is zeros; the log holds the right one.
    let mut image = spec.build();
    image.log_only(&[image.block_entry_at(0) & !0xfff], crate::kit::log::Old::Zero);
    image.bytes.write_file(&path).unwrap();
    let read = |policy: &str| vhdx_run(args!["read", "--range", "0:", "--log", policy, &path]);

    let replayed = read("replay").done();
    assert!(replayed.out == content(&spec));
    assert!(replayed.err.contains("the log was replayed in memory (1 entry)"), "{}", replayed.err);

    let refused = read("refuse");
    assert_fails(&refused, 80, &["changes that are not in the file yet", "hint: --log replay"]);
    assert!(refused.out.is_empty());

    let ignored = read("ignore").done();
    assert!(ignored.out.iter().all(|byte| *byte == 0));
    assert!(ignored.err.contains("warning: ") && ignored.err.contains("the log was ignored"), "{}", ignored.err);

    // The image is unchanged: nothing is ever written to it.
    let mut untouched = spec.build();
    untouched.log_only(&[untouched.block_entry_at(0) & !0xfff], crate::kit::log::Old::Zero);
    assert!(std::fs::read(&path).unwrap() == untouched.bytes.to_vec());
}
