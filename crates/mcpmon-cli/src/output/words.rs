//! Times, spans, sizes and counts as people read them.

use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::Timestamp;

fn local(at: Timestamp, zone: &TimeZone) -> jiff::Zoned {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default().to_zoned(zone.clone())
}

/// `14:09:31`.
pub(crate) fn local_time(at: Timestamp, zone: &TimeZone) -> String {
    local(at, zone).strftime("%H:%M:%S").to_string()
}

/// `2026-11-22 14:09:31`.
pub(crate) fn local_day(at: Timestamp, zone: &TimeZone) -> String {
    local(at, zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-11-22 14:09:31`, or in less room `14:09:31` today, `Nov 21 14:09` of another day in the last
/// months, and the date of one long ago.
pub(crate) fn moment(at: Timestamp, now: Timestamp, zone: &TimeZone, is_narrow: bool) -> String {
    if !is_narrow {
        return local_day(at, zone);
    }
    let (then, today) = (local(at, zone), local(now, zone));
    let is_recent = now.since(at) < Duration::from_secs(180 * 86_400);
    let format = match (then.date() == today.date(), is_recent) {
        (true, _) => "%H:%M:%S",
        (false, true) => "%b %d %H:%M",
        (false, false) => "%Y-%m-%d",
    };
    then.strftime(format).to_string()
}

/// `14:09` today, or the date of another day.
pub(crate) fn since(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (then, today) = (local(at, zone), local(now, zone));
    let format = if then.date() == today.date() { "%H:%M" } else { "%b %d" };
    then.strftime(format).to_string()
}

/// `0.4 ms`, `60 ms`, `1.2 s`, `2 m 5 s`.
pub(crate) fn span(span: Duration) -> String {
    let millis = span.as_secs_f64() * 1_000.0;
    match millis {
        m if m < 9.95 => format!("{m:.1} ms"),
        m if m < 999.5 => format!("{m:.0} ms"),
        m if m < 60_000.0 => format!("{:.1} s", m / 1_000.0),
        _ => {
            let seconds = span.as_secs();
            format!("{} m {} s", seconds / 60, seconds % 60)
        }
    }
}

/// `40s`, `12m`, `5h 20m`, `3d 4h`: a long time in the two units that matter.
pub(crate) fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let parts = match (days, hours, minutes) {
        (0, 0, 0) => return format!("{seconds}s"),
        (0, 0, minutes) => [(minutes, 'm'), (0, 's')],
        (0, hours, minutes) => [(hours, 'h'), (minutes, 'm')],
        (days, hours, _) => [(days, 'd'), (hours, 'h')],
    };
    let told = parts.iter().filter(|(number, _)| *number > 0);
    told.map(|(number, unit)| format!("{number}{unit}")).collect::<Vec<_>>().join(" ")
}

/// `1.4 GB`: decimal, as disks and networks are sold.
pub(crate) fn bytes(count: f64) -> String {
    let mut value = count;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.95 || unit == "TB" {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1_000.0;
    }
    String::new()
}

/// `1,234,567`: so many digits are read in groups.
pub(crate) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 service`, `3 services`.
pub(crate) fn count(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_read_well() {
        for (millis, text) in
            [(0.42, "0.4 ms"), (60.4, "60 ms"), (1_234.0, "1.2 s"), (125_000.0, "2 m 5 s")]
        {
            assert_eq!(span(Duration::from_secs_f64(millis / 1_000.0)), text);
        }
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (125, "2m"),
            (5_400, "1h 30m"),
            (90_061, "1d 1h"),
            (86_400, "1d"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
        for (count, text) in [(512.0, "512 B"), (999_960.0, "1.0 MB"), (3.1e9, "3.1 GB")] {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(number(count), text);
        }
        assert_eq!(count(1, "tool"), "1 tool");
        assert_eq!(count(0, "tool"), "0 tools");
    }

    #[test]
    fn another_day_is_a_date() {
        let now = Timestamp::from_millis(1_795_356_571_120);
        let zone = TimeZone::UTC;
        assert_eq!(since(now, now, &zone), "14:09");
        let yesterday = now.saturating_sub(Duration::from_secs(86_400));
        assert_eq!(since(yesterday, now, &zone), "Nov 21");
        let year_ago = now.saturating_sub(Duration::from_secs(365 * 86_400));
        for (at, wide, narrow) in [
            (now, "2026-11-22 14:09:31", "14:09:31"),
            (yesterday, "2026-11-21 14:09:31", "Nov 21 14:09"),
            (year_ago, "2025-11-22 14:09:31", "2025-11-22"),
        ] {
            assert_eq!(moment(at, now, &zone, false), wide);
            assert_eq!(moment(at, now, &zone, true), narrow);
        }
    }
}
