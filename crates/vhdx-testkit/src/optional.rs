//! Checks that need external programs, permissions or much time, and what happens without these.

use std::io::Write;

/// Whether a check must not be skipped: `VHDX_REQUIRE` lists such checks, separated by commas.
fn is_required(what: &str) -> bool {
    std::env::var("VHDX_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item == what || item == "all"))
}

/// Reports that a check is skipped, bypassing the capture of the test harness; fails if it must not be skipped.
pub fn skip(what: &str, why: &str) {
    assert!(!is_required(what), "{what} is required by VHDX_REQUIRE: {why}");
    say(&format!("SKIPPED ({what}): {why}\n"));
}

/// Prints a message, bypassing the capture of the test harness.
pub fn say(text: &str) {
    // To the stream itself: the harness shows output of `eprintln!` for failing tests only.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// Which of the many rounds of a long test are run: every seventh, or each if `VHDX_ROUNDS` is `all`, as CI has it.
/// Seven has no factor in common with the numbers of values that tests try at each place.
pub fn stride() -> usize {
    if std::env::var_os("VHDX_ROUNDS").is_some_and(|rounds| rounds == "all") { 1 } else { 7 }
}

/// How many of this number of rounds are run: see [`stride`].
pub fn rounds(all: usize) -> usize {
    all.div_ceil(stride())
}
