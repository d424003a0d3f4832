//! File type identifier and headers: V1 to V15.

use uuid::Uuid;
use vhdx_mmap::{Category, Error, ErrorKind, LogPolicy, Rule, Source, Structure};

use super::{Rows, checksum, checksums, kind, unsupported};
use crate::kit::builder::{FileLength, Spec};
use crate::kit::log::{Entry, LOG_GUID};
use crate::kit::{MIB, PAGE};
use crate::lab::{Expected, assert_reads, open_chain_with, open_image};

/// Offsets of the headers, the second of which is the current one of the images here.
const HEADER_1: u64 = 0x1_0000;
const HEADER_2: u64 = 0x2_0000;

#[test]
fn file_shorter_than_header_section_is_rejected() {
    let mut rows = Rows::default();
    for length in [8, 520, 0x1_0000, 0x3_0000, MIB - 1] {
        // V1
        let image = Spec { file_length: FileLength::Exact(length), ..Spec::default() }.build();
        let is_it = |kind: &ErrorKind| match kind {
            ErrorKind::FileTooShort { found, expected } => (*found, *expected) == (length, MIB),
            _ => false,
        };
        rows.refused(&format!("V1 {length}"), &image, (Structure::File, None, Category::Corrupt), &is_it);
    }
    rows.end();
}

#[test]
fn file_without_signature_is_not_vhdx() {
    let mut rows = Rows::default();
    let place = (Structure::FileIdentifier, Some(0), Category::NotVhdx);
    for at in 0..8 {
        // V2
        let mut image = Spec::default().build();
        image.bytes.write(at, b"\xFF");
        rows.refused(&format!("V2 byte {at}"), &image, place, kind!(ErrorKind::NotVhdx { .. }));
    }
    for length in 0..8 {
        // V2
        let image = Spec { file_length: FileLength::Exact(length), ..Spec::default() }.build();
        rows.refused(&format!("V2 length {length}"), &image, place, kind!(ErrorKind::NotVhdx { .. }));
    }
    rows.end();
}

#[test]
fn other_formats_are_recognised() {
    let files: [(usize, &[u8], &str); 7] = [
        (0, b"conectix", "VHD"),
        (0, b"QFI\xFB", "QCOW2"),
        (0, b"KDMV", "VMDK"),
        (0x40, b"\x7F\x10\xDA\xBE", "VDI"),
        (512, b"EFI PART", "GPT"),
        (0, b"PK\x03\x04", "zip"),
        (0, b"\x01\x02some bytes", "raw"),
    ];
    for (at, signature, name) in files {
        let mut bytes = vec![0; 4096];
        bytes[at..at + signature.len()].copy_from_slice(signature);
        let error = vhdx_mmap::Image::open(Source::from_vec(bytes), LogPolicy::Replay).unwrap_err();
        let is_it =
            |kind: &ErrorKind| matches!(kind, ErrorKind::NotVhdx { looks_like } if looks_like.name.contains(name));
        assert!(is_it(error.kind()), "{error} is no {name}");
    }
}

#[test]
fn creator_is_read_up_to_invalid_text() {
    // V3
    let creators: [(Vec<u16>, &str, bool); 5] = [
        (vec![], "", false),
        ("Microsoft Windows 10.0.14393.0".encode_utf16().collect(), "Microsoft Windows 10.0.14393.0", false),
        ("a\0b".encode_utf16().collect(), "a", false),
        (vec![0x41; 256], &"A".repeat(256), false),
        (vec![0x41, 0xD800, 0x42], "A\u{FFFD}B", true),
    ];
    let mut rows = Rows::default();
    for (creator, expected, is_odd) in creators {
        let image = Spec { creator, ..Spec::default() }.build();
        assert_eq!(open_image(&image).unwrap().creator(), expected);
        let warning = (Rule::Creator, Structure::FileIdentifier, Some(8));
        rows.warned(&format!("V3 {expected}"), &image, &[warning][..usize::from(is_odd)]);
    }
    rows.end();
}

#[test]
fn image_without_valid_header_is_rejected() {
    let mut rows = Rows::default();
    let neither = (Structure::Headers, None, Category::Corrupt);
    let both = |kind: &ErrorKind, is_it: &dyn Fn(&Error, u64) -> bool| match kind {
        ErrorKind::NoValidCopy { first, second } => {
            let structures = (first.structure(), second.structure());
            structures == (Structure::Header(1), Structure::Header(2))
                && is_it(first, HEADER_1)
                && is_it(second, HEADER_2)
        }
        _ => false,
    };

    // V4
    let mut image = Spec::default().build();
    image.patch_headers(0, b"heaD");
    let signature = |error: &Error, header: u64| {
        let found = *b"heaD\0\0\0\0";
        error.offset() == Some(header)
            && matches!(error.kind(), ErrorKind::Signature { found: f, expected: "head" } if *f == found)
    };
    rows.refused("V4 signatures", &image, neither, &|kind: &ErrorKind| both(kind, &signature));

    // V4
    for at in [4, 8, 2000, PAGE - 1] {
        let mut image = Spec::default().build();
        image.patch_header_raw(1, at, &[0xEE]);
        image.patch_header_raw(2, at, &[0xEE]);
        let is_it = |error: &Error, header: u64| {
            error.offset() == Some(header + 4) && checksum(checksums(&image, header, PAGE))(error.kind())
        };
        rows.refused(&format!("V4 checksums, byte {at}"), &image, neither, &|kind: &ErrorKind| both(kind, &is_it));
    }
    rows.end();
}

#[test]
fn one_valid_header_is_enough() {
    let mut rows = Rows::default();
    for (copy, header) in [(1, HEADER_1), (2, HEADER_2)] {
        let structure = Structure::Header(u8::try_from(copy).unwrap());
        // V5
        let mut image = Spec::default().build();
        image.patch_header(copy, 0, b"Head");
        rows.warned("V5 signature", &image, &[(Rule::HeaderCopies, structure, Some(header))]);
        // V5
        let mut image = Spec::default().build();
        image.patch_header_raw(copy, 4, &[0; 4]);
        rows.warned("V5 checksum", &image, &[(Rule::HeaderCopies, structure, Some(header + 4))]);
    }
    rows.end();
}

#[test]
fn headers_with_same_number_must_be_equal() {
    let mut rows = Rows::default();
    for number in [0, 7, u64::MAX] {
        let same = Spec { sequence: [number, number], ..Spec::default() };
        // V6
        rows.warned("V6 equal", &same.build(), &[(Rule::HeaderSequence, Structure::Header(2), Some(HEADER_2 + 8))]);
        // V6: one byte, even a reserved one.
        for at in [16, 4095] {
            let mut image = same.build();
            image.patch_header(2, at, &[0x77]);
            let place = (Structure::Headers, None, Category::Corrupt);
            let is_it = |kind: &ErrorKind| match kind {
                ErrorKind::AmbiguousHeaders { sequence_number } => *sequence_number == number,
                _ => false,
            };
            rows.refused("V6 different", &image, place, &is_it);
        }
    }
    rows.end();
}

#[test]
fn header_with_greater_number_is_current() {
    for (numbers, current) in [([1, 2], 2), ([2, 1], 1), ([0, 1], 2), ([u64::MAX, u64::MAX - 1], 1), ([1 << 63, 5], 1)]
    {
        let mut image = Spec { sequence: numbers, ..Spec::default() }.build();
        let guid = Uuid::from_u128(u128::from(current));
        image.patch_header(usize::from(current), 32, &guid.to_bytes_le());
        let opened = open_image(&image).unwrap();
        let header = opened.header();
        assert_eq!((header.copy, header.data_write_guid), (current, guid));
        assert_eq!(header.sequence_number, numbers[usize::from(current) - 1]);
    }
}

#[test]
fn only_current_header_is_validated() {
    let mut rows = Rows::default();
    let header = Structure::Header(2);
    for version in [0_u16, 2, 0x100, u16::MAX] {
        // V7: the older header is no substitute.
        let mut image = Spec::default().build();
        image.patch_header(2, 66, &version.to_le_bytes());
        let is_it = unsupported("Version", version);
        rows.refused("V7", &image, (header, Some(HEADER_2 + 66), Category::Unsupported), &is_it);
        // V7: and its fields do not matter.
        let mut image = Spec::default().build();
        image.patch_header(1, 66, &version.to_le_bytes());
        rows.warned("V7 of the older", &image, &[]);
    }
    // V14
    let mut image = Spec::default().build();
    image.patch_headers(80, &[0xEE; 4016]);
    rows.warned("V14", &image, &[]);
    rows.end();
}

/// A field of both headers, with the expected error if the log is in use, and the expected warning if it is not.
struct LogField {
    what: &'static str,
    at: u64,
    value: Vec<u8>,
    place: super::Place,
    is_it: super::IsIt<'static>,
    check: Option<Rule>,
}

fn log_fields(file_length: u64) -> Vec<LogField> {
    let u32 = |value: u32| value.to_le_bytes().to_vec();
    let u64 = |value: u64| value.to_le_bytes().to_vec();
    let header = |at: u64| (Structure::Header(2), Some(HEADER_2 + at), Category::Corrupt);
    let log = |at: u64| (Structure::Log, Some(at), Category::Corrupt);
    assert_eq!(file_length, 7 * MIB);
    vec![
        LogField {
            what: "V8, V9",
            at: 64,
            value: vec![1, 0],
            place: (Structure::Header(2), Some(HEADER_2 + 64), Category::Unsupported),
            is_it: kind!(ErrorKind::UnsupportedValue { field: "LogVersion", found: 1, expected: "0" }),
            check: Some(Rule::LogVersion),
        },
        LogField {
            what: "V10 LogLength",
            at: 68,
            value: u32(0x10_1000),
            place: header(68),
            is_it: kind!(ErrorKind::Field { field: "LogLength", found: 0x10_1000, .. }),
            check: Some(Rule::LogAlignment),
        },
        LogField {
            what: "V10 LogOffset",
            at: 72,
            value: u64(0x10_0200),
            place: header(72),
            is_it: kind!(ErrorKind::Field { field: "LogOffset", found: 0x10_0200, .. }),
            check: Some(Rule::LogAlignment),
        },
        LogField {
            what: "V11",
            at: 68,
            value: u32(0),
            place: header(68),
            is_it: kind!(ErrorKind::Field { field: "LogLength", found: 0, .. }),
            check: None,
        },
        LogField {
            what: "V12 in the header section",
            at: 72,
            value: u64(0),
            place: header(72),
            is_it: kind!(ErrorKind::Overlap { with: Structure::HeaderSection, offset: 0 }),
            check: Some(Rule::LogPlace),
        },
        LogField {
            what: "V12 after the file",
            at: 72,
            value: u64(7 * MIB),
            place: log(7 * MIB),
            is_it: kind!(ErrorKind::OutOfBounds { length: 0x10_0000, limit: 0x70_0000 }),
            check: Some(Rule::LogPlace),
        },
        LogField {
            what: "V12 over the end of numbers",
            at: 72,
            value: u64(u64::MAX - MIB + 1),
            place: log(u64::MAX - MIB + 1),
            is_it: kind!(ErrorKind::OutOfBounds { length: 0x10_0000, limit: 0x70_0000 }),
            check: Some(Rule::LogPlace),
        },
        LogField {
            what: "V12 longer than the file",
            at: 68,
            value: u32(1 << 30),
            place: log(MIB),
            is_it: kind!(ErrorKind::OutOfBounds { length: 0x4000_0000, limit: 0x70_0000 }),
            check: Some(Rule::LogPlace),
        },
    ]
}

#[test]
fn log_in_use_must_have_valid_location() {
    let mut rows = Rows::default();
    for field in log_fields(Spec::default().build().bytes.len()) {
        let mut image = Spec::default().build();
        image.put_entry(0, &Entry::new(LOG_GUID, 5, 0));
        image.set_log_guid(LOG_GUID);
        image.patch_headers(field.at, &field.value);
        rows.refused(field.what, &image, field.place, field.is_it);
    }
    for length in [(1 << 30) + (1 << 20), 0xFFF0_0000_u32] {
        // V13
        let mut image = Spec::default().build();
        image.set_log_guid(LOG_GUID);
        image.patch_headers(68, &length.to_le_bytes());
        let place = (Structure::Header(2), Some(HEADER_2 + 68), Category::Unsupported);
        let is_it = unsupported("LogLength", length);
        rows.refused("V13", &image, place, &is_it);
    }
    rows.end();
}

#[test]
fn unused_log_location_is_a_warning() {
    let mut rows = Rows::default();
    for field in log_fields(Spec::default().build().bytes.len()) {
        let mut image = Spec::default().build();
        image.patch_headers(field.at, &field.value);
        let (structure, offset, _) = field.place;
        let expected: Vec<_> = field.check.iter().map(|check| (*check, structure, offset)).collect();
        rows.warned(field.what, &image, &expected);
    }
    rows.end();
}

#[test]
fn ignored_log_faults_are_warnings() {
    let fields: [(u64, &[u8], Rule); 4] = [
        (64, &[1, 0], Rule::LogVersion),
        (72, &(7 * MIB).to_le_bytes(), Rule::LogPlace),
        // Over the headers, and over the metadata.
        (72, &[0; 8], Rule::LogPlace),
        (68, &(3_u32 << 19).to_le_bytes(), Rule::LogAlignment),
    ];
    for (at, value, check) in fields {
        let mut image = Spec::default().build();
        image.set_log_guid(LOG_GUID);
        image.patch_headers(at, value);
        let disk = open_chain_with(&[&image], LogPolicy::Ignore).unwrap();
        Expected::of(&[&image]).assert_read_from(&disk);
        assert_eq!(disk.warnings().map(|(_, warning)| warning.rule).collect::<Vec<_>>(), [check]);
    }
}

#[test]
fn log_in_use_must_have_entries() {
    // V15
    let mut image = Spec::default().build();
    assert_reads(&[&image]);
    image.set_log_guid(LOG_GUID);
    let mut rows = Rows::default();
    let place = (Structure::Log, Some(MIB), Category::Corrupt);
    let is_it = |kind: &ErrorKind| match kind {
        ErrorKind::NoActiveSequence { log_guid, entries: 0 } => *log_guid == LOG_GUID,
        _ => false,
    };
    rows.refused("V15", &image, place, &is_it);
    rows.end();
}
