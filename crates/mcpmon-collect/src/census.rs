//! Every MCP server process of this machine: who runs it, through what, and whether anybody still
//! needs it.
//!
//! Clients start servers through package runners and shells, forget some, and start others twice;
//! what is left over holds tens of megabytes each and sometimes a port or a lock. What a process is
//! and whether it is flagged is a pure function of the process table ([`census`]), because the
//! answer may end a process: [`read_table`] reads, [`reap`] acts.
//!
//! A process is a server when its command line is that of a configured entry, or when the name of
//! the program, script, module, package or image it runs says MCP. Its tree reaches from the
//! topmost wrapper (a package runner, `sh -c`) down to everything it started.

mod reap;
mod recognise;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};

use mcpmon_core::contract::{PsClient, PsFlag, PsProcess, PsRole, PsServer};
use mcpmon_core::service::{ServiceName, ServiceSpec, Transport};
use mcpmon_core::{Redactor, Secret};

pub use self::reap::{Reaped, Target, reap};
use self::recognise::{
    Kind, client, is_command_line, is_guardian, is_reaper, is_rewritten, recognise, words,
};
pub use self::table::{read_table, stdin_of};
use crate::entry::secrets_in_arguments;

/// Longest command line that is told, in characters.
const LONGEST_COMMAND: usize = 1_000;
/// Most ancestors looked at.
const MAX_ANCESTORS: usize = 64;

/// One process as the system tells it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessRow {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: Option<u32>,
    /// Tells it from an earlier process with its id: its start, as exactly as the system has it.
    pub started: u64,
    /// Whether it belongs to the user who asks.
    pub own: bool,
    /// Its name, which may be its program's.
    pub name: String,
    /// Its arguments, the program first.
    pub args: Vec<String>,
    /// A digest of its environment and working directory: equal copies have equal ones.
    pub setting: u64,
    /// Seconds since it was started.
    pub age: u64,
    /// Percent of one core over its life.
    pub cpu_percent: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
}

/// What stands at a process's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// A pipe, and another process has its other end.
    Held,
    /// A pipe whose other end nobody has, or nothing at all.
    Abandoned,
    /// A socket; who has its other end cannot be told.
    Socket,
    /// A terminal, a file, the null device: no client speaks there.
    NoClient,
    /// It cannot be told.
    Unknown,
}

/// A server found in the table.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundServer {
    /// What is told of it.
    pub report: PsServer,
    /// Its processes with what identifies each, parents before children.
    pub targets: Vec<Target>,
}

/// Finds the servers among `rows`, matches them with `services`, and flags what nobody needs.
/// `stdin` is asked only about what has lost its parent.
///
/// Flagged is a server whose client is gone ([`PsFlag::Orphan`]: a reaper has taken it up, and
/// nobody speaks to it), and one whose client has started the same command, in the same
/// environment and directory, again since ([`PsFlag::Duplicate`]). What runs below a monitor of
/// ours is never flagged.
pub fn census(
    rows: &[ProcessRow],
    services: &[ServiceSpec],
    stdin: &dyn Fn(u32) -> Stdin,
) -> Vec<FoundServer> {
    let table = Table::new(rows, services);
    let mut roots: Vec<u32> = rows
        .iter()
        .filter(|row| table.is_server(row.pid))
        .map(|row| table.root_of(row.pid))
        .collect();
    roots.sort_unstable();
    roots.dedup();
    let mut found: Vec<Group<'_>> = roots.iter().map(|root| table.group(*root, stdin)).collect();
    flag_duplicates(&mut found);
    found.sort_by_key(|group| {
        let client = group.client.as_ref().map(|client| (client.name.clone(), client.pid));
        (group.flags.is_empty(), client.is_none(), client, std::cmp::Reverse(group.rows[0].age))
    });
    let redactor = Redactor::new(services.iter().flat_map(ServiceSpec::secrets));
    found.into_iter().map(|group| group.found(&table, &redactor)).collect()
}

struct Table<'a> {
    rows: HashMap<u32, &'a ProcessRow>,
    kinds: HashMap<u32, Kind>,
    /// The service whose command line a process has.
    services: HashMap<u32, &'a ServiceName>,
    children: BTreeMap<u32, Vec<u32>>,
}

struct Group<'a> {
    /// Parents before children.
    rows: Vec<&'a ProcessRow>,
    client: Option<PsClient>,
    service: Option<&'a ServiceName>,
    flags: Vec<PsFlag>,
}

impl<'a> Table<'a> {
    fn new(rows: &'a [ProcessRow], services: &'a [ServiceSpec]) -> Self {
        let mut table = Self {
            rows: rows.iter().map(|row| (row.pid, row)).collect(),
            kinds: HashMap::new(),
            services: HashMap::new(),
            children: BTreeMap::new(),
        };
        for row in rows {
            let words = words(&row.args);
            table.kinds.insert(row.pid, recognise(&words));
            let service = services.iter().find(|service| match &service.transport {
                Transport::Stdio(stdio) => {
                    is_command_line(&words, &stdio.command, &stdio.args)
                        || is_rewritten(&words, &stdio.command, &stdio.args)
                }
                Transport::Http(_) | Transport::Sse(_) => false,
            });
            table.services.extend(service.map(|service| (row.pid, &service.name)));
            if let Some(parent) = row.parent {
                table.children.entry(parent).or_default().push(row.pid);
            }
        }
        table
    }

    fn kind(&self, pid: u32) -> Kind {
        self.kinds.get(&pid).copied().unwrap_or(Kind::Other)
    }

    fn is_server(&self, pid: u32) -> bool {
        self.services.contains_key(&pid) || matches!(self.kind(pid), Kind::Server | Kind::Runner)
    }

    fn client_at(&self, pid: u32) -> Option<&'static str> {
        let row = self.rows.get(&pid)?;
        let words = words(&row.args);
        // The monitor above the guardian is the client.
        if self.is_server(pid) || is_guardian(&words) { None } else { client(&row.name, &words) }
    }

    fn ancestors(&self, pid: u32) -> impl Iterator<Item = &'a ProcessRow> {
        let parent = |row: &&ProcessRow| row.parent.and_then(|pid| self.rows.get(&pid)).copied();
        let own = self.rows.get(&pid).copied();
        std::iter::successors(own, parent).skip(1).take(MAX_ANCESTORS)
    }

    /// A shell that runs other things too is not this server's.
    fn has_one_child(&self, pid: u32) -> bool {
        self.children.get(&pid).is_some_and(|children| children.len() == 1)
    }

    /// The topmost process that was started for this server.
    fn root_of(&self, pid: u32) -> u32 {
        let mut root = pid;
        let mut above = Vec::new();
        for row in self.ancestors(pid) {
            if self.is_server(row.pid) {
                root = row.pid;
                above.clear();
            } else if self.kind(row.pid) == Kind::Shell && self.has_one_child(row.pid) {
                above.push(row.pid);
            } else {
                break;
            }
        }
        // A shell directly above is the wrapper it was started by.
        above.first().copied().unwrap_or(root)
    }

    fn group(&self, root: u32, stdin: &dyn Fn(u32) -> Stdin) -> Group<'a> {
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            if let (true, Some(row)) = (seen.insert(pid), self.rows.get(&pid)) {
                rows.push(*row);
                let mut children = self.children.get(&pid).cloned().unwrap_or_default();
                children.sort_unstable_by(|a, b| b.cmp(a));
                next.extend(children);
            }
        }
        let client = self.ancestors(root).find_map(|row| {
            let name = self.client_at(row.pid)?.to_owned();
            Some(PsClient { name, pid: row.pid })
        });
        let service = rows.iter().find_map(|row| self.services.get(&row.pid).copied());
        let is_orphan = client.is_none() && self.is_orphan(root, service.is_some(), stdin);
        let flags = is_orphan.then_some(PsFlag::Orphan).into_iter().collect();
        Group { rows, client, service, flags }
    }

    /// Whether the process that started it is gone, and nobody else speaks to it.
    fn is_orphan(&self, root: u32, is_configured: bool, stdin: &dyn Fn(u32) -> Stdin) -> bool {
        // A parent that is not shown is outside this view (a container's), and may well be there.
        let Some(parent) = self.rows.get(&root).and_then(|row| self.rows.get(&row.parent?)) else {
            return false;
        };
        let program = words(&parent.args).first().copied().unwrap_or(&parent.name);
        let named_reaper = is_reaper(program) || is_reaper(&parent.name);
        if !named_reaper && parent.pid != 1 {
            return false;
        }
        match stdin(root) {
            Stdin::Held | Stdin::NoClient => false,
            Stdin::Abandoned => true,
            Stdin::Socket => named_reaper,
            // Without a look at its input only what is configured as a command was surely started
            // by a client.
            Stdin::Unknown => named_reaper && is_configured,
        }
    }
}

/// Flags all but the newest of several that one client started alike.
fn flag_duplicates(groups: &mut [Group<'_>]) {
    let mut alike: HashMap<(u32, &[String], u64), Vec<usize>> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        let root = group.rows[0];
        match &group.client {
            Some(client) if client.name != "mcpmon" => {
                alike.entry((client.pid, &root.args, root.setting)).or_default().push(index);
            }
            _ => {}
        }
    }
    let older: Vec<usize> = alike
        .into_values()
        .flat_map(|mut copies| {
            copies
                .sort_by_key(|index| (groups[*index].rows[0].started, groups[*index].rows[0].pid));
            copies.pop();
            copies
        })
        .collect();
    older.into_iter().for_each(|index| groups[index].flags.push(PsFlag::Duplicate));
}

impl Group<'_> {
    fn found(self, table: &Table<'_>, redactor: &Redactor) -> FoundServer {
        // What stands above the last one that is named after MCP only leads there.
        let last = self.rows.iter().rposition(|row| {
            table.kind(row.pid) == Kind::Server || table.services.contains_key(&row.pid)
        });
        let processes = self.rows.iter().enumerate().map(|(index, row)| {
            let leads = matches!(table.kind(row.pid), Kind::Runner | Kind::Shell);
            let is_wrapper =
                leads && (last.is_some_and(|last| index < last) || self.rows.len() > index + 1);
            PsProcess {
                pid: row.pid,
                parent: row.parent,
                role: if is_wrapper { PsRole::Wrapper } else { PsRole::Server },
                command: command_line(row, redactor),
                age_seconds: row.age,
                cpu_percent: (row.cpu_percent * 10.0).round() / 10.0,
                memory_bytes: row.memory_bytes,
                threads: row.threads,
                open_files: row.open_files,
            }
        });
        FoundServer {
            targets: self
                .rows
                .iter()
                .map(|row| Target { pid: row.pid, started: row.started })
                .collect(),
            report: PsServer {
                processes: processes.collect(),
                service: self.service.cloned(),
                client: self.client,
                flags: self.flags,
                own: self.rows.iter().all(|row| row.own),
                reaped: None,
            },
        }
    }
}

/// The command line as people may see it.
fn command_line(row: &ProcessRow, redactor: &Redactor) -> String {
    let given: Vec<String> = words(&row.args).into_iter().map(str::to_owned).collect();
    let secrets = secrets_in_arguments(&given);
    let shown: Vec<String> = given.iter().map(|arg| without(arg, &secrets)).collect();
    let line = if shown.is_empty() { format!("[{}]", row.name) } else { shown.join(" ") };
    mcpmon_core::text::truncate(&redactor.redact(&line), LONGEST_COMMAND)
}

/// An argument without what was guessed to be a secret, however short that is.
fn without(arg: &str, secrets: &[Secret]) -> String {
    const HIDDEN: &str = mcpmon_core::secret::REDACTED;
    let mut arg = arg.to_owned();
    for secret in secrets {
        let value = secret.expose();
        if arg == value {
            return HIDDEN.to_owned();
        }
        if value.len() >= 4 {
            arg = arg.replace(value, HIDDEN);
        } else if let Some(head) = arg.strip_suffix(value)
            && head.ends_with(['=', ':', ' '])
        {
            arg = format!("{head}{HIDDEN}");
        }
    }
    arg
}

#[cfg(test)]
#[path = "census/census_tests.rs"]
mod tests;
