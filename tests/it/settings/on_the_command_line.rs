//! Keys whose effect shows only outside the loop: in processes, sockets, files and output.

use std::time::Duration;

use mcpmon_mcp::server::{Behaviour, Conduct, Fault, Server};
use mcpmon_testkit::FixtureServer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::home::{Home, Ran, service};

/// Every key proven here, one test each.
pub(super) const KEYS: &[&str] = &[
    "service_monitoring.connection_timeout",
    "service_monitoring.startup_timeout",
    "service_monitoring.max_starting",
    "service_monitoring.max_children",
    "service_monitoring.max_body",
    "performance_monitoring.disks",
    "data_collection.log_level",
    "data_collection.export_format",
    "discover.clients",
    "discover.import",
    "services.*.type",
    "services.*.command",
    "services.*.args",
    "services.*.env",
    "services.*.env_file",
    "services.*.cwd",
    "services.*.url",
    "services.*.headers",
    "services.*.enabled",
    "services.*.disabled",
    "services.*.protocol",
    "services.*.terminate_session",
    "mcpServers",
    "handlers.*.name",
    "handlers.*.type",
];

const MCPMON: &str = env!("CARGO_BIN_EXE_mcpmon");

/// Checks once with this configuration.
async fn check(home: &Home, toml: &str) -> Value {
    home.configure(toml);
    let ran = home.run(&["check", "--output", "json"]).await;
    assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
    ran.json()
}

/// The status of the service `it` without an addition to the configuration, and with it.
async fn statuses(home: &Home, base: &str, set: &str) -> (String, String) {
    let mut seen = Vec::new();
    for toml in [base.to_owned(), format!("{base}{set}\n")] {
        let report = check(home, &toml).await;
        seen.push(service(&report, "it")["status"].as_str().unwrap().to_owned());
    }
    (seen.remove(0), seen.remove(0))
}

fn pair(without: &str, with: &str) -> (String, String) {
    (without.to_owned(), with.to_owned())
}

#[tokio::test]
async fn connection_timeout_ends_a_connection_that_never_opens() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/mcp", mute.local_addr().unwrap());
    let home = Home::new();
    let report = check(
        &home,
        &format!(
            "[service_monitoring]\nconnection_timeout = \"1s\"\n[services.it]\nurl = \"{url}\"\n"
        ),
    )
    .await;
    let it = service(&report, "it");
    let took = it["total_ms"].as_f64().unwrap();
    // The default is 5 s.
    assert!((900.0..4_500.0).contains(&took), "{it:#}");
    assert_eq!(it["failure"]["phase"], "tls", "{it:#}");
}

#[tokio::test]
async fn startup_timeout_ends_the_wait_for_a_first_answer() {
    let home = Home::new();
    let report = check(
        &home,
        "[service_monitoring]\nstartup_timeout = \"1s\"\n[monitoring]\nhealth_check_timeout = \"1s\"\n\
         [services.it]\ncommand = \"sleep\"\nargs = [\"600\"]\n",
    )
    .await;
    let it = service(&report, "it");
    // The default is a minute.
    assert!(it["total_ms"].as_f64() < Some(30_000.0), "{it:#}");
    assert_eq!(it["failure"]["code"], "handshake_timeout", "{it:#}");
}

/// Two servers that answer only if both are started at the same time. They use a processor while
/// they wait: what works on nothing gives its slot back.
fn two_that_wait_for_each_other() -> String {
    let wait = |own: &str, other: &str| {
        format!(
            "[services.{own}]\ncommand = \"sh\"\nargs = [\"-c\", \"touch {own}; \
             end=$(($(date +%s) + 3)); \
             while [ ! -e {other} ]; do [ $(date +%s) -gt $end ] && exit 1; done; \
             exec {MCPMON} demo-server\"]\n"
        )
    };
    wait("a", "b") + &wait("b", "a")
}

#[tokio::test]
async fn max_starting_bounds_how_many_start_at_once() {
    for (limit, together) in [("16", 2), ("1", 0)] {
        let home = Home::new();
        let report = check(
            &home,
            &format!(
                "[service_monitoring]\nmax_starting = {limit}\n{}",
                two_that_wait_for_each_other()
            ),
        )
        .await;
        let started_alone = report["summary"]["running"] != 2;
        assert_eq!(started_alone, together == 0, "max_starting = {limit}: {report:#}");
    }
}

#[tokio::test]
async fn max_children_bounds_how_many_are_held_and_the_held_ones_go_on() {
    let home = Home::new();
    let demo = |name: &str| {
        format!(
            "[services.{name}]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\"]\n\
             env = {{ NAME = \"{name}\" }}\nstartup_timeout = \"2s\"\nhealth_check_timeout = \"2s\"\n"
        )
    };
    home.configure(format!(
        "[service_monitoring]\nmax_children = 1\n{}{}{}",
        demo("a"),
        demo("b"),
        demo("c")
    ));
    let _up = home.start(&["up", "--interval", "1s"]);
    let held = || home.processes().iter().filter(|(_, line)| line.contains("demo-server")).count();
    crate::home::until("one to run and two to wait", Duration::from_secs(60), || async {
        assert!(held() <= 1, "{:?}", home.processes());
        let status = home.status().await?;
        let of = |wanted: &str| {
            let services = status["services"].as_array().into_iter().flatten();
            services.filter(|service| service["status"] == wanted).cloned().collect::<Vec<_>>()
        };
        let (running, waiting) = (of("running"), of("unknown"));
        let all_said = waiting.iter().all(|one| one["failure"]["code"] == "monitor_overloaded");
        let goes_on = running.iter().all(|one| one["metrics"]["total_checks"].as_u64() >= Some(5));
        (running.len() == 1 && waiting.len() == 2 && all_said && goes_on).then_some(())
    })
    .await;
}

#[tokio::test]
async fn max_body_refuses_what_is_larger() {
    let home = Home::new();
    let base = format!(
        "[services.it]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\", \"--tools\", \"200\"]\n"
    );
    let set = "[service_monitoring]\nmax_body = \"4kB\"";
    assert_eq!(statuses(&home, &base, set).await, pair("running", "error"));
    let report = check(&home, &format!("{base}{set}\n")).await;
    assert_eq!(service(&report, "it")["failure"]["code"], "too_large");
}

#[tokio::test]
async fn disks_says_which_file_systems_are_measured() {
    let home = Home::new();
    for (set, paths) in [("", json!(["/"])), ("disks = []", json!([]))] {
        home.configure(format!(
            "[performance_monitoring]\n{set}\n[services.it]\nurl = \"http://127.0.0.1:9/mcp\"\n"
        ));
        home.run(&["up", "--once"]).await.expect(0);
        let host = home.status().await.unwrap()["host"].clone();
        let measured: Vec<&Value> =
            host["disks"].as_array().unwrap().iter().map(|disk| &disk["path"]).collect();
        assert_eq!(json!(measured), paths, "{host:#}");
    }
}

#[tokio::test]
async fn log_level_says_how_much_is_told() {
    let mut told = Vec::new();
    for level in ["ERROR", "info", "trace"] {
        let home = Home::new();
        home.configure(format!(
            "[data_collection]\nlog_level = \"{level}\"\n\
             [services.it]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\"]\n"
        ));
        told.push(home.run(&["up", "--once"]).await.expect(0).err.lines().count());
    }
    assert!(told[0] <= told[1] && told[1] < told[2], "{told:?}");
}

#[tokio::test]
async fn export_format_is_what_export_writes_unasked() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let objects =
        |ran: &Ran| serde_json::Deserializer::from_str(&ran.out).into_iter::<Value>().count();
    let json = home.run(&["export", "--file", "-"]).await.expect(0);
    assert_eq!(objects(&json), 1);
    home.configure("[data_collection]\nexport_format = \"jsonl\"\n");
    let jsonl = home.run(&["export", "--file", "-"]).await.expect(0);
    assert!(objects(&jsonl) >= 3, "{jsonl}");
}

async fn names(home: &Home) -> Vec<String> {
    home.run(&["up", "--once"]).await.expect(0);
    let status = home.status().await.unwrap();
    let services = status["services"].as_array().unwrap();
    services.iter().map(|service| service["service"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn discover_clients_says_whose_files_are_read() {
    let home = Home::new();
    let entry = |name: &str| {
        json!({ "mcpServers": { name: { "url": format!("http://127.0.0.1:9/{name}") } } })
            .to_string()
    };
    home.write(".cursor/mcp.json", entry("cursor"));
    home.write(".gemini/settings.json", entry("gemini"));
    for client in ["cursor", "gemini"] {
        let name = if client == "gemini" { "gemini-cli" } else { client };
        home.configure(format!("[discover]\nclients = [\"{name}\"]\n"));
        assert_eq!(names(&home).await, [client]);
    }
}

#[tokio::test]
async fn discover_import_reads_a_file_of_any_client() {
    let home = Home::new();
    home.write(
        "work/mine.json",
        json!({ "mcpServers": { "mine": { "url": "http://127.0.0.1:9/mcp" } } }).to_string(),
    );
    home.configure("[discover]\nimport = [\"./mine.json\"]\n");
    assert_eq!(names(&home).await, ["mine"]);
}

#[tokio::test]
async fn type_says_how_a_url_is_spoken_to() {
    let server = FixtureServer::start().await;
    let home = Home::new();
    let base = format!("[services.it]\nurl = \"{}\"\n", server.url());
    for (set, transport) in [("", "http"), ("type = \"sse\"\n", "sse")] {
        let report = check(&home, &format!("{base}{set}")).await;
        assert_eq!(service(&report, "it")["transport"], transport);
    }
}

#[tokio::test]
async fn command_and_args_say_what_is_run() {
    let home = Home::new();
    let status = |report: &Value| service(report, "it")["status"].clone();
    let absent = check(&home, "[services.it]\ncommand = \"no-such-program\"\n").await;
    assert_eq!(status(&absent), "stopped");
    let usage = check(&home, &format!("[services.it]\ncommand = \"{MCPMON}\"\n")).await;
    assert_eq!(status(&usage), "stopped", "{usage:#}");
    let server = format!(
        "[services.it]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\", \"--tools\", \"7\"]\n"
    );
    let good = check(&home, &server).await;
    assert_eq!(service(&good, "it")["tools_count"], 7, "{good:#}");
}

fn only_if(condition: &str) -> String {
    format!(
        "[services.it]\ncommand = \"sh\"\nargs = [\"-c\", \"{condition} && exec {MCPMON} demo-server\"]\n"
    )
}

#[tokio::test]
async fn env_is_what_the_process_sees() {
    let home = Home::new();
    let base = only_if("[ x$FLAG = xyes ]");
    let set = "env = { FLAG = \"yes\" }";
    assert_eq!(statuses(&home, &base, set).await, pair("stopped", "running"));
}

#[tokio::test]
async fn env_file_is_what_the_process_sees_too() {
    let home = Home::new();
    home.write("work/flags.env", "# a comment\nFLAG=yes\n");
    let base = only_if("[ x$FLAG = xyes ]");
    let set = "env_file = \"flags.env\"";
    assert_eq!(statuses(&home, &base, set).await, pair("stopped", "running"));
}

#[tokio::test]
async fn a_process_sees_nothing_of_the_monitors_own_variables() {
    let home = Home::new().with_env("MCPMON_IT_PRIVATE", "1");
    let base = only_if("[ -z $MCPMON_IT_PRIVATE ]");
    assert_eq!(statuses(&home, &base, "").await, pair("running", "running"));
}

#[tokio::test]
async fn cwd_is_where_the_process_runs_relative_to_the_file() {
    let home = Home::new();
    home.write("work/sub/marker", "");
    let base = only_if("[ -e marker ]");
    assert_eq!(statuses(&home, &base, "cwd = \"sub\"").await, pair("stopped", "running"));
}

#[tokio::test]
async fn url_and_headers_are_what_is_sent() {
    // Refuses whoever does not bring the header.
    let unless = Behaviour::new(|asked| Conduct {
        fault: (asked.header("x-key") != Some("open")).then_some(Fault::Status(401)),
        ..Conduct::default()
    });
    let server = FixtureServer::serving(Server::new(FixtureServer::spec()).behaving(unless)).await;
    let home = Home::new();
    let base = format!("[services.it]\nurl = \"{}\"\n", server.url());
    let set = "headers = { x-key = \"open\" }";
    assert_eq!(statuses(&home, &base, set).await, pair("auth_required", "running"));
}

#[tokio::test]
async fn enabled_and_disabled_are_two_ways_to_pause() {
    let server = FixtureServer::start().await;
    let home = Home::new();
    let base = format!("[services.it]\nurl = \"{}\"\n", server.url());
    assert_eq!(statuses(&home, &base, "enabled = false").await, pair("running", "paused"));
    assert_eq!(statuses(&home, &base, "disabled = true").await, pair("running", "paused"));
}

#[tokio::test]
async fn protocol_says_which_way_to_open() {
    let home = Home::new();
    let base = format!("[services.it]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\"]\n");
    for (set, era) in [("", "legacy"), ("protocol = \"modern\"\n", "modern")] {
        let report = check(&home, &format!("{base}{set}")).await;
        assert_eq!(service(&report, "it")["era"], era, "{report:#}");
    }
}

#[tokio::test]
async fn terminate_session_says_whether_a_session_is_ended() {
    let server = FixtureServer::start().await;
    let home = Home::new();
    let base = format!("[services.it]\nurl = \"{}\"\nprotocol = \"legacy\"\n", server.url());
    check(&home, &base).await;
    assert_eq!(server.sessions(), 0, "ended");
    check(&home, &format!("{base}terminate_session = false\n")).await;
    assert_eq!(server.sessions(), 1, "left alone");
}

#[tokio::test]
async fn a_pasted_block_of_a_client_is_read_as_the_client_would() {
    let home = Home::new();
    let toml = format!(
        "[mcpServers.pasted]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\"]\nsomeClientsKey = 3\n"
    );
    let report = check(&home, &toml).await;
    assert_eq!(service(&report, "pasted")["status"], "running");
}

#[tokio::test]
async fn a_handlers_name_and_type_are_known() {
    let home = Home::new();
    let handler = |name: &str, kind: &str| {
        format!(
            "[[routes]]\nhandlers = [\"ops\"]\n[[handlers]]\nname = \"{name}\"\ntype = \"{kind}\"\n"
        )
    };
    home.configure(handler("ops", "console"));
    home.run(&["config", "check"]).await.expect(0);
    home.configure(handler("opps", "console"));
    home.run(&["config", "check"]).await.expect(2).says(&["ops"]);
    home.configure(handler("ops", "pigeon"));
    home.run(&["config", "check"]).await.expect(2).says(&["pigeon", "console"]);
}
