//! Near misses: command lines that other programs would understand.

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::kit::builder::Spec;
use crate::support::{run, run_to, temp_dir, vhdx};

use super::{args, assert_fails, vhdx_run, write_image};

#[test]
fn near_misses_give_tips() {
    for (words, tip) in [
        (&["dir", "."][..], "vhdx list FOLDER"),
        (&["fls", "a.vhdx"], "vhdx ls IMAGE:/"),
        (&["forest"], "vhdx chain --tree FOLDER"),
        (&["-v"][..], "vhdx --version"),
        (&["guestmount", "a.vhdx", "/mnt"], "vhdx mount IMAGE DIR"),
        (&["unmount", "/mnt"], "vhdx umount DIR"),
        (&["qemu-nbd", "a.vhdx"], "vhdx serve IMAGE"),
        (&["version"], "vhdx --version"),
        (&["dd", "if=a.vhdx"], "vhdx extract IMAGE disk.raw"),
        (&["hexdump", "a.vhdx"], "vhdx extract IMAGE disk.raw"),
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
    for (words, tip) in [
        (&["hash", "--check", "SHA256SUMS"][..], "vhdx verify --check SHA256SUMS"),
        (&["hash", "-c", "SHA256SUMS"], "vhdx verify --check SHA256SUMS"),
        (&["hash", "--md5", "a.vhdx"], "vhdx hash -a "),
        (&["-q", "convert", "-m", "8", "a.vhdx", "a.raw"], "--threads"),
        (&["convert", "-c", "a.vhdx", "a.raw"], "vhdx extract IMAGE -"),
        (&["info", "-U", "a.vhdx"], "without locks"),
        (&["l", "a.vhdx"], "vhdx list FOLDER"),
        (&["apply", "a.vhdx"], "vhdx extract IMAGE disk.raw"),
        (&["Merge-VHD", "a.avhdx"], "with all of its parents"),
        (&["Get-VHD", "a.vhdx"], "vhdx info IMAGE"),
        (&["mmls", "a.vhdx"], "partitions and file systems"),
        (&["ntfsundelete", "a.vhdx"], "vhdx extract IMAGE disk.raw"),
    ] {
        assert_fails(&vhdx_run(words), 2, &[tip]);
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
        // 2 of `check` is corruption.
        let code = if command == "check" { 1 } else { 2 };
        assert_fails(&ran, code, &["-f qcow2: only VHDX and AVHDX images can be read"]);
    }
    let ran = vhdx_run(args!["convert", "-f", "raw", &image, folder.path().join("out.raw")]);
    assert_fails(&ran, 2, &["-f raw: only VHDX"]);
}

#[test]
fn lists_and_images_in_the_wrong_command_give_tips() {
    let folder = temp_dir();
    let run = |words: &[&str]| run(vhdx(words).current_dir(folder.path()));
    let base = Spec::default();
    write_image(folder.path(), "base.vhdx", &base);
    write_image(folder.path(), "child.avhdx", &Spec::child_of(&base, "base.vhdx"));
    std::fs::write(folder.path().join("a list"), run(&["hash", "base.vhdx"]).done().out).unwrap();
    assert_fails(&run(&["verify", "a list"]), 2, &["is a list of digests", "`vhdx verify --check 'a list'`"]);
    let ran = run(&["verify", "base.vhdx"]);
    assert_fails(&ran, 2, &["--manifest"]);
    assert!(!ran.err.contains("is a list"), "{}", ran.err);
    for (words, tip) in [
        (&["verify", "base.vhdx"][..], "`vhdx hash --manifest FILE IMAGE`"),
        (&["extract", "base.vhdx"], "`vhdx extract base.vhdx base.raw`"),
        (&["convert", "-O", "raw", "base.vhdx"], "`vhdx extract base.vhdx base.raw`"),
        (&["read", "base.vhdx"], "`vhdx read base.vhdx --range 0:512 --hex`"),
    ] {
        assert_fails(&run(words), 2, &[tip]);
    }
    assert_fails(&run(&["extract"]), 2, &["<OUT>"]);
    for words in [&["merge", "base.vhdx", "child.avhdx"][..], &["merge", "child.avhdx", "base.vhdx"]] {
        assert_fails(&run(words), 65, &["is an image, not a result of", "`vhdx extract child.avhdx disk.raw`"]);
    }
    assert_fails(&run(&["merge", "base.vhdx"]), 65, &["`vhdx extract base.vhdx disk.raw`"]);
    let ran = run(&["merge", "a list"]);
    assert!(!ran.status.success() && !ran.err.contains("is an image"), "{}", ran.err);
}

#[test]
fn what_is_no_file_gives_the_right_hint() {
    let folder = temp_dir();
    let name = |name: &str| folder.path().join(name);
    mknodat(CWD, name("pipe.vhdx"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    std::os::unix::fs::symlink("two.vhdx", name("one.vhdx")).unwrap();
    std::os::unix::fs::symlink("one.vhdx", name("two.vhdx")).unwrap();
    for command in ["info", "hash", "check", "chain"] {
        let words = ["is a pipe", "hint: write the image to a file first"];
        assert_fails(&vhdx_run(args![command, name("pipe.vhdx")]), if command == "check" { 1 } else { 66 }, &words);
        let words = ["cannot be opened", "hint: these links lead to each other"];
        assert_fails(&vhdx_run(args![command, name("one.vhdx")]), if command == "check" { 1 } else { 66 }, &words);
    }
    assert_fails(&vhdx_run(args!["info", "/dev/null"]), 66, &["hint: name a file or a block device"]);
    // Neither of them is waited for.
    assert_fails(&vhdx_run(args!["verify", name("pipe.vhdx"), name("one.vhdx")]), 2, &["--manifest"]);
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
