//! How core's words and values stand in columns.
//!
//! Numbers given to words here are for this crate's tables alone and never change; words that may
//! still grow (failure codes) get their numbers from a table in the file instead.

use std::time::Duration;

use mcpmon_core::{Question, Status};
use rusqlite::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Nanoseconds in one tick of a stored duration.
const TICK_NANOS: u32 = 10_000;
const TICKS_PER_SECOND: u64 = 100_000;

/// The position is the stored number. The commonest is 1, because 0 and 1 take no byte of a row.
const QUESTIONS: [Question; 5] = [
    Question::Heartbeat,
    Question::Health,
    Question::List,
    Question::Functional,
    Question::Dependency,
];

/// The position is the stored number.
const STATUSES: [Status; 8] = [
    Status::Unknown,
    Status::Running,
    Status::Degraded,
    Status::Stopped,
    Status::Error,
    Status::AuthRequired,
    Status::Starting,
    Status::Paused,
];

fn number_of<T: PartialEq>(words: &[T], word: &T) -> Option<i64> {
    let position = words.iter().position(|known| known == word)?;
    i64::try_from(position).ok()
}

fn word_of<T: Copy>(words: &[T], number: i64) -> Option<T> {
    words.get(usize::try_from(number).ok()?).copied()
}

/// The number of a question.
///
/// # Errors
///
/// A question this build has no number for.
pub(crate) fn from_question(question: Question) -> Result<i64, Error> {
    number_of(&QUESTIONS, &question)
        .ok_or_else(|| unwritable(format!("no number for the question `{}`", question.as_str())))
}

/// The question of a number; a health check where a newer build wrote one this build cannot name.
pub(crate) fn to_question(number: i64) -> Question {
    word_of(&QUESTIONS, number).unwrap_or(Question::Health)
}

/// The number of a status.
pub(crate) fn from_status(status: Status) -> i64 {
    number_of(&STATUSES, &status).unwrap_or(0)
}

/// The status of a number.
pub(crate) fn to_status(number: i64) -> Status {
    word_of(&STATUSES, number).unwrap_or(Status::Unknown)
}

/// A duration in ticks of 10 µs, to the nearest.
pub(crate) fn from_duration(span: Duration) -> i64 {
    let whole = span.as_secs().saturating_mul(TICKS_PER_SECOND);
    let rest = u64::from(span.subsec_nanos() + TICK_NANOS / 2) / u64::from(TICK_NANOS);
    i64::try_from(whole.saturating_add(rest)).unwrap_or(i64::MAX)
}

/// The duration of so many ticks.
pub(crate) fn to_duration(ticks: i64) -> Duration {
    let ticks = u64::try_from(ticks).unwrap_or(0);
    Duration::from_millis(ticks / 100) + Duration::from_micros(ticks % 100 * 10)
}

/// A value as the JSON of a TEXT column.
///
/// # Errors
///
/// A value that JSON cannot hold.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// The value of a TEXT column. What cannot be read (a word of a newer build) is left out and said
/// so: one such row must not hide all others.
pub(crate) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Option<T> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(what, %error, "Stored record could not be read; left out");
            None
        }
    }
}

fn unwritable(message: String) -> Error {
    Error::ToSqlConversionFailure(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_number_of_its_own() {
        for status in Status::WORST_FIRST {
            assert_eq!(to_status(from_status(status)), status);
        }
        for question in QUESTIONS {
            assert_eq!(to_question(from_question(question).unwrap()), question);
        }
    }

    #[test]
    fn numbers_stay_what_files_already_hold() {
        assert_eq!(from_question(Question::Health).unwrap(), 1);
        assert_eq!(from_status(Status::Running), 1);
        assert_eq!(from_status(Status::Paused), 7);
    }

    #[test]
    fn durations_are_kept_to_ten_microseconds() {
        for micros in [0, 10, 12_340, 60_000_000, 86_400_000_000] {
            let span = Duration::from_micros(micros);
            assert_eq!(to_duration(from_duration(span)), span);
        }
        assert_eq!(from_duration(Duration::from_micros(14)), 1);
        assert_eq!(from_duration(Duration::from_micros(15)), 2);
        assert_eq!(to_duration(-5), Duration::ZERO);
        assert!(to_duration(from_duration(Duration::MAX)) > Duration::from_secs(1 << 40));
    }
}
