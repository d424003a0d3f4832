//! Output on terminals: colours, progress, and names that must not control the terminal.

use std::ffi::OsString;
use std::process::Command;

use crate::kit::builder::Spec;
use crate::kit::log::Dirty;
use crate::support::{run, skip, temp_dir, vhdx};

use super::{args, assert_fails, disk_with, vhdx_run, write_image};

const ESC: char = '\u{1b}';

/// A name with all kinds of characters that control a terminal.
const HOSTILE: &str = "a\u{1b}[31mb\u{7}c\rd\u{7f}e\u{9b}2Jf\u{202e}g\u{2028}h";

/// Output of the command on a terminal: standard output and standard error. `None`, with a message, if there is no
/// `script` to make a terminal.
fn on_terminal(args: Vec<OsString>, environment: &[(&str, &str)]) -> Option<String> {
    let folder = temp_dir();
    let quoted = |arg: &OsString| format!("'{}'", arg.to_str().unwrap().replace('\'', "'\\''"));
    let mut line: Vec<OsString> = vec![vhdx::<&str>([]).get_program().to_owned()];
    line.extend(args);
    let line: Vec<String> = line.iter().map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line.join(" ")]).arg(folder.path().join("typescript"));
    script.env_remove("NO_COLOR").env("TERM", "xterm-256color").envs(environment.iter().copied());
    if Command::new("script").arg("--version").output().is_err() {
        skip("script", "no `script` to make a terminal");
        return None;
    }
    let ran = run(&mut script);
    Some(ran.text() + &ran.err)
}

#[test]
fn colours_are_used_on_terminals_or_on_request() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for command in ["info", "map", "log", "chain"] {
        let out = |color: &str| vhdx_run(args![command, "--color", color, &path]).done().text();
        let plain = out("auto");
        assert!(!plain.contains(ESC) && plain == out("never"), "{command}");
        assert!(out("always").contains(ESC), "{command}");
        let json = vhdx_run(args![command, "--color", "always", "--output", "json", &path]).done();
        assert!(!json.text().contains(ESC), "{command}");
    }
    let missing = folder.path().join("missing.vhdx");
    assert!(!vhdx_run(args!["info", &missing]).err.contains(ESC));
    assert!(vhdx_run(args!["info", &missing, "--color", "always"]).err.contains(ESC));

    let Some(shown) = on_terminal(args!["info", &path], &[]) else { return };
    assert!(shown.contains(ESC), "{shown:?}");
    for (args, environment) in [
        (args!["info", &path], &[("NO_COLOR", "1")][..]),
        (args!["info", &path, "--color", "never"], &[]),
        (args!["info", &missing], &[("NO_COLOR", "1")]),
    ] {
        let shown = on_terminal(args, environment).unwrap();
        assert!(shown.contains("disk.vhdx") || shown.contains("missing.vhdx"), "{shown:?}");
        assert!(!shown.contains(ESC), "{shown:?}");
    }
}

/// A character of the text that controls a terminal, other than the end of a line.
fn control_character(text: &str) -> Option<char> {
    text.replace("\r\n", "\n").chars().find(|c| {
        (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c) || ('\u{2028}'..='\u{2029}').contains(c)
    })
}

/// An image with hostile names in all places for names.
fn hostile_image(folder: &std::path::Path) -> std::path::PathBuf {
    let name: Vec<u8> = HOSTILE.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let disk = super::partitions::gpt(512, 16 << 20, &[super::partitions::Entry::named(2048, 4095, &name)]);
    let pieces: Vec<(u64, &[u8])> = disk.iter().map(|(offset, bytes)| (*offset, bytes.as_slice())).collect();
    let mut base = disk_with(16 << 20, &pieces);
    base.creator = HOSTILE.encode_utf16().collect();
    write_image(folder, "base.vhdx", &base);
    let mut child = Spec::child_of(&base, "base.vhdx");
    child.creator = HOSTILE.encode_utf16().collect();
    let locator = child.locator.as_mut().unwrap();
    // The parent is found by the remaining path.
    locator.set("relative_path", &format!(".\\{HOSTILE}"));
    locator.set("volume_path", HOSTILE);
    locator.set(HOSTILE, HOSTILE);
    write_image(folder, "child.avhdx", &child)
}

#[test]
fn names_from_an_image_are_escaped() {
    let folder = temp_dir();
    let child = hostile_image(folder.path());
    let report = vhdx_run(args!["info", &child]).done().text();
    assert_eq!(control_character(&report), None, "{report:?}");
    let escaped = "a\\u{1b}[31mb\\u{7}c\\rd\\u{7f}e\\u{9b}2Jf\\u{202e}g\\u{2028}h";
    for line in [
        format!("creator: {escaped}"),
        format!("parent locator relative_path: .\\{escaped}"),
        format!("parent locator {escaped}: {escaped}"),
    ] {
        assert!(report.lines().any(|report| report == line), "{line:?} in {report}");
    }
    assert!(report.contains(&format!("\"{escaped}\"")), "{report}");

    // The error names the paths that were searched.
    std::fs::remove_file(folder.path().join("base.vhdx")).unwrap();
    let mut child = Spec::child_of(&Spec::default(), "base.vhdx");
    child.locator.as_mut().unwrap().set("relative_path", &format!(".\\{HOSTILE}"));
    let child = write_image(folder.path(), "child.avhdx", &child);
    for command in ["map", "chain"] {
        let ran = vhdx_run(args![command, &child]);
        assert_fails(&ran, 81, &["\\u{1b}[31mb"]);
        assert_eq!(control_character(&(ran.text() + &ran.err)), None, "{ran:?}");
    }
}

#[test]
fn json_is_escaped() {
    let folder = temp_dir();
    let child = hostile_image(folder.path());
    for command in ["info", "map", "chain"] {
        let args = args![command, "--output", "json", &child];
        assert_ne!(vhdx_run(&args).done().json(), serde_json::Value::Null);
        let Some(shown) = on_terminal(args, &[]) else { return };
        assert_eq!(control_character(&shown), None, "{command}");
    }
}

#[test]
fn names_on_the_command_line_are_escaped() {
    let ran = vhdx_run(["info", "a\u{1b}[2Jb"]);
    assert_fails(&ran, 66, &["a\\u{1b}[2Jb"]);
    assert!(!ran.err.contains(ESC));
}

#[test]
fn progress_is_shown_on_terminals_only() {
    let folder = temp_dir();
    let path = folder.path().join("disk.vhdx");
    Dirty::OneEntry.build(&Spec::default()).bytes.write_file(&path).unwrap();
    let out = folder.path().join("out");
    let ran = vhdx_run(args!["extract", "--force", &path, &out]).done();
    assert!(!ran.err.contains('%'), "{}", ran.err);
    let Some(shown) = on_terminal(args!["extract", "-p", "--force", &path, &out], &[]) else { return };
    assert!(shown.contains("    (100.00/100%)\r") && shown.contains("8.00 MiB"), "{shown:?}");
    assert!(shown.contains("replayed"), "{shown:?}");
    let quiet = on_terminal(args!["extract", "--force", "--quiet", &path, &out], &[]).unwrap();
    assert_eq!(quiet, "");
}

#[test]
fn plain_progress_ends_with_one_line_wherever_it_is_shown() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let closings = |text: &str| text.matches(" bytes) in ").count();
    let Some(shown) = on_terminal(args!["hash", "-p", &path], &[]) else { return };
    assert_eq!((closings(&shown), shown.contains("    (100.00/100%)\r")), (1, true), "{shown:?}");
    assert_eq!(closings(&vhdx_run(args!["hash", "-p", &path]).done().err), 1);
    // Nothing that takes no time needs one.
    assert_eq!(closings(&on_terminal(args!["hash", &path], &[]).unwrap()), 0);
}

#[test]
fn disk_content_is_not_written_to_a_terminal() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "disk.vhdx", &disk_with(1 << 20, &[(0, b"bytes of the disk")]));
    for args in [args!["read", "--range", "0:512", &path], args!["extract", &path, "-"]] {
        let Some(shown) = on_terminal(args, &[]) else { return };
        assert!(shown.contains("standard output: is a terminal") && shown.contains("hint"), "{shown:?}");
        assert!(!shown.contains("bytes of the disk"));
    }
    let hex = on_terminal(args!["read", "--hex", "--range", "0:512", &path], &[]).unwrap();
    assert!(hex.contains("|bytes of the dis|"), "{hex:?}");
    let forced = on_terminal(args!["extract", "--force", &path, "-"], &[]).unwrap();
    assert!(forced.contains("bytes of the disk"));
}
