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
        for (count, text) in [(512.0, "512 B"), (999_960.0, "1.0 MB"), (3.1e9, "3.1 GB")] {
            assert_eq!(bytes(count), text);
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
    }
}
