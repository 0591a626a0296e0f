//! What the processes of stdio services use: CPU, memory, threads and open files of each service's
//! whole process tree, and how old it is.
//!
//! A package runner (`npx`, `uvx`) starts the server as a grandchild, so only the tree says what a
//! service costs. Reading the process table is the expensive part, so all probes share one
//! [`ProcessSampler`]: the table is read at most once in 15 seconds for all of them. Between two
//! readings nothing of it is kept but a few numbers per process; in particular no descriptor.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::metrics::ProcessMetrics;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old a reading of the process table may be.
const FRESH_FOR: Duration = Duration::from_secs(15);

/// How old it may be when a process is asked for that is not in it, because it has just started.
const FRESH_FOR_UNSEEN: Duration = Duration::from_secs(1);

/// Measures process trees for all probes of a monitor; clones share one process table.
#[derive(Debug, Clone, Default)]
pub struct ProcessSampler {
    table: Arc<Mutex<Option<Table>>>,
}

impl ProcessSampler {
    /// A sampler that has not read the process table yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the process `pid` and all its descendants use; `None` when there is no such process.
    ///
    /// CPU is percent of one core since the reading before, or since its start for a process that
    /// was not there then. Reads the table on a blocking thread when the last reading is older
    /// than 15 seconds (1 second when `pid` is not in it). Cancel-safe.
    pub async fn tree(&self, pid: u32) -> Option<ProcessMetrics> {
        let (members, age) = {
            let mut table = self.table.lock().await;
            if is_stale(table.as_ref(), pid, Instant::now()) {
                let rows = tokio::task::spawn_blocking(read_rows).await.ok()?;
                *table = Some(Table::new(rows, Instant::now(), table.as_ref()));
            }
            let table = table.as_ref()?;
            (table.tree(pid), table.age(pid, Instant::now()))
        };
        if members.is_empty() {
            return None;
        }
        let pids: Vec<Pid> = members.iter().map(|(pid, _)| Pid::from_u32(*pid)).collect();
        let counts = tokio::task::spawn_blocking(move || count(&pids)).await.unwrap_or_default();
        Some(ProcessMetrics {
            open_files: counts.open_files,
            threads: counts.threads,
            age,
            ..sum(members.iter().map(|(_, usage)| usage))
        })
    }
}

fn is_stale(table: Option<&Table>, pid: u32, now: Instant) -> bool {
    let Some(table) = table else {
        return true;
    };
    let age = now.saturating_duration_since(table.read_at);
    age >= FRESH_FOR || (age >= FRESH_FOR_UNSEEN && !table.rows.contains_key(&pid))
}

/// One process as the system tells it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    parent: Option<u32>,
    /// Seconds since 1970: tells a process from an earlier one with its number.
    started: u64,
    /// Seconds it has lived.
    lived: u64,
    cpu_millis: u64,
    memory_bytes: u64,
}

/// One process as it is added up.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Usage {
    cpu_percent: f64,
    memory_bytes: u64,
}

/// The process table at one moment.
#[derive(Debug)]
struct Table {
    rows: HashMap<u32, (Row, Usage)>,
    children: HashMap<u32, Vec<u32>>,
    read_at: Instant,
}

impl Table {
    fn new(rows: HashMap<u32, Row>, read_at: Instant, before: Option<&Self>) -> Self {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, row) in &rows {
            if let Some(parent) = row.parent {
                children.entry(parent).or_default().push(*pid);
            }
        }
        let since = before.map(|table| read_at.saturating_duration_since(table.read_at));
        let rows = rows
            .into_iter()
            .map(|(pid, row)| {
                let earlier = before
                    .and_then(|table| table.rows.get(&pid))
                    .map(|(earlier, _)| earlier)
                    .filter(|earlier| earlier.started == row.started);
                let usage = Usage {
                    cpu_percent: cpu_percent(&row, earlier, since.unwrap_or_default()),
                    memory_bytes: row.memory_bytes,
                };
                (pid, (row, usage))
            })
            .collect();
        Self { rows, children, read_at }
    }

    /// Whole seconds since `root` was started.
    fn age(&self, root: u32, now: Instant) -> Option<u64> {
        let (row, _) = self.rows.get(&root)?;
        Some(row.lived + now.saturating_duration_since(self.read_at).as_secs())
    }

    /// `root` and its descendants; nothing when `root` is not there.
    fn tree(&self, root: u32) -> Vec<(u32, Usage)> {
        let mut found = Vec::new();
        // A table read while processes come and go may hold a circle of parents.
        let mut seen = HashSet::from([root]);
        let mut next = vec![root];
        while let Some(pid) = next.pop() {
            if let Some((_, usage)) = self.rows.get(&pid) {
                found.push((pid, *usage));
                let children = self.children.get(&pid).into_iter().flatten();
                next.extend(children.filter(|child| seen.insert(**child)));
            }
        }
        found
    }
}

/// Percent of one core: since the earlier reading, else over the process's whole life.
fn cpu_percent(row: &Row, earlier: Option<&Row>, since: Duration) -> f64 {
    let (millis, span) = match earlier {
        Some(earlier) => (row.cpu_millis.saturating_sub(earlier.cpu_millis), since),
        // Its life is known in whole seconds only.
        None => (row.cpu_millis, Duration::from_secs(row.lived.max(1))),
    };
    if span.is_zero() {
        return 0.0;
    }
    millis as f64 / span.as_secs_f64() / 10.0
}

fn sum<'a>(members: impl Iterator<Item = &'a Usage>) -> ProcessMetrics {
    members.fold(ProcessMetrics::default(), |total, usage| ProcessMetrics {
        cpu_percent: total.cpu_percent + usage.cpu_percent,
        memory_bytes: total.memory_bytes.saturating_add(usage.memory_bytes),
        processes: total.processes.saturating_add(1),
        ..total
    })
}

fn read_rows() -> HashMap<u32, Row> {
    let Ok(mut system) = System::new() else {
        return HashMap::new();
    };
    system.refresh_processes_specifics(
        ProcessesToUpdate::All,
        false,
        ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks(),
    );
    let rows = system.processes().iter().map(|(pid, process)| {
        let row = Row {
            parent: process.parent().map(Pid::as_u32),
            started: process.start_time(),
            lived: process.run_time(),
            cpu_millis: process.accumulated_cpu_time(),
            memory_bytes: process.memory(),
        };
        (pid.as_u32(), row)
    });
    rows.collect()
}

/// What is only counted for the processes of a tree, because counting costs a look each.
#[derive(Debug, Default)]
struct Counts {
    open_files: Option<u64>,
    threads: Option<u64>,
}

/// Open files and threads of these processes together; `None` when the system tells it of none.
fn count(pids: &[Pid]) -> Counts {
    let Ok(mut system) = System::new() else { return Counts::default() };
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(pids),
        false,
        ProcessRefreshKind::nothing().with_tasks(),
    );
    let together = |of: &dyn Fn(&sysinfo::Process) -> Option<usize>| {
        let counts = pids.iter().filter_map(|pid| of(system.process(*pid)?));
        counts.map(|count| count as u64).reduce(u64::saturating_add)
    };
    Counts {
        open_files: together(&sysinfo::Process::open_files),
        // The first thread is the process itself.
        threads: together(&|process| process.tasks().map(|others| others.len() + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(parent: u32, started: u64, cpu_millis: u64) -> Row {
        Row { parent: Some(parent), started, lived: 100, cpu_millis, memory_bytes: 1_000 }
    }

    fn pids(table: &Table, root: u32) -> Vec<u32> {
        let mut pids: Vec<u32> = table.tree(root).iter().map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids
    }

    #[tokio::test]
    async fn a_tree_is_the_root_and_all_below_it_even_in_a_circle() {
        let rows = HashMap::from([
            (10, row(1, 5, 0)),
            (11, row(10, 5, 0)),
            (12, row(11, 5, 0)),
            (13, row(12, 5, 0)),
            (20, row(1, 5, 0)),
            (30, row(31, 5, 0)),
            (31, row(30, 5, 0)),
        ]);
        let table = Table::new(rows, Instant::now(), None);
        assert_eq!(pids(&table, 10), [10, 11, 12, 13]);
        assert_eq!(pids(&table, 20), [20]);
        assert_eq!(pids(&table, 30), [30, 31]);
        assert_eq!(pids(&table, 99), [0; 0]);
        let total = sum(table.tree(10).iter().map(|(_, usage)| usage));
        assert_eq!((total.processes, total.memory_bytes), (4, 4_000));
        let later = table.read_at + Duration::from_secs(7);
        assert_eq!((table.age(10, later), table.age(99, later)), (Some(107), None));
    }

    #[test]
    fn cpu_is_a_share_of_one_core_over_the_time_it_was_used_in() {
        let ten = Duration::from_secs(10);
        let cases = [
            // Half a core for ten seconds.
            (Some(row(1, 5, 1_000)), row(1, 5, 6_000), ten, 50.0),
            // Two cores.
            (Some(row(1, 5, 0)), row(1, 5, 20_000), ten, 200.0),
            // A counter that went back.
            (Some(row(1, 5, 9_000)), row(1, 5, 1_000), ten, 0.0),
            // Two readings at once.
            (Some(row(1, 5, 0)), row(1, 5, 5), Duration::ZERO, 0.0),
            // New: its 100 seconds of life.
            (None, row(1, 5, 25_000), ten, 25.0),
        ];
        for (earlier, now, since, percent) in cases {
            let got = cpu_percent(&now, earlier.as_ref(), since);
            assert!((got - percent).abs() < 1e-9, "{got} is not {percent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_taken_over_by_another_process_is_not_compared_with_the_old_one() {
        let before = Table::new(HashMap::from([(7, row(1, 5, 0))]), Instant::now(), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        let again = HashMap::from([(7, row(1, 900, 50_000))]);
        let table = Table::new(again, Instant::now(), Some(&before));
        let (_, usage) = table.tree(7)[0];
        assert!((usage.cpu_percent - 50.0).abs() < 1e-9, "{usage:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_read_again_when_old_or_when_a_process_is_new() {
        let now = Instant::now();
        let table = Table::new(HashMap::from([(7, row(1, 5, 0))]), now, None);
        let cases = [(0, 7, false), (14, 7, false), (15, 7, true), (0, 8, false), (1, 8, true)];
        for (age, pid, stale) in cases {
            let at = now + Duration::from_secs(age);
            assert_eq!(is_stale(Some(&table), pid, at), stale, "{pid} after {age} s");
        }
        assert!(is_stale(None, 7, now));
    }

    #[tokio::test]
    async fn measures_this_very_process_and_knows_what_is_not_there() {
        let sampler = ProcessSampler::new();
        let own = sampler.tree(std::process::id()).await.unwrap();
        assert!(own.memory_bytes > 100_000 && own.processes >= 1, "{own:?}");
        if cfg!(target_os = "linux") {
            assert!(own.open_files.unwrap() >= 3, "{own:?}");
            assert!(own.threads.unwrap() >= 1 && own.age.is_some(), "{own:?}");
        }
        assert_eq!(sampler.tree(u32::MAX - 7).await, None);
    }
}
