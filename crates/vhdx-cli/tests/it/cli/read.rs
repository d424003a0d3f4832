//! `vhdx read`: bytes of the disk, raw and as hexadecimal digits.

use crate::kit::builder::Spec;
use crate::kit::{Block, MIB, TIB, pattern};
use crate::support::temp_dir;

use super::{args, assert_fails, content, disk_with, vhdx_run, write_image};

/// Output of `hexdump -C` for bytes that begin at an offset. A star replaces whole lines that repeat the line above.
fn hexdump(bytes: &[u8], offset: usize) -> String {
    let mut out = String::new();
    let mut starred = false;
    for (number, line) in bytes.chunks(16).enumerate() {
        if number > 0 && line.len() == 16 && line == &bytes[16 * (number - 1)..16 * number] {
            if !starred {
                out += "*\n";
            }
            starred = true;
            continue;
        }
        starred = false;
        let mut digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.resize(16, "  ".to_owned());
        let text: String =
            line.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' }).collect();
        let (left, right) = (digits[..8].join(" "), digits[8..].join(" "));
        out += &format!("{:08x}  {left}  {right}  |{text}|\n", offset + 16 * number);
    }
    out + &format!("{:08x}\n", offset + bytes.len())
}

#[test]
fn read_returns_the_bytes_of_the_disk() {
    let folder = temp_dir();
    let spec = Spec::default();
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let disk = content(&spec);
    for (start, end) in [(0, 1), (511, 513), (1_048_570, 2_097_160), (5_242_880, 8_388_608), (0, 8_388_608), (7, 7)] {
        let range = format!("{start}:{}", end - start);
        let ran = vhdx_run(args!["read", &path, "--range", range]).done();
        assert!(ran.out == disk[start..end], "{start}..{end}");
        assert_eq!(ran.err, "");
    }
}

#[test]
fn read_hex_matches_hexdump() {
    let folder = temp_dir();
    let long = [b"0123456789abcdef".repeat(5), b"Z".to_vec(), vec![0; 15], vec![0xff; 64]].concat();
    let spec = disk_with(
        4 * MIB,
        &[
            (0, b"\0\x01\x1f\x20~\x7f\x80\xff text with \\ and | and \xc3\xa9"),
            (4096, &long),
            (MIB - 5, b"0123456789"),
            (3 * MIB - 16, &[7; 32]),
        ],
    );
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let disk = content(&spec);
    for (start, end) in [
        (0, 64),
        (0, 4096 + 200),
        (4095, 4096 + 97),
        (4096, 4096 + 80),
        (4097, 4098),
        (8192, 8192 + 15),
        (8192, 8192 + 16),
        (8192, 8192 + 17),
        (8192, 8192 + 40),
        (1_048_571, 1_048_581),
        // Zeros in the file, then unallocated zeros, then data again.
        (1_048_000, 3_145_760),
        (3_145_728 + 3, 4_194_304),
        (0, 4_194_304),
        (5, 5),
    ] {
        let range = format!("{start}:{}", end - start);
        let report = vhdx_run(args!["read", &path, "--hex", "--range", range]).done().text();
        assert_eq!(report, hexdump(&disk[start..end], start), "{start}..{end}");
    }
}

#[test]
fn read_hex_prints_one_star_for_terabytes_of_zeros() {
    let folder = temp_dir();
    let spec = Spec { block_size: 256 << 20, ..Spec::empty(64 * TIB) };
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let report = vhdx_run(args!["read", &path, "--hex", "--range", "3:"]).done().text();
    let zeros = "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|";
    let rest = "00 00 00 00 00 00 00 00  00 00 00 00 00           |.............|";
    assert_eq!(report, format!("00000003  {zeros}\n*\n3ffffffffff3  {rest}\n400000000000\n"));
}

#[test]
fn read_returns_the_bytes_before_an_error() {
    let folder = temp_dir();
    let mut spec = Spec::default();
    spec.raw_bat.insert(3, 4);
    let path = write_image(folder.path(), "disk.vhdx", &spec);
    let ran = vhdx_run(args!["read", &path, "--range", "2M:4M"]);
    assert_fails(&ran, 65, &["payload block 3"]);
    assert!(ran.out == pattern(1, 2 * MIB, 1 << 20));
    let ran = vhdx_run(args!["read", &path, "--hex", "--range", "3145720:16"]);
    assert_fails(&ran, 65, &["payload block 3"]);
    // Damage outside the range is not an error.
    vhdx_run(args!["read", &path, "--range", "4M:4M"]).done();
    vhdx_run(args!["read", &path, "--range", "0:3M"]).done();
}

#[test]
fn read_from_missing_parent_fails() {
    let folder = temp_dir();
    let child = Spec::child_of(&Spec::default(), "base.vhdx").block(1, Block::full());
    let path = write_image(folder.path(), "child.avhdx", &child);
    let ran = vhdx_run(args!["read", &path, "--range", "1M:1M"]);
    assert_fails(&ran, 81, &["base.vhdx", "not found"]);
    assert!(ran.out.is_empty());
    let ran = vhdx_run(args!["read", "--parents", "none", &path, "--range", "1M:1M"]).done();
    assert!(ran.out == pattern(2, MIB, 1 << 20));
    let ran = vhdx_run(args!["read", "--parents", "none", &path, "--range", "1M:1048577"]);
    assert_fails(&ran, 81, &["child.avhdx: parent: needed"]);
    assert_eq!(ran.out.len(), 1 << 20);
}
