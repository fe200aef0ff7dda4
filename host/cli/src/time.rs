//! Times and durations on the command line.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Parses a duration such as `90s` into milliseconds.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = units.iter().find(|(unit, _)| *unit == &text[number.len()..]);
    let ms = unit.and_then(|(_, ms)| number.parse::<u64>().ok()?.checked_mul(*ms));
    ms.ok_or_else(|| {
        "not a valid duration: give a whole number and its unit, ms, s, m, h or d".to_owned()
    })
}

/// Parses a time in the past into milliseconds since 1970: a duration ago, or a date with or
/// without a time of day, in UTC unless it has an offset.
pub fn past(text: &str) -> Result<i64, String> {
    #[expect(clippy::disallowed_methods, reason = "the client has no injected clock")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    past_at(text, i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

fn past_at(text: &str, now: i64) -> Result<i64, String> {
    if let Ok(ago) = duration_ms(text) {
        return Ok(i64::try_from(ago).map_or(0, |ago| now.saturating_sub(ago)).max(0));
    }
    let in_utc = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    let time = text.parse::<Timestamp>().ok().or_else(in_utc);
    let ms = time.map(Timestamp::as_millisecond).filter(|ms| *ms >= 0);
    ms.ok_or_else(|| {
        "not a valid time: give a duration ago, such as 15m, 2h or 7d, or a date (UTC) such as \
         2026-01-31 or 2026-01-31T12:00:00Z"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration_ms("250ms"), Ok(250));
        assert_eq!(duration_ms("2h"), Ok(7_200_000));
        for invalid in ["", "5", "s", "-1s", "1.5s", "5 s", "5w", "99999999999999999999d", "ß"] {
            assert!(duration_ms(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn times_are_durations_ago_or_dates() {
        const NOW: i64 = 1_769_860_800_000; // 2026-01-31T12:00:00Z
        for (text, ms) in [
            ("2h", NOW - 7_200_000),
            ("0s", NOW),
            ("100000d", 0),
            ("2026-01-31", NOW - 43_200_000),
            ("2026-01-31T12:00", NOW),
            ("2026-01-31 12:00:00", NOW),
            ("2026-01-31T12:00:00Z", NOW),
            ("2026-01-31T13:00:00+01:00", NOW),
        ] {
            assert_eq!(past_at(text, NOW), Ok(ms), "{text}");
        }
        for text in ["", "yesterday", "2026-02-30", "12:00", "-2h", "1969-12-31", "5"] {
            assert!(past_at(text, NOW).is_err(), "{text}");
        }
    }
}
