//! Identities of the images in a folder: from their headers alone.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::format::FileIdentifier;
use crate::image::{Image, Linkage, ParentLocator, Strictness};
use crate::source::{FolderWalk, FoundFile};

/// Largest number of entries of a folder and its subfolders that a search looks at.
const MOST_ENTRIES: usize = 200_000;

/// Largest number of files in them that a search opens.
const MOST_IMAGES: usize = 20_000;

/// Images in a folder, by their identities.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// Paths without links, in order, with the DataWriteGuid.
    images: Vec<(PathBuf, Uuid)>,
    is_complete: bool,
}

impl Identities {
    /// Reads the headers of the images in a folder and its subfolders. Links are not followed.
    pub(super) fn below(folder: &Path, strictness: Strictness) -> Self {
        Self::read(folder, true, strictness, |_| true)
    }

    /// Reads the headers of the images in a folder for whose paths `is_wanted` is true.
    pub(super) fn in_folder(folder: &Path, strictness: Strictness, is_wanted: impl Fn(&Path) -> bool) -> Self {
        Self::read(folder, false, strictness, is_wanted)
    }

    fn read(folder: &Path, is_recursive: bool, strictness: Strictness, is_wanted: impl Fn(&Path) -> bool) -> Self {
        let Ok(mut walk) = FolderWalk::new(folder, is_recursive, MOST_ENTRIES) else { return Self::default() };
        let (mut images, mut opened, mut is_complete) = (Vec::new(), 0_usize, true);
        for entry in walk.by_ref() {
            // A folder that cannot be read does not hide the parent in another one.
            let Ok(file) = entry else {
                is_complete = false;
                continue;
            };
            if !file.may_be_image() || !is_wanted(&file.path) {
                continue;
            }
            if opened >= MOST_IMAGES {
                is_complete = false;
                break;
            }
            opened = opened.saturating_add(1);
            if let Some(id) = identity(&file, strictness) {
                images.push((file.path, id));
            }
        }
        Self { images, is_complete: is_complete && walk.is_complete() }
    }

    /// Returns the number of images.
    pub(super) fn len(&self) -> usize {
        self.images.len()
    }

    /// Returns whether everything in the folder was looked at.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns the images with one of the identities that a child stores: those with its first identity first.
    pub(super) fn with_identity(&self, locator: &ParentLocator) -> impl Iterator<Item = &Path> {
        let with = move |wanted| {
            let has_it = move |image: &&(PathBuf, Uuid)| locator.linkage_of(image.1) == Some(wanted);
            self.images.iter().filter(has_it).map(|(path, _)| path.as_path())
        };
        with(Linkage::ParentLinkage).chain(with(Linkage::ParentLinkage2))
    }
}

/// Returns the identity of a file, if it is an image.
fn identity(file: &FoundFile, strictness: Strictness) -> Option<Uuid> {
    let source = file.open_real().ok()?;
    // Most other files can be told from images by their first bytes.
    let mut signature = [0; 8];
    source.read_exact_at(0, &mut signature).ok()?;
    if strictness == Strictness::Strict && signature != *FileIdentifier::SIGNATURE.as_bytes() {
        return None;
    }
    Image::header_of(source, strictness).ok().map(|header| header.data_write_guid)
}

/// Returns whether a file may have a stored name, although their characters differ: in upper and lower case, in other
/// forms of the same accented letter (NFC and NFD), in characters that the system cannot represent, or by the number
/// that browsers and file managers add to the name of a copy.
pub(super) fn looks_like(path: &Path, stored: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    skeleton(&name) == skeleton(stored)
}

/// Returns what similar names have in common: lower-case ASCII characters, and `?` for the others. An accented letter
/// is one character in NFC, and a letter and combining marks in NFD; so a letter with marks is a `?`, too.
fn skeleton(name: &str) -> String {
    let mut skeleton = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii() {
            skeleton.push(c.to_ascii_lowercase());
            continue;
        }
        if matches!(c, '\u{300}'..='\u{36f}') {
            skeleton.pop();
        }
        if !skeleton.ends_with('?') {
            skeleton.push('?');
        }
    }
    without_copy_number(&skeleton)
}

/// Returns `base.vhdx` for `base (1).vhdx`.
fn without_copy_number(name: &str) -> String {
    let (stem, extension) = name.rfind('.').map_or((name, ""), |dot| name.split_at(dot));
    let inner = stem.strip_suffix(')').and_then(|stem| stem.rsplit_once(" ("));
    match inner {
        Some((stem, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{stem}{extension}")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::looks_like;

    #[test]
    fn similar_names_differ_in_case_accents_and_copy_numbers() {
        for (name, stored) in [
            ("cafe\u{301}.vhdx", "caf\u{e9}.vhdx"),
            ("CAF\u{c9} (2).VHDX", "cafe\u{301}.vhdx"),
            ("\u{1112}\u{1161}\u{11ab}.vhdx", "\u{d55c}.vhdx"),
            ("base.vhdx", "base (1).vhdx"),
            ("base\u{fffd}\u{fffd}\u{fffd}.vhdx", "base\u{fffd}.vhdx"),
        ] {
            assert!(looks_like(Path::new(name), stored), "{name} {stored}");
        }
        for (name, stored) in [
            ("cafe.vhdx", "caf\u{e9}.vhdx"),
            ("base2.vhdx", "base.vhdx"),
            ("base (a).vhdx", "base.vhdx"),
            ("base().vhdx", "base.vhdx"),
            ("base.vhd", "base.vhdx"),
        ] {
            assert!(!looks_like(Path::new(name), stored), "{name} {stored}");
        }
    }
}
