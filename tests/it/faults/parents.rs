//! Parent locator and chain: V54 to V62.

use std::sync::Arc;

use uuid::Uuid;
use vhdx_mmap::{
    Category, Chain, Disk, ErrorKind, MAX_PARENTS, OpenOptions, ParentRejection, Parents, Rule, Source, Structure,
};

use super::{Place, Rows, kind};
use crate::kit::builder::{Image, Locator, PARENT_LOCATOR, Spec, VHDX_LOCATOR};
use crate::kit::{Block, MIB};
use crate::lab::{assert_reads, open_chain, open_image, parents_of, run, source, wide};
use crate::support::{map, temp_dir};

/// Offset of the locator of the images here: after the five other items.
const LOCATOR: u64 = 0x21_0028;
const PARENT: Uuid = Uuid::from_u128(0xDA7A_0001);

fn in_locator(offset: u64) -> Place {
    (Structure::ParentLocator, Some(LOCATOR + offset), Category::Corrupt)
}

fn child_with(locator: Locator) -> Image {
    Spec { locator: Some(locator), ..Spec::child_of(&Spec::default(), "base") }.build()
}

/// The usual locator with another value under a key.
fn with(key: &str, value: &str) -> Locator {
    let mut locator = Locator::linked_to(PARENT, "base");
    locator.set(key, value);
    locator
}

/// The usual locator with other bytes at an offset.
fn patched(at: usize, bytes: &[u8]) -> Locator {
    let mut raw = Locator::linked_to(PARENT, "base").encode();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    Locator::Raw(raw)
}

/// An image whose link to its parent cannot be used, although the image itself can be examined.
fn broken_link(rows: &mut Rows, what: &str, child: &Image, place: Place, is_it: super::IsIt<'_>) {
    let image = open_image(child).unwrap();
    assert_eq!(image.virtual_disk_size(), 8 * MIB, "{what}");
    rows.failed(what, image.parent_locator(), place, is_it);
    let base = Spec::default().build();
    rows.failed(what, open_chain(&[child, &base]), place, is_it);
    let chain = Chain::open(source(child), &OpenOptions::new().parents(parents_of(&[child, &base]))).unwrap();
    rows.error(what, chain.broken().unwrap(), place, is_it);
    assert!(chain.needs_parent() && chain.layers().len() == 1, "{what}");
}

#[test]
fn locator_entries_and_strings_must_be_inside() {
    let mut rows = Rows::default();
    let length = Locator::linked_to(PARENT, "base").encode().len();
    let end = LOCATOR + wide(length);
    for cut in [1, 4, 19] {
        // V55
        let raw = Locator::linked_to(PARENT, "base").encode()[..cut].to_vec();
        let limit = LOCATOR + wide(cut);
        let is_it =
            |kind: &ErrorKind| matches!(kind, ErrorKind::OutOfBounds { length: 20, limit: found } if *found == limit);
        broken_link(&mut rows, "V55 head", &child_with(Locator::Raw(raw)), in_locator(0), &is_it);
    }
    // V55: the entries do not fit. Their count is 5.
    for count in [200_u16, u16::MAX] {
        let bytes = u64::from(count) * 12;
        let is_it = |kind: &ErrorKind| match kind {
            ErrorKind::OutOfBounds { length, limit } => (*length, *limit) == (bytes, end),
            _ => false,
        };
        broken_link(&mut rows, "V55 count", &child_with(patched(18, &count.to_le_bytes())), in_locator(18), &is_it);
    }
    rows.end();
}

/// Asserts that an entry with a fault is a warning, and that the others are used.
fn odd_entry(rows: &mut Rows, what: &str, locator: Locator, without: &str) {
    let (child, base) = (child_with(locator), Spec::default().build());
    rows.warned_chain(what, &[&child, &base], &[(0, Rule::Locator, Structure::ParentLocator, Some(LOCATOR + 44))]);
    let found = open_image(&child).unwrap().parent_locator().unwrap().unwrap();
    assert_eq!(found.parent_linkage, PARENT, "{what}");
    let keys: Vec<&str> = found.entries.iter().map(|(key, _)| key.as_str()).collect();
    let all = ["parent_linkage", "absolute_win32_path", "relative_path", "volume_path", "parent_linkage2"];
    assert_eq!(keys, all.into_iter().filter(|key| *key != without).collect::<Vec<_>>(), "{what}");
}

#[test]
fn odd_locator_entry_is_a_warning_and_the_others_are_used() {
    let mut rows = Rows::default();
    let length = Locator::linked_to(PARENT, "base").encode().len();
    // V55: the third entry, at 20 + 2 * 12. Key and value at 0 and 4, their lengths at 8 and 10.
    let third = 44;
    let mut dropped = |what: &str, field: usize, bytes: &[u8]| {
        odd_entry(&mut rows, what, patched(third + field, bytes), "relative_path");
    };
    for field in [0, 4] {
        dropped("V55 offset 0", field, &[0; 4]);
        for place in [wide(length) - 1, wide(length), 1 << 31, 0xFFFF_FFFF] {
            dropped("V55 outside", field, &u32::try_from(place).unwrap().to_le_bytes());
        }
    }
    for field in [8, 10] {
        dropped("V55 length 0", field, &[0; 2]);
        dropped("V55 odd", field, &[7, 0]);
    }
    // The value `.\base`, in UTF-16: a NUL in it, and one at its end; a surrogate without its partner.
    let value = |units: &[u16]| {
        let mut raw = Locator::linked_to(PARENT, "base").encode();
        let at = raw.len();
        raw.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        raw[third + 4..third + 8].copy_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
        raw[third + 10..third + 12].copy_from_slice(&u16::try_from(units.len() * 2).unwrap().to_le_bytes());
        Locator::Raw(raw)
    };
    let text = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    odd_entry(&mut rows, "V55 NUL", value(&text("a\0b")), "relative_path");
    odd_entry(&mut rows, "V55 only NULs", value(&text("\0\0")), "relative_path");
    for (what, units, path) in [
        ("V55 NUL at the end", text(".\\base\0"), ".\\base"),
        ("V55 surrogate", [text(".\\base"), vec![0xD800], text("x")].concat(), ".\\base\u{fffd}x"),
        ("V55 second surrogate", [text("b"), vec![0xDC01]].concat(), "b\u{fffd}"),
    ] {
        odd_entry(&mut rows, what, value(&units), "");
        let image = open_image(&child_with(value(&units))).unwrap();
        assert_eq!(image.parent_locator().unwrap().unwrap().relative_path.as_deref(), Some(path), "{what}");
    }
    rows.end();
}

#[test]
fn locator_has_few_warnings_about_many_odd_entries() {
    let mut raw = Locator::linked_to(PARENT, "base").encode();
    let first = raw[20..32].to_vec();
    raw.drain(32..80);
    raw[18..20].copy_from_slice(&4000_u16.to_le_bytes());
    raw.splice(32..32, vec![0; 3999 * 12]);
    let at = u32::from_le_bytes(first[..4].try_into().unwrap()) + 3999 * 12 - 48;
    raw[20..24].copy_from_slice(&at.to_le_bytes());
    raw[24..28].copy_from_slice(&(at + 28).to_le_bytes());
    let (child, base) = (child_with(Locator::Raw(raw)), Spec::default().build());
    let chain = Chain::open(source(&child), &OpenOptions::new().parents(parents_of(&[&child, &base]))).unwrap();
    assert!(chain.broken().is_none(), "{:?}", chain.broken());
    let odd = chain.layers()[0].warnings().filter(|warning| warning.rule == Rule::Locator).count();
    assert!((1..=16).contains(&odd), "{odd}");
}

#[test]
fn locator_strings_must_be_text_with_unique_keys() {
    let mut rows = Rows::default();
    // V55: the strings begin after five entries, the first with the key parent_linkage, which is lost.
    let strings = 20 + 5 * 12;
    for unit in [[0x00, 0xD8], [0x00, 0xDC], [0, 0]] {
        let image = child_with(patched(strings + 4, &unit));
        let is_it = kind!(ErrorKind::Missing { what: "parent_linkage" });
        broken_link(&mut rows, "V55 UTF-16, NUL", &image, in_locator(0), is_it);
    }
    // V55: a key that occurs twice. Two identities are not one; of two paths, the first is used.
    let linkage = |id: Uuid| ("parent_linkage".to_owned(), format!("{{{id}}}"));
    let path = |path: &str| ("relative_path".to_owned(), path.to_owned());
    let pairs = |pairs: &[(String, String)]| child_with(Locator::Pairs(VHDX_LOCATOR, pairs.to_vec()));
    let twice = pairs(&[linkage(PARENT), linkage(Uuid::from_u128(3)), path(".\\base")]);
    broken_link(&mut rows, "V55 twice", &twice, in_locator(0), kind!(ErrorKind::Text { .. }));
    let warning = [(0, Rule::Locator, Structure::ParentLocator, Some(LOCATOR))];
    let second = |value: u128| ("parent_linkage2".to_owned(), format!("{{{}}}", Uuid::from_u128(value)));
    for twice in [
        pairs(&[linkage(PARENT), linkage(PARENT), path(".\\base")]),
        pairs(&[linkage(PARENT), second(0), path(".\\base"), second(0)]),
        pairs(&[linkage(PARENT), second(0), path(".\\base"), second(1)]),
    ] {
        rows.warned_chain("V55 twice", &[&twice, &Spec::default().build()], &warning);
    }
    let twice = pairs(&[linkage(PARENT), path(".\\base"), path(".\\other")]);
    rows.warned_chain("V55 twice", &[&twice, &Spec::default().build()], &warning);
    let locator = open_image(&twice).unwrap().parent_locator().unwrap().unwrap();
    assert_eq!(locator.relative_path.as_deref(), Some(".\\base"));
    // Keys are case-sensitive.
    let other = child_with(with("Parent_Linkage", "nonsense"));
    rows.warned_chain("V55 case", &[&other, &Spec::default().build()], &[]);
    rows.end();
}

#[test]
fn locator_must_have_defined_type() {
    let mut rows = Rows::default();
    // V56
    let id = Uuid::from_u128(VHDX_LOCATOR.as_u128() ^ 1);
    let image = child_with(Locator::Pairs(id, vec![("parent_linkage".to_owned(), format!("{{{PARENT}}}"))]));
    let place = (Structure::ParentLocator, Some(LOCATOR), Category::Unsupported);
    let is_it = |kind: &ErrorKind| matches!(kind, ErrorKind::UnknownLocatorType { id: found } if *found == id);
    broken_link(&mut rows, "V56", &image, place, &is_it);
    rows.end();
}

#[test]
fn locator_must_have_parent_linkage() {
    let mut rows = Rows::default();
    // V57
    let mut without = Locator::linked_to(PARENT, "base");
    without.remove("parent_linkage");
    let is_it = kind!(ErrorKind::Missing { what: "parent_linkage" });
    broken_link(&mut rows, "V57 missing", &child_with(without), in_locator(0), is_it);
    let long = format!("{{{PARENT}}} ");
    for value in
        ["{}", "x", "{da7a0001}", "{00000000-0000-0000-0000-0000da7a000g}", &long, "00000000000000000000000000000001"]
    {
        // V57
        let image = child_with(with("parent_linkage", value));
        let is_it = |kind: &ErrorKind| match kind {
            ErrorKind::LocatorGuid { key: "parent_linkage", found } => found == value,
            _ => false,
        };
        broken_link(&mut rows, "V57 nonsense", &image, in_locator(0), &is_it);
    }
    rows.end();
}

#[test]
fn unusual_locators_are_reported_and_used() {
    let mut rows = Rows::default();
    let base = Spec::default().build();
    let warning = |check| [(0, check, Structure::ParentLocator, Some(LOCATOR))];
    // V57
    let bare = child_with(with("parent_linkage", &PARENT.to_string()));
    rows.warned_chain("V57 without braces", &[&bare, &base], &warning(Rule::ParentLinkage));
    let upper = child_with(with("parent_linkage", &format!("{{{PARENT}}}").to_uppercase()));
    rows.warned_chain("V57 upper case", &[&upper, &base], &[]);
    let second = child_with(with("parent_linkage2", "nonsense"));
    rows.warned_chain("V57 parent_linkage2", &[&second, &base], &warning(Rule::ParentLinkage));
    // V58
    let mut without = Locator::linked_to(PARENT, "base");
    for key in ["relative_path", "volume_path", "absolute_win32_path"] {
        without.remove(key);
    }
    rows.warned_chain("V58", &[&child_with(without.clone()), &base], &warning(Rule::LocatorPath));
    for key in ["relative_path", "volume_path", "absolute_win32_path"] {
        let mut one = without.clone();
        one.set(key, "base");
        rows.warned_chain("V58 one", &[&child_with(one), &base], &[]);
    }
    // V59
    let mut merging = with("parent_linkage", &format!("{{{}}}", Uuid::from_u128(77)));
    merging.set("parent_linkage2", &format!("{{{PARENT}}}"));
    let expected = [(0, Rule::ParentIdentity, Structure::ParentLocator, None)];
    rows.warned_chain("V59 parent_linkage2", &[&child_with(merging), &base], &expected);
    // V61
    for disk_size in [4 * MIB, 9 * MIB + 512] {
        let child = Spec { disk_size, ..Spec::child_of(&Spec::default(), "base") };
        let child = child.block(1, Block::partial(&run(7..8))).build();
        let expected = [(0, Rule::ParentSize, Structure::Parent, None)];
        rows.warned_chain("V61", &[&child, &base], &expected);
    }
    rows.end();
}

#[test]
fn parent_must_have_the_stored_identity() {
    let mut rows = Rows::default();
    let place = (Structure::Parent, None, Category::ParentMismatch);
    let child = Spec::child_of(&Spec::default(), "base").build();
    let stranger = Spec { data_write_guid: Uuid::from_u128(5), ..Spec::default() }.build();
    // V59
    let is_it = |kind: &ErrorKind| match kind {
        ErrorKind::ParentMismatch { name, expected, tried } => {
            let found = |outcome: &ParentRejection| match outcome {
                ParentRejection::OtherIdentity { found } => *found == Uuid::from_u128(5),
                _ => false,
            };
            name == ".\\base" && *expected == PARENT && tried.len() == 1 && found(&tried[0].rejection)
        }
        _ => false,
    };
    rows.failed("V59", open_chain(&[&child, &stranger]), place, &is_it);
    // V59: the DataWriteGuid of the current header counts.
    let mut changed = Spec::default().build();
    changed.patch_header(2, 32, &Uuid::from_u128(5).to_bytes_le());
    rows.failed("V59 current header", open_chain(&[&child, &changed]), place, &is_it);
    let mut unchanged = Spec::default().build();
    unchanged.patch_header(1, 32, &Uuid::from_u128(5).to_bytes_le());
    assert_reads(&[&child, &unchanged]);
    // V59: the nil GUID identifies nothing.
    let nil = Spec { data_write_guid: Uuid::nil(), ..Spec::default() };
    let orphan = Spec::child_of(&nil, "base").build();
    rows.failed("V59 nil", open_chain(&[&orphan, &nil.build()]), place, kind!(ErrorKind::ParentMismatch { .. }));
    rows.end();
}

#[test]
fn parent_must_have_sector_size_of_child() {
    let mut rows = Rows::default();
    // V60
    let base = Spec { sector_size: 4096, ..Spec::default() };
    let child = Spec { sector_size: 512, ..Spec::child_of(&base, "base") };
    let place = (Structure::MetadataItem("LogicalSectorSize"), None, Category::Corrupt);
    let result = open_chain(&[&child.build(), &base.build()]);
    assert_eq!(result.as_ref().unwrap_err().layer(), 1);
    let is_it = kind!(ErrorKind::SectorSizeMismatch { found: 4096, expected: 512 });
    rows.failed("V60", result, place, is_it);
    rows.end();
}

#[test]
fn errors_of_parents_have_their_layer() {
    let specs = [Spec::default(), Spec::child_of(&Spec::default(), "base")];
    let [mut base, middle] = specs.clone().map(|spec| spec.build());
    let child = Spec::child_of(&specs[1], "middle").block(3, Block::zero()).build();
    base.set_bat(2, 5);
    let disk = open_chain(&[&child, &middle, &base]).unwrap();
    let error = disk.read_at(&mut [0; 1], 2 * MIB).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ReservedState { state: 5 }));
    assert_eq!((error.layer(), error.structure()), (2, Structure::PayloadBatEntry(2)));
    base.bytes.write(2 * MIB, b"x");
    let error = open_chain(&[&child, &middle, &base]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Signature { expected: "metadata", .. }), "{error:?}");
    assert_eq!((error.layer(), error.offset()), (2, Some(2 * MIB)));
}

#[test]
fn child_without_parent_gives_own_blocks() {
    let mut rows = Rows::default();
    let place = (Structure::Parent, None, Category::ParentNotFound);
    let spec = Spec::child_of(&Spec::default(), "base").block(0, Block::full()).block(1, Block::partial(&run(0..8)));
    let image = spec.build();
    let disk = Disk::open(source(&image), &OpenOptions::new()).unwrap();
    let mut bytes = vec![0; 4096];
    for (at, length) in [(0, 4096), (MIB - 100, 200), (MIB + 4000, 96)] {
        assert_eq!(disk.read_at(&mut bytes[..length], at).unwrap(), length);
        assert_eq!(bytes[..length], crate::kit::pattern(2, at, length));
    }
    for at in [MIB + 4096, 2 * MIB, 7 * MIB] {
        rows.failed("no parent", disk.read_at(&mut bytes, at), place, kind!(ErrorKind::NoParentAttached));
    }
    // If a search is allowed, it must find a parent.
    let nothing = OpenOptions::new().parents(Parents::With(Arc::new(|_| Ok(None))));
    let is_it = kind!(ErrorKind::ParentNotFound { .. });
    rows.failed("not found", Disk::open(source(&image), &nothing), place, is_it);
    rows.end();
}

#[test]
fn chain_must_not_be_a_circle() {
    let mut rows = Rows::default();
    // V62: a child of its own.
    let mut spec = Spec::child_of(&Spec::default(), "0.vhdx");
    spec.locator = Some(Locator::linked_to(spec.data_write_guid, "0.vhdx"));
    let folder = temp_dir();
    let path = folder.path().join("0.vhdx");
    spec.build().bytes.write_file(&path).unwrap();
    let result = Disk::open(map(&path), &OpenOptions::new().parents(Parents::Beside));
    rows.failed("V62", result, (Structure::Parent, None, Category::Corrupt), kind!(ErrorKind::ChainCycle));
    rows.end();
}

#[test]
fn chain_length_is_limited() {
    // V62: 258 files, each of which could be the parent of any other.
    let mut spec = Spec::child_of(&Spec::default(), "x");
    spec.locator = Some(Locator::linked_to(spec.data_write_guid, "x"));
    (spec.log_length, spec.metadata_offset, spec.bat_offset) = (0, MIB, 2 * MIB);
    let folder = temp_dir();
    let path = |layer: usize| folder.path().join(format!("{layer}"));
    let bytes = spec.build().bytes;
    (0..258).for_each(|layer| bytes.write_file(&path(layer)).unwrap());
    // The base of the longest possible chain.
    let base = Spec { has_parent: false, locator: None, ..spec.clone() };
    base.build().bytes.write_file(&folder.path().join("base")).unwrap();

    let open = |ends_at: usize| {
        let folder = folder.path().to_path_buf();
        let next = move |layer: usize| if layer + 1 == ends_at { "base".to_owned() } else { (layer + 1).to_string() };
        let parents = Parents::With(Arc::new(move |request| Source::load(folder.join(next(request.layer))).map(Some)));
        Disk::open(map(&path(0)), &OpenOptions::new().parents(parents))
    };
    assert_eq!(MAX_PARENTS, 256);
    assert_eq!(open(256).unwrap().layers().len(), 257);
    let error = open(257).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ChainTooLong { limit: 256 }), "{error:?}");
    assert_eq!((error.category(), error.structure(), error.layer()), (Category::Unsupported, Structure::Parent, 256));
}

#[test]
fn custom_search_gets_the_locator() {
    let base = Spec::default();
    let child = Spec::child_of(&base, "base").build();
    let bytes = base.build().bytes.to_vec();
    let parents = Parents::With(Arc::new(move |request| {
        assert_eq!((request.layer, request.locator.parent_linkage), (0, PARENT));
        assert_eq!(request.child.header().data_write_guid, Uuid::from_u128(0xDA7A_0002));
        Ok(Some(Source::from_vec(bytes.clone())))
    }));
    let disk = Disk::open(source(&child), &OpenOptions::new().parents(parents)).unwrap();
    assert_eq!(disk.layers().len(), 2);
    let items = open_image(&child).unwrap().parent_locator().unwrap().unwrap().entries;
    let keys: Vec<&str> = items.iter().map(|(key, _)| key.as_str()).collect();
    let expected = ["parent_linkage", "absolute_win32_path", "relative_path", "volume_path", "parent_linkage2"];
    assert_eq!(keys, expected);
    assert_eq!(child.item_at(PARENT_LOCATOR), LOCATOR);
}

#[test]
fn longest_legal_locator_is_read() {
    let base = Spec::default();
    let mut child = Spec::child_of(&base, "1.vhdx");
    let mut bytes = child.locator.as_ref().unwrap().encode();
    bytes.resize(1 << 20, 0);
    child.locator = Some(Locator::Raw(bytes));
    (child.metadata_length, child.bat_offset) = (2 << 20, 4 * MIB);
    assert_reads(&[&child.build(), &base.build()]);
}
