//! Codes are unique, and the documentation has all of them.

use std::collections::BTreeSet;

use vhdx_mmap::Rule;

const PAGE: &str = include_str!("../../../docs/checks.md");

#[test]
fn codes_are_unique() {
    let codes: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.code()).collect();
    assert_eq!(codes.len(), Rule::ALL.len());
}

#[test]
fn documentation_has_every_rule() {
    for rule in Rule::ALL {
        let row = format!("| {} | {} | {} |", rule.code(), rule.text(), rule.severity());
        assert!(PAGE.contains(&row), "docs/checks.md has no row for {rule:?}: {row}");
    }
    // Also the rules that a reader follows without anything to find in an image.
    for number in 1..=75 {
        assert!(PAGE.contains(&format!("| V{number} |")), "docs/checks.md has no row for V{number}");
    }
}
