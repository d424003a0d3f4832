//! Records of directories, and dates.

use crate::clusters::days_of;
use crate::fields::Fields;
use crate::time::Time;

/// Length of a record without its name.
const HEADER: usize = 33;

/// The record is that of a directory.
const IS_DIRECTORY: u8 = 2;
/// The record is that of a file which belongs to the one before it, such as a resource fork.
const IS_ASSOCIATED: u8 = 4;
/// The file goes on in the next record.
const GOES_ON: u8 = 128;

/// Record of a directory.
pub(super) struct Record<'b> {
    /// Number of the first block of the content.
    pub(super) block: u32,
    /// Length of the content, in bytes.
    pub(super) length: u32,
    pub(super) modified: Option<Time>,
    flags: u8,
    /// Whether the content is in pieces with gaps.
    pub(super) is_interleaved: bool,
    pub(super) name: &'b [u8],
    /// What SUSP calls the system use area.
    pub(super) more: &'b [u8],
}

impl<'b> Record<'b> {
    /// Reads the record that `bytes` begin with; none if it is damaged. Its length is that in its first byte.
    pub(super) fn of(bytes: &'b [u8]) -> Option<Self> {
        let bytes = bytes.get(..usize::from(*bytes.first()?))?;
        let fields = Fields(bytes);
        let name_length = usize::from(*bytes.get(HEADER.saturating_sub(1))?);
        let name = bytes.get(HEADER..)?.get(..name_length).filter(|name| !name.is_empty())?;
        // A name of even length is followed by a byte, so that what follows begins at an even place.
        let behind = HEADER.saturating_add(name_length).next_multiple_of(2);
        Some(Self {
            block: fields.le32(2).checked_add(u32::from(fields.byte(1)))?,
            length: fields.le32(10),
            modified: short_date(fields.array(18)),
            flags: fields.byte(25),
            is_interleaved: fields.le16(26) != 0,
            name,
            more: bytes.get(behind..).unwrap_or_default(),
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.flags & IS_DIRECTORY != 0
    }

    pub(super) fn is_associated(&self) -> bool {
        self.flags & IS_ASSOCIATED != 0
    }

    pub(super) fn goes_on(&self) -> bool {
        self.flags & GOES_ON != 0
    }

    /// Whether it is the record of the directory itself, or of the one above.
    pub(super) fn is_dot(&self) -> bool {
        matches!(self.name, [0 | 1])
    }
}

/// A date of seven bytes; none if there is no such date.
pub(super) fn short_date(bytes: [u8; 7]) -> Option<Time> {
    let [year, month, day, hour, minute, second, zone] = bytes;
    let date = [i64::from(year).saturating_add(1900), i64::from(month), i64::from(day)];
    time(date, [hour.into(), minute.into(), second.into()], zone)
}

/// A date of sixteen digits, and a byte.
pub(super) fn long_date(bytes: [u8; 17]) -> Option<Time> {
    let [digits @ .., zone] = bytes;
    let number =
        |from: usize, to: usize| -> Option<i64> { std::str::from_utf8(digits.get(from..to)?).ok()?.parse().ok() };
    let date = [number(0, 4)?, number(4, 6)?, number(6, 8)?];
    let exact = time(date, [number(8, 10)?, number(10, 12)?, number(12, 14)?], zone)?;
    let hundredths = u32::try_from(number(14, 16)?).ok()?;
    Some(Time { nanoseconds: hundredths.saturating_mul(10_000_000), ..exact })
}

/// The zone is in quarters of an hour east of Greenwich.
fn time([year, month, day]: [i64; 3], [hour, minute, second]: [i64; 3], zone: u8) -> Option<Time> {
    let is_date = year > 0 && (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    if !is_date || !is_time {
        return None;
    }
    let clock = hour.saturating_mul(3600).saturating_add(minute.saturating_mul(60)).saturating_add(second);
    let seconds = days_of(year, month, day).saturating_mul(86_400).saturating_add(clock);
    let east = i64::from(zone.cast_signed()).saturating_mul(900);
    Some(Time::of_seconds(seconds.saturating_sub(east)))
}

#[cfg(test)]
mod tests {
    use super::{long_date, short_date};

    #[test]
    fn dates() {
        // Seconds by `date -u -d ... +%s`.
        for (bytes, seconds) in [
            ([70, 1, 1, 0, 0, 0, 0], 0),
            ([100, 2, 29, 12, 34, 56, 0], 951_827_696),
            ([100, 2, 29, 12, 34, 56, 4], 951_824_096),
            ([100, 2, 29, 12, 34, 56, 0xe4], 951_852_896),
            ([38, 4, 24, 22, 13, 19, 0], -1_000_000_001),
            ([255, 12, 31, 23, 59, 59, 0], 5_869_583_999),
        ] {
            assert_eq!(short_date(bytes).unwrap().seconds, seconds, "{bytes:?}");
        }
        assert_eq!(short_date([0; 7]), None);
        assert_eq!(short_date([70, 13, 1, 0, 0, 0, 0]), None);
        let long = long_date(*b"2000022912345678\x04").unwrap();
        assert_eq!((long.seconds, long.nanoseconds), (951_824_096, 780_000_000));
        assert_eq!(long_date(*b"0000000000000000\0"), None);
    }
}
