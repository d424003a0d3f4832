//! Codes stay what they are, and the documentation has them all.

use std::collections::BTreeSet;

use vhdx_mmap::Rule;

const PAGE: &str = include_str!("../../../docs/checks.md");

#[test]
fn every_code_is_there_once() {
    let codes: BTreeSet<&str> = Rule::ALL.iter().map(|check| check.code()).collect();
    assert_eq!(codes.len(), Rule::ALL.len());
    assert!(Rule::ALL.iter().all(|check| check.text().trim().ends_with('.')));
}

#[test]
fn the_documentation_tells_of_every_code() {
    for check in Rule::ALL {
        let row = format!("| {} |", check.code());
        assert!(PAGE.contains(&row), "docs/checks.md has no row for {} ({check:?})", check.code());
    }
    // All rules of the format are in it, those included that a reader keeps without anything to find.
    for number in 1..=75 {
        assert!(PAGE.contains(&format!("| V{number} |")), "docs/checks.md has no row for V{number}");
    }
}
