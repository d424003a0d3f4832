//! Time in documents and arguments.

use std::sync::LazyLock;
use std::time::SystemTime;

use vhdx_files::Time;

/// The time of the program, as documents have it.
pub(crate) static OF_PROGRAM: LazyLock<String> = LazyLock::new(|| {
    // The last second whose year has four digits.
    let seconds = of_program().min(253_402_300_799);
    Time::of_seconds(i64::try_from(seconds).unwrap_or(0)).to_string()
});

/// Seconds since 1970 now, at the start of the program, or those of SOURCE_DATE_EPOCH, by which output is
/// reproducible (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn of_program() -> u64 {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    fixed.unwrap_or_else(now)
}

/// Parses a day, or a second of it, in UTC, to seconds since 1970.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("\"{text}\" is not a time: expected 2026-11-28 or 2026-11-28T12:00:00Z");
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let numbers: Vec<i64> = text.split(separator).map(str::parse).collect::<Result<_, _>>().ok()?;
        numbers.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-').ok_or_else(bad)?;
    let [hour, minute, second] = numbers(clock.trim_end_matches('Z'), ':').ok_or_else(bad)?;
    let is_valid = (1601..=9999).contains(&year) && (0..24).contains(&hour) && (0..60).contains(&minute);
    if !is_valid || !(0..=60).contains(&second) {
        return Err(bad());
    }
    // The day with this date, found between two that are far enough apart.
    let (mut low, mut high) = (-200_000_i64, 3_000_000_i64);
    while low < high {
        let middle = low.saturating_add(high).div_euclid(2);
        if Time::of_seconds(middle.saturating_mul(86_400)).date() < (year, month, day) {
            low = middle.saturating_add(1);
        } else {
            high = middle;
        }
    }
    let midnight = low.saturating_mul(86_400);
    if Time::of_seconds(midnight).date() != (year, month, day) {
        return Err(bad());
    }
    Ok(midnight
        .saturating_add(hour.saturating_mul(3600))
        .saturating_add(minute.saturating_mul(60))
        .saturating_add(second))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_are_days_or_seconds() {
        // `date -u -d TEXT +%s`
        assert_eq!(parse("1970-01-01"), Ok(0));
        assert_eq!(parse("2024-02-29T23:59:59Z"), Ok(1_709_251_199));
        assert_eq!(parse("1969-12-31 23:59:59"), Ok(-1));
        for bad in ["", "yesterday", "2023-02-29", "2024-13-01", "2024-01-01T25:00:00Z", "2024-01-01T00:00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
