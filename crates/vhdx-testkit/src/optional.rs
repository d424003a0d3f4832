//! Checks that need something from outside, and what happens where that is missing.

use std::io::Write;

/// Whether a check must not be skipped: `VHDX_REQUIRE` lists such checks, with commas.
fn is_required(what: &str) -> bool {
    std::env::var("VHDX_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == what || item == "all"))
}

/// Says that a check is skipped, past the capture of the test harness; fails where it must not be skipped.
pub fn skip(what: &str, why: &str) {
    assert!(!is_required(what), "{what} is required by VHDX_REQUIRE: {why}");
    say(&format!("SKIPPED ({what}): {why}\n"));
}

/// Says something past the capture of the test harness.
pub fn say(text: &str) {
    // To the stream itself: what goes through `eprintln!` is shown for failing tests only.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
