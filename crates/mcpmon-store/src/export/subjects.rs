//! Alerts of exports from before an alert named its subject.
//!
//! Such an alert has `scope`, `service_name` and `tool_name` only, and the name of a dependency or
//! a handler in `service_name`. The subject is derived from them where that is unambiguous; any
//! other line stays one that cannot be read.

use mcpmon_core::Subject;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an alert with its state.
pub(super) fn read_alert<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    read_or_complete(text, |line| {
        line["subject"] = subject_of(line)?;
        Some(())
    })
}

/// Reads the state of a rule towards a subject, with its alert.
pub(super) fn read_state<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    read_or_complete(text, |line| {
        let alert = line.get_mut("alert")?;
        let subject = subject_of(alert)?;
        alert["subject"] = subject.clone();
        let key = line.get_mut("key").filter(|key| key.is_object())?;
        key["subject"] = subject;
        Some(())
    })
}

/// Reads a line as it is, else with what `complete` adds. The error is that of the line as it is.
fn read_or_complete<T: DeserializeOwned>(
    text: &[u8],
    complete: impl FnOnce(&mut Value) -> Option<()>,
) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text).or_else(|error| {
        let mut line: Value = serde_json::from_slice(text)?;
        match complete(&mut line) {
            Some(()) => serde_json::from_value(line),
            None => Err(error),
        }
    })
}

/// The subject of an alert that has none; `None` where it has one, or where it is not clear.
fn subject_of(alert: &Value) -> Option<Value> {
    let field = |name: &str| alert.get(name).and_then(Value::as_str);
    let (service, tool) = (field("service_name"), field("tool_name"));
    if alert.get("subject").is_some() {
        return None;
    }
    let subject = match (field("scope")?, service, tool) {
        ("service", Some(service), None) => Subject::Service(service.into()),
        ("tool", Some(service), Some(tool)) => Subject::tool_of(service, tool),
        ("host", None, None) => Subject::Host,
        ("monitor", None, None) => Subject::Monitor,
        ("monitor", Some(name), None) => match field("rule_name")? {
            "dependency_down" => Subject::Dependency(name.to_owned()),
            "delivery_failing" => Subject::Handler(name.to_owned()),
            _ => return None,
        },
        _ => return None,
    };
    serde_json::to_value(subject).ok()
}

#[cfg(test)]
mod tests {
    use mcpmon_core::alert::{AlertPhase, AlertState};
    use mcpmon_core::store::AlertRecord;
    use mcpmon_testkit::samples;
    use serde_json::json;

    use super::*;

    /// An alert as it was written before it named its subject.
    fn old(rule: &str, scope: &str, service: Option<&str>, tool: Option<&str>) -> Value {
        let mut alert = serde_json::to_value(samples::alert(rule, "files")).unwrap();
        alert.as_object_mut().unwrap().remove("subject");
        (alert["scope"], alert["service_name"]) = (json!(scope), json!(service));
        alert["tool_name"] = json!(tool);
        alert
    }

    #[track_caller]
    fn check(alert: &Value, expected: Option<Subject>) {
        let mut line = alert.clone();
        line["state"] = json!("firing");
        let read = read_alert::<AlertRecord>(line.to_string().as_bytes());
        match (&read, &expected) {
            (Ok(record), Some(subject)) => assert_eq!(record.alert.subject, *subject),
            (Err(error), None) => assert!(error.to_string().contains("subject"), "{error}"),
            _ => panic!("{read:?} for {expected:?}"),
        }
        let key = json!({ "rule": alert["rule_name"], "service": alert["service_name"] });
        let state =
            json!({ "key": key, "phase": "firing", "since": alert["timestamp"], "alert": alert });
        let read = read_state::<AlertState>(state.to_string().as_bytes());
        let expected = expected.map(|subject| (subject, AlertPhase::Firing));
        let found = read.ok().map(|state| (state.key.subject, state.phase));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_subject_is_derived_only_where_it_is_clear() {
        let service = Some("files");
        check(&old("r", "service", service, None), Some(Subject::Service("files".into())));
        check(&old("r", "tool", service, Some("t")), Some(Subject::tool_of("files", "t")));
        check(&old("r", "host", None, None), Some(Subject::Host));
        check(&old("storage_failing", "monitor", None, None), Some(Subject::Monitor));
        let dependency = Subject::Dependency("files".to_owned());
        check(&old("dependency_down", "monitor", service, None), Some(dependency));
        let handler = Subject::Handler("files".to_owned());
        check(&old("delivery_failing", "monitor", service, None), Some(handler));
        check(&old("own_rule", "monitor", service, None), None);
        check(&old("r", "service", None, None), None);
        check(&old("r", "service", service, Some("t")), None);
        check(&old("r", "tool", service, None), None);
        check(&old("r", "host", service, None), None);
        check(&old("r", "planet", None, None), None);
    }

    #[test]
    fn a_subject_that_is_there_is_not_exchanged() {
        for subject in samples::subjects() {
            let alert = samples::alert_about("dependency_down", subject.clone());
            let mut line = serde_json::to_value(&alert).unwrap();
            line["state"] = json!("firing");
            let record: AlertRecord = read_alert(line.to_string().as_bytes()).unwrap();
            assert_eq!(record.alert, alert);
            line["subject"] = json!({ "kind": "planet", "name": "files" });
            let error = read_alert::<AlertRecord>(line.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().contains("planet"), "{error}");
        }
    }
}
