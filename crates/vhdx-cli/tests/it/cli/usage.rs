//! Near misses: command lines that other programs would understand.

use crate::kit::builder::Spec;
use crate::support::{run, run_to, temp_dir, vhdx};

use super::{args, assert_fails, vhdx_run, write_image};

#[test]
fn near_misses_give_tips() {
    for (words, tip) in [
        (&["ls", "."][..], "vhdx list FOLDER"),
        (&["tree"][..], "vhdx chain --tree FOLDER"),
        (&["-v"][..], "vhdx --version"),
        (&["mount", "a.vhdx", "/mnt"], "vhdx does not mount"),
        (&["version"], "vhdx --version"),
        (&["dd", "if=a.vhdx"], "vhdx extract IMAGE disk.raw"),
        (&["cat", "a.vhdx"], "vhdx extract IMAGE disk.raw"),
        (&["sha256sum", "a.vhdx"], "vhdx hash IMAGE"),
        (&["repair", "a.vhdx"], "never writes"),
        (&["snapshots", "a.vhdx"], "vhdx chain IMAGE"),
        (&["FSCK", "a.vhdx"], "vhdx check IMAGE"),
        (&["--info", "a.vhdx"], "vhdx info --help"),
        (&["--convert", "a.vhdx"], "vhdx extract --help"),
        (&["--check", "a.vhdx"], "vhdx check --help"),
    ] {
        let ran = vhdx_run(words);
        assert_fails(&ran, 2, &[words[0], tip]);
        assert!(tip.is_empty() || ran.err.contains("vhdx: hint: "), "{}", ran.err);
    }
    // What is understood.
    vhdx_run(["help"]).done();
    vhdx_run(["help", "convert"]).done();
    vhdx_run(["-V"]).done();
    // A file instead of a command.
    let folder = temp_dir();
    write_image(folder.path(), "my disk.vhdx", &Spec::default());
    let ran = run(vhdx(["my disk.vhdx"]).current_dir(folder.path()));
    assert_fails(&ran, 2, &["vhdx info 'my disk.vhdx'"]);
    assert_fails(&vhdx_run(args![folder.path()]), 2, &["vhdx list "]);
    // Formats of qemu-img.
    let image = folder.path().join("my disk.vhdx");
    for command in ["info", "check", "map"] {
        vhdx_run(args![command, "-f", "vhdx", &image]).done();
        let ran = vhdx_run(args![command, "-f", "qcow2", &image]);
        assert_fails(&ran, 2, &["-f qcow2: only VHDX and AVHDX images can be read"]);
    }
    let ran = vhdx_run(args!["convert", "-f", "raw", &image, folder.path().join("out.raw")]);
    assert_fails(&ran, 2, &["-f raw: only VHDX"]);
}

#[test]
fn commands_in_tips_exist() {
    let source = include_str!("../../../src/tips.rs");
    let mut typed = 0;
    for command in source.split('`').filter_map(|text| text.strip_prefix("vhdx ")) {
        if command.contains('{') || command.starts_with("--info") {
            continue;
        }
        vhdx_run(command.split_whitespace().filter(|word| *word != "--version").chain(["--help"])).done();
        typed += 1;
    }
    assert!(typed >= 10, "{typed}");
}

#[test]
fn help_version_and_scripts_report_a_full_device() {
    let full = || std::process::Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    for words in [&["--help"][..], &["info", "--help"], &["--version"], &["completions", "zsh"], &["hash", "IMAGE"]] {
        let folder = temp_dir();
        let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
        let words = words.iter().map(|word| if *word == "IMAGE" { image.clone().into() } else { (*word).into() });
        let ran = run_to(&mut vhdx(words.collect::<Vec<std::ffi::OsString>>()), full());
        assert_fails(&ran, 74, &["vhdx: error: standard output: "]);
    }
}

#[test]
fn a_closed_reader_is_no_error_of_text() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for words in [args!["--help"], args!["completions", "bash"], args!["hash", &image], args!["info", "--json", &image]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = run_to(&mut vhdx(&words), writer.into());
        assert_eq!((ran.status.code(), ran.err.as_str()), (Some(0), ""), "{words:?}");
    }
}
