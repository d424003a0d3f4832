//! Parts of messages: numbers, offsets and names from a file.

use std::fmt;

/// Text from a file, with control characters escaped.
pub(super) struct Name<'a>(pub(super) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
    }
}

/// A number and its noun: one, or several.
pub(super) struct Count(pub(super) u64, pub(super) &'static str, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { self.1 } else { self.2 })
    }
}

/// A number from a file: below 10 in decimal, otherwise in decimal and hexadecimal.
pub(super) struct Number(pub(super) u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10 { write!(f, "{}", self.0) } else { write!(f, "{} = {:#x}", self.0, self.0) }
    }
}

/// A file offset: exactly, and in a unit that people read.
pub(super) struct Place(pub(super) u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB")];
        let (shift, unit) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0).unwrap_or((10, "KiB"));
        let hundredths = (u128::from(self.0).saturating_mul(100)) >> shift;
        write!(f, "{:#x} ({}.{:02} {unit})", self.0, hundredths / 100, hundredths % 100)
    }
}
