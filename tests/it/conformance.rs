//! The official conformance suite's client scenarios, as far as they ask something of a prober.
//!
//! The suite starts a server for each scenario, runs `mcpmon check` against it, and judges what the
//! server was sent. Where a scenario wants a tool called, the call is configured as a functional
//! check, as a user would. What remains unmet stands in the scenario's row with its reason, and a
//! row that no longer needs it fails, so the list only shrinks.
//!
//! The `auth/*` scenarios want a login, which a monitor never makes. Their servers are started alone
//! and have to be found `auth_required`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use mcpmon_testkit::{ChildGuard, Stream};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::home::{Home, run};
use crate::peers::{Peer, peer};

/// What a scenario has to come to.
struct Scenario {
    name: &'static str,
    revision: &'static str,
    /// Tool calls to make, as `functional` entries.
    calls: Value,
    /// What `mcpmon check` has to say: status, era, tools.
    found: Value,
    /// Checks of the suite that have to succeed.
    met: &'static [&'static str],
    /// Checks of the suite that do not, and why that is right.
    unmet: &'static [(&'static str, &'static str)],
}

const ONLY_A_TOOL_CALL: &str = "the tool call it wants depends on what another answer said";

/// Scenarios that are not run, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("elicitation-sep1034-client-defaults", "a monitor has no user to ask, and offers none"),
    ("sep-2322-client-request-state", "a call that wants input is told as one, never continued"),
    ("sep-2640-client-no-prefetch", "skills are not read"),
    ("sep-2640-client-verify-digest", "skills are not read"),
    ("sep-2640-client-verify-size", "skills are not read"),
    ("sep-2640-client-verify-frontmatter", "skills are not read"),
];

macro_rules! scenarios {
    ($($test:ident: $scenario:expr;)*) => {
        $(#[tokio::test]
        async fn $test() {
            conforms(peer!("conformance"), $scenario).await;
        })*

        fn names() -> BTreeSet<&'static str> {
            BTreeSet::from([$($scenario.name),*])
        }
    };
}

fn initialize(revision: &'static str) -> Scenario {
    Scenario {
        name: "initialize",
        revision,
        calls: json!([]),
        found: json!(["running", "legacy", 0]),
        met: &["mcp-client-initialization"],
        unmet: &[],
    }
}

fn tools_call(revision: &'static str, era: &'static str) -> Scenario {
    Scenario {
        name: "tools_call",
        revision,
        calls: json!([{
            "tool": "add_numbers", "arguments": { "a": 5, "b": 3 }, "allow_side_effects": true,
            "expect": { "contains": "8" },
        }]),
        found: json!(["running", era, 1]),
        met: &["tool-add-numbers", "wire-schema-valid"],
        unmet: &[],
    }
}

scenarios! {
    the_handshake_of_2025_06_18: initialize("2025-06-18");
    the_handshake_of_2025_11_25: initialize("2025-11-25");
    a_tool_call_of_2025_06_18: tools_call("2025-06-18", "legacy");
    a_tool_call_of_2025_11_25: tools_call("2025-11-25", "legacy");
    a_tool_call_of_2026_07_28: tools_call("2026-07-28", "modern");
    what_every_modern_request_says_of_itself: Scenario {
        name: "request-metadata",
        revision: "2026-07-28",
        calls: json!([]),
        found: json!(["running", "modern", 0]),
        met: &[
            "sep-2575-client-retry-supported-version",
            "sep-2575-http-client-sends-version-header",
            "sep-2575-client-populates-meta",
            "sep-2575-client-sends-client-info",
            "sep-2575-http-version-header-matches-meta",
        ],
        unmet: &[],
    };
    the_headers_of_modern_requests: Scenario {
        name: "http-standard-headers",
        revision: "2026-07-28",
        calls: json!([]),
        found: json!(["running", "modern", 2]),
        met: &["sep-2243-client-includes-standard-headers"],
        unmet: &[],
    };
    arguments_repeated_as_headers: Scenario {
        name: "http-custom-headers",
        revision: "2026-07-28",
        calls: json!([
            { "tool": "test_custom_headers", "allow_side_effects": true, "arguments": {
                "region": "us-west1", "priority": 42, "verbose": false, "debug": true,
                "empty_val": "", "method_val": "test-method", "float_val": 2.5,
                "non_ascii_val": "Hello, 世界", "whitespace_val": " padded ",
                "leading_space_val": " us-west1", "trailing_space_val": "us-west1 ",
                "internal_space_val": "us west 1", "control_char_val": "line1\nline2",
                "crlf_val": "line1\r\nline2", "tab_val": "\tindented",
                "query": "SELECT * FROM users",
            } },
            { "tool": "test_custom_headers_null", "allow_side_effects": true, "arguments": {
                "region": "us-east1", "priority": 1, "verbose": null, "query": "SELECT 1",
            } },
        ]),
        found: json!(["running", "modern", 2]),
        met: &[
            "sep-2243-client-supports-custom-headers",
            "sep-2243-client-mirrors-designated-params",
            "sep-2243-client-encode-values",
            "sep-2243-client-base64-unsafe",
            "sep-2243-client-omit-null",
        ],
        unmet: &[],
    };
    tools_with_unusable_headers_beside_a_good_one: Scenario {
        name: "http-invalid-tool-headers",
        revision: "2026-07-28",
        calls: json!([{
            "tool": "valid_tool", "arguments": { "region": "us-west1" },
            "allow_side_effects": true,
        }]),
        found: json!(["degraded", "modern", 12]),
        met: &[
            "sep-2243-client-reject-invalid-tool",
            "sep-2243-x-mcp-header-not-empty",
            "sep-2243-x-mcp-header-primitive-only",
            "sep-2243-x-mcp-header-unique",
            "sep-2243-x-mcp-header-charset",
        ],
        unmet: &[],
    };
    references_in_a_schema_are_not_followed: Scenario {
        name: "json-schema-ref-no-deref",
        revision: "2026-07-28",
        calls: json!([]),
        found: json!(["running", "modern", 1]),
        met: &["sep-2106-no-network-ref-deref"],
        unmet: &[],
    };
    every_key_of_a_schema_is_accepted: Scenario {
        name: "json-schema-2020-12-preservation",
        revision: "2026-07-28",
        calls: json!([]),
        found: json!(["running", "modern", 2]),
        met: &["json-schema-2020-12-client-tool-found", "wire-schema-valid"],
        unmet: &[("json-schema-2020-12-client-echo-completed", ONLY_A_TOOL_CALL)],
    };
    an_answer_that_comes_on_another_stream: Scenario {
        name: "sse-retry",
        revision: "2025-11-25",
        calls: json!([{ "tool": "test_reconnection", "allow_side_effects": true }]),
        found: json!(["running", "legacy", 1]),
        met: &[
            "client-sse-graceful-reconnect",
            "client-sse-retry-timing",
            "client-sse-last-event-id",
        ],
        unmet: &[],
    };
}

/// The command the suite runs: it adds the server's URL as last word.
fn command(home: &Home, calls: &Value) -> String {
    let service = json!({ "url": "${SCENARIO_URL}", "functional": calls });
    let settings = json!({ "services": { "it": service } }).to_string();
    let settings = home.write("work/scenario.json", settings);
    let functional = if calls == &json!([]) { "" } else { "--functional" };
    let script = home.write(
        "work/probe.sh",
        format!(
            "#!/bin/sh\nexport HOME='{}' SCENARIO_URL=\"$1\"\n\
             exec '{}' check --config '{}' {functional} --timeout 60s --output json\n",
            home.path().display(),
            env!("CARGO_BIN_EXE_mcpmon"),
            settings.display(),
        ),
    );
    format!("sh {}", script.display())
}

fn suite(peer: &Peer, home: &Home, args: &[&str]) -> Command {
    let mut command = Command::new(&peer.command);
    command.args(&peer.args).args(args).current_dir(home.work()).stdin(Stdio::null());
    command
}

async fn conforms(peer: Peer, scenario: Scenario) {
    let home = Home::new();
    let probe = command(&home, &scenario.calls);
    let args = ["client", "--command", &probe, "--scenario", scenario.name, "--timeout", "90000"];
    let args = [&args[..], &["--spec-version", scenario.revision, "-o", "results"]].concat();
    let ran = run(suite(&peer, &home, &args)).await;

    let folder = home.work().join("results");
    let said = std::fs::read_to_string(beneath(&folder, "stdout.txt")).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}\n{ran}"));
    let found = &said["services"][0];
    let seen = json!([found["status"], found["era"], found["tools_count"]]);
    assert_eq!(seen, scenario.found, "{found:#}");

    let checks = std::fs::read(beneath(&folder, "checks.json")).unwrap();
    let checks: Vec<Value> = serde_json::from_slice(&checks).unwrap();
    let of = |wanted: &[&str]| -> BTreeSet<&str> {
        let of =
            checks.iter().filter(|check| wanted.iter().any(|status| check["status"] == *status));
        of.map(|check| check["id"].as_str().unwrap()).collect()
    };
    let unmet = of(&["FAILURE", "WARNING"]);
    let allowed: BTreeSet<&str> = scenario.unmet.iter().map(|(id, _)| *id).collect();
    assert_eq!(unmet, allowed, "what is unmet, and what may be\n{checks:#?}\n{found:#}");
    let met = of(&["SUCCESS"]);
    let missing: Vec<&&str> = scenario.met.iter().filter(|id| !met.contains(**id)).collect();
    assert!(missing.is_empty(), "not met: {missing:?}\n{checks:#?}\n{found:#}");
}

/// The one file of this name beneath a folder; the suite names folders after the time.
fn beneath(folder: &Path, name: &str) -> std::path::PathBuf {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return path;
            }
        }
    }
    panic!("the suite left no {name} in {}", folder.display());
}

/// Those that do not say where their metadata is: two leave it to the well-known place, the others
/// are older than it.
const NAMELESS: [&str; 3] = ["auth/metadata-var1", "auth/metadata-var2", "auth/2025-03-26-"];
const LOGIN: &str = "auth/";
/// Scenarios that run beside each other; each is a Node of its own.
const AT_ONCE: usize = 3;

async fn listed(peer: &Peer, home: &Home) -> Vec<String> {
    let listed = run(suite(peer, home, &["list", "--client"])).await.expect(0).out;
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn no_scenario_of_the_suite_is_overlooked() {
    let peer = peer!("conformance");
    let listed = listed(&peer, &Home::new()).await;
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let (logins, others): (BTreeSet<&str>, BTreeSet<&str>) =
        listed.into_iter().partition(|name| name.starts_with(LOGIN));
    assert_eq!(logins.len(), 33);
    let mut known = names();
    known.extend(LEFT_OUT.iter().map(|(name, _)| *name));
    assert_eq!(others, known);
}

#[tokio::test]
async fn every_server_that_wants_a_login_is_found_to_want_one() {
    let peer = peer!("conformance");
    let home = Home::new();
    let mut names = listed(&peer, &home).await;
    names.retain(|name| name.starts_with(LOGIN));
    for some in names.chunks(AT_ONCE) {
        let started: Vec<(&String, ChildGuard)> = some
            .iter()
            .map(|name| {
                let started = suite(&peer, &home, &["client", "--scenario", name]);
                (name, ChildGuard::spawn(started).unwrap())
            })
            .collect();
        for (name, server) in started {
            let line = server.line(Stream::Out, "Server URL: ").await;
            let line = line.unwrap_or_else(|| panic!("{name}: {}", server.written(Stream::Err)));
            wants_a_login(&home, name, line.rsplit(' ').next().unwrap()).await;
        }
    }
}

async fn wants_a_login(home: &Home, name: &str, url: &str) {
    let ran = home.run(&["check", "--url", url, "--timeout", "60s", "--output", "json"]).await;
    let report = ran.expect(1).json();
    let found = &report["services"][0];
    let failure = &found["failure"];
    assert_eq!(found["status"], "auth_required", "{name}: {found:#}");
    assert_eq!(failure["code"], "unauthorized", "{name}: {found:#}");
    assert_eq!(failure["evidence"]["http_status"], 401, "{name}: {found:#}");
    assert!(!failure["next_step"].as_str().unwrap().is_empty(), "{name}: {found:#}");
    let challenge = failure["evidence"]["www_authenticate"].as_str().unwrap_or_default();
    let scheme = if name.starts_with("auth/dpop") { "DPoP " } else { "Bearer " };
    assert!(challenge.starts_with(scheme), "{name}: {found:#}");
    let names_metadata = !NAMELESS.iter().any(|nameless| name.starts_with(nameless));
    assert_eq!(challenge.contains("resource_metadata=\""), names_metadata, "{name}: {found:#}");
    if name == "auth/scope-from-www-authenticate" {
        assert!(challenge.contains("scope=\"mcp:basic\""), "{found:#}");
    }
}
