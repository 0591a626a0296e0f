//! Reads the process table, and what stands at a process's input.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::{ProcessRow, Stdin};

/// Every process of this machine that can be seen. Reads the process table; blocks.
pub fn read_table() -> Vec<ProcessRow> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    let kind = ProcessRefreshKind::nothing()
        .with_cpu()
        .with_memory()
        .with_cmd(UpdateKind::Always)
        .with_cwd(UpdateKind::Always)
        .with_environ(UpdateKind::Always)
        .with_user(UpdateKind::Always)
        .with_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, false, kind);
    let us = own_user();
    let processes = system.processes().values().filter(|process| process.thread_kind().is_none());
    let mut rows: Vec<ProcessRow> = processes
        .map(|process| {
            let pid = process.pid().as_u32();
            let text = |text: &std::ffi::OsString| text.to_string_lossy().into_owned();
            ProcessRow {
                pid,
                parent: process.parent().map(Pid::as_u32),
                started: identity(pid).unwrap_or_else(|| process.start_time()),
                own: us.is_some_and(|us| process.user_id().is_some_and(|user| **user == us)),
                name: process.name().to_string_lossy().into_owned(),
                args: process.cmd().iter().map(text).collect(),
                setting: digest(process),
                age: process.run_time(),
                cpu_percent: process.accumulated_cpu_time() as f64
                    / 10.0
                    / process.run_time().max(1) as f64,
                memory_bytes: process.memory(),
                // The first thread is the process itself.
                threads: process.tasks().map(|others| others.len() as u64 + 1),
                open_files: process.open_files().map(|count| count as u64),
            }
        })
        .collect();
    rows.sort_by_key(|row| row.pid);
    rows
}

#[cfg(unix)]
fn own_user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn own_user() -> Option<u32> {
    None
}

fn digest(process: &sysinfo::Process) -> u64 {
    let mut environment: Vec<_> = process.environ().iter().collect();
    environment.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (environment, process.cwd()).hash(&mut hasher);
    hasher.finish()
}

/// What tells this process from any other that had or will have its id, while it lives; a zombie
/// lives no more. Clock ticks from the machine's start to its own.
#[cfg(target_os = "linux")]
pub(super) fn identity(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?;
    if matches!(state, "Z" | "X") { None } else { started.parse().ok() }
}

/// The same in whole seconds, which is all there is.
#[cfg(not(target_os = "linux"))]
pub(super) fn identity(pid: u32) -> Option<u64> {
    let mut system = System::new().ok()?;
    let pid = Pid::from_u32(pid);
    let kind = ProcessRefreshKind::nothing();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, kind);
    let process = system.process(pid)?;
    let gone = matches!(process.status(), sysinfo::ProcessStatus::Zombie);
    (!gone).then(|| process.start_time())
}

/// What stands at the standard input of `pid`, one of `rows`. A pipe is held if a process outside
/// its own tree can write to it. Reads the descriptors of every process; blocks.
#[cfg(target_os = "linux")]
pub fn stdin_of(rows: &[ProcessRow], pid: u32) -> Stdin {
    let input = match std::fs::read_link(format!("/proc/{pid}/fd/0")) {
        Ok(input) => input,
        // Its descriptors can be listed, and this one is not among them.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok();
            return if listed { Stdin::Abandoned } else { Stdin::Unknown };
        }
        Err(_) => return Stdin::Unknown,
    };
    let text = input.to_string_lossy();
    if text.starts_with("socket:") {
        return Stdin::Socket;
    }
    if !text.starts_with("pipe:") {
        return Stdin::NoClient;
    }
    let tree = tree_of(rows, pid);
    let others = rows.iter().filter(|row| !tree.contains(&row.pid));
    if others.into_iter().any(|row| can_write(row.pid, &input)) {
        Stdin::Held
    } else {
        Stdin::Abandoned
    }
}

/// The descriptors of others are not shown here.
#[cfg(not(target_os = "linux"))]
pub fn stdin_of(_rows: &[ProcessRow], _pid: u32) -> Stdin {
    Stdin::Unknown
}

#[cfg(target_os = "linux")]
fn tree_of(rows: &[ProcessRow], root: u32) -> std::collections::HashSet<u32> {
    let mut tree = std::collections::HashSet::from([root]);
    loop {
        let below: Vec<u32> = rows
            .iter()
            .filter(|row| !tree.contains(&row.pid))
            .filter(|row| row.parent.is_some_and(|parent| tree.contains(&parent)))
            .map(|row| row.pid)
            .collect();
        if below.is_empty() {
            return tree;
        }
        tree.extend(below);
    }
}

#[cfg(target_os = "linux")]
fn can_write(pid: u32, pipe: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| {
        let path = descriptor.path();
        std::fs::read_link(&path).is_ok_and(|target| target == pipe)
            // The link's own mode says how the descriptor was opened.
            && std::fs::symlink_metadata(&path)
                .is_ok_and(|link| link.permissions().mode() & 0o200 != 0)
    })
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_very_process_is_in_the_table_as_it_is() {
        let rows = read_table();
        let own = rows.iter().find(|row| row.pid == std::process::id()).unwrap();
        assert!(own.own && own.memory_bytes > 100_000, "{own:?}");
        assert!(own.threads >= Some(1) && own.open_files >= Some(3), "{own:?}");
        assert_eq!(identity(own.pid), Some(own.started));
        assert_eq!(own.args, std::env::args().collect::<Vec<_>>());
    }

    #[test]
    fn an_input_is_held_as_long_as_somebody_can_write_to_it() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let rows = read_table();
        assert_eq!(stdin_of(&rows, pid), Stdin::Held);
        drop(child.stdin.take());
        assert_eq!(stdin_of(&rows, pid), Stdin::Abandoned);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(identity(pid), None);
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        assert_eq!(stdin_of(&rows, child.id()), Stdin::NoClient);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
