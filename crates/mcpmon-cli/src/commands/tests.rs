//! Whole commands, from their arguments to what they print, over a history of two services.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use mcpmon_core::observation::{ListedItem, Lists};
use mcpmon_core::state::{ChangeOrigin, StatusChange};
use mcpmon_core::store::{
    Batch, HostRecord, IncidentLog as _, ListRecord, SampleStore as _, ServiceFacts, Transition,
};
use mcpmon_core::{AlertPhase, AlertState, FailureCode, Status, Timestamp};
use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::samples;
use serde_json::json;

use crate::app::{App, Cli, finish};
use crate::exit::Exit;
use crate::output::Output;

/// Long before any clock this could run under: nothing of it is inside a window that ends now.
const LONG_AGO: Timestamp = Timestamp::from_millis(1_577_836_800_000);

fn at(seconds: u64) -> Timestamp {
    LONG_AGO.saturating_add(Duration::from_secs(seconds))
}

fn service(name: &str, status: Status) -> (ServiceFacts, StatusChange) {
    let facts = ServiceFacts {
        transport: "http".to_owned(),
        conversation: samples::answered().conversation,
        tools_count: Some(2),
        consecutive_failures: u32::from(status.is_down()),
        ..ServiceFacts::unknown(name.into())
    };
    let failure = status.is_down().then(|| samples::failure(FailureCode::ConnectionRefused));
    let change = StatusChange {
        service: name.into(),
        at: at(3),
        from: Status::Unknown,
        status,
        since: at(3),
        failure,
        findings: Vec::new(),
        origin: Default::default(),
    };
    (facts, change)
}

async fn fill(path: &Path) {
    let store = SqliteStore::open(path, OpenOptions::default()).unwrap();
    let (good, bad) = (service("good", Status::Running), service("bad", Status::Stopped));
    let batch = Batch {
        list_changes: Vec::new(),
        checks: vec![
            samples::check("good", at(1)),
            samples::failed_check("bad", at(2), FailureCode::ConnectionRefused),
        ],
        facts: vec![good.0, bad.0],
        changes: vec![good.1, bad.1],
        lists: vec![ListRecord {
            service: "good".into(),
            at: at(1),
            lists: Lists {
                resource_templates: vec![ListedItem {
                    name: "file:///{path}".to_owned(),
                    definition: (&json!({"uriTemplate": "file:///{path}", "name": "file"})).into(),
                    digest: None,
                }],
                instructions: Some("Call `read` before `write`.".to_owned()),
                ..samples::lists(&["read", "write"])
            },
        }],
        host: vec![HostRecord { at: at(2), metrics: samples::system_metrics() }],
    };
    store.append(&batch).await.unwrap();
    let mut alert = samples::alert("service_down", "bad");
    alert.timestamp = at(3);
    let mut state = AlertState::new(alert.key(), at(3));
    (state.phase, state.alert) = (AlertPhase::Firing, Some(alert.clone()));
    let transition =
        Transition { states: vec![state], alerts: vec![alert], deliveries: Vec::new(), at: at(3) };
    store.commit(&transition).await.unwrap();
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A state directory, with a history in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(fill(&dir.path().join("mcpmon.db")));
        Self(dir)
    }

    /// What a command line prints on standard output, and how it ends.
    fn run(&self, line: &str) -> (String, Exit) {
        let dir = self.0.path().to_str().unwrap();
        let line = line.replace("DIR", dir);
        let words = ["mcpmon", "--state-dir", dir].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let page = Page::default();
        let output = Output::to_writer(page.clone());
        let exit = finish(App::new().dispatch(cli, None, &output), &output);
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        (text.replace(dir, "DIR"), exit)
    }

    fn prints(&self, line: &str) -> String {
        let (text, exit) = self.run(line);
        assert_eq!(exit, Exit::Ok, "{text}");
        text
    }
}

/// What differs from run to run, or from build to build, is named instead.
fn redacted(test: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r#""(at|export_time)": "20(2[1-9]|[3-9]\d)[^"]+""#, r#""$1": "[now]""#);
    settings.add_filter(r#""sqlite_version": "[^"]+""#, r#""sqlite_version": "[version]""#);
    settings.add_filter(r#""version": "\d+\.\d+\.\d+""#, r#""version": "[version]""#);
    settings.add_filter(r#""([a-z]+_bytes|bytes_per_check)": [\d.]+"#, r#""$1": "[bytes]""#);
    settings.add_filter(r#""kind": "[^"]+",\s+"mounted_at": "[^"]+""#, r#""kind": "[kind]""#);
    settings.add_filter(r#""is_network": (true|false)"#, r#""is_network": "[bool]""#);
    settings.add_filter(r#""tables": \[[^\]]*\]"#, r#""tables": "[tables]""#);
    settings.add_filter(r#""bytes": \d+"#, r#""bytes": "[bytes]""#);
    settings.add_filter(r#""([a-z]+_before)": "[^"]+""#, r#""$1": "[moment]""#);
    settings.add_filter(r#""schema_version": \d+"#, r#""schema_version": "[number]""#);
    settings.bind(test);
}

#[test]
fn every_reading_command_answers_in_json() {
    let home = Home::new();
    redacted(|| {
        insta::assert_snapshot!("status", home.prints("status --output json"));
        insta::assert_snapshot!("alerts", home.prints("alerts --output json"));
        insta::assert_snapshot!("tools", home.prints("tools --output json"));
        insta::assert_snapshot!("db_info", home.prints("db info --output json"));
        insta::assert_snapshot!("db_check", home.prints("db check --output json"));
    });
}

#[test]
fn config_check_answers_in_json_right_or_wrong() {
    let home = Home::new();
    let right = "[services.a]\nurl = 'http://${UNSET_}/'\n";
    std::fs::write(home.0.path().join("right.toml"), right).unwrap();
    std::fs::write(home.0.path().join("wrong.toml"), "[monitorin]\n").unwrap();
    insta::assert_snapshot!(home.prints("config check --output json --config DIR/right.toml"), @r#"
    {
      "schema": "mcpmon/config-check/v1",
      "path": "DIR/right.toml",
      "ok": true,
      "problems": [],
      "notes": [
        "a is not checked: `a` in DIR/right.toml:1:11, `url`: variable `UNSET_` is not set"
      ],
      "not_in_effect": [],
      "services": 1,
      "rules": 19,
      "handlers": 1
    }
    "#);
    let (text, exit) = home.run("config check --output json --config DIR/wrong.toml");
    assert_eq!(exit, Exit::Usage);
    insta::assert_snapshot!(text, @r#"
    {
      "schema": "mcpmon/config-check/v1",
      "path": "DIR/wrong.toml",
      "ok": false,
      "problems": [
        {
          "path": "DIR/wrong.toml",
          "line": 1,
          "column": 2,
          "message": "unknown key `monitorin`; did you mean `monitoring`?"
        }
      ],
      "notes": [],
      "not_in_effect": [],
      "services": 0,
      "rules": 0,
      "handlers": 0
    }
    "#);
}

#[test]
fn alerts_are_chosen_by_time_and_state() {
    let home = Home::new();
    assert!(home.prints("alerts").contains("service_down"));
    assert!(home.prints("alerts --active").contains("firing"));
    assert_eq!(home.prints("alerts --since 1h"), "");
}

#[test]
fn an_unknown_service_is_wrong_usage() {
    let home = Home::new();
    assert_eq!(home.run("tools god"), (String::new(), Exit::Usage));
    assert!(home.prints("tools good").contains("write"));
}

#[test]
fn an_export_names_its_file_and_replaces_none_unasked() {
    let home = Home::new();
    let line = "export json --file DIR/out.json";
    assert_eq!(home.prints(line), "DIR/out.json\n");
    assert_eq!(home.run(line).1, Exit::Usage);
    assert_eq!(home.run(&format!("{line} --force")).1, Exit::Ok);
    assert!(home.prints("export csv --service good --file -").lines().count() == 2);
    assert_eq!(home.run("export csv").1, Exit::Usage);
    let nothing = "export csv --service nobody --file DIR/nobody.csv";
    assert_eq!(home.run(nothing), (String::new(), Exit::NotWell));
    assert!(!home.0.path().join("nobody.csv").exists());
}

#[test]
fn without_a_history_reading_commands_could_not_run() {
    let empty = Home(tempfile::tempdir().unwrap());
    for line in ["status", "alerts", "tools", "export json", "db info"] {
        assert_eq!(empty.run(line), (String::new(), Exit::CouldNotRun), "{line}");
    }
    assert_eq!(std::fs::read_dir(empty.0.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn init_writes_a_right_configuration_once() {
    let home = Home::new();
    let line = "init DIR/mcpmon.toml";
    assert_eq!(home.prints(line), "DIR/mcpmon.toml\n");
    assert_eq!(home.run(line).1, Exit::Usage);
    assert!(home.prints("config check --config DIR/mcpmon.toml").contains("right"));
}

#[test]
fn scripts_pages_and_schema_are_printed() {
    let home = Home::new();
    assert!(home.prints("completions fish").contains("mcpmon"));
    assert!(home.prints("man").contains(".TH mcpmon"));
    let schema: serde_json::Value = serde_json::from_str(&home.prints("config schema")).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    home.prints("man --dir DIR/man");
    assert!(home.0.path().join("man/mcpmon-up.1").exists());
}

#[test]
fn every_json_answer_names_its_schema() {
    let home = Home::new();
    for (line, schema) in [
        ("paths", "mcpmon/paths/v1"),
        ("config show", "mcpmon/config-show/v1"),
        ("status", "mcpmon/status/v1"),
        ("tools good", "mcpmon/tools/v1"),
    ] {
        let text = home.prints(&format!("{line} --output json"));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["schema"], schema);
    }
}

#[test]
fn a_check_of_what_is_not_there_says_so_and_opens_no_database() {
    let empty = Home(tempfile::tempdir().unwrap());
    let (text, exit) = empty.run("check --output json --timeout 5s -- no-such-program-anywhere");
    assert_eq!(exit, Exit::NotWell);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["services"][0]["failure"]["code"], "command_not_found");
    assert_eq!(json["summary"]["stopped"], 1);
    let (lines, _) = empty.run("check --output jsonl --url http://127.0.0.1:1/mcp");
    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(line["service"], "127.0.0.1:1/mcp");
    assert_eq!(std::fs::read_dir(empty.0.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn the_export_format_is_the_configurations_where_none_is_named() {
    let home = Home::new();
    for (format, first) in
        [("json", "{\n"), ("jsonl", "{\"record\""), ("csv", "active_connections,")]
    {
        let text = format!("[data_collection]\nexport_format = '{format}'\n");
        std::fs::write(home.0.path().join("format.toml"), text).unwrap();
        let page = home.prints("export --service good --file - --config DIR/format.toml");
        assert!(page.starts_with(first), "{format}: {page}");
    }
}

/// Two hours of one service, slow for half an hour of them.
async fn slow_for_a_while(path: &Path) {
    let store = SqliteStore::open(path, OpenOptions::default()).unwrap();
    let checks = (0..240_u64).map(|n| mcpmon_core::store::CheckRecord {
        latency: Some(Duration::from_millis(if (100..160).contains(&n) { 2_000 } else { 20 })),
        ..samples::check("good", at(n * 30))
    });
    let checks: Vec<_> = checks.collect();
    let (facts, change) = service("good", Status::Running);
    let (facts, changes) = (vec![facts], vec![change]);
    store.append(&Batch { checks, facts, changes, ..Batch::default() }).await.unwrap();
}

#[test]
fn rules_are_tried_on_the_past() {
    let home = Home(tempfile::tempdir().unwrap());
    let path = home.0.path().join("mcpmon.db");
    tokio::runtime::Runtime::new().unwrap().block_on(slow_for_a_while(&path));
    let config = "[performance_monitoring]\nenabled = false\n[services.good]\n\
                  url = 'http://127.0.0.1:1/mcp'\nlabels = { team = 'web' }\n\
                  [[handlers]]\nname = 'ops'\ntype = 'console'\n";
    std::fs::write(home.0.path().join("m.toml"), config).unwrap();
    let tried = "[[rules]]\nname = 'slow_response'\nmatch = { team = 'web' }\ncooldown = '20m'\n\
                 [[rules]]\nname = 'blind'\nwhen = 'cpu_percent > 90.0'\n";
    std::fs::write(home.0.path().join("tried.toml"), tried).unwrap();
    let span = "--since 2020-01-01T00:00:00Z --until 2020-01-01T02:00:00Z --config DIR/m.toml";
    let json = home.prints(&format!("rules test DIR/tried.toml {span} --output json"));
    insta::assert_snapshot!("rules_test", json);
    let page = home.prints(&format!("rules test DIR/tried.toml {span}"));
    for words in ["3 messages would have been sent", "resolved", "ops", "blind: without a value"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let usage = |line: &str| assert_eq!(home.run(line).1, Exit::Usage, "{line}");
    usage(&format!("rules test {span} --service nobody"));
    usage("rules test --since 1h --until 2h --config DIR/m.toml");
    std::fs::write(home.0.path().join("tried.toml"), "[[rules]]\nname = 'x'\n").unwrap();
    usage(&format!("rules test DIR/tried.toml {span}"));
}

#[test]
fn mistakes_of_handlers_are_told_beside_all_others() {
    let home = Home(tempfile::tempdir().unwrap());
    let check = |text: &str| {
        std::fs::write(home.0.path().join("m.toml"), text).unwrap();
        let (json, exit) = home.run("config check --output json --config DIR/m.toml");
        assert_eq!(exit, Exit::Usage, "{json}");
        json
    };
    let handler = "[[handlers]]\nname = 'ops'\ntype = 'emial'\n";
    let both = check(&format!("[[rules]]\nname = 'a'\nwhen = 'eror_rate > 1'\n{handler}"));
    assert!(both.contains("eror_rate") && both.contains("emial"), "{both}");
    let both = check(&format!("[monitoring]\nenabeld = true\n{handler}"));
    assert!(both.contains("enabeld") && both.contains("emial"), "{both}");
}

#[test]
fn switched_off_monitoring_checks_and_keeps_nothing() {
    let empty = Home(tempfile::tempdir().unwrap());
    let text = "[monitoring]\nenabled = false\n[services.a]\ncommand = 'never-started'\n";
    std::fs::write(empty.0.path().join("off.toml"), text).unwrap();
    assert_eq!(empty.run("up --config DIR/off.toml"), (String::new(), Exit::Ok));
    assert!(!empty.0.path().join("mcpmon.db").exists());
}

#[test]
fn one_round_is_checked_stored_and_read_back() {
    let empty = Home(tempfile::tempdir().unwrap());
    let text = "[monitoring]\nhealth_check_retries = 1\n[service_monitoring]\n\
                max_consecutive_failures = 1\n[services.gone]\nurl = 'http://127.0.0.1:1/mcp'\n\
                [services.command]\ncommand = 'never-started'\n";
    std::fs::write(empty.0.path().join("m.toml"), text).unwrap();
    let page = empty.prints("up --once --http-only --interval 7s --config DIR/m.toml");
    assert!(page.starts_with("watching 1 service every 7s"), "{page}");
    assert!(page.contains("○ stopped  gone"), "{page}");
    let status = empty.prints("status");
    assert!(
        status.contains("connection_refused") && status.contains("no monitor running"),
        "{status}"
    );
    std::fs::write(empty.0.path().join("m.toml"), "[services.c]\ncommand = 'x'\n").unwrap();
    assert_eq!(empty.run("up --once --http-only --config DIR/m.toml").1, Exit::Usage);
}

#[test]
fn the_command_line_itself_is_sound() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}

#[test]
fn what_is_no_export_begins_no_history() {
    let empty = Home(tempfile::tempdir().unwrap());
    let file = empty.0.path().join("broken.jsonl");
    std::fs::write(&file, "{\"record\": \"nonsense\"}\n").unwrap();
    assert_eq!(empty.run("import DIR/broken.jsonl"), (String::new(), Exit::Usage));
    let kept: Vec<_> = std::fs::read_dir(empty.0.path()).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let home = Home::new();
    home.prints("export jsonl --file DIR/whole.jsonl");
    std::fs::copy(home.0.path().join("whole.jsonl"), &file).unwrap();
    assert_eq!(
        empty.prints("import DIR/broken.jsonl"),
        "imported 2 checks, 2 status changes and 1 alert\n"
    );
}

#[test]
fn starts_of_the_monitor_are_no_changes_that_are_explained() {
    let home = Home::new();
    let before = home.prints("explain bad");
    let (_, change) = service("bad", Status::Stopped);
    let origin = ChangeOrigin::Started { noticed_at: at(5) };
    let start = StatusChange { at: at(4), from: Status::Stopped, origin, ..change };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(home.0.path().join("mcpmon.db"), OpenOptions::default());
        let changes = vec![start; 9];
        store.unwrap().append(&Batch { changes, ..Batch::default() }).await.unwrap();
    });
    assert_eq!(home.prints("explain bad"), before);
    assert_eq!(before.matches("unknown").count(), 1, "{before}");
}

#[test]
fn the_name_of_a_rule_is_explained_with_or_without_a_history() {
    for home in [Home::new(), Home(tempfile::tempdir().unwrap())] {
        let page = home.prints("explain service_down");
        for words in ["`service_down` is a rule", "when ", "docs/configuration.md"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_ne!(home.run("explain no_such_thing").1, Exit::Ok);
    }
}

#[test]
fn a_silence_is_of_a_service_a_dependency_or_a_handler_each_on_its_own() {
    let home = Home::new();
    home.prints("silence bad --dependency tcp://db:5432 --handler ops --level error");
    let listed: serde_json::Value =
        serde_json::from_str(&home.prints("silence --list --output json")).unwrap();
    let mut matchers: Vec<String> = listed["silences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|silence| silence["matchers"].to_string())
        .collect();
    matchers.sort_unstable();
    let expected = [
        r#"{"dependency":"tcp://db:5432","level":"error"}"#,
        r#"{"handler":"ops","level":"error"}"#,
        r#"{"level":"error","service_name":"bad"}"#,
    ];
    assert_eq!(matchers, expected);
    let refused = home.run("silence --dependency good");
    assert_eq!(refused, (String::new(), Exit::Usage), "a service is no dependency");
}

#[test]
fn all_and_something_named_contradict_each_other() {
    for line in [
        "silence bad --all",
        "silence --all --rule service_down",
        "silence --all --list",
        "silence --all --dependency tcp://db:5432",
        "silence --list --handler ops",
        "silence --end ID --handler ops",
        // Only services and tools have labels, so nothing could match both.
        "silence --dependency tcp://db:5432 --label team=web",
        "silence --handler ops --label team=web",
    ] {
        let words = ["mcpmon"].into_iter().chain(line.split(' '));
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{line}");
    }
}
