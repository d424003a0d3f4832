//! Parent locator (MS-VHDX 2.6.2.6): the stored paths and the identity of the parent.

use std::collections::BTreeMap;
use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Result, Rule, Severity, Structure};
use crate::format::{LocatorEntry, LocatorHeader, MetadataEntry, U16, VHDX_LOCATOR};
use crate::num::{to_u64, to_usize_saturating};
use crate::source::View;

use super::warning::Warnings;

/// Parent locator of a differencing image (MS-VHDX 2.6.2.6). Its content is not trustworthy: it may name any file.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentLocator {
    /// Identity of the parent: its DataWriteGuid when the child was made (`parent_linkage`).
    pub parent_linkage: Uuid,
    /// Second identity, which the parent may have while a child is being merged into it (`parent_linkage2`).
    pub parent_linkage2: Option<Uuid>,
    /// Path relative to the child's folder, with backslashes (`relative_path`).
    pub relative_path: Option<String>,
    /// Path with a volume GUID (`volume_path`).
    pub volume_path: Option<String>,
    /// Path with a drive letter or of a network share (`absolute_win32_path`).
    pub absolute_win32_path: Option<String>,
    /// All keys with their values, including those above, in the order of the file.
    pub entries: Vec<(String, String)>,
}

impl ParentLocator {
    /// Returns a name for the parent: the first stored path.
    #[must_use]
    pub fn name(&self) -> &str {
        let paths = [&self.relative_path, &self.absolute_win32_path, &self.volume_path];
        paths.into_iter().flatten().next().map_or("(without path)", String::as_str)
    }

    /// Returns which of the two identities `data_write_guid` is, if any. The nil GUID is not an identity.
    #[must_use]
    pub fn linkage_of(&self, data_write_guid: Uuid) -> Option<Linkage> {
        if data_write_guid.is_nil() {
            None
        } else if data_write_guid == self.parent_linkage {
            Some(Linkage::ParentLinkage)
        } else if Some(data_write_guid) == self.parent_linkage2 {
            Some(Linkage::ParentLinkage2)
        } else {
            None
        }
    }
}

/// Identity by which a parent was verified (MS-VHDX 2.6.2.6.3).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linkage {
    /// The GUID under the key `parent_linkage`.
    ParentLinkage,
    /// The GUID under the key `parent_linkage2`: a merge into the parent was in progress.
    ParentLinkage2,
    /// None: in a salvage, the caller named the file.
    Unverified,
}

impl Linkage {
    /// Returns the key of the parent locator, or `none` if the identity was not verified.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ParentLinkage => "parent_linkage",
            Self::ParentLinkage2 => "parent_linkage2",
            Self::Unverified => "none",
        }
    }
}

crate::error::display_as_str!(Linkage);

/// Reads the parent locator of `length` bytes at `offset`.
///
/// An entry that breaks a rule is a warning: its text is used as far as it has a meaning, and the other entries are
/// used as they are. A parent is accepted by its identity, so a wrong path cannot lead to a wrong parent.
///
/// # Errors
/// Fails if its type is not the one that MS-VHDX defines, its entries do not fit into it, or it has no
/// `parent_linkage`.
pub(crate) fn read(view: &View, (offset, length): (u64, u64), warnings: &mut Warnings) -> Result<ParentLocator> {
    let most = u64::from(MetadataEntry::MAX_LENGTH);
    let bytes = if length > most {
        let kind = ErrorKind::Field { field: "Length", found: length, expected: "at most 1 MiB" };
        Err(Error::at(Structure::ParentLocator, offset, kind))
    } else {
        view.copy(Structure::ParentLocator, offset, length)
    };
    let bytes = bytes.map_err(|error| {
        let is_lost = matches!(error.kind(), ErrorKind::Lost);
        warnings.fatal(if is_lost { Rule::Medium } else { Rule::Locator }, error)
    })?;
    let item = Item { bytes: &bytes, offset };
    let entries = item.entries(warnings).map_err(|error| {
        let is_of_other_type = matches!(error.kind(), ErrorKind::UnknownLocatorType { .. });
        warnings.fatal(if is_of_other_type { Rule::LocatorType } else { Rule::Locator }, error)
    })?;

    let mut by_key: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value) in &entries {
        if !by_key.contains_key(key.as_str()) {
            by_key.insert(key, value);
        } else if key == "parent_linkage" && by_key.get(key.as_str()) != Some(&value.as_str()) {
            return Err(warnings.fatal(
                Rule::Locator,
                item.at(0, ErrorKind::Text { what: "parent_linkage occurs twice, with different values" }),
            ));
        }
    }
    if by_key.len() < entries.len() {
        let kind = ErrorKind::Text { what: "a key occurs twice: its first value is used" };
        warnings.add_as(Rule::Locator, Severity::Warning, item.at(0, kind));
    }
    let mut guid = |key: &'static str| {
        let text = *by_key.get(key)?;
        let bad = || item.at(0, ErrorKind::LocatorGuid { key, found: text.to_owned() });
        match parse_guid(text) {
            Some((id, in_braces)) => {
                if !in_braces {
                    warnings.add(Rule::ParentLinkage, bad());
                }
                Some(Ok(id))
            }
            None => Some(Err(bad())),
        }
    };
    let parent_linkage = guid("parent_linkage");
    let missing = || Err(item.at(0, ErrorKind::Missing { what: "parent_linkage" }));
    let parent_linkage = match parent_linkage.unwrap_or_else(missing) {
        Ok(id) => id,
        Err(error) => return Err(warnings.fatal(Rule::ParentLinkage, error)),
    };
    // Hyper-V writes nil for a missing identity. An invalid one identifies nothing either.
    let parent_linkage2 = match guid("parent_linkage2") {
        Some(Ok(id)) => Some(id).filter(|id| !id.is_nil()),
        Some(Err(detail)) => {
            warnings.add(Rule::ParentLinkage, detail);
            None
        }
        None => None,
    };
    let path = |key| by_key.get(key).map(|text| (*text).to_owned());
    let locator = ParentLocator {
        parent_linkage,
        parent_linkage2,
        relative_path: path("relative_path"),
        volume_path: path("volume_path"),
        absolute_win32_path: path("absolute_win32_path"),
        entries: entries.clone(),
    };
    if [&locator.relative_path, &locator.volume_path, &locator.absolute_win32_path].into_iter().all(Option::is_none) {
        let kind = ErrorKind::Missing { what: "a path (relative_path, volume_path or absolute_win32_path)" };
        warnings.add(Rule::LocatorPath, item.at(0, kind));
    }
    Ok(locator)
}

/// Parses a GUID, and returns whether it is in braces, as it should be.
fn parse_guid(text: &str) -> Option<(Uuid, bool)> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let hyphenated = inner.unwrap_or(text);
    // The parser accepts other notations, which are not valid here.
    let id = Some(hyphenated).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok())?;
    Some((id, inner.is_some()))
}

/// Largest length of all strings of a locator, in bytes: that of the longest item.
const MOST_TEXT: usize = 1 << 20;

/// Largest number of warnings about entries of a locator, which may have 65535.
const MOST_WARNINGS: usize = 16;

struct Item<'a> {
    bytes: &'a [u8],
    offset: u64,
}

impl Item<'_> {
    fn at(&self, within: usize, kind: ErrorKind) -> Error {
        Error::at(Structure::ParentLocator, self.offset.saturating_add(to_u64(within)), kind)
    }

    fn out_of_bounds(&self, within: usize, length: u64) -> Error {
        let limit = self.offset.saturating_add(to_u64(self.bytes.len()));
        self.at(within, ErrorKind::OutOfBounds { length, limit })
    }

    /// Returns keys and values, in the order of the entries. Entries that cannot be read are left out.
    fn entries(&self, warnings: &mut Warnings) -> Result<Vec<(String, String)>> {
        let Ok((head, rest)) = LocatorHeader::ref_from_prefix(self.bytes) else {
            return Err(self.out_of_bounds(0, to_u64(size_of::<LocatorHeader>())));
        };
        if head.locator_type != VHDX_LOCATOR {
            return Err(self.at(0, ErrorKind::UnknownLocatorType { id: head.locator_type.to_uuid() }));
        }
        let count = usize::from(head.key_value_count.get());
        let Ok((entries, _)) = <[LocatorEntry]>::ref_from_prefix_with_elems(rest, count) else {
            let field = offset_of!(LocatorHeader, key_value_count);
            let length = to_u64(count.saturating_mul(size_of::<LocatorEntry>()));
            return Err(self.out_of_bounds(field, length));
        };
        // A string may be 64 KiB long, and 65535 entries may share it: the total is limited.
        let mut left = MOST_TEXT;
        let mut texts = Vec::new();
        let mut odd = 0_usize;
        for (index, entry) in entries.iter().enumerate() {
            let place = index.saturating_mul(size_of::<LocatorEntry>()).saturating_add(size_of::<LocatorHeader>());
            let (key_length, value_length) = (entry.key_length.get(), entry.value_length.get());
            let both = usize::from(key_length).saturating_add(usize::from(value_length));
            left = left
                .checked_sub(both)
                .ok_or_else(|| self.at(place, ErrorKind::Text { what: "more than 1 MiB of strings" }))?;
            let key = self.text(entry.key_offset.get(), key_length);
            let value = self.text(entry.value_offset.get(), value_length);
            let [of_key, of_value] = [&key, &value].map(|text| match text {
                Ok(Text { oddity, .. }) => oddity.map(|what| ErrorKind::Text { what }),
                Err(kind) => Some(kind.clone()),
            });
            if let Some(kind) = of_key.or(of_value) {
                odd = odd.saturating_add(1);
                if odd <= MOST_WARNINGS {
                    warnings.add_as(Rule::Locator, Severity::Warning, self.at(place, kind));
                }
            }
            if let (Ok(key), Ok(value)) = (key, value) {
                texts.push((key.text, value.text));
            }
        }
        Ok(texts)
    }

    /// Returns the string of `length` bytes, `start` bytes into the item.
    fn text(&self, start: u32, length: u16) -> Result<Text, ErrorKind> {
        let bad = |what| ErrorKind::Text { what };
        if start == 0 || length == 0 {
            return Err(bad("an offset or a length is 0"));
        }
        let start = to_usize_saturating(u64::from(start));
        let Some(bytes) = self.bytes.get(start..).and_then(|rest| rest.get(..usize::from(length))) else {
            let limit = self.offset.saturating_add(to_u64(self.bytes.len()));
            return Err(ErrorKind::OutOfBounds { length: length.into(), limit });
        };
        let units = <[U16]>::ref_from_bytes(bytes).map_err(|_| bad("a length is odd"))?;
        // Names on NTFS may hold surrogates without a partner.
        let mut oddity = None;
        let text: String = char::decode_utf16(units.iter().map(|unit| unit.get()))
            .map(|decoded| {
                decoded.unwrap_or_else(|_| {
                    oddity = Some("a string is not UTF-16");
                    char::REPLACEMENT_CHARACTER
                })
            })
            .collect();
        // Some writers store the terminator of the string, too.
        let text = match text.trim_end_matches('\0') {
            "" => return Err(bad("a string has only NULs")),
            inner if inner.contains('\0') => return Err(bad("a string contains a NUL")),
            inner if inner.len() < text.len() => {
                oddity = Some("a string ends with a NUL");
                inner.to_owned()
            }
            _ => text,
        };
        Ok(Text { text, oddity })
    }
}

/// A string of the locator.
struct Text {
    text: String,
    /// The way in which the stored string is not in order.
    oddity: Option<&'static str>,
}
