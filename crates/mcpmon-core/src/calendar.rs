//! Wall-clock spans of people: maintenance windows, and the hours of a route. Pure.
//!
//! What is written as local time is meant as local time: a window at 02:00 begins at 02:00 on both
//! sides of a change of clocks. How long it lasts is counted in real time.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::service::{ServiceName, ServiceSpec};
use crate::settings::{MaintenanceWindow, RouteSettings, Weekday};
use crate::time::Timestamp;

/// Something in a calendar cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
pub struct CalendarError {
    /// Which key.
    pub key: &'static str,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

fn wrong(key: &'static str, message: impl Into<String>) -> CalendarError {
    CalendarError { key, message: message.into() }
}

/// A maintenance window, read.
#[derive(Debug, Clone)]
pub struct Maintenance {
    services: Vec<String>,
    labels: std::collections::BTreeMap<String, String>,
    begins: Begins,
    duration: Duration,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
enum Begins {
    Weekly { days: Vec<Weekday>, at: Time },
    Once(DateTime),
}

impl Maintenance {
    /// Reads a window.
    ///
    /// # Errors
    ///
    /// The key that cannot be used.
    pub fn read(window: &MaintenanceWindow) -> Result<Self, CalendarError> {
        let begins = match (&window.start, &window.at) {
            (Some(start), None) => {
                Begins::Weekly { days: window.days.clone(), at: time_of_day("start", start)? }
            }
            (None, Some(at)) if window.days.is_empty() => {
                Begins::Once(at.parse().map_err(|_| {
                    let message =
                        format!("`{at}` is not a date and time such as \"2026-12-24T18:00\"");
                    wrong("at", message)
                })?)
            }
            (None, Some(_)) => {
                return Err(wrong("days", "a window with `at` is once, on that day"));
            }
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "at",
                    "give `start` for a weekly window, or `at` for one; not both",
                ));
            }
            (None, None) => {
                let message = "it is missing: `start = \"02:00\"` for a weekly window, or `at = \"2026-12-24T18:00\"` for one";
                return Err(wrong("start", message));
            }
        };
        Ok(Self {
            services: window.services.clone(),
            labels: window.labels.clone(),
            begins,
            duration: window.duration,
            zone: zone(window.timezone.as_deref())?,
        })
    }

    /// Until when this service is under maintenance; `None` if it is not at `now`.
    pub fn until(&self, service: &ServiceSpec, now: Timestamp) -> Option<Timestamp> {
        let named = self.services.is_empty() || self.names(&service.name);
        let labelled =
            self.labels.iter().all(|(name, value)| service.labels.get(name) == Some(value));
        (named && labelled).then(|| self.ends(now)).flatten()
    }

    fn names(&self, service: &ServiceName) -> bool {
        self.services.iter().any(|name| name == service.as_str())
    }

    /// When this window next begins or ends after `now`, whomever it is about; `None` if never,
    /// or not within a week.
    pub fn next_edge(&self, now: Timestamp) -> Option<Timestamp> {
        let edge = |begin: DateTime| {
            let begin = begin.to_zoned(self.zone.clone()).ok()?;
            let begin = Timestamp::from_millis(begin.timestamp().as_millisecond());
            let edges = [begin, begin.saturating_add(self.duration)];
            edges.into_iter().find(|edge| *edge > now)
        };
        match &self.begins {
            Begins::Once(at) => edge(*at),
            Begins::Weekly { days, at } => {
                let days_back = i64::try_from(self.duration.as_secs() / 86_400).unwrap_or(0) + 1;
                let today = self.local(now)?.date();
                let dates = (-days_back.min(31)..=8)
                    .filter_map(|days| today.checked_add(jiff::Span::new().days(days)).ok());
                dates
                    .filter(|date| is_on(days, *date))
                    .filter_map(|date| edge(date.to_datetime(*at)))
                    .min()
            }
        }
    }

    /// The end of the window `now` lies in.
    fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        let span = |begin: DateTime| {
            let begin = begin.to_zoned(self.zone.clone()).ok()?;
            let begin = Timestamp::from_millis(begin.timestamp().as_millisecond());
            let end = begin.saturating_add(self.duration);
            (begin <= now && now < end).then_some(end)
        };
        match &self.begins {
            Begins::Once(at) => span(*at),
            Begins::Weekly { days, at } => {
                // A window that began days ago may still be open.
                let days_back = i64::try_from(self.duration.as_secs() / 86_400).unwrap_or(0) + 1;
                let mut date = self.local(now)?.date();
                let mut last = None;
                for _ in 0..=days_back.min(31) {
                    if is_on(days, date) {
                        last = last.max(span(date.to_datetime(*at)));
                    }
                    date = date.yesterday().ok()?;
                }
                last
            }
        }
    }

    fn local(&self, now: Timestamp) -> Option<DateTime> {
        local(&self.zone, now)
    }
}

/// The hours of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Hours {
    days: Vec<Weekday>,
    from: Time,
    until: Option<Time>,
    zone: TimeZone,
}

impl Hours {
    /// Reads a route's hours; `None` for a route that has none.
    ///
    /// # Errors
    ///
    /// The key that cannot be used.
    pub fn read(route: &RouteSettings) -> Result<Option<Self>, CalendarError> {
        if route.days.is_empty() && route.from.is_none() && route.until.is_none() {
            return match route.timezone {
                None => Ok(None),
                Some(_) => {
                    Err(wrong("timezone", "it does nothing without `days`, `from` or `until`"))
                }
            };
        }
        let from = route.from.as_deref().map(|text| time_of_day("from", text)).transpose()?;
        let until = route.until.as_deref().map(|text| time_of_day("until", text)).transpose()?;
        if from.is_some() && from == until {
            return Err(wrong("until", "it is the same as `from`: that is no time at all"));
        }
        Ok(Some(Self {
            days: route.days.clone(),
            from: from.unwrap_or(Time::midnight()),
            until,
            zone: zone(route.timezone.as_deref())?,
        }))
    }

    /// Whether `now` lies in them. What begins before midnight and ends after it belongs to the
    /// day it began on.
    pub fn contain(&self, now: Timestamp) -> bool {
        let Some(local) = local(&self.zone, now) else { return false };
        let (date, time) = (local.date(), local.time());
        match self.until {
            Some(until) if until < self.from => {
                (time >= self.from && is_on(&self.days, date))
                    || (time < until
                        && date.yesterday().is_ok_and(|before| is_on(&self.days, before)))
            }
            until => {
                time >= self.from
                    && until.is_none_or(|until| time < until)
                    && is_on(&self.days, date)
            }
        }
    }
}

fn time_of_day(key: &'static str, text: &str) -> Result<Time, CalendarError> {
    Time::strptime("%H:%M", text)
        .map_err(|_| wrong(key, format!("`{text}` is not a time of day such as \"02:00\"")))
}

fn zone(name: Option<&str>) -> Result<TimeZone, CalendarError> {
    match name {
        None => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name).map_err(|_| {
            wrong("timezone", format!("`{name}` is not a time zone such as \"Europe/Berlin\""))
        }),
    }
}

fn local(zone: &TimeZone, now: Timestamp) -> Option<DateTime> {
    let now = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
    Some(zone.to_datetime(now))
}

fn is_on(days: &[Weekday], date: Date) -> bool {
    use jiff::civil::Weekday as Day;
    days.is_empty()
        || days.contains(&match date.weekday() {
            Day::Monday => Weekday::Mon,
            Day::Tuesday => Weekday::Tue,
            Day::Wednesday => Weekday::Wed,
            Day::Thursday => Weekday::Thu,
            Day::Friday => Weekday::Fri,
            Day::Saturday => Weekday::Sat,
            Day::Sunday => Weekday::Sun,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(json: serde_json::Value) -> Result<Maintenance, CalendarError> {
        Maintenance::read(&serde_json::from_value(json).unwrap())
    }

    /// A window, and for moments in UTC how many minutes of it are left.
    #[track_caller]
    fn check(json: serde_json::Value, moments: &[(&str, Option<i64>)]) {
        let window = window(json).unwrap();
        let spec = ServiceSpec::http("files", "http://x.test/");
        for (moment, left) in moments {
            let now = at(moment);
            let until = window.until(&spec, now);
            let minutes = until.map(|until| until.since(now).as_secs() as i64 / 60);
            assert_eq!(minutes, *left, "{moment}");
        }
    }

    #[test]
    fn a_weekly_window_is_local_time() {
        check(
            json!({ "days": ["sat"], "start": "02:00", "duration": "2h", "timezone": "Europe/Berlin" }),
            &[
                ("2026-11-21T00:59:00Z", None),
                ("2026-11-21T01:00:00Z", Some(120)),
                ("2026-11-21T02:59:00Z", Some(1)),
                ("2026-11-21T03:00:00Z", None),
                ("2026-11-22T01:30:00Z", None),
                // Summer time.
                ("2026-07-18T00:30:00Z", Some(90)),
            ],
        );
    }

    #[test]
    fn a_change_of_clocks_neither_drops_nor_doubles_a_window() {
        // 02:30 does not exist on 29 March 2026 in Berlin; 02:30 is twice on 25 October.
        let json = json!({ "start": "02:30", "duration": "30m", "timezone": "Europe/Berlin" });
        check(json.clone(), &[("2026-03-29T01:30:00Z", Some(30)), ("2026-03-29T02:00:00Z", None)]);
        check(json, &[("2026-10-25T00:30:00Z", Some(30)), ("2026-10-25T01:30:00Z", None)]);
    }

    #[test]
    fn a_window_reaches_over_midnight_and_over_days() {
        check(
            json!({ "days": ["fri"], "start": "23:00", "duration": "60h", "timezone": "UTC" }),
            &[
                ("2026-11-20T22:59:00Z", None),
                ("2026-11-21T12:00:00Z", Some(47 * 60)),
                ("2026-11-23T10:59:00Z", Some(1)),
                ("2026-11-23T11:00:00Z", None),
            ],
        );
    }

    #[test]
    fn the_next_edge_is_the_next_beginning_or_end() {
        let edges = |json: serde_json::Value, moments: &[(&str, Option<&str>)]| {
            let window = window(json).unwrap();
            for (moment, edge) in moments {
                assert_eq!(window.next_edge(at(moment)), edge.map(at), "{moment}");
            }
        };
        edges(
            json!({ "days": ["sat"], "start": "02:00", "duration": "2h", "timezone": "UTC" }),
            &[
                ("2026-11-18T12:00:00Z", Some("2026-11-21T02:00:00Z")),
                ("2026-11-21T02:00:00Z", Some("2026-11-21T04:00:00Z")),
                ("2026-11-21T04:00:00Z", Some("2026-11-28T02:00:00Z")),
            ],
        );
        edges(
            json!({ "days": ["fri"], "start": "23:00", "duration": "60h", "timezone": "UTC" }),
            &[("2026-11-22T12:00:00Z", Some("2026-11-23T11:00:00Z"))],
        );
        edges(
            json!({ "at": "2026-12-24T18:00", "duration": "1h", "timezone": "UTC" }),
            &[
                ("2026-11-22T12:00:00Z", Some("2026-12-24T18:00:00Z")),
                ("2026-12-24T18:30:00Z", Some("2026-12-24T19:00:00Z")),
                ("2026-12-24T19:00:00Z", None),
            ],
        );
    }

    #[test]
    fn a_window_may_be_once() {
        check(
            json!({ "at": "2026-12-24T18:00", "duration": "1h", "timezone": "UTC" }),
            &[
                ("2026-12-24T18:30:00Z", Some(30)),
                ("2026-12-25T18:30:00Z", None),
                ("2027-12-24T18:30:00Z", None),
            ],
        );
    }

    #[test]
    fn only_the_services_meant_are_under_maintenance() {
        let now = at("2026-11-21T00:00:00Z");
        let mut spec = ServiceSpec::http("files", "http://x.test/");
        spec.labels.insert("team".to_owned(), "x".to_owned());
        for (json, meant) in [
            (json!({}), true),
            (json!({ "services": ["files"] }), true),
            (json!({ "services": ["other"] }), false),
            (json!({ "match": { "team": "x" } }), true),
            (json!({ "match": { "team": "y" } }), false),
        ] {
            let mut whole = json!({ "start": "00:00", "duration": "1h", "timezone": "UTC" });
            whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
            assert_eq!(window(whole).unwrap().until(&spec, now).is_some(), meant, "{json}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_key() {
        for (json, key) in [
            (json!({ "start": "2 o'clock", "duration": "1h" }), "start"),
            (json!({ "duration": "1h" }), "start"),
            (json!({ "at": "tomorrow", "duration": "1h" }), "at"),
            (json!({ "at": "2026-12-24T18:00", "start": "02:00", "duration": "1h" }), "at"),
            (json!({ "at": "2026-12-24T18:00", "days": ["mon"], "duration": "1h" }), "days"),
            (
                json!({ "start": "02:00", "duration": "1h", "timezone": "Europa/Berlin" }),
                "timezone",
            ),
        ] {
            assert_eq!(window(json).unwrap_err().key, key);
        }
    }

    #[track_caller]
    fn check_hours(json: &serde_json::Value, moment: &str, expected: bool) {
        let mut whole = json!({ "handlers": ["x"], "timezone": "UTC" });
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        let route: RouteSettings = serde_json::from_value(whole).unwrap();
        let hours = Hours::read(&route).unwrap().unwrap();
        assert_eq!(hours.contain(at(moment)), expected, "{json} {moment}");
    }

    #[test]
    fn a_routes_hours_may_reach_over_midnight() {
        let office = json!({ "days": ["mon"], "from": "09:00", "until": "17:00" });
        check_hours(&office, "2026-11-23T09:00:00Z", true);
        check_hours(&office, "2026-11-23T17:00:00Z", false);
        check_hours(&office, "2026-11-24T12:00:00Z", false);
        let night = json!({ "days": ["mon"], "from": "22:00", "until": "06:00" });
        check_hours(&night, "2026-11-23T23:00:00Z", true);
        check_hours(&night, "2026-11-24T05:59:00Z", true);
        check_hours(&night, "2026-11-23T05:59:00Z", false);
        check_hours(&json!({ "until": "06:00" }), "2026-11-23T05:59:00Z", true);
        check_hours(&json!({ "days": ["sun"] }), "2026-11-22T23:59:00Z", true);
    }
}
