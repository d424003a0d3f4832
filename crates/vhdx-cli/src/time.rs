//! Time in documents.

use std::sync::LazyLock;
use std::time::SystemTime;

/// The time of the program, as documents have it.
pub(crate) static OF_PROGRAM: LazyLock<String> = LazyLock::new(|| rfc3339(of_program()));

/// Seconds since 1970 now, at the start of the program, or those of SOURCE_DATE_EPOCH, by which output is
/// reproducible (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn of_program() -> u64 {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    fixed.unwrap_or_else(now)
}

/// Date and time in UTC, such as `2024-02-29T23:59:59Z`. The last second that can be written is that of the year 9999.
fn rfc3339(seconds: u64) -> String {
    let seconds = seconds.min(253_402_300_799);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= days_of(year) {
        days = days.saturating_sub(days_of(year));
        year = year.saturating_add(1);
    }
    let february = days_of(year).saturating_sub(337);
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days = days.saturating_sub(length);
        month = u64::saturating_add(month, 1);
    }
    let (day, hour, minute) = (days.saturating_add(1), second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

fn days_of(year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if is_leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates_follow_the_calendar() {
        // `date -u -d @SECONDS +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
