//! File type identifier (MS-VHDX 2.2.1), and guesses about files without one.

use crate::error::{Error, ErrorKind, Result, Structure};
use crate::format::{FileIdentifier, MIB};
use crate::num::to_usize_saturating;
use crate::source::{Bytes, View};
use crate::zero::is_zero;

use super::warning::Warnings;
use crate::error::Rule;

/// Checks that the file begins with the signature of a VHDX file.
///
/// # Errors
/// [`ErrorKind::NotVhdx`] if it does not, [`ErrorKind::Lost`] if it cannot be read.
pub(crate) fn check_signature(view: &View) -> Result<()> {
    match view.copy(Structure::FileIdentifier, 0, 8) {
        Ok(bytes) if bytes == FileIdentifier::SIGNATURE.as_bytes() => return Ok(()),
        Err(error) if is_lost(&error) => return Err(error),
        _ => {}
    }
    let looks_like = looks_like(view);
    // The guess may be based on zeros that replace lost bytes.
    view.check(Structure::File, 0, MIB)?;
    Err(Error::at(Structure::FileIdentifier, 0, ErrorKind::NotVhdx { looks_like }))
}

fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Lost)
}

/// Checks the identifier, and that the file is longer than the header section. Returns the creator, as text.
///
/// # Errors
/// [`ErrorKind::NotVhdx`] if the signature is missing, [`ErrorKind::FileTooShort`] if the file ends in the header
/// section.
pub(crate) fn read(view: &View, warnings: &mut Warnings) -> Result<String> {
    let signature = check_signature(view);
    let is_lost = signature.as_ref().is_err_and(is_lost);
    warnings.require(Rule::Signature, signature)?;
    if view.length() < MIB {
        let kind = ErrorKind::FileTooShort { found: view.length(), expected: MIB };
        warnings.reject(Rule::FileLength, Error::of(Structure::File, kind))?;
    }
    if is_lost {
        return Ok(String::new());
    }
    let identifier = view.fetch::<FileIdentifier>(Structure::FileIdentifier, 0);
    let Some(identifier) = warnings.accept(Rule::FileLength, identifier)? else { return Ok(String::new()) };
    let units = identifier.creator.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0);
    let mut lossy = false;
    let creator = char::decode_utf16(units)
        .map(|decoded| {
            lossy |= decoded.is_err();
            decoded.unwrap_or(char::REPLACEMENT_CHARACTER)
        })
        .collect();
    if lossy {
        let kind = ErrorKind::Text { what: "Creator is not UTF-16" };
        warnings.add(Rule::Creator, Error::at(Structure::FileIdentifier, 8, kind));
    }
    Ok(creator)
}

/// Returns a guess, in words, at the format of a file that is not a VHDX file.
fn looks_like(view: &View) -> &'static str {
    const BY_SIGNATURE: &[(u64, &[u8], &str)] = &[
        (0, b"conectix", "a dynamic VHD image"),
        (0, b"QFI\xfb", "a QCOW2 image"),
        (0, b"KDMV", "a VMDK image"),
        (0, b"COWD", "a VMDK image"),
        (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
        (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
        (0, b"QED\0", "a QED image"),
        (0, b"MSWIM\0\0\0", "a WIM archive"),
        (0, b"EVF\x09\x0d\x0a\xff\x00", "an EWF (E01) image"),
        (0, b"PK\x03\x04", "a zip archive"),
        (0, b"PK\x05\x06", "an empty zip archive"),
        (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (0, b"Rar!\x1a\x07", "a RAR archive"),
        (0, b"\x1f\x8b", "a gzip file"),
        (0, b"\xfd7zXZ\0", "an xz file"),
        (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
        (0, b"BZh", "a bzip2 file"),
        (257, b"ustar", "a tar archive"),
        (0x8001, b"CD001", "an ISO 9660 image"),
        (512, b"EFI PART", "a raw disk with a GPT"),
        (4096, b"EFI PART", "a raw disk with a GPT"),
        (510, b"\x55\xaa", "a raw disk or a boot sector"),
        (0x438, b"\x53\xef", "a raw ext file system"),
        (0, b"XFSB", "a raw XFS file system"),
        (0x1_0040, b"_BHRfS_M", "a raw Btrfs file system"),
    ];
    if view.length() == 0 {
        return "an empty file";
    }
    let has = |offset: u64, bytes: &[u8]| {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        view.copy(Structure::File, offset, length).is_ok_and(|found| found == bytes)
    };
    // The footer of a fixed VHD is its last sector, after a raw disk.
    if view.length().checked_sub(512).is_some_and(|offset| has(offset, b"conectix")) && !has(0, b"conectix") {
        return "a fixed VHD image";
    }
    if let Some((.., name)) = BY_SIGNATURE.iter().find(|(offset, bytes, _)| has(*offset, bytes)) {
        return name;
    }
    match view.run(Structure::File, 0, MIB, &mut Vec::new()) {
        Ok(Bytes::Data(bytes)) if !is_zero(bytes.get(..to_usize_saturating(MIB)).unwrap_or(bytes)) => "raw data",
        _ => "zeros: a blank raw disk, or an image whose beginning is lost",
    }
}
