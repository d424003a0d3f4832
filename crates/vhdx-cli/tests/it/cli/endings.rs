//! Exit codes, and the messages with them.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::kit::builder::{INCOMPLETE_FILE, IS_REQUIRED, Item, Locator, Region, Spec};
use crate::kit::log::Dirty;
use crate::kit::{Block, MIB};
use crate::support::{Ran, run, run_to, skip, temp_dir, vhdx};

use super::{args, vhdx_run, write_image};

/// A failing run: its exit code, and words of the message, such as location, found and expected value.
struct Case {
    what: &'static str,
    code: i32,
    args: Vec<OsString>,
    words: &'static [&'static str],
}

/// Images that cannot be read for various reasons, and the words of their messages.
fn cases(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what, code, name: &str, words, image: crate::kit::builder::Image| {
        let path = folder.join(name);
        image.bytes.write_file(&path).unwrap();
        cases.push(Case { what, code, args: args!["extract", path, folder.join("out")], words });
    };
    let spec = Spec::default();

    let mut image = spec.build();
    image.patch_header_raw(1, 100, b"damage");
    image.patch_header_raw(2, 100, b"damage");
    let words = &["headers", "header 1 at 0x10004", "header 2 at 0x20004", "found 0x", "expected 0x"];
    add("both headers damaged", 65, "headers.vhdx", words, image);

    let mut image = spec.build();
    image.bytes.write(2 * MIB, b"METADATA");
    let words = &["metadata table at 0x200000", "found \"METADATA\"", "expected \"metadata\""];
    add("no metadata table", 65, "metadata.vhdx", words, image);

    let image = Spec { block_size: 3 << 20, bat_length: Some(1 << 20), ..Spec::empty(8 * MIB) }.build();
    let words = &["metadata item FileParameters at 0x210000", "BlockSize", "found 3145728", "expected a power of two"];
    add("impossible block size", 65, "size.vhdx", words, image);

    let mut odd = spec.clone();
    odd.raw_bat.insert(3, 5);
    let words = &["BAT entry of payload block 3 at 0x300018", "found 5", "expected 0 to 3, 6 or 7"];
    add("reserved state of a block", 65, "state.vhdx", words, odd.build());

    let mut far = spec.clone();
    far.raw_bat.insert(3, (1 << 40) | 6);
    let words = &["payload block 3 at 0x10000000000", "1048576 bytes", "0x700000"];
    add("block past the end", 65, "far.vhdx", words, far.build());

    let mut image = spec.build();
    image.patch_headers(66, &[2, 0]);
    add("other version", 69, "version.vhdx", &["header 2 at 0x20042", "Version", "found 2", "expected 1"], image);

    let mut image = spec.clone();
    let id = Uuid::from_u128(0x0bad);
    image.extra_regions.push(Region { guid: id, offset: 16 * MIB, length: 1 << 20, required: 1 });
    let words = &["region table 1 at 0x30050", "00000000-0000-0000-0000-000000000bad", "required and unknown"];
    add("unknown region", 69, "region.vhdx", words, image.build());

    let mut image = spec.clone();
    image.items.push(Item::new(id, IS_REQUIRED, b"?"));
    let words = &["metadata table at 0x2000", "00000000-0000-0000-0000-000000000bad", "required and unknown"];
    add("unknown metadata item", 69, "item.vhdx", words, image.build());

    let mut image = spec.clone();
    image.items.push(Item::new(INCOMPLETE_FILE, IS_REQUIRED, b""));
    add(
        "creation never finished",
        65,
        "incomplete.vhdx",
        &["metadata table at 0x2000", "never finished"],
        image.build(),
    );

    let mut child = Spec::child_of(&spec, "base.vhdx");
    child.locator = Some(Locator::Pairs(id, Vec::new()));
    let words = &["parent locator at 0x2", "found {00000000-0000-0000-0000-000000000bad}", "expected {b04aefb7-"];
    add("unknown type of parent locator", 69, "locator.avhdx", words, child.build());

    let child = Spec::child_of(&spec, "missing.vhdx");
    add(
        "no parent",
        81,
        "orphan.avhdx",
        &["parent: \"", "missing.vhdx\" not found", "missing.vhdx (no such"],
        child.build(),
    );

    write_image(folder, "stranger.vhdx", &Spec { data_write_guid: id, ..spec.clone() });
    let child = Spec::child_of(&spec, "stranger.vhdx");
    let words = &[
        "parent: \"",
        "stranger.vhdx\"",
        "expected DataWriteGuid {00000000-0000-0000-0000-0000da7a0001}",
        "stranger.vhdx (DataWriteGuid {00000000-0000-0000-0000-000000000bad})",
    ];
    add("another parent", 82, "estranged.avhdx", words, child.build());

    let large = Spec { sector_size: 4096, ..spec.clone() };
    write_image(folder, "large.vhdx", &large);
    let child = Spec { sector_size: 512, ..Spec::child_of(&large, "large.vhdx") };
    let words = &["layer 1", "large.vhdx", "LogicalSectorSize", "found 4096", "expected 512"];
    add("sectors of another size", 65, "sectors.avhdx", words, child.build());
    cases
}

/// Other failures, with a valid image.
fn more_cases(folder: &Path) -> Vec<Case> {
    let image = write_image(folder, "good.vhdx", &Spec::default().block(3, Block::full()));
    let dirty = folder.join("dirty.vhdx");
    Dirty::OneEntry.build(&Spec::default()).bytes.write_file(&dirty).unwrap();
    let there = folder.join("there");
    std::fs::write(&there, "precious").unwrap();
    let case = |what, code, args, words| Case { what, code, args, words };
    vec![
        case("no image", 66, args!["map", folder.join("nothing")], &["nothing", "cannot be opened"]),
        case("a folder as image", 66, args!["map", folder], &["a directory", "expected a regular file"]),
        case("no VHDX", 65, args!["map", &there], &["file type identifier at 0x0", "looks like a text file"]),
        case("output is there", 73, args!["extract", &image, &there], &["there", "exists already"]),
        case("output is a folder", 73, args!["extract", &image, folder], &["is a directory"]),
        case(
            "no folder for the output",
            73,
            args!["extract", &image, folder.join("no/out")],
            &["no/out", "No such file"],
        ),
        case("dirty log", 80, args!["map", "--log", "refuse", &dirty], &["log at 0x100000", "LogGuid {e6fc743c-"]),
        case("range outside", 2, args!["read", "--range", "8M:1", &image], &["8388608"]),
        case("output is the image", 2, args!["extract", "--force", &image, &image], &["is the image itself"]),
    ]
}

fn failing(case: &Case) -> Ran {
    let ran = vhdx_run(&case.args);
    assert_eq!(ran.status.code(), Some(case.code), "{}: {}", case.what, ran.err);
    ran
}

#[test]
fn failures_have_exit_code_location_and_expected_value() {
    let folder = temp_dir();
    for case in cases(folder.path()).into_iter().chain(more_cases(folder.path())) {
        let ran = failing(&case);
        let first =
            ran.err.lines().find(|line| ![": note: ", ": warning: "].iter().any(|of| line.contains(of))).unwrap();
        assert!(first.starts_with("vhdx: error: "), "{}: {}", case.what, ran.err);
        for word in case.words {
            assert!(first.contains(word), "{}: no {word:?} in: {first}", case.what);
        }
    }
    assert!(!folder.path().join("out").exists());
}

#[test]
fn failures_have_a_hint() {
    let folder = temp_dir();
    // The message of wrong usage names what is expected, and needs no hint.
    let all = cases(folder.path()).into_iter().chain(more_cases(folder.path())).filter(|case| case.code != 2);
    let without_hint = all.filter(|case| !failing(case).err.contains("hint: "));
    let without_hint: Vec<String> = without_hint.map(|case| format!("{} ({})", case.what, case.code)).collect();
    assert!(without_hint.is_empty(), "no hint for: {}", without_hint.join("; "));
}

#[test]
fn hints_do_not_repeat_the_command() {
    let folder = temp_dir();
    let mut hints = 0;
    for case in cases(folder.path()) {
        let image = &case.args[1];
        for command in ["info", "map", "log", "chain", "check", "hash", "extract --salvage --force"] {
            let output = (command.starts_with("extract")).then(|| folder.path().join("out").into_os_string());
            let words = command.split(' ').map(OsString::from).chain([image.clone()]).chain(output);
            let ran = vhdx_run(words.collect::<Vec<_>>());
            let found: Vec<&str> = ran.err.lines().filter_map(|line| line.strip_prefix("vhdx: hint: ")).collect();
            let repeated = format!("`vhdx {}", command.trim_end_matches(" --force"));
            assert!(found.iter().all(|hint| !hint.contains(&repeated)), "{}, {command}: {found:?}", case.what);
            hints += found.len();
        }
    }
    assert!(hints > 20, "{hints}");
}

/// Runs the command as a user without permissions; `None`, with a message, if that is not possible.
fn run_without_permissions(args: Vec<OsString>, folder: &Path) -> Option<Ran> {
    // The owner of the folder runs this test.
    if folder.metadata().unwrap().uid() != 0 {
        return Some(vhdx_run(args));
    }
    let program = vhdx::<&str>([]).get_program().to_owned();
    let nobody = |args: Vec<OsString>| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program).args(args);
        command
    };
    if !nobody(args!["info", folder.join("readable.vhdx")]).output().is_ok_and(|output| output.status.success()) {
        skip("nobody", "root can't run the command as nobody here");
        return None;
    }
    Some(run(&mut nobody(args)))
}

#[test]
fn missing_permissions_are_reported() {
    // A folder that other users can enter, unlike some build folders.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    let readable = write_image(folder.path(), "readable.vhdx", &Spec::default());
    let secret = write_image(folder.path(), "secret.vhdx", &Spec::default());
    mode(&secret, 0);
    for command in ["info", "map", "log", "chain"] {
        let Some(ran) = run_without_permissions(args![command, &secret], folder.path()) else { return };
        super::assert_fails(&ran, 66, &["secret.vhdx", "Permission denied"]);
    }
    std::fs::create_dir(at("closed")).unwrap();
    mode(&at("closed"), 0o555);
    let ran = run_without_permissions(args!["extract", &readable, at("closed/out")], folder.path()).unwrap();
    super::assert_fails(&ran, 73, &["closed/out", "Permission denied"]);
    assert!(super::names_in(&at("closed")).is_empty());
    mode(&at("closed"), 0o755);
}

#[test]
fn commands_work_without_more_threads() {
    // A folder that other users can enter, unlike some build folders.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    let program = vhdx::<&str>([]).get_program().to_owned();
    // A user of this test alone: the system counts threads per user.
    let user = 2_000_000_000 - std::process::id();
    let limited = |threads: u32, args: Vec<OsString>| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}")).args(["--", "setpriv", "--regid=65534", "--clear-groups"]);
        command.arg(format!("--reuid={user}")).arg("--").arg(&program).args(args);
        command
    };
    // The limit does not apply to root, but only root can change the user.
    if !limited(1, args!["info", &image]).output().is_ok_and(|output| output.status.success()) {
        return skip("nobody", "the command cannot be run as a user without threads here");
    }
    for args in [
        args!["hash", "-a", "sha256,md5,blake3", "--threads", "2", &image],
        args!["hash", "-a", "crc32", &image],
        args!["hash", "--manifest", "-", &image],
        args!["extract", "--hash", "sha1,sha256", &image, "-"],
        args!["compare", &image, &image],
        args!["check", &image],
    ] {
        let expected = vhdx_run(&args).done();
        for threads in 1..=4 {
            let ran = run(&mut limited(threads, args.clone())).done();
            assert!((&ran.out, &ran.err) == (&expected.out, &expected.err), "{args:?}, {threads} threads: {}", ran.err);
        }
    }
}

#[test]
fn failed_writes_end_with_74() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for args in [
        args!["info", &image],
        args!["info", "--output", "json", &image],
        args!["map", &image],
        args!["map", "--output", "json", &image],
        args!["log", &image],
        args!["chain", "--output", "json", &image],
        args!["read", "--range", "0:", &image],
        args!["read", "--hex", "--range", "0:", &image],
        args!["extract", &image, "-"],
    ] {
        let ran = run_to(&mut vhdx(&args), full());
        assert_eq!(ran.status.code(), Some(74), "{args:?}: {}", ran.err);
        assert!(ran.err.contains("vhdx: error: standard output: "), "{args:?}: {}", ran.err);
    }
    // As a path, it is not standard output that is full.
    let ran = vhdx_run(args!["extract", &image, "/dev/full"]);
    assert_eq!(ran.status.code(), Some(74), "{}", ran.err);
    assert!(ran.err.contains("/dev/full: "), "{}", ran.err);
}

#[test]
fn success_ends_with_0_and_prints_no_message() {
    let folder = temp_dir();
    let image = write_image(folder.path(), "disk.vhdx", &Spec::default());
    for args in [
        args!["info", &image],
        args!["map", &image],
        args!["log", &image],
        args!["chain", &image],
        args!["read", "--range", "0:", &image],
        args!["extract", &image, folder.path().join("out")],
        args!["extract", &image, "-"],
    ] {
        let ran = vhdx_run(&args);
        assert_eq!((ran.status.code(), &*ran.err), (Some(0), ""), "{args:?}");
    }
}
