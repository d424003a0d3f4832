//! Lines of the output for people.

use std::fmt::Display;
use std::io::{self, Write};

use crate::term::{self, escape};

/// Writes a value after its name.
pub(super) fn line(out: &mut impl Write, key: &str, value: impl Display) -> io::Result<()> {
    let title = term::TITLE;
    writeln!(out, "{title}{key}:{title:#} {value}")
}

/// Writes text that needs attention after what it is about.
pub(super) fn marked(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    let style = term::WARNING;
    writeln!(out, "{style}{label}:{style:#} {}", escape(text))
}
