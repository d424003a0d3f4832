//! Sizes, ranges and counts as people write them.

use std::ops::Range;
use std::str::FromStr;

/// Parses a number of bytes: decimal or `0x`, with K, M, G, T, P or E for powers of 1024, and an optional B or iB.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("\"{text}\" is not a size: expected 512, 64K, 1M, 2G, 1T or 0x200");
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).map_err(|_| bad());
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).ok_or_else(bad)?;
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let unit = unit.to_ascii_uppercase();
    let letter = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let power = match letter {
        "" if unit.is_empty() || unit == "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << power).ok_or_else(|| format!("\"{text}\" is more than 2^64 bytes"))
}

/// Range of bytes, as `OFFSET:LENGTH` or `OFFSET:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    offset: u64,
    /// `None`: to the end.
    length: Option<u64>,
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (offset, length) = text
            .split_once(':')
            .ok_or_else(|| format!("\"{text}\" is not a range: expected OFFSET:LENGTH, or OFFSET: up to the end"))?;
        let length = if length.is_empty() { None } else { Some(parse_size(length)?) };
        Ok(Self { offset: parse_size(offset)?, length })
    }
}

impl ByteRange {
    /// The range, if all of it lies within a disk of `size` bytes.
    pub(crate) fn within(self, size: u64) -> Result<Range<u64>, String> {
        let end = self.length.map_or(Some(size), |length| self.offset.checked_add(length));
        match end {
            Some(end) if self.offset <= end && end <= size => Ok(self.offset..end),
            _ => Err(format!("--range: reaches past the end of the disk ({size} bytes, {size:#x})")),
        }
    }
}

/// A number of bytes for people: `1.50 GiB (1610612736 bytes)`.
pub(crate) fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return counted(bytes, "byte");
    }
    format!("{} ({bytes} bytes)", indicatif::BinaryBytes(bytes))
}

/// A number of bytes in at most eight columns: `1.5 GiB`, `40 GiB`, `1023 MiB`.
pub(crate) fn short(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = bytes.checked_ilog2().unwrap_or(0) / 10;
    let unit = UNITS.get(usize::try_from(power).unwrap_or(0)).copied().unwrap_or("B");
    let whole = bytes.checked_shr(power.saturating_mul(10)).unwrap_or(0);
    let next = bytes.checked_shr(power.saturating_sub(1).saturating_mul(10)).unwrap_or(0) % 1024;
    let tenths = next.saturating_mul(10) / 1024;
    if power > 0 && whole < 10 { format!("{whole}.{tenths} {unit}") } else { format!("{whole} {unit}") }
}

/// A number with its noun, in the singular or plural: `1 entry`, `2 entries`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if number == 1 => format!("1 {noun}"),
        Some(stem) => format!("{number} {stem}ies"),
        None => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteRange, counted, human, parse_size, short};

    #[test]
    fn short_sizes_have_one_digit_after_the_point_below_ten() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (10 << 20, "10 MiB")];
        for (bytes, text) in cases.into_iter().chain([((1 << 30) - 1, "1023 MiB"), (64 << 40, "64 TiB")]) {
            assert_eq!(short(bytes), text);
        }
        assert_eq!(short(u64::MAX), "15 EiB");
    }

    #[test]
    fn numbers_agree_with_nouns() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "entry")), ["0 entries", "1 entry", "2 entries"]);
        assert_eq!([0, 1, 2].map(|number| counted(number, "block")), ["0 blocks", "1 block", "2 blocks"]);
        assert_eq!([human(1), human(1 << 20)], ["1 byte", "1.00 MiB (1048576 bytes)"]);
    }

    #[test]
    fn sizes_have_units_of_1024() {
        let parse = |text| parse_size(text).ok();
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("64k"), Some(64 << 10));
        assert_eq!([parse("1M"), parse("1MiB"), parse("1mb")], [Some(1 << 20); 3]);
        assert_eq!(parse("512B"), Some(512));
        assert_eq!(parse("0x200"), Some(512));
        assert_eq!(parse("15E"), Some(15 << 60));
        for bad in ["", "K", "-1", "1.5G", "1X", "16E", "iB", "1iB", "0x", "1 M", "99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_past_the_end_are_rejected() {
        let range = |text: &str| text.parse::<ByteRange>().and_then(|range| range.within(1 << 20));
        assert_eq!(range("0:512"), Ok(0..512));
        assert_eq!(range("4K:"), Ok(4096..1 << 20));
        assert_eq!(range("1M:0"), Ok(1 << 20..1 << 20));
        for bad in ["", "512", ":512", "0:2M", "2M:", "1M:1", "15E:15E"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
