//! When a schedule fires: a cron expression in a time zone, without a clock of its own.
//!
//! Where clocks go forward, a fixed time of day that is left out fires at the first minute after the gap, and what has `*` or
//! a step in its minutes or hours goes on there; where they go back, a fixed time fires once, the first time, and what has
//! `*` or a step fires in both passes. That is Vixie cron's way, and `croner` documents and keeps it.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use windlass_protocol::{WallMs, limits};

/// An expression in a zone.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Reads an expression of five fields or a word such as `@daily`, and the name of an IANA zone.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, String> {
        if expression.len() > limits::NAME_MAX_BYTES || zone.len() > limits::NAME_MAX_BYTES {
            return Err(format!("an expression and a zone have at most {} bytes", limits::NAME_MAX_BYTES));
        }
        let word = expression.trim().starts_with('@');
        if !word && expression.split_whitespace().count() != 5 {
            return Err(format!(
                "`{expression}` has not the five fields minute, hour, day of month, month and day of week, \
                 and is none of @hourly, @daily, @weekly, @monthly and @yearly"
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression.trim()).map_err(|error| format!("`{expression}`: {error}"))?;
        let zone = TimeZone::get(zone)
            .map_err(|_| format!("`{zone}` is no time zone; write one such as Europe/Berlin or UTC"))?;
        Ok(Self { cron, zone })
    }

    /// The first time after this one; `None` where there is none that anybody would live to see.
    #[must_use]
    pub fn next_after(&self, at: WallMs) -> Option<WallMs> {
        let from = Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&from, false).ok()?;
        let next = WallMs(u64::try_from(next.timestamp().as_millisecond()).ok()?);
        // Nothing that a library says makes a schedule fire twice for one time.
        (next > at).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> WallMs {
        let time: Timestamp = text.parse().unwrap();
        WallMs(u64::try_from(time.as_millisecond()).unwrap())
    }

    /// The next times, as RFC 3339.
    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let table = Timetable::parse(cron, zone).unwrap();
        let mut last = at(from);
        let mut all = Vec::new();
        for _ in 0..count {
            last = table.next_after(last).unwrap();
            all.push(Timestamp::from_millisecond(i64::try_from(last.0).unwrap()).unwrap().to_string());
        }
        all
    }

    #[test]
    fn five_fields_and_words_are_read_in_their_zone() {
        for (cron, zone, from, next) in [
            ("30 2 * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T02:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
            ("30 2 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", "2026-07-01T00:30:00Z"),
            ("30 2 * * *", "Asia/Kolkata", "2026-07-01T00:00:00Z", "2026-07-01T21:00:00Z"),
            ("*/15 * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("0 9 * * MON-FRI", "UTC", "2026-01-02T10:00:00Z", "2026-01-05T09:00:00Z"),
            // Either of the two days counts where both are given.
            ("0 0 13 * 5", "UTC", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@hourly", "UTC", "2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z"),
            ("@daily", "America/New_York", "2026-01-01T00:00:00Z", "2026-01-01T05:00:00Z"),
            ("@weekly", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@monthly", "UTC", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("@yearly", "UTC", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(times(cron, zone, from, 1), [next], "{cron} {zone}");
        }
    }

    #[test]
    fn a_time_of_day_that_is_left_out_fires_after_the_gap_and_steps_go_on_there() {
        // Berlin, 29 March 2026: 02:00 is 03:00, at 01:00 UTC.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
    }

    #[test]
    fn a_time_of_day_that_comes_twice_fires_once_and_steps_fire_in_both_passes() {
        // Berlin, 25 October 2026: 03:00 is 02:00, at 01:00 UTC.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:10:00Z", 4),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_timetable_is_refused_in_words() {
        for (cron, zone) in [
            ("", "UTC"),
            ("* * * *", "UTC"),
            ("0 * * * * *", "UTC"),
            ("* * * * * 2030", "UTC"),
            ("60 * * * *", "UTC"),
            ("* * * * MONTAG", "UTC"),
            ("@fortnightly", "UTC"),
            ("@reboot", "UTC"),
            ("* * * * *", "Berlin"),
            ("* * * * *", ""),
            ("* * * * *", "../../etc/passwd"),
        ] {
            assert!(Timetable::parse(cron, zone).is_err(), "{cron} {zone}");
        }
        assert!(Timetable::parse(&"*".repeat(10_000), "UTC").is_err());
        let never = Timetable::parse("0 0 31 2 *", "UTC").unwrap();
        assert_eq!(never.next_after(at("2026-01-01T00:00:00Z")), None);
    }
}
