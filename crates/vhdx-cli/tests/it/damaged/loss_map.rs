//! `--loss-map`: its content, and where it is not written to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::cuts::{chain_of_three, cut};
use super::salvage::{extract, ranges, write};
use crate::device::Loop;
use crate::kit::MIB;
use crate::kit::builder::Spec;
use crate::lab::size;
use crate::support::{Ran, run, run_to, temp_dir, vhdx};

/// Content of a folder: names with the content of the files; links are followed.
fn all_in(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read(&path).ok())).collect()
}

#[test]
fn invalid_loss_map_is_rejected_before_the_work() {
    let folder = temp_dir();
    let [top, middle, base] = chain_of_three(3 * MIB).map(|spec| spec.build());
    let at = |name: &str| folder.path().join(name);
    for (name, image) in [("0.vhdx", &cut(&top, 5 * MIB)), ("1.vhdx", &middle), ("2.vhdx", &base)] {
        image.bytes.write_file(&at(name)).unwrap();
    }
    std::fs::write(at("other"), "other").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    std::os::unix::fs::symlink("out", at("dangling")).unwrap();
    std::os::unix::fs::symlink("0.vhdx", at("link")).unwrap();
    std::fs::hard_link(at("1.vhdx"), at("hard")).unwrap();
    std::os::unix::fs::symlink(".", at("here")).unwrap();

    let own = "is the image itself or one of its parents";
    // The loss map, the exit code and the message.
    let mut rows: Vec<(PathBuf, i32, &str)> = vec![
        ("-".into(), 2, "not a regular file"),
        (at("0.vhdx"), 2, own),
        (at("link"), 2, own),
        (at("here/2.vhdx"), 2, own),
        (at("hard"), 2, own),
        (at("folder"), 73, "is a directory"),
        (at("folder/"), 73, "is a directory"),
        (at("missing/map"), 73, "No such file or directory"),
        (at("missing/"), 73, "no such directory"),
        (at("other/map"), 73, "Not a directory"),
        (at("dangling"), 73, "dangling symbolic link"),
        // A folder in which no user can create a file.
        ("/proc/map".into(), 73, "/proc/map: "),
    ];
    let backing = folder.path().join("device");
    File::create(&backing).unwrap().set_len(MIB).unwrap();
    let device = Loop::of(&backing);
    rows.extend(device.iter().map(|device| (device.0.clone(), 2, "not a regular file")));

    let before = all_in(folder.path());
    let image = at("0.vhdx");
    let out = at("out");
    let (extract, manifest) = (["extract".into(), "IMAGE".into(), out.clone().into()], at("manifest"));
    let commands: [&[OsString]; 5] = [
        &extract,
        &["map".into(), "IMAGE".into()],
        &["info".into(), "IMAGE".into()],
        &["hash".into(), "IMAGE".into()],
        &["hash".into(), "--manifest".into(), manifest.clone().into(), "IMAGE".into()],
    ];
    let assert_rejected = |words: &[OsString], map: &Path, code: i32, message: &str| {
        let words: Vec<_> =
            words.iter().map(|word| if word == "IMAGE" { image.clone().into() } else { word.clone() }).collect();
        let ran = run(vhdx(words.iter()).args(["--salvage", "--loss-map"]).arg(map));
        assert_eq!(ran.status.code(), Some(code), "{words:?} {map:?}: {}", ran.err);
        assert!(ran.err.contains(message), "{words:?} {map:?}: {}", ran.err);
        assert!(ran.out.is_empty(), "{words:?} {map:?}: {}", ran.text());
        assert!(all_in(folder.path()) == before, "{words:?} {map:?}: something was written");
    };
    for (map, code, message) in &rows {
        commands.iter().for_each(|words| assert_rejected(words, map, *code, message));
    }
    // The output itself.
    let both = "cannot be both output and loss map";
    assert_rejected(&extract, &out, 2, both);
    assert_rejected(&extract, &at("here/out"), 2, both);
    assert_rejected(commands[4], &manifest, 2, both);
    let forced = [&extract[..2], &[at("other").into(), "--force".into()]].concat();
    assert_rejected(&forced, &at("other"), 2, both);
    assert_rejected(&forced, &at("here/other"), 2, both);
    // More than one image.
    for command in ["info", "hash"] {
        assert_rejected(
            &[command.into(), "IMAGE".into(), at("2.vhdx").into()],
            &at("map"),
            2,
            "--loss-map: several images (found 2, expected 1)",
        );
    }
    // Without `--salvage`, the option is an error.
    let ran = run(vhdx(["map", "--loss-map"]).arg(at("map")).arg(&image));
    assert_eq!((ran.status.code(), all_in(folder.path()) == before), (Some(2), true), "{}", ran.err);
}

/// Lines of a ddrescue mapfile: start, length, status.
fn mapfile(path: &Path) -> Vec<(u64, u64, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace());
    // Position, status and pass of ddrescue.
    assert_eq!(lines.next().unwrap().skip(1).collect::<Vec<_>>(), ["+", "1"], "{text}");
    let number = |word: Option<&str>| u64::from_str_radix(word.unwrap().strip_prefix("0x").unwrap(), 16).unwrap();
    let line = |mut words: std::str::SplitWhitespace<'_>| {
        let line = (number(words.next()), number(words.next()), words.next().unwrap().to_owned());
        assert_eq!(words.next(), None, "{text}");
        line
    };
    lines.map(line).collect()
}

#[test]
fn mapfile_matches_json_and_covers_every_byte_once() {
    let folder = temp_dir();
    let entries = |entries: &[(u64, u64)]| Spec { raw_bat: entries.iter().copied().collect(), ..Spec::default() };
    let far = |state: u64| (1 << 40) | state;
    let cases = [
        ("nothing is lost", Spec::default(), 0, vec![(0, 8 * MIB, '+')]),
        (
            "the first and the last, and two that touch",
            entries(&[(0, far(6)), (2, 5), (3, 4), (7, far(6))]),
            65,
            vec![
                (0, MIB, '-'),
                (MIB, MIB, '+'),
                (2 * MIB, MIB, '-'),
                (3 * MIB, MIB, '-'),
                (4 * MIB, 3 * MIB, '+'),
                (7 * MIB, MIB, '-'),
            ],
        ),
        // A disk of size 0 that may have had content.
        ("no byte at all", Spec::empty(0), 65, vec![]),
    ];
    for (what, spec, code, expected) in cases {
        let path = write(folder.path(), &spec.build());
        let (ran, _, json) = extract(&path, &[]);
        assert_eq!(ran.status.code(), Some(code), "{what}: {}", ran.err);
        let map = folder.path().join("mapfile");
        let ran = run(vhdx(["hash", "--salvage", "--loss-map-format", "ddrescue", "--loss-map"]).arg(&map).arg(&path));
        assert_eq!(ran.status.code(), Some(code), "{what}: {}", ran.err);
        let lines = mapfile(&map);
        let report: Vec<_> = lines.iter().map(|(start, length, status)| (*start, *length, status.as_str())).collect();
        let expected: Vec<_> =
            expected.iter().map(|(start, length, status)| (*start, *length, status.to_string())).collect();
        assert_eq!(lines, expected, "{what}");
        let end = report.iter().fold(0, |at, (start, length, _)| {
            assert_eq!(at, *start, "{what}");
            start + length
        });
        assert_eq!(json["virtual-size"], end, "{what}");
        let lost = report.iter().filter(|line| line.2 == "-").map(|(start, length, _)| (*start, *length));
        assert_eq!(lost.collect::<Vec<_>>(), ranges(&json), "{what}");
    }
}

#[test]
fn loss_map_is_limited_to_the_range() {
    let folder = temp_dir();
    let spec = Spec { raw_bat: [(2, 5), (5, 5)].into(), ..Spec::default() };
    let path = write(folder.path(), &spec.build());
    let (start, length) = (2 * MIB + 512, 2 * MIB);
    let (ran, bytes, json) = extract(&path, &["--range", &format!("{start}:{length}"), "--fill", "7"]);
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    let lost = MIB - 512;
    assert_eq!(ranges(&json), [(start, lost)]);
    assert_eq!((&json["range"]["start"], &json["range"]["length"]), (&start.into(), &length.into()));
    assert!(bytes[..size(lost)].iter().all(|byte| *byte == 7) && bytes[size(lost)..].iter().all(|byte| *byte == 0));
    let map = folder.path().join("mapfile");
    let mut command = vhdx(["map", "--salvage", "--loss-map-format", "ddrescue", "--loss-map"]);
    let range = [format!("--start-offset={start}"), format!("--max-length={length}")];
    let ran = run(command.arg(&map).args(range).arg(&path));
    assert_eq!(ran.status.code(), Some(65), "{}", ran.err);
    let line = |start, length, status: &str| (start, length, status.to_owned());
    assert_eq!(mapfile(&map), [line(start, lost, "-"), line(start + lost, length - lost, "+")]);
    // A range without losses.
    let (ran, _, json) = extract(&path, &["--range", "0:2M"]);
    assert_eq!((ran.status.code(), ranges(&json)), (Some(0), vec![]), "{}", ran.err);
}

#[test]
fn loss_map_cannot_be_standard_output() {
    let folder = temp_dir();
    let path = write(folder.path(), &Spec { raw_bat: [(2, 5)].into(), ..Spec::default() }.build());
    let out = folder.path().join("out");
    for words in [&["extract", "IMAGE", "-"][..], &["map", "IMAGE"], &["info", "IMAGE"], &["hash", "IMAGE"]] {
        let command = |map: &Path| {
            let words = words.iter().map(|word| if *word == "IMAGE" { path.as_os_str() } else { word.as_ref() });
            let mut command = vhdx(words);
            command.args(["--salvage", "--loss-map"]).arg(map);
            command
        };
        let assert_rejected = |ran: &Ran, how: &str| {
            assert_eq!(ran.status.code(), Some(2), "{words:?}, {how}: {}", ran.err);
            assert!(ran.err.contains("cannot be both output and loss map"), "{words:?}, {how}: {}", ran.err);
        };
        for map in [out.as_path(), Path::new("/dev/stdout")] {
            let file = File::create(&out).unwrap();
            assert_rejected(&run_to(&mut command(map), file.into()), "to a file");
            assert!(std::fs::read(&out).unwrap().is_empty(), "{words:?} {map:?}");
        }
        let ran = run(&mut command(Path::new("/dev/stdout")));
        assert_rejected(&ran, "to a pipe");
        assert!(ran.out.is_empty(), "{words:?}");
        // Outputs that keep nothing can be both.
        let null = File::options().write(true).open("/dev/null").unwrap();
        let ran = run_to(&mut command(Path::new("/dev/null")), null.into());
        assert_eq!(ran.status.code(), Some(65), "{words:?}: {}", ran.err);
    }
}
