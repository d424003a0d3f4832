//! How much the command says: notes with `--verbose`, errors only with `--quiet`, one closing line for several images.

use super::{args, vhdx_run, write_image};
use crate::kit::builder::Spec;
use crate::kit::log::Dirty;
use crate::support::temp_dir;

/// An image with the habit of QEMU, and two notes more.
fn noted() -> Spec {
    let creator = "QEMU v8.2.2".encode_utf16().collect();
    Spec { regions_required: 0, creator, more_flags: 8, ..Spec::default() }
}

#[test]
fn notes_are_one_line_unless_they_are_asked_for() {
    let folder = temp_dir();
    let path = write_image(folder.path(), "habits.vhdx", &noted());
    let run = |words: &[&str]| vhdx_run(words.iter().map(Into::into).chain(args![&path])).done();
    for command in ["check", "info", "chain"] {
        let text = run(&[command]).text();
        assert!(text.contains("3 harmless notes (-v shows them)") && !text.contains("note:"), "{command}: {text}");
        let text = run(&[command, "-v"]).text();
        assert!(!text.contains("harmless") && text.matches("note:").count() == 3, "{command}: {text}");
        // What is known of a program is named.
        assert_eq!(text.matches("[V36], a habit of QEMU").count(), 2, "{command}: {text}");
        let text = run(&[command, "-q"]).text();
        assert!(!text.contains("note"), "{command}: {text}");
    }
    assert_eq!(run(&["check", "-q"]).text(), "");
    let report = run(&["check", "--output", "json"]).json();
    let habits: Vec<_> = report["findings"].as_array().unwrap().iter().map(|finding| &finding["habit-of"]).collect();
    assert_eq!(habits.iter().filter(|habit| **habit == "QEMU").count(), 2, "{report}");
    // The same breach by another program is not a habit.
    let other = write_image(folder.path(), "other.vhdx", &Spec { regions_required: 0, ..Spec::default() });
    assert!(!vhdx_run(args!["check", "-v", &other]).done().text().contains("habit"));
}

#[test]
fn quiet_commands_print_errors_and_results_only() {
    let folder = temp_dir();
    let good = write_image(folder.path(), "good.vhdx", &Spec::default());
    let bad = write_image(folder.path(), "bad.vhdx", &Spec { raw_bat: [(2, 5)].into(), ..Spec::default() });
    let leaky = write_image(folder.path(), "leaky.vhdx", &Spec { raw_bat: [(2, 0)].into(), ..Spec::default() });
    let run = |words: Vec<std::ffi::OsString>, code: i32| {
        let ran = vhdx_run(words);
        assert_eq!(ran.status.code(), Some(code), "{}", ran.err);
        ran
    };
    assert_eq!(run(args!["check", "-q", &good], 0).text(), "");
    assert_eq!(run(args!["check", "-q", &leaky], 3).text(), "");
    let text = run(args!["check", "-q", &good, &leaky, &bad], 2).text();
    assert!(text.starts_with("corruption: ") && text.lines().count() == 1, "{text}");
    assert_eq!(run(args!["compare", "-q", &good, &good], 0).text(), "");
    assert_eq!(run(args!["compare", "-q", &good, &leaky], 1).text(), "");
    let list = folder.path().join("list");
    std::fs::write(&list, run(args!["hash", "-q", &good], 0).out).unwrap();
    assert_eq!(run(args!["verify", "-q", "--check", &list], 0).text(), "");
    std::fs::write(&list, run(args!["hash", "-q", &good], 0).text().replace("good", "leaky")).unwrap();
    assert!(run(args!["verify", "-q", "--check", &list], 1).text().contains("FAILED"));
    // A salvage that has lost something says so by its exit code.
    assert_eq!(run(args!["hash", "--salvage", "-q", &bad], 65).err, "");
    assert!(run(args!["hash", "-q", &bad], 65).err.starts_with("vhdx: error: "));
}

#[test]
fn several_images_end_with_a_count_of_results() {
    let folder = temp_dir();
    let good = write_image(folder.path(), "good.vhdx", &Spec::default());
    let bad = write_image(folder.path(), "bad.vhdx", &Spec { raw_bat: [(2, 5)].into(), ..Spec::default() });
    let missing = folder.path().join("missing.vhdx");
    let last = |words: Vec<std::ffi::OsString>| vhdx_run(words).text().lines().last().unwrap_or_default().to_owned();
    let line = "4 images: 2 fine, 1 not checked, 1 corrupt";
    assert_eq!(last(args!["check", &good, &bad, &missing, &good]), line);
    assert_eq!(last(args!["info", &good, &bad, &missing]), "3 images: 2 fine, 1 failed");
    assert!(!last(args!["check", &good]).contains("images"));
    assert!(!last(args!["check", "-q", &good, &bad]).contains("images"));
}

#[test]
fn digests_of_several_images_end_with_a_count_on_standard_error() {
    let folder = temp_dir();
    let name = |name: &str| folder.path().join(name);
    let good = write_image(folder.path(), "good.vhdx", &Spec::default());
    let other = write_image(folder.path(), "other.vhdx", &Spec::default());
    let missing = name("missing.vhdx");
    let count = |words: Vec<std::ffi::OsString>| {
        let ran = vhdx_run(words);
        assert!(!ran.text().contains(" hashed") && !ran.text().contains(" files: "), "{}", ran.text());
        ran.err.lines().last().unwrap_or_default().to_owned()
    };
    let three = "vhdx: 3 images: 2 hashed, 1 failed";
    assert_eq!(count(args!["hash", &good, &missing, &other]), three);
    assert_eq!(count(args!["hash", "-r", folder.path()]), "vhdx: 2 images: 2 hashed");

    std::fs::create_dir(name("manifests")).unwrap();
    let manifests = |words: Vec<std::ffi::OsString>| [words, args!["--manifest", name("manifests")]].concat();
    assert_eq!(count(manifests(args!["hash", &good, &missing, &other])), three);
    write_image(folder.path(), "other.vhdx", &Spec::default().block(2, crate::kit::Block::full().bytes(b"later")));
    let line = "vhdx: 3 images: 1 OK, 1 with mismatches, 1 not verified";
    assert_eq!(count(manifests(args!["verify", &good, &missing, &other])), line);

    // Files count once, whatever the number of their lines is.
    let list = name("list");
    let two = vhdx_run(args!["hash", "-a", "sha256,md5", "--file", &good]).done().text();
    let of_good = vhdx_run(args!["hash", &good]).done().text();
    let lines = two + &of_good.replace("good", "other") + &of_good.replace("good", "missing") + "not a digest\n";
    std::fs::write(&list, lines).unwrap();
    let line = "vhdx: 3 files: 1 OK, 1 with mismatches, 1 not verified; 1 line of the list not used";
    assert_eq!(count(args!["verify", "--check", &list]), line);

    // Not of one image, nor with --quiet or in the way of JSON.
    for words in [
        args!["hash", &good],
        args!["hash", "-q", &good, &other],
        args!["hash", "--json", &good, &other],
        args!["verify", "-q", "--check", &list],
        args!["verify", "--json", "--check", &list],
        manifests(args!["verify", "--json", &good, &other]),
    ] {
        let err = vhdx_run(&words).err;
        assert!(!err.contains(" images: ") && !err.contains(" files: "), "{words:?}: {err}");
    }
    let err = vhdx_run(args!["hash", "--progress", "json", &good, &other]).done().err;
    assert!(err.lines().all(|line| line.starts_with('{')), "{err}");
}

#[test]
fn check_reports_a_dirty_log() {
    let folder = temp_dir();
    let path = folder.path().join("dirty.vhdx");
    Dirty::ManyEntries.build(&Spec::default()).bytes.write_file(&path).unwrap();
    let report = vhdx_run(args!["check", "--output", "json", &path]).json();
    assert_eq!(report["log"], "replayed");
    let entries = report["log-entries-replayed"].as_u64().unwrap();
    assert!(entries > 1, "{report}");
    let text = vhdx_run(args!["check", &path]).text();
    assert!(text.contains(&format!("the log is dirty: {entries} entries replayed in memory.")), "{text}");
}
