//! Which alerts a silence covers as they are read. What is stored says that an alert fires: a silence
//! changes whom it is told, and begins and ends without any check.

use mcpmon_core::Timestamp;
use mcpmon_core::alert::{AlertPhase, Silence};
use mcpmon_core::store::AlertRecord;

/// Until when silences keep this alert from being told, if it fires and one of them covers it now.
pub(crate) fn until(
    record: &AlertRecord,
    silences: &[Silence],
    now: Timestamp,
) -> Option<Timestamp> {
    let alert = &record.alert;
    if !matches!(record.state, AlertPhase::Firing | AlertPhase::Silenced) {
        return None;
    }
    let key = alert.key();
    let covers = |silence: &&Silence| silence.covers(&key, alert.level, &alert.labels, now);
    silences.iter().filter(covers).map(|silence| silence.ends_at).max()
}

/// Calls what is covered silenced.
pub(crate) fn mark(records: &mut [AlertRecord], silences: &[Silence], now: Timestamp) {
    for record in records {
        if until(record, silences, now).is_some() {
            record.state = AlertPhase::Silenced;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mcpmon_testkit::samples;

    use super::*;

    #[test]
    fn only_what_fires_is_silenced_and_until_the_last_silence_ends() {
        let at = Timestamp::from_millis;
        let silence = |service: &str, ends: i64| Silence {
            id: format!("{service}-{ends}"),
            matchers: BTreeMap::from([("service_name".to_owned(), service.to_owned())]),
            starts_at: at(10),
            ends_at: at(ends),
            by: String::new(),
            comment: String::new(),
        };
        let silences = [silence("files", 50), silence("files", 40), silence("github", 90)];
        let record = |service: &str, state| AlertRecord {
            alert: samples::alert("service_down", service),
            state,
        };
        let mut records = [
            record("files", AlertPhase::Firing),
            record("files", AlertPhase::Resolved),
            record("files", AlertPhase::Acknowledged),
            record("other", AlertPhase::Firing),
        ];
        for (now, ends) in [(9, None), (10, Some(at(50))), (49, Some(at(50))), (50, None)] {
            assert_eq!(until(&records[0], &silences, at(now)), ends, "{now}");
        }
        mark(&mut records, &silences, at(20));
        let states = records.map(|record| record.state.as_str());
        assert_eq!(states, ["silenced", "resolved", "acknowledged", "firing"]);
    }
}
