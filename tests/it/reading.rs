//! Commands that read: what they print, in which form, and with which exit code.

use std::process::Stdio;

use serde_json::Value;

use crate::home::{Home, Ran, run, service};

/// A home with the history of one round: three demo services.
async fn lived_in() -> Home {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    home
}

/// A home with the history of a service that is down and of one that runs.
async fn half_broken() -> Home {
    let home = Home::new();
    let mcpmon = env!("CARGO_BIN_EXE_mcpmon");
    home.configure(format!(
        "[services.\"réseau\"]\nurl = \"http://127.0.0.1:9/mcp\"\n\
         [services.good]\ncommand = \"{mcpmon}\"\nargs = [\"demo-server\"]\n"
    ));
    home.run(&["up", "--once"]).await.expect(0);
    home
}

#[tokio::test]
async fn status_for_people_puts_what_fails_first_with_its_reason() {
    let home = half_broken().await;
    let ran = home.run(&["status"]).await.expect(0);
    let bad = ran.out.find("réseau").unwrap_or_else(|| panic!("{ran}"));
    let good = ran.out.find("good").unwrap_or_else(|| panic!("{ran}"));
    assert!(bad < good, "{ran}");
    for word in ["stopped", "running", "connection_refused"] {
        assert!(ran.out.contains(word), "{word}\n{ran}");
    }
    assert!(!ran.out.contains('\u{1b}'), "no colour into a pipe\n{ran}");
}

#[tokio::test]
async fn status_shows_the_machine_when_asked() {
    let home = lived_in().await;
    let plain = home.run(&["status"]).await.expect(0);
    let host = home.run(&["status", "--host"]).await.expect(0);
    for word in ["cpu ", "memory ", "disk ", "network "] {
        assert!(host.out.contains(word), "{word}\n{host}");
    }
    assert!(host.out.len() > plain.out.len(), "{host}");
    let json = home.run(&["status", "--host", "--output", "json"]).await.expect(0).json();
    let machine = &json["host"];
    for key in [
        "cpu_percent",
        "memory_total_bytes",
        "memory_available_bytes",
        "swap_total_bytes",
        "load_1m",
    ] {
        assert!(machine[key].is_number(), "{key}: {machine:#}");
    }
    assert_eq!(machine["disks"][0]["path"], "/", "{machine:#}");
    assert!(machine["network"]["bytes_sent"].is_number(), "{machine:#}");
}

#[tokio::test]
async fn colour_is_for_terminals_and_can_be_forced_and_forbidden() {
    let home = half_broken().await;
    let mut forced = home.command(["status"]);
    forced.env("CLICOLOR_FORCE", "1");
    assert!(run(forced).await.expect(0).out.contains('\u{1b}'));
    let mut forbidden = home.command(["status"]);
    forbidden.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    assert!(!run(forbidden).await.expect(0).out.contains('\u{1b}'));
}

#[tokio::test]
async fn tools_are_listed_as_the_servers_list_them() {
    let home = lived_in().await;
    let all = home.run(&["tools", "--output", "json"]).await.expect(0).json();
    assert_eq!(all["schema"], "mcpmon/tools/v1");
    let text = all.to_string();
    for tool in ["echo", "add", "now"] {
        assert!(text.contains(tool), "{all:#}");
    }
    let one = home.run(&["tools", "demo-modern"]).await.expect(0);
    assert!(one.out.contains("echo"), "{one}");
    home.run(&["tools", "demo-moderm"]).await.expect(2).says(&["demo-modern"]);
}

#[tokio::test]
async fn alerts_are_empty_while_all_is_well() {
    let home = lived_in().await;
    let ran = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    assert_eq!(ran["schema"], "mcpmon/alerts/v1");
    assert_eq!(ran["alerts"], Value::Array(Vec::new()));
    home.run(&["alerts", "--active"]).await.expect(0);
    home.run(&["alerts", "--since", "1h"]).await.expect(0);
    home.run(&["alerts", "--since", "soon"]).await.expect(2);
}

#[tokio::test]
async fn export_to_json_has_every_service_and_keeps_its_letters() {
    let home = half_broken().await;
    let ran = home.run(&["export", "json", "--file", "-"]).await.expect(0);
    let exported = ran.json();
    assert!(exported["schema"].as_str().unwrap().starts_with("mcpmon/export/"), "{ran}");
    assert!(exported["export_time"].is_string());
    for name in ["réseau", "good"] {
        let snapshots = exported["services"][name].as_array().unwrap_or_else(|| panic!("{ran}"));
        assert!(snapshots.iter().all(|snapshot| snapshot["timestamp"].is_string()), "{ran}");
    }
    assert!(exported["alerts"].is_array());
    let good = exported["services"]["good"].as_array().unwrap();
    assert!(good.iter().all(|one| one["restarts"] == 0), "a first start is no restart\n{ran}");
    assert!(ran.out.contains("réseau"), "not escaped\n{ran}");
    assert!(ran.out.contains("\n  "), "indented\n{ran}");
}

#[tokio::test]
async fn export_without_a_file_name_writes_one_and_prints_its_path() {
    let home = half_broken().await;
    for (args, start, end) in [
        (["export"].as_slice(), "monitoring_data_", ".json"),
        (&["export", "json"], "monitoring_data_", ".json"),
        (&["export", "csv", "--service", "réseau"], "metrics_r", ".csv"),
    ] {
        let ran = home.run(args).await.expect(0);
        let printed = ran.out.trim();
        let name = printed.rsplit('/').next().unwrap();
        assert!(name.starts_with(start) && name.ends_with(end), "{ran}");
        let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(name.chars().all(safe), "{name}");
        let path = home.work().join(printed);
        assert!(path.is_file(), "{}", path.display());
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn export_to_csv_has_a_header_and_one_line_a_snapshot() {
    let home = half_broken().await;
    let ran = home.run(&["export", "csv", "--service", "good", "--file", "-"]).await.expect(0);
    let header: Vec<&str> = ran.out.lines().next().unwrap().trim().split(',').collect();
    let mut sorted = header.clone();
    sorted.sort_unstable();
    assert_eq!(header, sorted, "columns are sorted");
    for column in ["timestamp", "status", "error_rate", "avg_response_time"] {
        assert!(header.contains(&column), "{header:?}");
    }
    assert!(ran.out.lines().count() >= 2, "{ran}");
}

#[tokio::test]
async fn export_overwrites_only_when_told_to() {
    let home = lived_in().await;
    let file = home.write("work/mine.json", "mine");
    home.run(&["export", "json", "--file", "mine.json"]).await.says(&["mine.json", "--force"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    home.run(&["export", "json", "--file", "mine.json", "--force"]).await.expect(0);
    assert!(std::fs::read_to_string(&file).unwrap().contains("demo-modern"));
}

#[tokio::test]
async fn export_of_what_has_no_data_says_so_and_writes_no_file() {
    let home = lived_in().await;
    let ran = home.run(&["export", "csv", "--service", "nobody"]).await.expect(1);
    ran.says(&["service nobody has no monitoring data"]);
    assert_eq!(std::fs::read_dir(home.work()).unwrap().count(), 0);
}

#[tokio::test]
async fn export_to_jsonl_is_one_object_a_line() {
    let home = lived_in().await;
    let ran = home.run(&["export", "jsonl", "--file", "-"]).await.expect(0);
    assert!(ran.out.lines().count() >= 3, "{ran}");
    for line in ran.out.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test]
async fn the_history_can_be_looked_at_and_checked() {
    let home = lived_in().await;
    let info = home.run(&["db", "info", "--output", "json"]).await.expect(0).json();
    assert!(info["schema"].as_str().unwrap().starts_with("mcpmon/"), "{info:#}");
    home.run(&["db", "info"]).await.expect(0);
    let check = home.run(&["db", "check"]).await.expect(0);
    assert!(check.out.contains("sound"), "{check}");
}

#[tokio::test]
async fn a_damaged_history_is_found() {
    use std::os::unix::fs::FileExt as _;
    let home = lived_in().await;
    let file = std::fs::OpenOptions::new().write(true).open(home.database()).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    // Every page but the first, which says what kind of file it is.
    for page in 1..pages {
        file.write_at(&[0xa5; 64], page * 4096).unwrap();
    }
    let ran = home.run(&["db", "check"]).await;
    assert!(matches!(ran.code, Some(1 | 3)), "{ran}");
    assert!(format!("{}{}", ran.out, ran.err).contains("damage"), "{ran}");
}

#[tokio::test]
async fn init_writes_a_file_that_is_valid_and_changes_nothing() {
    let home = Home::new();
    home.run(&["init"]).await.expect(0);
    let file = home.work().join("mcpmon.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    home.run(&["config", "check"]).await.expect(0);
    // A second one is not written over the first.
    std::fs::write(&file, format!("{text}\n# mine\n")).unwrap();
    let again = home.run(&["init"]).await;
    assert_ne!(again.code, Some(0), "{again}");
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("# mine\n"));
}

#[tokio::test]
async fn paths_say_where_everything_is() {
    let home = Home::new();
    let ran = home.run(&["paths"]).await.expect(0);
    assert!(ran.out.contains(".local/state/mcpmon"), "{ran}");
    let systemd = home.path().join("var").display().to_string();
    let home = home.with_env("STATE_DIRECTORY", systemd.clone());
    let ran = home.run(&["paths"]).await.expect(0);
    assert!(ran.out.contains(&systemd), "{ran}");
}

#[tokio::test]
async fn completions_and_manual_are_for_every_shell_and_reader() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = home.run(&["completions", shell]).await.expect(0);
        assert!(ran.out.contains("mcpmon") && ran.out.contains("check"), "{shell}");
    }
    let manual = home.run(&["man"]).await.expect(0);
    assert!(manual.out.contains(".TH mcpmon"), "{manual}");
    for command in ["check", "status", "export", "demo\\-server"] {
        assert!(manual.out.contains(command), "{command}");
    }
}

#[tokio::test]
async fn every_command_explains_itself() {
    let home = Home::new();
    let help = home.run(&["--help"]).await.expect(0);
    for command in [
        "up",
        "check",
        "status",
        "alerts",
        "tools",
        "export",
        "init",
        "config",
        "db",
        "paths",
        "completions",
        "man",
        "demo-server",
    ] {
        assert!(help.out.contains(command), "{command}\n{help}");
        let own = home.run(&[command, "--help"]).await.expect(0);
        assert!(own.out.contains("Usage: mcpmon"), "{own}");
    }
    assert!(home.run(&["--version"]).await.expect(0).out.starts_with("mcpmon "));
    home.run(&[]).await.expect(2);
}

async fn into_a_closed_pipe(home: &Home, args: &[&str]) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.command(args);
    command.stdout(Stdio::from(writer)).stderr(Stdio::piped()).stdin(Stdio::null());
    run_as_it_is(command).await
}

async fn run_as_it_is(mut command: tokio::process::Command) -> Ran {
    let child = command.spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    Ran::of(&command, output)
}

#[tokio::test]
async fn a_closed_pipe_is_a_quiet_end() {
    let home = lived_in().await;
    for args in [
        ["status"].as_slice(),
        &["status", "--output", "json"],
        &["export", "jsonl", "--file", "-"],
        &["man"],
        &["completions", "bash"],
        &["config", "schema"],
        &["tools"],
        &["--help"],
    ] {
        let ran = into_a_closed_pipe(&home, args).await;
        assert_eq!(ran.err, "", "{ran}");
        assert!(matches!(ran.code, Some(0)), "{ran}");
    }
}

#[tokio::test]
async fn readers_read_beside_a_running_monitor() {
    let home = Home::new();
    let _up = home.start(&["up", "--interval", "1s"]);
    let status =
        crate::home::until("a running monitor", std::time::Duration::from_secs(60), || async {
            home.status().await.filter(|status| {
                status["monitor"]["started_at"].is_string() && status["summary"]["running"] == 3
            })
        })
        .await;
    assert_eq!(status["monitor"]["running"], true, "{status:#}");
    assert_eq!(status["monitor"]["interval_seconds"], 1.0, "{status:#}");
    for args in
        [["export", "json", "--file", "-"].as_slice(), &["tools"], &["db", "info"], &["alerts"]]
    {
        home.run(args).await.expect(0);
    }
    let watched = home.start(&["status", "--watch", "1s"]);
    watched.line(mcpmon_testkit::Stream::Out, "demo-modern").await.expect("a first picture");
}

#[tokio::test]
async fn hostile_words_of_a_server_reach_no_terminal() {
    let home = Home::new();
    let mcpmon = env!("CARGO_BIN_EXE_mcpmon");
    let name = "evil\\u001b[2J\\u202e<script>=cmd";
    home.configure(format!(
        "[services.it]\ncommand = \"{mcpmon}\"\nargs = [\"demo-server\", \"--name\", \"{name}\"]\n"
    ));
    home.run(&["up", "--once"]).await.expect(0);
    for args in [["status"].as_slice(), &["check"], &["tools"], &["status", "--host"]] {
        let ran = home.run(args).await.expect(0);
        for bad in ['\u{1b}', '\u{202e}'] {
            assert!(!ran.out.contains(bad) && !ran.err.contains(bad), "{ran}");
        }
    }
    let status = home.status().await.unwrap();
    let server = service(&status, "it")["server"]["name"].as_str().unwrap().to_owned();
    assert!(server.starts_with("evil"), "{status:#}");
}
