//! Calendar time in UTC as RFC 3339 text, for log lines and the `created` field of a state.

use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 3339 text in UTC of a Unix time: `2006-01-02T15:04:05.000000009Z`. The fraction has as many digits as it needs and is left
/// out when zero. Exact for the years 0 to 9999.
pub fn rfc3339(secs: i64, nanos: u32) -> String {
    let (year, month, day) = civil(secs.div_euclid(86400));
    let second = secs.rem_euclid(86400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos != 0 {
        let fraction = format!(".{nanos:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The time now: seconds and nanoseconds since 1970.
pub fn now() -> (i64, u32) {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_secs() as i64, since.subsec_nanos()),
        // A clock before 1970 is not worth an error of its own.
        Err(_) => (0, 0),
    }
}

/// Year, month and day of a day number counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // A year that begins in March has its leap day last, so that months need no table: 153 days every five months.
    const ERA: i64 = 146_097;
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn formats_known_times() {
        // Checked with `date -u -d @SECS +%FT%TZ`.
        for (secs, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_799, 999_999_999, "2000-02-29T23:59:59.999999999Z"),
            (951_868_800, 500_000_000, "2000-03-01T00:00:00.5Z"),
            (1_709_164_800, 9, "2024-02-29T00:00:00.000000009Z"),
            (1_735_689_599, 10, "2024-12-31T23:59:59.00000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59Z"),
            (-1, 0, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(secs, nanos), text);
        }
    }

    #[test]
    fn days_follow_each_other_for_four_centuries() {
        let mut last = String::new();
        for day in 0..146_097 + 1 {
            let text = rfc3339(day * 86400, 0);
            assert!(text > last, "{last} before {text}");
            last = text;
        }
        assert_eq!(last, "2370-01-01T00:00:00Z");
    }
}
