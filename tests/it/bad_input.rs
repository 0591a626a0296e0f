//! What is wrong is said: where, what, and what to do; and nothing is written or lost.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use rustix::process::geteuid;
use serde_json::json;

use crate::home::{Home, service};

/// A configuration, the place the message names, and words it has.
type Case = (&'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    // An unknown or misspelt key.
    ("[monitoring]\ncheck_intervall = \"30s\"\n", ":2:1: ", &["check_intervall", "did you mean `check_interval`"]),
    ("[monitorin]\n", ":1:2: ", &["monitorin", "did you mean `monitoring`"]),
    ("[services.a]\ncomand = \"x\"\n", ":2:1: ", &["comand", "did you mean `command`"]),
    ("[[rules]]\nname = \"r\"\nwhen = \"true\"\nlevle = \"error\"\n", ":4:1: ", &["levle", "`level`"]),
    // A wrong type.
    ("[monitoring]\nenabled = \"yes\"\n", ":2:", &["true or false"]),
    ("[services.a]\ncommand = \"x\"\nargs = \"one two\"\n", ":3:", &["args"]),
    ("[monitoring]\nmetrics_retention_days = -1\n", ":2:", &["-1"]),
    // A bad duration, and senseless limits.
    ("[monitoring]\ncheck_interval = \"soon\"\n", ":2:", &["`soon`", "30s"]),
    ("[monitoring]\ncheck_interval = \"10ms\"\n", ":2:", &["at least 1s"]),
    ("[monitoring]\nhealth_check_timeout = 0\n", ":2:", &["longer than 0"]),
    ("[performance_monitoring]\ncpu_threshold = 180\n", ":2:", &["100"]),
    // A duplicate name.
    ("[services.a]\ncommand = \"x\"\n[services.a]\ncommand = \"y\"\n", ":3:", &["a"]),
    ("[[handlers]]\nname = \"h\"\ntype = \"console\"\n[[handlers]]\nname = \"h\"\ntype = \"console\"\n", ":", &["`h`", "name"]),
    ("[[rules]]\nname = \"r\"\nwhen = \"true\"\n[[rules]]\nname = \"r\"\nwhen = \"false\"\n", ":", &["r"]),
    // Both ways to reach a service, or neither.
    ("[services.a]\ncommand = \"x\"\nurl = \"http://127.0.0.1/mcp\"\n", ":", &["command", "url"]),
    ("[services.a]\nlabels = { team = \"x\" }\n", ":", &["command", "url"]),
    // A rule with an unknown name or bad syntax, in its condition or its message.
    ("[[rules]]\nname = \"r\"\nwhen = \"eror_rate > 0.1\"\n", ":3:", &["eror_rate", "did you mean `error_rate`"]),
    ("[[rules]]\nname = \"r\"\nwhen = \"error_rate >\"\n", ":3:", &["ends too early"]),
    ("[[rules]]\nname = \"r\"\nwhen = \"true\"\nmessage = \"{{ servce_name }}\"\n", ":4:", &["servce_name", "`service_name`"]),
    ("[[rules]]\nname = \"r\"\nwhen = \"true\"\nmessage = \"{service_name} is down\"\n", ":4:", &["{service_name}", "{{ service_name }}"]),
    ("[[rules]]\nname = \"r\"\nwhen = \"true\"\nmessage = \"{error_rate:.2%}\"\n", ":4:", &["{error_rate:.2%}", "percent(2)"]),
    ("[[rules]]\nname = \"r\"\n", ":", &["`r`", "when"]),
    // Names that lead nowhere.
    ("[[routes]]\nhandlers = [\"nobody\"]\n", ":", &["nobody"]),
    ("[[handlers]]\nname = \"h\"\ntype = \"emial\"\n", ":", &["emial", "`email`"]),
    ("[[handlers]]\nname = \"h\"\ntype = \"email\"\nsmtp = \"smtp://x\"\nfro = \"a@b\"\n", ":", &["fro", "h"]),
    ("[discover]\nclients = [\"curser\"]\n", ":2:", &["curser", "`cursor`"]),
    // No TOML at all.
    ("[monitoring\nenabled = true\n", ":1:", &["]"]),
];

#[tokio::test]
async fn a_wrong_configuration_is_told_with_its_place_and_nothing_is_begun() {
    let mut wrong = Vec::new();
    for (toml, place, words) in CASES {
        let home = Home::new();
        home.configure(toml);
        for command in [["config", "check"].as_slice(), &["up", "--once", "--yes"]] {
            let ran = home.run(command).await;
            let said = |word: &str| ran.err.contains(word);
            let located = format!("mcpmon.toml{place}");
            let missing: Vec<&str> = [located.as_str()]
                .into_iter()
                .chain(words.iter().copied())
                .filter(|word| !said(word))
                .collect();
            if ran.code != Some(2) || !missing.is_empty() || ran.err.contains("panicked") {
                wrong.push(format!("{toml}\nlacks {missing:?}\n{ran}"));
                break;
            }
        }
        if home.database().exists() {
            wrong.push(format!("{toml}\nwrote a database"));
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} of {}:\n{}", CASES.len(), wrong.join("\n\n"));
}

#[tokio::test]
async fn every_mistake_of_a_file_is_told_at_once() {
    let home = Home::new();
    home.configure("[monitoring]\ncheck_interval = \"soon\"\nalert_cooldwn = 3\n");
    let ran = home.run(&["config", "check"]).await.expect(2);
    ran.says(&["mcpmon.toml:2:", "mcpmon.toml:3:1:"]);
}

#[tokio::test]
async fn mistakes_in_yaml_and_json_have_places_too() {
    let home = Home::new();
    let yaml = home.write("work/a.yaml", "monitoring:\n  check_intervall: 30s\n");
    let json =
        home.write("work/a.json", "{\n  // a comment\n  \"monitoring\": { \"enabled\": 3 }\n}\n");
    for (file, place) in [(yaml, "a.yaml:2:3"), (json, "a.json:3:")] {
        let ran = home.run(&["--config", file.to_str().unwrap(), "config", "check"]).await;
        let ran = match ran.code {
            // The option belongs to the command.
            Some(2) if !ran.err.contains(place) => {
                home.run(&["config", "check", "--config", file.to_str().unwrap()]).await
            }
            _ => ran,
        };
        ran.expect(2).says(&[place]);
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_unreadable_is_named() {
    let home = Home::new();
    let ran = home.run(&["up", "--once", "--config", "nowhere.toml"]).await.expect(2);
    ran.says(&["nowhere.toml"]);
    home.write("work/folder.toml/inside", "");
    home.run(&["up", "--once", "--config", "folder.toml"]).await.expect(2).says(&["folder.toml"]);
    let binary = home.path().join("work/binary.toml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    home.run(&["up", "--once", "--config", "binary.toml"])
        .await
        .expect(2)
        .says(&["binary.toml", "UTF-8"]);
    assert!(!home.database().exists());
}

#[tokio::test]
async fn usage_errors_name_the_argument() {
    let home = Home::new();
    for (args, word) in [
        (["up", "--intervall", "3s"].as_slice(), "--interval"),
        (&["up", "--interval", "soon"], "soon"),
        (&["chek"], "check"),
        (&["check", "--url", "no url"], "no url"),
        (&["check", "--mcp-config", "nowhere.json"], "nowhere.json"),
        (&["export", "csv"], "--service"),
        (&["export", "xml"], "xml"),
        (&["status", "--output", "yaml"], "yaml"),
    ] {
        home.run(args).await.expect(2).says(&[word]);
    }
}

#[tokio::test]
async fn a_foreign_database_is_neither_used_nor_changed() {
    let home = Home::new();
    std::fs::create_dir_all(home.database().parent().unwrap()).unwrap();
    let other = Connection::open(home.database()).unwrap();
    other.execute_batch("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')").unwrap();
    drop(other);
    let before = std::fs::read(home.database()).unwrap();
    for command in
        [["up", "--once", "--strict"].as_slice(), &["status"], &["export", "json", "--file", "-"]]
    {
        let ran = home.run(command).await.expect(3);
        ran.says(&["mcpmon.db", "another program"]);
    }
    assert_eq!(std::fs::read(home.database()).unwrap(), before);
}

#[tokio::test]
async fn a_newer_database_is_neither_used_nor_changed() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let newer = Connection::open(home.database()).unwrap();
    newer.pragma_update(None, "journal_mode", "DELETE").unwrap();
    newer.pragma_update(None, "user_version", 9_999).unwrap();
    drop(newer);
    let before = std::fs::read(home.database()).unwrap();
    home.run(&["up", "--once"]).await.expect(3).says(&["9999", "newer"]);
    home.run(&["status"]).await.expect(3).says(&["9999"]);
    assert_eq!(std::fs::read(home.database()).unwrap(), before);
}

/// A file of a development version as the history of a home.
fn development_database(home: &Home, schema: u32) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/mcpmon-store/tests/data");
    let bytes = std::fs::read(fixtures.join(format!("development-{schema}.db"))).unwrap();
    std::fs::create_dir_all(home.database().parent().unwrap()).unwrap();
    std::fs::write(home.database(), &bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_development_versions_database_is_kept_and_a_new_history_begun() {
    for schema in 1..=3 {
        let home = Home::new();
        let before = development_database(&home, schema);
        let ran = home.run(&["up", "--once"]).await.expect(0);
        let shown = home.database().canonicalize().unwrap().display().to_string();
        let begin = format!("database `{shown}` was written by a development version; kept as `");
        let line = ran.err.lines().find_map(|line| line.split_once(&begin)).unwrap_or_else(|| {
            panic!("no such sentence\n{ran}");
        });
        let (kept, end) = line.1.split_once('`').unwrap();
        assert!(kept.starts_with(&format!("{shown}.set-aside-")), "{kept}");
        assert_eq!(end, ", and a new history begins");
        assert_eq!(std::fs::read(kept).unwrap(), before, "kept byte for byte");

        let status = home.run(&["status", "--output", "json"]).await.expect(0).json();
        assert!(status["services"].as_array().is_some_and(|all| !all.is_empty()), "{status:#}");
        let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
        // Not the first: the machine's own disk may be full.
        let messages = alerts["alerts"].as_array().into_iter().flatten();
        let mut messages = messages.filter_map(|alert| alert["message"].as_str());
        let sentence = "written by a development version; kept as `";
        assert!(messages.any(|message| message.contains(sentence)), "{alerts:#}");
        home.run(&["db", "check"]).await.expect(0);
        let again = home.run(&["up", "--once"]).await.expect(0);
        assert!(!again.err.contains("development version"), "{again}");
        assert_eq!(std::fs::read(kept).unwrap(), before);
    }
}

#[tokio::test]
async fn a_development_versions_database_is_refused_with_what_to_do() {
    let home = Home::new();
    let before = development_database(&home, 3);
    home.write("work/all.jsonl", "");
    let old = home.work().join("old.db");
    std::fs::copy(home.database(), &old).unwrap();
    let begins = "`mcpmon up` keeps it under another name and begins a new history";
    let cases: [(&[&str], &str); 9] = [
        (&["up", "--once", "--strict"], &format!("without --strict, {begins}")),
        (&["status"], begins),
        (&["history", "a"], begins),
        (&["export", "json", "--file", "-"], begins),
        (&["db", "info"], begins),
        (&["db", "check"], begins),
        (&["db", "backup", "copy.db"], begins),
        (&["db", "prune"], begins),
        (&["import", "all.jsonl"], "`mcpmon up --once` keeps it under another name"),
    ];
    for (command, next) in cases {
        let ran = home.run(command).await.expect(3);
        ran.says(&["mcpmon.db` was written by a development version", next]);
    }
    assert_eq!(std::fs::read(home.database()).unwrap(), before);
    let folder = std::fs::read_dir(home.database().parent().unwrap()).unwrap().flatten();
    let names: Vec<_> = folder.map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["mcpmon.db"], "nothing is left beside it");
    assert!(!home.work().join("copy.db").exists());

    let other = Home::new();
    other.run(&["up", "--once"]).await.expect(0);
    let ours = std::fs::read(other.database()).unwrap();
    let ran = other.run(&["db", "restore", old.to_str().unwrap()]).await.expect(3);
    ran.says(&["old.db` was written by a development version", "a backup that this version wrote"]);
    assert_eq!(std::fs::read(other.database()).unwrap(), ours);

    // A backup in its place keeps it as well.
    let backup = other.work().join("backup.db");
    other.run(&["db", "backup", "backup.db"]).await.expect(0);
    let ran = home.run(&["db", "restore", backup.to_str().unwrap()]).await.expect(0);
    let kept = ran.err.split('`').nth(1).unwrap_or_default();
    assert!(kept.contains("mcpmon.db.before-restore-"), "{ran}");
    assert_eq!(std::fs::read(kept).unwrap(), before);
    home.run(&["status"]).await.expect(0);
}

#[tokio::test]
async fn what_is_no_database_is_never_adopted_or_deleted() {
    let home = Home::new();
    home.write(
        ".local/state/mcpmon/mcpmon.db",
        "this is somebody's letter, not a database\n".repeat(40),
    );
    let before = std::fs::read(home.database()).unwrap();
    let ran = home.run(&["up", "--once"]).await;
    assert!(matches!(ran.code, Some(0 | 3)), "{ran}");
    ran.says(&["mcpmon.db"]);
    let folder = home.database().parent().unwrap().to_owned();
    let kept = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read(entry.path()).is_ok_and(|bytes| bytes == before));
    assert!(kept, "the letter is gone\n{ran}");
}

#[tokio::test]
async fn an_unwritable_place_for_the_history_is_said() {
    let home = Home::new();
    if geteuid().is_root() {
        // Permissions do not bind root; a file in place of the directory does.
        home.write(".local/state/mcpmon", "not a directory");
    } else {
        let state = home.path().join(".local/state");
        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o500)).unwrap();
    }
    home.run(&["up", "--once"]).await.expect(3).says(&[".local/state/mcpmon"]);
}

#[tokio::test]
async fn two_monitors_do_not_write_one_history() {
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    crate::home::until("the first monitor", std::time::Duration::from_secs(60), || home.status())
        .await;
    home.run(&["up", "--once"]).await.expect(3).says(&["in use", "mcpmon.db"]);
    drop(up);
}

#[tokio::test]
async fn a_service_that_cannot_be_used_stops_nothing_else() {
    let home = Home::new();
    let mcpmon = env!("CARGO_BIN_EXE_mcpmon");
    home.configure(format!(
        "[services.unset]\nurl = \"http://127.0.0.1:9/mcp\"\n\
         headers = {{ Authorization = \"Bearer ${{MCPMON_IT_UNSET}}\" }}\n\
         [services.nourl]\nurl = \"no url at all\"\n\
         [services.nofile]\ncommand = \"{mcpmon}\"\nenv_file = \"nowhere.env\"\n\
         [services.good]\ncommand = \"{mcpmon}\"\nargs = [\"demo-server\"]\n"
    ));
    home.run(&["up", "--once"]).await.expect(0);
    let status = home.status().await.unwrap();
    for (name, word) in
        [("unset", "MCPMON_IT_UNSET"), ("nofile", "nowhere.env"), ("nourl", "http://")]
    {
        let found = service(&status, name);
        assert_eq!(found["status"], "unknown", "{found:#}");
        assert_eq!(found["failure"]["code"], "configuration_invalid");
        assert!(found["failure"]["message"].as_str().unwrap().contains(word), "{found:#}");
    }
    assert_eq!(service(&status, "good")["status"], "running");

    let report = home.run(&["check", "--output", "json"]).await.expect(1).json();
    assert_eq!(report["summary"]["unknown"], json!(3), "every entry appears: {report:#}");
}
