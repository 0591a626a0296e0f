//! What a process uses, as the kernel counts it.

use std::io;
use std::time::Duration;

/// What `/proc` counts in: 100 a second on every architecture Rust has a standard library for.
const TICK: Duration = Duration::from_millis(10);

/// CPU time this process has used so far, all threads, in user and kernel.
///
/// # Errors
///
/// Where there is no `/proc`.
pub fn cpu() -> io::Result<Duration> {
    ticks(OWN)
}

/// CPU time of the children this process has waited for, and of theirs.
///
/// # Errors
///
/// Where there is no `/proc`.
pub fn cpu_of_children() -> io::Result<Duration> {
    ticks(OF_CHILDREN)
}

/// Where `utime` and `cutime` stand, counted from the field after the name.
const OWN: usize = 11;
const OF_CHILDREN: usize = 13;

fn ticks(place: usize) -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let ticks = cpu_ticks(&stat, place);
    let ticks = ticks.ok_or_else(|| io::Error::other("/proc/self/stat is odd"))?;
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// User and kernel time at a place; the name before them is in parentheses and may hold anything.
fn cpu_ticks(stat: &str, place: usize) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(place);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of this process, in bytes: now, and at its highest.
///
/// # Errors
///
/// Where there is no `/proc`.
pub fn memory() -> io::Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name| kilobytes(&status, name).map(|kilobytes| kilobytes * 1024);
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(now), Some(highest)) => Ok((now, highest)),
        _ => Err(io::Error::other("/proc/self/status is odd")),
    }
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_of_proc() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 3 4 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat, OWN), Some(175));
        assert_eq!(cpu_ticks(stat, OF_CHILDREN), Some(7));
        assert_eq!(cpu_ticks("nonsense", OWN), None);
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2_048));
    }
}
