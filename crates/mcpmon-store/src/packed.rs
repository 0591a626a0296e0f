//! Small values packed as variable-length integers: a process tree, a machine, and what they are
//! made of.
//!
//! A field name costs more than its value in every self-describing format, and these are written
//! every few seconds for years. Times are ticks of 10 µs, percentages and rates hundredths. Each
//! kind is destructured where it is packed, so a field added in core does not compile until it has
//! a place here (and the machine's version a successor).

use mcpmon_core::metrics::{DiskMetrics, NetworkMetrics, ProcessMetrics, SystemMetrics};

/// Version of a packed machine sample.
const HOST_VERSION: u64 = 1;
/// File systems and interfaces of one sample, and the bytes of a name: more is a damaged row.
const MOST_PARTS: u64 = 10_000;

/// Appends a variable-length integer: seven bits a byte, lowest first.
pub(crate) fn push(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Hundredths of a percentage, a rate, or milliseconds (then ticks of 10 µs). What is negative or
/// not a number becomes 0.
pub(crate) fn to_hundredths(value: f64) -> i64 {
    // The cast saturates.
    ((value * 100.0).round() as i64).max(0)
}

fn push_hundredths(out: &mut Vec<u8>, value: f64) {
    push(out, to_hundredths(value).unsigned_abs());
}

fn push_optional(out: &mut Vec<u8>, value: Option<u64>) {
    push(out, value.map_or(0, |value| value.saturating_add(1)));
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Takes packed values off the front of a row. Every method is `None` at a damaged row's end.
#[derive(Debug)]
pub(crate) struct Unpacker<'a>(pub(crate) &'a [u8]);

impl<'a> Unpacker<'a> {
    #[inline]
    pub(crate) fn int(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn hundredths(&mut self) -> Option<f64> {
        Some(self.int()? as f64 / 100.0)
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        Some(self.int()?.checked_sub(1))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.int()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.int().filter(|count| *count <= MOST_PARTS)?;
        (0..count).map(|_| item(self)).collect()
    }
}

/// A process tree in the file's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PackedProcess {
    /// Hundredths of a percent.
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) files: Option<i64>,
    pub(crate) processes: i64,
}

impl PackedProcess {
    pub(crate) fn of(process: &ProcessMetrics) -> Self {
        let ProcessMetrics { cpu_percent, memory_bytes, open_files, processes, .. } = *process;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Self {
            cpu: to_hundredths(cpu_percent),
            memory: signed(memory_bytes),
            files: open_files.map(signed),
            processes: i64::from(processes),
        }
    }

    pub(crate) fn metrics(self) -> ProcessMetrics {
        let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
        ProcessMetrics {
            cpu_percent: self.cpu as f64 / 100.0,
            memory_bytes: unsigned(self.memory),
            open_files: self.files.map(unsigned),
            processes: u32::try_from(self.processes).unwrap_or(0),
            // Threads and age are told live, not kept.
            ..ProcessMetrics::default()
        }
    }
}

/// Packs a sample of the machine.
pub(crate) fn host(sample: &SystemMetrics) -> Vec<u8> {
    let SystemMetrics {
        cpu_percent,
        memory_total_bytes,
        memory_available_bytes,
        memory_used_bytes,
        memory_percent,
        swap_total_bytes,
        swap_used_bytes,
        swap_free_bytes,
        swap_percent,
        disks,
        disk_percent,
        interfaces,
        network,
        load_1m,
    } = sample;
    let mut out = Vec::with_capacity(192);
    push(&mut out, HOST_VERSION);
    push_hundredths(&mut out, *cpu_percent);
    for bytes in [memory_total_bytes, memory_available_bytes, memory_used_bytes] {
        push(&mut out, *bytes);
    }
    push_hundredths(&mut out, *memory_percent);
    for bytes in [swap_total_bytes, swap_used_bytes, swap_free_bytes] {
        push(&mut out, *bytes);
    }
    push_hundredths(&mut out, *swap_percent);
    push(&mut out, disks.len() as u64);
    for DiskMetrics { path, total_bytes, used_bytes, free_bytes, percent } in disks {
        push_text(&mut out, path);
        for bytes in [total_bytes, used_bytes, free_bytes] {
            push(&mut out, *bytes);
        }
        push_hundredths(&mut out, *percent);
    }
    push_optional(&mut out, disk_percent.map(|percent| (percent * 100.0).round() as u64));
    push(&mut out, interfaces.len() as u64);
    for interface in interfaces {
        push_network(&mut out, interface);
    }
    push_network(&mut out, network);
    push_hundredths(&mut out, *load_1m);
    out
}

fn push_network(out: &mut Vec<u8>, network: &NetworkMetrics) {
    let NetworkMetrics {
        interface,
        bytes_sent,
        bytes_recv,
        packets_sent,
        packets_recv,
        bytes_sent_per_second,
        bytes_recv_per_second,
        packets_sent_per_second,
        packets_recv_per_second,
    } = network;
    push_text(out, interface);
    for count in [bytes_sent, bytes_recv, packets_sent, packets_recv] {
        push(out, *count);
    }
    for rate in [
        bytes_sent_per_second,
        bytes_recv_per_second,
        packets_sent_per_second,
        packets_recv_per_second,
    ] {
        push_hundredths(out, *rate);
    }
}

/// A sample of the machine, if it can be read.
pub(crate) fn to_host(packed: &[u8]) -> Option<SystemMetrics> {
    let mut packed = Unpacker(packed);
    packed.int().filter(|version| *version == HOST_VERSION)?;
    Some(SystemMetrics {
        cpu_percent: packed.hundredths()?,
        memory_total_bytes: packed.int()?,
        memory_available_bytes: packed.int()?,
        memory_used_bytes: packed.int()?,
        memory_percent: packed.hundredths()?,
        swap_total_bytes: packed.int()?,
        swap_used_bytes: packed.int()?,
        swap_free_bytes: packed.int()?,
        swap_percent: packed.hundredths()?,
        disks: packed.list(to_disk)?,
        disk_percent: packed.optional()?.map(|hundredths| hundredths as f64 / 100.0),
        interfaces: packed.list(to_network)?,
        network: to_network(&mut packed)?,
        load_1m: packed.hundredths()?,
    })
}

fn to_disk(packed: &mut Unpacker<'_>) -> Option<DiskMetrics> {
    Some(DiskMetrics {
        path: packed.text()?,
        total_bytes: packed.int()?,
        used_bytes: packed.int()?,
        free_bytes: packed.int()?,
        percent: packed.hundredths()?,
    })
}

fn to_network(packed: &mut Unpacker<'_>) -> Option<NetworkMetrics> {
    Some(NetworkMetrics {
        interface: packed.text()?,
        bytes_sent: packed.int()?,
        bytes_recv: packed.int()?,
        packets_sent: packed.int()?,
        packets_recv: packed.int()?,
        bytes_sent_per_second: packed.hundredths()?,
        bytes_recv_per_second: packed.hundredths()?,
        packets_sent_per_second: packed.hundredths()?,
        packets_recv_per_second: packed.hundredths()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hundredths() -> impl Strategy<Value = f64> {
        (0_u64..1_000_000_000).prop_map(|hundredths| hundredths as f64 / 100.0)
    }

    proptest! {
        #[test]
        fn a_process_tree_comes_back_as_it_was(
            cpu_percent in hundredths(),
            memory_bytes in 0..u64::MAX / 2,
            open_files in proptest::option::of(0..u64::MAX / 2),
            processes: u32,
        ) {
            let before = ProcessMetrics {
                cpu_percent,
                memory_bytes,
                open_files,
                processes,
                ..ProcessMetrics::default()
            };
            prop_assert_eq!(PackedProcess::of(&before).metrics(), before);
        }

        #[test]
        fn damaged_rows_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = to_host(&bytes);
        }
    }

    #[test]
    fn a_machine_comes_back_as_it_was_and_is_small() {
        let mut before = mcpmon_testkit::samples::system_metrics();
        let packed = host(&before);
        assert_eq!(to_host(&packed), Some(before.clone()));
        assert!(packed.len() < 160, "{} bytes", packed.len());
        before.disk_percent = None;
        before.cpu_percent = f64::NAN;
        let read = to_host(&host(&before)).unwrap();
        assert_eq!((read.disk_percent, read.cpu_percent), (None, 0.0));
    }
}
