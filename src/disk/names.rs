//! Names in a folder that differ from a stored name only in the way they are written.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// Names in a folder.
#[derive(Debug)]
pub(super) struct FolderNames {
    /// In lower case.
    by_lower: HashMap<String, Vec<OsString>>,
    by_skeleton: HashMap<String, Vec<OsString>>,
}

impl FolderNames {
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let mut names =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        let (mut by_lower, mut by_skeleton) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for name in names {
            by_lower.entry(lower(&name)).or_default().push(name.clone());
            by_skeleton.entry(skeleton(&name.to_string_lossy())).or_default().push(name);
        }
        Ok(Self { by_lower, by_skeleton })
    }

    /// Returns the names that differ from `name` only in upper and lower case, in order.
    pub(super) fn alike(&self, name: &OsStr) -> &[OsString] {
        self.by_lower.get(&lower(name)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the names that may be a stored name, although their characters differ ([`skeleton`]), in order.
    pub(super) fn similar(&self, stored: &str) -> &[OsString] {
        self.by_skeleton.get(&skeleton(stored)).map(Vec::as_slice).unwrap_or_default()
    }
}

fn lower(name: &OsStr) -> String {
    name.to_string_lossy().to_lowercase()
}

/// Returns what similar names have in common: lower-case ASCII characters, and `?` for the others. An accented letter
/// is one character in NFC, and a letter and combining marks in NFD; so a letter with marks is a `?`, too. The number
/// that browsers and file managers add to the name of a copy is left out.
pub(crate) fn skeleton(name: &str) -> String {
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
    use super::skeleton;

    #[test]
    fn similar_names_differ_in_case_accents_and_copy_numbers() {
        for (name, stored) in [
            ("cafe\u{301}.vhdx", "caf\u{e9}.vhdx"),
            ("CAF\u{c9} (2).VHDX", "cafe\u{301}.vhdx"),
            ("\u{1112}\u{1161}\u{11ab}.vhdx", "\u{d55c}.vhdx"),
            ("base.vhdx", "base (1).vhdx"),
            ("base\u{fffd}\u{fffd}\u{fffd}.vhdx", "base\u{fffd}.vhdx"),
        ] {
            assert_eq!(skeleton(name), skeleton(stored), "{name} {stored}");
        }
        for (name, stored) in [
            ("cafe.vhdx", "caf\u{e9}.vhdx"),
            ("base2.vhdx", "base.vhdx"),
            ("base (a).vhdx", "base.vhdx"),
            ("base().vhdx", "base.vhdx"),
            ("base.vhd", "base.vhdx"),
        ] {
            assert_ne!(skeleton(name), skeleton(stored), "{name} {stored}");
        }
    }
}
