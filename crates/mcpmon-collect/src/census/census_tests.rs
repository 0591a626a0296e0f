use mcpmon_core::contract::PsFlag;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::{Redactor, Secret};

use super::{FoundServer, ProcessRow, Stdin, census, command_line};

/// `PID<PARENT NAME… = LINE`: one process; older processes have smaller ids.
fn row(text: &str) -> ProcessRow {
    let (head, line) = text.split_once(" = ").unwrap();
    let (ids, name) = head.split_once(' ').unwrap();
    let (pid, parent) = ids.split_once('<').unwrap();
    let pid: u32 = pid.parse().unwrap();
    ProcessRow {
        pid,
        parent: parent.parse().ok().filter(|parent| *parent > 0),
        started: u64::from(pid),
        own: true,
        name: name.to_owned(),
        args: line.split_whitespace().map(str::to_owned).collect(),
        age: 10_000 - u64::from(pid),
        ..ProcessRow::default()
    }
}

fn told(found: &[FoundServer]) -> Vec<String> {
    found
        .iter()
        .map(|found| {
            let report = &found.report;
            let client = report.client.as_ref().map_or("-", |client| client.name.as_str());
            let service = report.service.as_ref().map_or("-", |service| service.as_str());
            let flags: Vec<&str> = report.flags.iter().map(|flag| flag.as_str()).collect();
            let processes: Vec<String> = report
                .processes
                .iter()
                .map(|process| format!("{}{}", process.pid, &format!("{:?}", process.role)[..1]))
                .collect();
            format!("{client} {service} [{}] {}", flags.join(","), processes.join(" "))
        })
        .collect()
}

/// The servers among some processes: client, service, flags, and each process with its role
/// (`W`rapper, `S`erver).
#[track_caller]
fn check(rows: &[&str], stdin: Stdin, expected: &[&str]) {
    let rows: Vec<ProcessRow> = rows.iter().map(|text| row(text)).collect();
    let services = [ServiceSpec::stdio("files", "npx", ["-y", "@acme/files", "."])];
    assert_eq!(told(&census(&rows, &services, &|_| stdin)), expected);
}

const INIT: &str = "1<0 systemd = /sbin/init";

#[test]
fn a_tree_reaches_from_the_wrapper_a_client_started_to_what_the_server_started() {
    check(
        &[
            INIT,
            "10<1 Cursor = /opt/Cursor/cursor --type=renderer",
            "20<10 npm = npm exec @modelcontextprotocol/server-everything",
            "21<20 sh = sh -c mcp-server-everything",
            "22<21 node = node /h/.npm/_npx/a/node_modules/.bin/mcp-server-everything",
            "23<22 rg = rg x",
            "30<10 rust-analyzer = rust-analyzer",
            "40<1 bash = bash",
            "41<40 vim = vim mcp.json",
        ],
        Stdin::Held,
        &["Cursor - [] 20W 21W 22S 23S"],
    );
}

#[test]
fn a_configured_command_is_a_server_whatever_it_is_called() {
    check(
        &[INIT, "10<1 claude = claude", "20<10 npx = npx -y @acme/files ."],
        Stdin::Held,
        &["Claude files [] 20S"],
    );
    check(&[INIT, "20<1 npx = npx -y @acme/other ."], Stdin::Held, &[]);
}

#[test]
fn a_server_is_an_orphan_when_a_reaper_has_it_and_nobody_speaks_to_it() {
    let rows = [INIT, "20<1 x = mcp-server-git", "21<20 git = git log"];
    let flagged = ["- - [orphan] 20S 21S"];
    let fine = ["- - [] 20S 21S"];
    check(&rows, Stdin::Abandoned, &flagged);
    check(&rows, Stdin::Socket, &flagged);
    // Somebody writes to it; or it is a daemon, as a server over HTTP is.
    check(&rows, Stdin::Held, &fine);
    check(&rows, Stdin::NoClient, &fine);
    // Nothing is known of its input, and nothing says a client started it.
    check(&rows, Stdin::Unknown, &fine);
    check(&[INIT, "20<1 npx = npx -y @acme/files ."], Stdin::Unknown, &["- files [orphan] 20S"]);
    let user = "2<1 systemd = /usr/lib/systemd/systemd --user";
    check(&[INIT, user, "20<2 x = mcp-server-git"], Stdin::Abandoned, &["- - [orphan] 20S"]);
}

#[test]
fn what_still_has_a_parent_or_lives_in_a_container_is_no_orphan() {
    for rows in [
        &[INIT, "5<1 bash = bash", "20<5 x = mcp-server-git"][..],
        // The first process of a container, and one started into it.
        &["1<0 x = mcp-server-git"],
        &["1<0 tail = tail -f /dev/null", "20<0 x = mcp-server-git"],
        // A client may be the first process.
        &["1<0 claude = claude", "20<1 x = mcp-server-git"],
    ] {
        let rows: Vec<ProcessRow> = rows.iter().map(|text| row(text)).collect();
        let found = census(&rows, &[], &|_| Stdin::Abandoned);
        assert_eq!(found.len(), 1);
        assert!(found[0].report.flags.is_empty(), "{found:?}");
    }
    // An unknown first process adopts too, but only a pipe nobody holds says that it did.
    let rows = ["1<0 app = /app", "20<1 x = mcp-server-git"];
    check(&rows, Stdin::Socket, &["- - [] 20S"]);
    check(&rows, Stdin::Abandoned, &["- - [orphan] 20S"]);
}

#[test]
fn of_several_copies_one_client_started_the_newest_is_the_one_in_use() {
    check(
        &[
            INIT,
            "10<1 code = /usr/share/code/code",
            "11<1 code = /usr/share/code/code",
            "20<10 x = mcp-server-git --repo a",
            "21<10 x = mcp-server-git --repo a",
            "22<10 x = mcp-server-git --repo a",
            "23<10 x = mcp-server-git --repo b",
            "24<11 x = mcp-server-git --repo a",
            "30<1 mcpmon = mcpmon up",
            "31<30 x = mcp-server-git",
            "32<30 x = mcp-server-git",
        ],
        Stdin::Held,
        &[
            "VS Code - [duplicate] 20S",
            "VS Code - [duplicate] 21S",
            "VS Code - [] 22S",
            "VS Code - [] 23S",
            "VS Code - [] 24S",
            "mcpmon - [] 31S",
            "mcpmon - [] 32S",
        ],
    );
}

#[test]
fn copies_with_another_environment_are_no_duplicates() {
    let mut rows: Vec<ProcessRow> =
        [INIT, "10<1 claude = claude", "20<10 x = mcp-server-git", "21<10 x = mcp-server-git"]
            .iter()
            .map(|text| row(text))
            .collect();
    let flags = |rows: &[ProcessRow]| {
        let found = census(rows, &[], &|_| Stdin::Held);
        found.iter().flat_map(|found| found.report.flags.clone()).collect::<Vec<_>>()
    };
    assert_eq!(flags(&rows), [PsFlag::Duplicate]);
    rows[2].setting = 7;
    assert_eq!(flags(&rows), []);
}

#[test]
fn the_guardian_of_a_monitor_is_no_server_and_its_children_are_the_monitors() {
    let services = [
        ServiceSpec::stdio("bad", "python3", ["bad.py"]),
        ServiceSpec::stdio("good", "/opt/bin/mcpmon", ["demo-server"]),
    ];
    for guardian in
        ["20<10 mcp-guardian = mcp-guardian __guardian 10", "20<10 mcpmon = mcpmon __guardian 10"]
    {
        let rows: Vec<ProcessRow> = [
            INIT,
            "10<1 mcpmon = mcpmon up",
            guardian,
            "30<20 python3 = python3 bad.py",
            "31<20 mcpmon = mcpmon demo-server",
        ]
        .iter()
        .map(|text| row(text))
        .collect();
        let found = census(&rows, &services, &|_| Stdin::Held);
        assert_eq!(told(&found), ["mcpmon bad [] 30S", "mcpmon good [] 31S"], "{guardian}");
        assert!(
            found.iter().all(|found| found.report.client.as_ref().is_some_and(|of| of.pid == 10))
        );
    }
}

#[test]
fn a_shell_that_runs_more_than_the_server_is_not_its_wrapper() {
    check(
        &[INIT, "10<1 bash = bash -c work", "20<10 x = mcp-server-git", "21<10 make = make all"],
        Stdin::Held,
        &["- - [] 20S"],
    );
}

#[test]
fn command_lines_hold_no_secrets() {
    let mut shown = row("20<1 x = mcp-server --api-key k1 --token=hunter2hunter2 --port 80");
    let redactor = Redactor::new([&Secret::new("c0nfigured")]);
    assert_eq!(command_line(&shown, &redactor), "mcp-server --api-key *** --token=*** --port 80");
    shown.args = vec!["npm exec @acme/mcp --password=pw c0nfigured".to_owned()];
    assert_eq!(command_line(&shown, &redactor), "npm exec @acme/mcp --password=*** ***");
}
