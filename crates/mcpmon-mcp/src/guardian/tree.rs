//! The process table, as `/proc` has it: who descends from whom, and who carries a mark.

use std::io::Read as _;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The environment of a process is read no further than this; a mark is among what it was given.
const LONGEST_ENVIRONMENT: u64 = 1024 * 1024;

/// How often a tree is looked at to see whether it works, and how far apart.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);
/// What a tree may use meanwhile and still count as idle.
const FEW_TICKS: u64 = 2;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Ended, and not waited for yet.
    pub(crate) is_zombie: bool,
    /// On a processor, waiting for one, or waiting for a disk.
    pub(crate) is_busy: bool,
    /// Processor time of it and of those it waited for, in ticks of usually 10 ms.
    pub(crate) ticks: u64,
    /// The name of its program, at most 15 bytes.
    pub(crate) name: String,
}

/// A process, if it is there.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &[u8]) -> Option<Process> {
    // The name stands in brackets and may hold anything, brackets and line ends included.
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // utime, stime, cutime and cstime.
    let ticks = fields.skip(8).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    let (is_zombie, is_busy) = (matches!(state, "Z" | "X"), matches!(state, "R" | "D"));
    Some(Process { pid, parent, group, is_zombie, is_busy, ticks, name })
}

/// Every process that may be seen.
pub(crate) fn all() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The living members of a process group.
pub(crate) fn members(group: Pid) -> Vec<Process> {
    let group = group.as_raw_nonzero().get();
    all().into_iter().filter(|process| process.group == group && !process.is_zombie).collect()
}

/// The children of a process, those included that it adopted.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    told_children(pid).unwrap_or_else(|| {
        let of_it = all().into_iter().filter(|process| process.parent == pid);
        of_it.map(|process| process.pid).collect()
    })
}

/// The children as the kernel lists them; `None` where it is built without the list.
fn told_children(pid: i32) -> Option<Vec<i32>> {
    let mut found: Vec<i32> = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => {
                found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
            // The thread may have ended meanwhile, which the next look makes good.
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(found)
}

/// A process and everything below it, parents first.
pub(crate) fn subtree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children(*pid);
        found.extend(more);
        next += 1;
    }
    found
}

/// Whether any of a process and what is below it waits for or uses a processor or a disk: in one of
/// several looks in a row, or by the time it used between them. `None` when it is not there.
pub(crate) fn is_working(root: i32) -> Option<bool> {
    let before = busy_ticks(root)?;
    for _ in 0..LOOKS {
        if subtree(root).into_iter().filter_map(process).any(|process| process.is_busy) {
            return Some(true);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Some(busy_ticks(root)? > before + FEW_TICKS)
}

/// The processor time a tree has used, that of what it waited for included, in the system's ticks.
fn busy_ticks(root: i32) -> Option<u64> {
    let used = subtree(root).into_iter().filter_map(process).map(|process| process.ticks);
    used.reduce(|a, b| a + b)
}

/// The value of a variable in the environment a process was started with; `None` where it has
/// none, has written over it, or may not be read.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let file = std::fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut environment = Vec::new();
    file.take(LONGEST_ENVIRONMENT).read_to_end(&mut environment).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Kills a process; one that is gone needs none.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_moves_no_field() {
        let stat = b"42 (a) Z 1 1 (\n) S 7 9 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 99";
        let expected = Process {
            pid: 42,
            parent: 7,
            group: 9,
            is_zombie: false,
            is_busy: false,
            ticks: 5 + 6 + 7 + 8,
            name: "a) Z 1 1 (\n".to_owned(),
        };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat(b"42 (short) S"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_child_is_found_by_its_parent_and_by_its_mark() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .env("MARK_OF_A_TEST", "here")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let us = i32::try_from(std::process::id()).unwrap();
        assert!(children(us).contains(&pid));
        assert!(subtree(us).contains(&pid));
        // The kernel lets us go on before it has put the new environment in its place.
        let mark = std::iter::repeat_with(|| variable(pid, "MARK_OF_A_TEST"))
            .inspect(|_| std::thread::yield_now())
            .take(1_000_000)
            .find_map(|mark| mark);
        assert_eq!(mark.as_deref(), Some("here"));
        assert_eq!(variable(pid, "MARK_OF_A"), None);
        kill(pid);
        child.wait().unwrap();
        assert_eq!(process(pid), None);
    }
}
