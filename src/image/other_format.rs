//! Formats of files that are given in place of an image: recognised by their content, or by their name.

use std::path::Path;

use crate::error::{FormatGroup as Group, OtherFormat, Structure};
use crate::format::MIB;
use crate::num::{to_u64, to_usize_saturating};
use crate::source::{Bytes, View};
use crate::zero::is_zero;

const fn format(key: &'static str, name: &'static str, group: Group) -> OtherFormat {
    OtherFormat { key, name, group }
}

const EMPTY: OtherFormat = format("empty", "an empty file", Group::NoContent);
const ONLY_ZEROS: OtherFormat =
    format("zeros", "a file of zeros only: a blank raw disk or a placeholder", Group::NoContent);
const ZERO_START: OtherFormat =
    format("zero-start", "zeros: a blank raw disk, or an image whose beginning is lost", Group::Unknown);
const RAW: OtherFormat = format("raw", "raw data", Group::Unknown);
const VHD: OtherFormat = format("vhd", "a dynamic VHD image", Group::DiskImage);
const VHD_CHILD: OtherFormat = format("vhd", "a differencing VHD image", Group::DiskImage);
const FIXED_VHD: OtherFormat = format("vhd-fixed", "a fixed VHD image", Group::DiskImage);
const HEADLESS_VHD: OtherFormat = format("vhd", "a VHD image whose beginning is lost", Group::DiskImage);
const VHD_FOOTER: OtherFormat = format("vhd-footer", "the footer of a VHD image, alone", Group::NoContent);
const DMG: OtherFormat = format("dmg", "a DMG image", Group::DiskImage);
const QCOW: OtherFormat = format("qcow", "a QCOW image", Group::DiskImage);
const AFF4: OtherFormat = format("aff4", "an AFF4 image", Group::DiskImage);
const PLIST: OtherFormat = format("plist", "a property list (a placeholder of iCloud?)", Group::NoContent);
const WEBLOC: OtherFormat = format("webloc", "a link to a web page (.webloc)", Group::Pointer);

/// Formats by their signatures, and the offsets of these.
const BY_SIGNATURE: &[(u64, &[u8], OtherFormat)] = &[
    (0, b"QFI\xfb", format("qcow2", "a QCOW2 image", Group::DiskImage)),
    (0, b"KDMV", format("vmdk", "a VMDK image", Group::DiskImage)),
    (0, b"COWD", format("vmdk", "a VMDK image", Group::DiskImage)),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", format("vmdk", "a VMDK image", Group::DiskImage)),
    (0, b"# Disk DescriptorFile", format("vmdk-descriptor", "a VMDK descriptor", Group::DiskImage)),
    (0x40, b"\x7f\x10\xda\xbe", format("vdi", "a VDI image", Group::DiskImage)),
    (0, b"QED\0", format("qed", "a QED image", Group::DiskImage)),
    (0, b"WithoutFreeSpace", format("parallels", "a Parallels image", Group::DiskImage)),
    (0, b"WithouFreSpacExt", format("parallels", "a Parallels image", Group::DiskImage)),
    (0, b"EVF\x09\x0d\x0a\xff\x00", format("ewf", "an EWF (E01) image", Group::DiskImage)),
    (0, b"EVF2\x0d\x0a\x81", format("ewf2", "an EWF2 (Ex01) image", Group::DiskImage)),
    (0, b"LVF\x09\x0d\x0a\xff\x00", format("ewf-logical", "an EWF logical (L01) file", Group::DiskImage)),
    (0, b"AFF10\x0d\x0a", format("aff", "an AFF image", Group::DiskImage)),
    (0, b"MSWIM\0\0\0", format("wim", "a WIM archive", Group::Archive)),
    (0, b"PK\x03\x04", format("zip", "a zip archive", Group::Archive)),
    (0, b"PK\x05\x06", format("zip", "an empty zip archive", Group::Archive)),
    (0, b"PK\x07\x08", format("zip", "a part of a zip archive", Group::Archive)),
    (0, b"7z\xbc\xaf\x27\x1c", format("7z", "a 7z archive", Group::Archive)),
    (0, b"Rar!\x1a\x07", format("rar", "a RAR archive", Group::Archive)),
    (0, b"MSCF\0\0\0\0", format("cab", "a CAB archive", Group::Archive)),
    (0, b"xar!", format("xar", "a xar archive", Group::Archive)),
    (0, b"!<arch>\n", format("ar", "an ar archive", Group::Archive)),
    (0, b"07070", format("cpio", "a cpio archive", Group::Archive)),
    (2, b"-lh", format("lzh", "an LZH archive", Group::Archive)),
    (257, b"ustar", format("tar", "a tar archive", Group::Archive)),
    (0, b"\x1f\x8b", format("gzip", "a gzip file", Group::Packed)),
    (0, b"\xfd7zXZ\0", format("xz", "an xz file", Group::Packed)),
    (0, b"\x28\xb5\x2f\xfd", format("zstd", "a zstd file", Group::Packed)),
    (0, b"BZh", format("bzip2", "a bzip2 file", Group::Packed)),
    (0, b"\x04\x22\x4d\x18", format("lz4", "an lz4 file", Group::Packed)),
    (0, b"\x02\x21\x4c\x18", format("lz4", "an lz4 file", Group::Packed)),
    (0, b"LZIP", format("lzip", "an lzip file", Group::Packed)),
    (0, b"\x89LZO\0\x0d\x0a\x1a", format("lzop", "an lzop file", Group::Packed)),
    (0, b"\x5d\0\0", format("lzma", "an lzma file", Group::Packed)),
    (0, b"\x1f\x9d", format("compress", "a file of compress", Group::Packed)),
    (0, b"-----BEGIN PGP SIG", format("pgp-signature", "a signature of PGP", Group::OtherFile)),
    (0, b"-----BEGIN PGP MESSAGE", format("pgp", "a file encrypted with PGP", Group::Encrypted)),
    (0, b"age-encryption.org/", format("age", "a file encrypted with age", Group::Encrypted)),
    (0, b"Salted__", format("openssl", "a file encrypted with OpenSSL", Group::Encrypted)),
    (0, b"\x14\x20\x28\x01", format("vmcx", "a Hyper-V configuration or state (.vmcx, .vmrs)", Group::VirtualMachine)),
    (0, b"GUESTRTS", format("vmgs", "a Hyper-V guest state (.vmgs)", Group::VirtualMachine)),
    (0, b"version https://git-lfs.", format("git-lfs", "a Git LFS pointer", Group::Pointer)),
    (0, b"version https://hawser.", format("git-lfs", "a Git LFS pointer", Group::Pointer)),
    (0, b"/annex/objects/", format("git-annex", "a git-annex pointer", Group::Pointer)),
    (0, b"XSym\n", format("symlink", "a symbolic link as a text file", Group::Pointer)),
    (0, b"!<symlink>", format("symlink", "a symbolic link as a text file", Group::Pointer)),
    (0, b"bplist00", PLIST),
    (0, b"book\0\0\0\0mark", format("alias", "an alias of macOS", Group::Pointer)),
    (0, b"L\0\0\0\x01\x14\x02\0", format("lnk", "a Windows shortcut (.lnk)", Group::Pointer)),
    (
        0,
        b"\0\x05\x16\x07\0",
        format("apple-double", "attributes of a file, as macOS writes them (._)", Group::OtherFile),
    ),
    (0, b"HTTP/", format("http", "an HTTP answer", Group::ServerAnswer)),
    (0, b"d8:announce", format("torrent", "a torrent", Group::Pointer)),
    (0, b"%PDF-", format("pdf", "a PDF document", Group::OtherFile)),
    (0, b"\x7fELF", format("elf", "a program", Group::OtherFile)),
    (0x8001, b"CD001", format("iso", "an ISO 9660 image", Group::RawDisk)),
    (512, b"EFI PART", format("raw-gpt", "a raw disk with a GPT", Group::RawDisk)),
    (4096, b"EFI PART", format("raw-gpt", "a raw disk with a GPT", Group::RawDisk)),
    (510, b"\x55\xaa", format("raw-mbr", "a raw disk or a boot sector", Group::RawDisk)),
    (0x438, b"\x53\xef", format("raw-ext", "a raw ext file system", Group::RawDisk)),
    (0, b"XFSB", format("raw-xfs", "a raw XFS file system", Group::RawDisk)),
    (0x1_0040, b"_BHRfS_M", format("raw-btrfs", "a raw Btrfs file system", Group::RawDisk)),
    (0, b"MZ", format("exe", "a Windows program (a self-extracting archive?)", Group::OtherFile)),
];

/// Files of virtual machines whose names end like that, whatever they hold.
const BY_NAME: &[(&str, OtherFormat)] = &[
    ("vhds", format("vhds", "a VHD Set (.vhds)", Group::VirtualMachine)),
    ("vmcx", format("vmcx", "a Hyper-V configuration (.vmcx)", Group::VirtualMachine)),
    ("vmrs", format("vmrs", "a Hyper-V state (.vmrs)", Group::VirtualMachine)),
    ("vmgs", format("vmgs", "a Hyper-V guest state (.vmgs)", Group::VirtualMachine)),
    ("rct", format("rct", "a list of changes of Hyper-V (.rct)", Group::VirtualMachine)),
    ("mrt", format("mrt", "a list of changes of Hyper-V (.mrt)", Group::VirtualMachine)),
];

/// First words of a line in texts that are no image, in lower case.
const BY_LINE: &[(&[u8], OtherFormat)] = &[
    (b"[internetshortcut", format("url", "a link to a web page (.url)", Group::Pointer)),
    (b"[desktop entry]", format("desktop", "a desktop entry (.desktop)", Group::Pointer)),
    (b"magnet:?", format("magnet", "a magnet link", Group::Pointer)),
    (b"[zonetransfer]", format("zone", "the origin of a download (Zone.Identifier)", Group::OtherFile)),
];

/// Number of bytes that are looked at for text.
const TEXT: u64 = 4096;

/// Returns the format of a file that is not a VHDX file. Reads little of it.
pub(super) fn detect(view: &View) -> OtherFormat {
    let length = view.length();
    if length == 0 {
        return EMPTY;
    }
    let by_name = view.source().path().and_then(by_name);
    if let Some(format) = by_name.or_else(|| by_end(view)).or_else(|| by_signature(view)) {
        return format;
    }
    let head = view.copy(Structure::File, 0, length.min(TEXT)).unwrap_or_default();
    // Space that was reserved for a download may follow.
    let end = head.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    let as_text = from_utf16(&head);
    let head = as_text.as_deref().map_or(head.get(..end).unwrap_or(&head), str::as_bytes);
    if let Some(format) = by_text(head, length) {
        return format;
    }
    match view.run(Structure::File, 0, MIB, &mut Vec::new()) {
        Ok(Bytes::Data(bytes)) if !is_zero(bytes.get(..to_usize_saturating(MIB)).unwrap_or(bytes)) => RAW,
        _ if is_all_zero(view) => ONLY_ZEROS,
        _ => ZERO_START,
    }
}

fn has(view: &View, offset: u64, bytes: &[u8]) -> bool {
    view.copy(Structure::File, offset, to_u64(bytes.len())).is_ok_and(|found| found == bytes)
}

fn by_name(path: &Path) -> Option<OtherFormat> {
    let extension = path.extension()?;
    BY_NAME.iter().find(|(name, _)| extension.eq_ignore_ascii_case(name)).map(|(_, format)| *format)
}

/// Formats with a trailer. That of a VHD is its last sector: 512 bytes, or 511 in files of old versions.
fn by_end(view: &View) -> Option<OtherFormat> {
    const VHD_COOKIE: &[u8] = b"conectix";

    let (length, kind_at) = (view.length(), |footer: u64| {
        let kind = view.copy(Structure::File, footer.saturating_add(63), 1).unwrap_or_default();
        kind.first().copied().unwrap_or(0)
    });
    if has(view, 0, VHD_COOKIE) {
        return Some(match kind_at(0) {
            _ if length <= 512 => VHD_FOOTER,
            4 => VHD_CHILD,
            _ => VHD,
        });
    }
    for size in [512, 511] {
        let Some(footer) = length.checked_sub(size) else { continue };
        if has(view, footer, VHD_COOKIE) {
            return Some(if matches!(kind_at(footer), 3 | 4) { HEADLESS_VHD } else { FIXED_VHD });
        }
    }
    length.checked_sub(512).is_some_and(|trailer| has(view, trailer, b"koly\0\0\0\x04")).then_some(DMG)
}

fn by_signature(view: &View) -> Option<OtherFormat> {
    let (.., found) = BY_SIGNATURE.iter().find(|(offset, bytes, _)| has(view, *offset, bytes))?;
    let is_version_1 = found.key == "qcow2" && has(view, 4, b"\0\0\0\x01");
    // The first file of such an archive.
    let is_aff4 = found.key == "zip" && has(view, 30, b"container.description");
    let is_webloc = found.key == "plist" && {
        let list = view.copy(Structure::File, 0, view.length().min(TEXT)).unwrap_or_default();
        // The key of the address, after its kind and length, which is not the S of NSURL.
        list.windows(5).any(|key| key.ends_with(b"\x53URL") && !key.starts_with(b"N"))
    };
    Some(if is_version_1 {
        QCOW
    } else if is_aff4 {
        AFF4
    } else if is_webloc {
        WEBLOC
    } else {
        *found
    })
}

/// Returns the text of a file in UTF-16, which begins with a byte order mark or with a character of markup.
fn from_utf16(head: &[u8]) -> Option<String> {
    let unit: fn([u8; 2]) -> u16 = match head {
        [0xff, 0xfe, ..] | [b'<' | b'{' | b'[', 0, _, 0, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] | [0, b'<' | b'{' | b'[', 0, _, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let units = head.chunks_exact(2).map(|pair| unit(pair.try_into().unwrap_or_default()));
    let text: String = char::decode_utf16(units).map_while(std::result::Result::ok).collect();
    Some(text.trim_matches(['\0', '\u{feff}']).to_owned())
}

/// Text that is no image: what a server answers in place of the file, above all.
fn by_text(head: &[u8], length: u64) -> Option<OtherFormat> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start().to_ascii_lowercase();
    let contains = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
    let begins = |with: &[&[u8]]| with.iter().any(|with| text.starts_with(with));
    // A character may be cut off at the end.
    let is_utf8 = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    let is_text = is_utf8
        && !head.is_empty()
        && !head.iter().any(|byte| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c));
    let is_html = begins(&[b"<!doctype html", b"<html", b"<head", b"<body", b"<script"]);
    let has_html = || contains(b"<html") || contains(b"<!doctype html");
    if is_html || (begins(&[b"<?xml", b"<!--"]) && has_html()) {
        return Some(format("html", "a web page", Group::ServerAnswer));
    }
    // A comment or another section may be first.
    let has_line = |words: &[u8]| text.split(|byte| *byte == b'\n').any(|line| line.starts_with(words));
    if let Some((_, found)) = BY_LINE.iter().find(|(words, _)| has_line(words)) {
        return Some(*found);
    }
    let is_xml = begins(&[b"<?xml", b"<error"]) || is_text && begins_like_a_tag(&text);
    if is_xml && contains(b"<key>url</key>") {
        return Some(WEBLOC);
    }
    if is_xml && contains(b"<plist") {
        return Some(PLIST);
    }
    if is_xml && contains(b"<configuration>") {
        return Some(format("hyper-v-xml", "a Hyper-V configuration (.xml)", Group::VirtualMachine));
    }
    if is_xml {
        return Some(format("xml", "an XML document", Group::ServerAnswer));
    }
    if is_text && begins_with_checksum(&text) {
        return Some(format("checksums", "a list of checksums", Group::OtherFile));
    }
    if begins_like_json(&text) && (contains(b"\"vhdx-mmap/") || contains(b"\"vhdx-files/")) {
        return Some(format("vhdx-report", "a report, a manifest or a loss map of vhdx", Group::OtherFile));
    }
    if begins_like_json(&text) && is_text {
        return Some(format("json", "a JSON document", Group::ServerAnswer));
    }
    (is_text && length <= MIB).then_some(format("text", "a text file", Group::ServerAnswer))
}

/// Returns whether a text begins with a tag of markup, such as `<title>` or `<D:error xmlns="DAV:">`.
fn begins_like_a_tag(text: &[u8]) -> bool {
    let Some((b'<', [first, rest @ ..])) = text.split_first() else { return false };
    (first.is_ascii_alphabetic() || *first == b'!') && rest.contains(&b'>')
}

/// Returns whether a text begins like an object or a list, and not with the name of a section, such as `[section]`.
fn begins_like_json(text: &[u8]) -> bool {
    let next = |rest: &[u8]| rest.trim_ascii_start().first().copied();
    match text.split_first() {
        Some((b'{', _)) => true,
        Some((b'[', rest)) => next(rest).is_none_or(|next| b"{[]\"-0123456789".contains(&next)),
        _ => false,
    }
}

/// Returns whether a text begins with a digest in hexadecimal, as long as those of usual algorithms, and a space or the
/// end of the line.
fn begins_with_checksum(text: &[u8]) -> bool {
    let length = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    matches!(length, 32 | 40 | 56 | 64 | 96 | 128) && text.get(length).is_none_or(u8::is_ascii_whitespace)
}

/// Returns whether all of the file is zero, by its holes and by samples of the rest.
fn is_all_zero(view: &View) -> bool {
    /// Number of samples.
    const SAMPLES: u64 = 256;
    const SAMPLE: u64 = 4096;

    let length = view.length();
    let step = (length / SAMPLES).max(SAMPLE);
    let mut at = 0;
    for _ in 0..SAMPLES.saturating_mul(2) {
        at = at.max(view.known_zero_end(at, length));
        if at >= length {
            break;
        }
        let Ok(sample) = view.copy(Structure::File, at, length.saturating_sub(at).min(SAMPLE)) else { return false };
        if !is_zero(&sample) {
            return false;
        }
        at = at.saturating_add(step);
    }
    let end = length.saturating_sub(length.min(SAMPLE));
    view.copy(Structure::File, end, length.min(SAMPLE)).is_ok_and(|sample| is_zero(&sample))
}
