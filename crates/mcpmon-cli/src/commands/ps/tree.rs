//! The processes as a tree in a table: client, wrapper, server, each on its line.

use std::collections::HashMap;

use anstyle::{AnsiColor, Style};
use mcpmon_core::contract::{PsFlag, PsServer};

use crate::output::{self, Align, Cell, Look, Table};

/// Every server below its client, and how many there are of each kind.
pub(super) fn render(servers: &[PsServer], width: Option<usize>, look: Look) -> String {
    let mut table = Table::new(&[
        ("PID", Align::Right),
        ("AGE", Align::Right),
        ("CPU", Align::Right),
        ("MEMORY", Align::Right),
        ("FLAGS", Align::Left),
        ("PROCESS", Align::Left),
    ]);
    let mut above = None;
    for server in servers {
        let client = server.client.as_ref().map(|client| (client.pid, client.name.as_str()));
        if above != Some(client) {
            let (pid, name) = client.map_or((String::new(), "(no known client)"), |(pid, name)| {
                (pid.to_string(), name)
            });
            let [empty, none, nothing, no] = [""; 4];
            table.row([
                pid.into(),
                empty.into(),
                none.into(),
                nothing.into(),
                no.into(),
                Cell::new(name).styled(Style::new().bold()),
            ]);
            above = Some(client);
        }
        push_server(&mut table, server, look);
    }
    format!("{}\n{}\n", table.render(width, look), summary(servers))
}

fn push_server(table: &mut Table, server: &PsServer, look: Look) {
    let mut depths: HashMap<u32, usize> = HashMap::new();
    for (index, process) in server.processes.iter().enumerate() {
        let parent = process.parent.and_then(|parent| depths.get(&parent)).copied();
        let depth = parent.map_or(1, |depth| depth + 1);
        depths.insert(process.pid, depth);
        let corner = if look.unicode { "└ " } else { "- " };
        let service = match &server.service {
            Some(service) if index == 0 => format!("{service}: "),
            _ => String::new(),
        };
        let indent = "  ".repeat(depth.min(8) - 1);
        let flags: Vec<&str> = match index {
            0 => server.flags.iter().map(|flag| flag.as_str()).collect(),
            _ => Vec::new(),
        };
        let warning = Style::new().fg_color(Some(AnsiColor::Yellow.into()));
        table.row([
            process.pid.to_string().into(),
            age(process.age_seconds).into(),
            format!("{:.1}%", process.cpu_percent).into(),
            output::bytes(process.memory_bytes as f64).into(),
            Cell::new(flags.join(" ")).styled(warning),
            format!("{indent}{corner}{service}{}", short(&process.command)).into(),
        ]);
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The program and its script without their directories, which fill a line and tell little.
fn short(command: &str) -> String {
    let base = |word: &str| match word.rsplit_once('/') {
        Some((_, name)) if word.starts_with('/') && !name.is_empty() => name.to_owned(),
        _ => word.to_owned(),
    };
    let mut words = command.splitn(3, ' ');
    let mut shown: Vec<String> = words.by_ref().take(2).map(base).collect();
    shown.extend(words.map(str::to_owned));
    shown.join(" ")
}

fn summary(servers: &[PsServer]) -> String {
    let flagged = |flag| servers.iter().filter(|server| server.flags.contains(&flag)).count();
    let mut text = output::count(servers.len(), "server");
    let mut any = false;
    for (flag, word) in [(PsFlag::Orphan, "orphan"), (PsFlag::Duplicate, "duplicate")] {
        if flagged(flag) > 0 {
            text.push_str(&format!(", {}", output::count(flagged(flag), word)));
            any = true;
        }
    }
    if any {
        text.push_str("\n`mcpmon ps --reap` ends what is flagged, after asking");
    }
    text
}

#[cfg(test)]
mod tests {
    use mcpmon_core::contract::{PsClient, PsProcess, PsRole};

    use super::*;

    fn process(pid: u32, parent: u32, command: &str) -> PsProcess {
        PsProcess {
            pid,
            parent: Some(parent),
            role: PsRole::Server,
            command: command.to_owned(),
            age_seconds: u64::from(pid) * 60,
            cpu_percent: 0.34,
            memory_bytes: 77_000_000,
            threads: Some(11),
            open_files: Some(24),
        }
    }

    fn servers() -> Vec<PsServer> {
        let cursor = PsClient { name: "Cursor".to_owned(), pid: 10 };
        let server = |client: Option<PsClient>, flags, processes| PsServer {
            service: None,
            client,
            flags,
            own: true,
            processes,
            reaped: None,
        };
        let mut named = server(
            Some(cursor.clone()),
            vec![],
            vec![
                process(20, 10, "npm exec @modelcontextprotocol/server-everything"),
                process(21, 20, "sh -c mcp-server-everything"),
                process(22, 21, "/usr/bin/node /h/.npm/_npx/a/.bin/mcp-server-everything stdio"),
            ],
        );
        named.service = Some("everything".into());
        vec![
            server(None, vec![PsFlag::Orphan], vec![process(1440, 1, "mcp-\u{1b}[2Jserver\nx")]),
            named,
            server(Some(cursor), vec![PsFlag::Duplicate], vec![process(30, 10, "mcp-server-git")]),
        ]
    }

    #[test]
    fn a_server_stands_below_its_client_within_eighty_columns() {
        let text = render(&servers(), Some(80), Look::plain());
        insta::assert_snapshot!(text, @r"
         PID   AGE   CPU   MEMORY  FLAGS      PROCESS
                                              (no known client)
        1440   1 d  0.3%  77.0 MB  orphan     └ mcp-\x1b[2Jserver\nx
          10                                  Cursor
          20  20 m  0.3%  77.0 MB             └ everything: npm exec @modelcontextproto…
          21  21 m  0.3%  77.0 MB               └ sh -c mcp-server-everything
          22  22 m  0.3%  77.0 MB                 └ node mcp-server-everything stdio
          30  30 m  0.3%  77.0 MB  duplicate  └ mcp-server-git

        3 servers, 1 orphan, 1 duplicate
        `mcpmon ps --reap` ends what is flagged, after asking
        ");
        assert!(text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 80));
    }
}
