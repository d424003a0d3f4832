//! Rules of parent locator and chain: V54 to V62. Findings in a parent name its layer.

use uuid::Uuid;

use super::{Row, patched, row, try_all, with};
use crate::kit::MIB;
use crate::kit::builder::{Image, Locator, Spec, VHDX_LOCATOR};

const PARENT: Uuid = Uuid::from_u128(0xDA7A_0001);

/// The locator is at 0x210028.
pub(super) fn rows() -> Vec<Row> {
    let base = || Spec::default().build();
    let child = || Spec::child_of(&Spec::default(), "1.vhdx");
    let chain = |what, child: Image, parent: Image, found: &[&'static str]| Row {
        chain: vec![child, parent],
        ..row(what, base(), found)
    };
    let with_locator = |what, change: &dyn Fn(&mut Locator), found: &[&'static str]| {
        let mut locator = Locator::linked_to(PARENT, "1.vhdx");
        change(&mut locator);
        chain(what, Spec { locator: Some(locator), ..child() }.build(), base(), found)
    };
    let own_parent = {
        let mut spec = Spec::child_of(&Spec::default(), "0.vhdx");
        spec.locator = Some(Locator::linked_to(spec.data_write_guid, "0.vhdx"));
        spec.build()
    };
    vec![
        chain(
            "no locator",
            Spec { locator: None, ..child() }.build(),
            base(),
            &["V54 corruption metadata table @0x200000"],
        ),
        row(
            "a locator, and no child",
            with(|spec| spec.locator = Some(Locator::linked_to(PARENT, "1.vhdx"))),
            &["V54 unchecked parent locator @0x210028"],
        ),
        with_locator(
            "bytes that are no locator",
            &|locator| *locator = Locator::Raw(locator.encode()[..19].to_vec()),
            &["V55 corruption parent locator @0x210028"],
        ),
        with_locator(
            "too many keys",
            &|locator| {
                let mut raw = locator.encode();
                raw[18] = 200;
                *locator = Locator::Raw(raw);
            },
            &["V55 corruption parent locator @0x21003a"],
        ),
        with_locator(
            "type",
            &|locator| *locator = Locator::Pairs(Uuid::from_u128(VHDX_LOCATOR.as_u128() ^ 1), Vec::new()),
            &["V56 unsupported parent locator @0x210028"],
        ),
        with_locator(
            "no braces",
            &|locator| locator.set("parent_linkage", &PARENT.to_string()),
            &["V57 note parent locator @0x210028"],
        ),
        with_locator(
            "no identity",
            &|locator| locator.remove("parent_linkage"),
            &["V57 corruption parent locator @0x210028"],
        ),
        with_locator(
            "a merge in progress",
            &|locator| {
                locator.set("parent_linkage", &format!("{{{}}}", Uuid::from_u128(77)));
                locator.set("parent_linkage2", &format!("{{{PARENT}}}"));
            },
            &["V59 warning parent locator"],
        ),
        Row {
            args: &["--parents", "none"],
            ..chain("not looked for", child().build(), base(), &["P1 unchecked parent"])
        },
        row("not there", child().build(), &["P1 unchecked parent"]),
        Row {
            args: &["--parent", "1.vhdx"],
            ..with_locator(
                "no path",
                &|locator| {
                    for key in ["relative_path", "volume_path", "absolute_win32_path"] {
                        locator.remove(key);
                    }
                },
                &["V58 note parent locator @0x210028"],
            )
        },
        chain(
            "another parent",
            child().build(),
            with(|spec| spec.data_write_guid = Uuid::from_u128(1)),
            &["V59 corruption parent"],
        ),
        chain(
            "sectors of another size",
            child().build(),
            with(|spec| spec.sector_size = 4096),
            &["1: V60 corruption metadata item LogicalSectorSize"],
        ),
        chain("a smaller parent", child().build(), Spec::empty(4 * MIB).build(), &["V61 warning parent"]),
        row("a child of its own", own_parent, &["V62 corruption parent"]),
        // Damage to a parent, leaks included.
        chain(
            "a leak in the parent",
            child().build(),
            with(|spec| spec.raw_bat = [(2, 0)].into()),
            &["1: L1 leak file @0x500000"],
        ),
        chain(
            "damage to the parent",
            child().build(),
            with(|spec| spec.raw_bat = [(2, (5 * MIB) | 5)].into()),
            &[
                "1: V65 corruption BAT entry of payload block 2 @0x300010 [0x200000+0x100000]",
                "1: L1 leak file @0x500000",
            ],
        ),
        chain(
            "one header of the parent",
            child().build(),
            patched(|image| image.patch_header_raw(1, 100, b"x")),
            &["1: V5 warning header 1 @0x10004"],
        ),
    ]
}

#[test]
fn check_reports_each_rule_of_chains() {
    try_all(&rows());
}
