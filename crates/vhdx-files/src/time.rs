//! Times of files.

use std::fmt;

/// Time of a file: seconds since 1970 in UTC, negative before, and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since the beginning of 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Seconds of a day.
const DAY: i64 = 86_400;

impl Time {
    /// Makes a time of a number of seconds since 1970.
    #[must_use]
    pub const fn of_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }

    /// Returns the date in UTC: year, month and day, in the Gregorian calendar.
    #[must_use]
    pub fn date(self) -> (i64, i64, i64) {
        // Years begin in March here, so that the day of a leap year is their last; an era has 400 years.
        let days = self.seconds.div_euclid(DAY).saturating_add(719_468);
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let leap = (day / 1460).saturating_sub(day / 36_524).saturating_add(day / 146_096);
        let year = day.saturating_sub(leap) / 365;
        let before = year.saturating_mul(365).saturating_add(year / 4).saturating_sub(year / 100);
        let day = day.saturating_sub(before);
        let month = day.saturating_mul(5).saturating_add(2) / 153;
        let day = day.saturating_sub(month.saturating_mul(153).saturating_add(2) / 5).saturating_add(1);
        let year = era.saturating_mul(400).saturating_add(year).saturating_add(i64::from(month >= 10));
        let month = if month < 10 { month.saturating_add(3) } else { month.saturating_sub(9) };
        (year, month, day)
    }

    /// Returns the time of the day in UTC: hour, minute and second.
    #[must_use]
    pub fn clock(self) -> (i64, i64, i64) {
        let second = self.seconds.rem_euclid(DAY);
        (second / 3600, second / 60 % 60, second % 60)
    }
}

impl fmt::Display for Time {
    /// Writes the time as RFC 3339 has it, such as `2024-02-29T23:59:59Z`, with as many digits behind the second as it
    /// needs. Years that have more than four digits, or come before the year 0, have a sign, as ISO 8601 has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), (hour, minute, second)) = (self.date(), self.clock());
        if (0..=9999).contains(&year) {
            write!(f, "{year:04}")?
        } else {
            write!(f, "{year:+06}")?
        }
        write!(f, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanoseconds > 0 {
            let digits = format!("{:09}", self.nanoseconds);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn dates_follow_the_calendar() {
        // `date -u -d @SECONDS +%FT%TZ`; the last two by Python's proleptic calendar and by hand.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-11_644_473_600, "1601-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "+10000-01-01T00:00:00Z"),
        ] {
            assert_eq!(Time::of_seconds(seconds).to_string(), text);
        }
        let exact = Time { seconds: 5, nanoseconds: 70_000 };
        assert_eq!(exact.to_string(), "1970-01-01T00:00:05.00007Z");
        assert!(
            !Time::of_seconds(i64::MIN).to_string().is_empty() && !Time::of_seconds(i64::MAX).to_string().is_empty()
        );
    }
}
