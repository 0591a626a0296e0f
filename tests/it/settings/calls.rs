//! Keys of a configured call, each set alone, on a real server.

use std::time::Duration;

use mcpmon_mcp::server::{Behaviour, Conduct, Server, ServerSpec, Tool, ToolOutput};
use mcpmon_testkit::FixtureServer;
use serde_json::json;

use crate::home::{Home, service};

/// Every key proven here.
pub(super) const KEYS: &[&str] = &[
    "services.*.functional.*.arguments",
    "services.*.functional.*.allow_side_effects",
    "services.*.functional.*.expect.is_error",
    "services.*.functional.*.expect.contains",
    "services.*.functional.*.expect.pointers",
    "services.*.functional.*.expect.output_schema",
    "services.*.functional.*.expect.within",
];

/// What becomes of the service that has `tool` called without an addition, and with it.
#[track_caller]
fn check(tool: Tool, set: &'static str, without: &'static str, with: &'static str) -> Case {
    Case { tool, set, expected: [without, with] }
}

struct Case {
    tool: Tool,
    set: &'static str,
    expected: [&'static str; 2],
}

#[tokio::test]
async fn each_key_of_a_call_changes_what_comes_of_it() {
    let says = |text: &'static str| Tool::new("t", "says", move |_| Ok(ToolOutput::text(text)));
    let one = || Tool::new("t", "counts", |_| Ok(ToolOutput::structured(json!({ "a": 1 }))));
    let picky = Tool::new("t", "wants a number", |arguments| {
        let wanted = arguments["a"] == json!(1);
        Ok(if wanted { ToolOutput::text("thanks") } else { ToolOutput::error("no number") })
    });
    let fails = Tool::new("t", "fails", |_| Ok(ToolOutput::error("no luck")));
    let strict = json!({ "type": "object", "required": ["b"] });
    let home = Home::new();
    for Case { tool, set, expected } in [
        check(picky.read_only(), "arguments = { a = 1 }", "error", "running"),
        check(says("ok"), "allow_side_effects = true", "unknown", "running"),
        check(fails.read_only(), "expect = { is_error = true }", "error", "running"),
        check(says("ok").read_only(), "expect = { contains = \"another\" }", "running", "error"),
        check(one().read_only(), "expect = { pointers = { \"/a\" = 2 } }", "running", "error"),
        check(
            one().output_schema(strict).read_only(),
            "expect = { output_schema = true }",
            "running",
            "error",
        ),
        check(says("ok").read_only(), "expect = { within = \"100ms\" }", "running", "error"),
    ] {
        let slow = Behaviour::new(|asked| Conduct {
            delay: Duration::from_millis(if asked.method == "tools/call" { 300 } else { 0 }),
            fault: None,
        });
        let spec = ServerSpec::new("called", "1").tool(tool);
        let server = FixtureServer::serving(Server::new(spec).behaving(slow)).await;
        let base = format!(
            "[services.it]\nurl = \"{}\"\n[[services.it.functional]]\ntool = \"t\"\n",
            server.url()
        );
        let mut seen = Vec::new();
        for toml in [base.clone(), format!("{base}{set}\n")] {
            home.configure(&toml);
            let ran = home.run(&["check", "--functional", "--output", "json"]).await;
            seen.push(service(&ran.json(), "it")["status"].as_str().unwrap().to_owned());
        }
        assert_eq!(seen, expected, "{set}");
    }
}
