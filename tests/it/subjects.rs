//! A service, a dependency and a handler that could be taken for one another, in the whole program.

use std::time::Duration;

use serde_json::{Value, json};

use crate::home::{Home, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing listens there.
const DATABASE: &str = "tcp://127.0.0.1:9";

/// The service `ops` is well and needs a database that is gone; the service `gone` is down, so that
/// there is something to tell; the handler `ops` refuses all of it.
fn configuration() -> String {
    let program = env!("CARGO_BIN_EXE_mcpmon");
    format!(
        r#"
[monitoring]
check_interval = "2s"

[performance_monitoring]      # a loaded machine must not add alerts of its own
enabled = false

[services.ops]
command = "{program}"
args = ["demo-server"]
depends_on = ["{DATABASE}"]

[services.gone]
command = "false"

[[handlers]]
name = "ops"
type = "command"
command = ["false"]

[[handlers]]
name = "screen"
type = "console"
"#
    )
}

/// The alert of a rule that fires or is silenced.
async fn open_alert(home: &Home, rule: &str) -> Option<Value> {
    let ran = home.run(&["alerts", "--active", "--output", "json"]).await;
    let report = (ran.code == Some(0)).then(|| ran.json())?;
    let mut alerts = report["alerts"].as_array()?.iter();
    alerts.find(|alert| alert["rule_name"] == rule).cloned()
}

#[tokio::test]
async fn a_dependency_and_a_handler_are_no_services() {
    let home = Home::new();
    home.configure(configuration());
    let mut up = home.start(&["up", "--yes"]);
    for (rule, subject) in [
        ("dependency_down", json!({ "kind": "dependency", "name": DATABASE })),
        ("delivery_failing", json!({ "kind": "handler", "name": "ops" })),
    ] {
        let alert = until(rule, PATIENCE, || open_alert(&home, rule)).await;
        assert_eq!(alert["subject"], subject, "{alert:#}");
        assert_eq!(alert["service_name"], Value::Null, "{alert:#}");
        assert_eq!(alert["tool_name"], Value::Null, "{alert:#}");
        assert_eq!(alert["scope"], "monitor", "{alert:#}");
    }
    let down = until("service_down", PATIENCE, || open_alert(&home, "service_down")).await;
    assert_eq!(down["subject"], json!({ "kind": "service", "name": "gone" }));

    // The service is silenced, not the handler that has its name.
    assert_eq!(home.run(&["silence", "ops"]).await.code, Some(0));
    let is_taken_up = || async {
        let listed = home.run(&["silence", "--list", "--output", "json"]).await.json();
        let silences = listed["silences"].as_array().cloned().unwrap_or_default();
        silences.iter().all(|silence| silence["pending"] == false).then_some(silences.len())
    };
    assert_eq!(until("the silence to hold", PATIENCE, is_taken_up).await, 1);
    assert_eq!(open_alert(&home, "delivery_failing").await.unwrap()["state"], "firing");
    assert_eq!(open_alert(&home, "dependency_down").await.unwrap()["state"], "firing");

    let others = ["silence", "--handler", "ops", "--dependency", DATABASE];
    assert_eq!(home.run(&others).await.code, Some(0));
    assert_eq!(until("the silences to hold", PATIENCE, is_taken_up).await, 3);
    for rule in ["delivery_failing", "dependency_down"] {
        assert_eq!(open_alert(&home, rule).await.unwrap()["state"], "silenced", "{rule}");
    }
    assert_eq!(open_alert(&home, "service_down").await.unwrap()["state"], "firing");

    // An export of the service has neither of the two.
    let only = ["export", "json", "--service", "ops", "--file", "-"];
    let exported = home.run(&only).await.json();
    assert_eq!(exported["alerts"], json!([]), "{exported:#}");

    let acknowledged = home.run(&["ack", DATABASE, "--output", "json"]).await;
    assert_eq!(acknowledged.code, Some(0), "{acknowledged}");
    assert_eq!(acknowledged.json()["alerts"][0]["rule_name"], "dependency_down");
    up.kill().await.unwrap();
}
