//! Rules of the header section: V1 to V14, and what its unused parts hold.

use uuid::Uuid;

use super::{AND_MORE, Row, patched, row, try_all, with};
use crate::kit::builder::{FileLength, Image, Spec};
use crate::kit::log::{Descriptor, Journal, LOG_GUID};
use crate::kit::{GIB, KIB, MIB, PAGE};

/// The second header is the current one, at 0x20000.
pub(super) fn rows() -> Vec<Row> {
    let header = |at, bytes: &'static [u8]| patched(|image| image.patch_headers(at, bytes));
    vec![
        row("a cut", with(|spec| spec.file_length = FileLength::Exact(900 * KIB)), &["V1 corruption file", AND_MORE]),
        row("signature", at(0, b"vhdxfilE"), &["V2 corruption file type identifier @0x0"]),
        row("creator", at(8, &[0, 0xd8]), &["V3 note file type identifier @0x8"]),
        row(
            "both headers",
            patched(|image| (1..=2).for_each(|copy| image.patch_header_raw(copy, 100, b"x"))),
            // The location of the log is unknown.
            &["V4 corruption headers", "L1 note file @0x100000"],
        ),
        row("one", patched(|image| image.patch_header_raw(1, 100, b"x")), &["V5 warning header 1 @0x10004"]),
        row(
            "the current one of an image in use",
            patched(|image| {
                Journal::new(0, 1).append(image, &[Descriptor::Data(3 * MIB + PAGE, vec![7; 4096])]);
                image.patch_header(2, 48, &LOG_GUID.to_bytes_le());
                image.patch_header_raw(2, 100, b"x");
            }),
            &["V5 warning header 2 @0x20004", "V5 corruption header 2 @0x20000", "N2 note log @0x100000"],
        ),
        row(
            "the current one of an image whose log changes nothing",
            patched(|image| {
                Journal::new(0, 1).append(image, &[]);
                image.patch_header(2, 48, &LOG_GUID.to_bytes_le());
                image.patch_header_raw(2, 100, b"x");
            }),
            &["V5 warning header 2 @0x20004", "N2 note log @0x100000"],
        ),
        row(
            "the current one of an image whose log only clears a page that holds data",
            cleared(4 * MIB),
            &["V5 warning header 2 @0x20004", "V5 corruption header 2 @0x20000", "N2 note log @0x100000"],
        ),
        row(
            "the current one of an image whose log only clears an empty page",
            cleared(3 * MIB + 512 * KIB),
            &["V5 warning header 2 @0x20004", "N2 note log @0x100000"],
        ),
        row("twice the same", with(|spec| spec.sequence = [9, 9]), &["V6 note header 2 @0x20008"]),
        row(
            "two of one number",
            patched(|image| {
                image.patch_headers(8, &[9]);
                image.patch_header(2, 16, &[1]);
            }),
            &["V6 corruption headers"],
        ),
        row("Version", header(66, &[2]), &["V7 unsupported header 2 @0x20042"]),
        row("LogVersion", header(64, &[1]), &["V9 note header 2 @0x20040"]),
        row("LogLength", header(68, &[0, 0, 8, 0]), &["V10 note header 2 @0x20044", "L1 note file @0x100000"]),
        row("LogOffset", header(72, &[0, 0, 0, 4]), &["V12 note log @0x4000000", "L1 note file @0x100000"]),
        row("LogVersion, in use", in_use(64, &[1]), &["V8 unsupported header 2 @0x20040"]),
        row(
            "LogLength, in use",
            lost(68, &[0, 0, 8, 0]),
            &["V10 corruption header 2 @0x20044", "L1 note file @0x100000"],
        ),
        row("no log, in use", lost(68, &[0; 4]), &["V11 corruption header 2 @0x20044", "L1 note file @0x100000"]),
        row("LogOffset, in use", lost(72, &[0, 0, 0, 4]), &["V12 corruption log @0x4000000", "L1 note file @0x100000"]),
        row(
            "too long a log",
            too_long_a_log(),
            &["V13 unsupported header 2 @0x20044", "L1 note file @0x100000", "L1 note file @0x700000"],
        ),
        row("reserved", patched(|image| image.patch_header(1, 200, b"x")), &["V14 note header 1 @0x100c8"]),
        row("end of the identifier", at(600, b"x"), &["N1 note file type identifier @0x258"]),
        row("gap after a header", at(64 * KIB + 5000, b"x"), &["N1 note header 1 @0x11388"]),
        row("end of the header section", at(700 * KIB, b"x"), &["N1 note header section @0xaf000"]),
        row("creator's end", at(400, b"x"), &["N3 note file type identifier @0x8"]),
        row("no creator", with(|spec| spec.creator = Vec::new()), &["N3 note file type identifier @0x8"]),
        row("DataWriteGuid", with(|spec| spec.data_write_guid = Uuid::nil()), &["N4 note header 2 @0x20000"]),
        row("FileWriteGuid", with(|spec| spec.file_write_guid = Uuid::nil()), &["N4 note header 2 @0x20000"]),
        row(
            "DataWriteGuid beside a damaged header",
            {
                let mut image = with(|spec| spec.data_write_guid = Uuid::nil());
                image.patch_header_raw(1, 100, b"x");
                image
            },
            &["V5 warning header 1 @0x10004", "N4 note header 2 @0x20000"],
        ),
        row("VirtualDiskId", with(|spec| spec.disk_id = Uuid::nil()), &["N4 note metadata item VirtualDiskId"]),
        row("older header's log", patched(|image| image.patch_header(1, 72, &[0, 0, 0, 4])), &["N7 note headers"]),
        row("older header's version", patched(|image| image.patch_header(1, 66, &[2])), &["N7 note headers"]),
    ]
}

/// The default image, with other bytes at an offset.
fn at(offset: u64, bytes: &[u8]) -> Image {
    patched(|image| image.bytes.write(offset, bytes))
}

/// An image whose log clears one page of the file. Its current header, the only one that refers to the log, is damaged.
fn cleared(page: u64) -> Image {
    patched(|image| {
        Journal::new(0, 1).append(image, &[Descriptor::Zero(page, PAGE)]);
        image.patch_header(2, 48, &LOG_GUID.to_bytes_le());
        image.patch_header_raw(2, 100, b"x");
    })
}

/// An image whose log is in use and changes nothing, with other bytes in its headers.
pub(super) fn in_use(at: u64, bytes: &[u8]) -> Image {
    patched(|image| {
        Journal::new(0, 1).append(image, &[]);
        image.set_log_guid(LOG_GUID);
        image.patch_headers(at, bytes);
    })
}

/// An image with a log in use but without an entry, and with other bytes in its headers.
fn lost(at: u64, bytes: &[u8]) -> Image {
    patched(|image| {
        image.set_log_guid(LOG_GUID);
        image.patch_headers(at, bytes);
    })
}

/// A valid log, longer than 1 GiB.
pub(super) fn too_long_a_log() -> Image {
    let log_length = u32::try_from(GIB + MIB).unwrap();
    let spec = Spec { log_offset: 16 * MIB, log_length, payload_start: 4 * MIB, ..Spec::default() };
    let mut image = spec.build();
    Journal::new(0, 1).append(&mut image, &[]);
    image.set_log_guid(LOG_GUID);
    image
}

#[test]
fn check_reports_each_rule_of_the_header_section() {
    try_all(&rows());
}
