//! The times in a file of keys.

use std::time::SystemTime;

use time::{Month, OffsetDateTime, UtcOffset};
use toml_edit::{Date, Datetime, Offset, Time};

/// What a time must be.
pub(super) const EXPECTED: &str = "must be a date with a time and an offset, such as 2027-06-30T00:00:00Z";

/// Reads a time; `None` if it has no date, time or offset, or is none of the calendar.
pub(super) fn read(written: &Datetime) -> Option<SystemTime> {
    let Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = *written else { return None };
    let month = Month::try_from(date.month).ok()?;
    let day = time::Date::from_calendar_date(i32::from(date.year), month, date.day).ok()?;
    let local = day.with_hms_nano(time.hour, time.minute, time.second, time.nanosecond).ok()?;
    let minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => minutes,
    };
    let offset = UtcOffset::from_whole_seconds(i32::from(minutes) * 60).ok()?;
    Some(local.assume_offset(offset).into())
}

/// Writes a time in whole seconds.
pub(super) fn write(at: SystemTime) -> Datetime {
    let at = OffsetDateTime::from(at);
    let date = Date { year: at.year().unsigned_abs() as u16, month: at.month().into(), day: at.day() };
    let time = Time { hour: at.hour(), minute: at.minute(), second: at.second(), nanosecond: 0 };
    Datetime { date: Some(date), time: Some(time), offset: Some(Offset::Z) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        let at = UNIX_EPOCH + Duration::from_secs(1_796_000_000);
        assert_eq!(read(&write(at)), Some(at));
        assert_eq!(write(at).to_string(), humantime::format_rfc3339_seconds(at).to_string());
        let read = |text: &str| read(&text.parse().expect("a date"));
        assert_eq!(read("2027-01-01T01:30:00+01:30"), read("2027-01-01T00:00:00Z"));
        for incomplete in ["2027-01-01", "2027-01-01T00:00:00", "00:00:00", "2026-12-31T23:59:60Z"] {
            assert_eq!(read(incomplete), None, "{incomplete}");
        }
    }
}
