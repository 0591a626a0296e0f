//! From checks to a status and numbers, with core alone: no runtime, no network, no clock.
//!
//! `cargo run -p mcpmon-core --example judge_a_service`

use std::io::{self, Write};
use std::time::Duration;

use mcpmon_core::service::ServiceLimits;
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{
    Failure, FailureCode, Observation, Phase, Question, ServiceFold, ServiceName, Timestamp,
};

fn main() -> io::Result<()> {
    let service = ServiceName::from("files");
    let limits = ServiceLimits::default();
    let mut fold = ServiceFold::new(DEFAULT_WINDOW, Timestamp::default());
    let mut out = io::stdout().lock();

    for second in (0..120).step_by(10) {
        let at = Timestamp::from_millis(second * 1_000);
        let observation = if (30..80).contains(&second) {
            let message = "connection to 127.0.0.1:8080 refused";
            let code = FailureCode::ConnectionRefused;
            Observation::failed(Failure::new(code, Phase::Connect, message))
        } else {
            let latency = Some(Duration::from_millis(20 + second as u64 % 7));
            Observation { latency, ..Observation::answered() }
        };
        fold.record(Question::Health, &observation, false, at);
        let check = (Question::Health, &observation);
        if let Some(change) = fold.observe(&service, check, false, &limits, at) {
            writeln!(out, "{at}  {} -> {}", change.from, change.status)?;
        }
    }
    let now = Timestamp::from_millis(120_000);
    let metrics = fold.metrics(&service, DEFAULT_WINDOW, now);
    writeln!(out, "{}", serde_json::to_string_pretty(&metrics)?)
}
