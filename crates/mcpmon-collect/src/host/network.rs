//! Network interfaces: counters since boot, and rates between two readings of them.

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_core::metrics::NetworkMetrics;

/// What one interface has counted since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    bytes_sent: u64,
    bytes_recv: u64,
    packets_sent: u64,
    packets_recv: u64,
    is_loopback: bool,
}

/// Reads every interface; none where the system does not tell.
pub(super) fn read() -> BTreeMap<String, Counters> {
    let Ok(networks) = sysinfo::Networks::new_with_refreshed_list() else {
        return BTreeMap::new();
    };
    let counters = networks.iter().map(|(name, data)| {
        let name = name.to_string_lossy().into_owned();
        let addresses = data.ip_networks();
        let is_loopback = is_loopback_name(&name)
            || (!addresses.is_empty() && addresses.iter().all(|own| own.addr.is_loopback()));
        let counters = Counters {
            bytes_sent: data.total_transmitted(),
            bytes_recv: data.total_received(),
            packets_sent: data.total_packets_transmitted(),
            packets_recv: data.total_packets_received(),
            is_loopback,
        };
        (name, counters)
    });
    counters.collect()
}

fn is_loopback_name(name: &str) -> bool {
    let number = name.strip_prefix("lo");
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        || name.starts_with("Loopback")
}

/// Each interface by name, and the sum of all but loopback.
///
/// A counter that went back (the interface was reset) and an interface that was not there before
/// have no rate yet: 0.
pub(super) fn rates(
    now: &BTreeMap<String, Counters>,
    before: &BTreeMap<String, Counters>,
    span: Duration,
) -> (Vec<NetworkMetrics>, NetworkMetrics) {
    let mut sum = NetworkMetrics::default();
    let mut each = Vec::with_capacity(now.len());
    for (name, counters) in now {
        let one = interface(name, counters, before.get(name).unwrap_or(counters), span);
        if !counters.is_loopback {
            add(&mut sum, &one);
        }
        each.push(one);
    }
    (each, sum)
}

fn interface(name: &str, now: &Counters, before: &Counters, span: Duration) -> NetworkMetrics {
    NetworkMetrics {
        interface: name.to_owned(),
        bytes_sent: now.bytes_sent,
        bytes_recv: now.bytes_recv,
        packets_sent: now.packets_sent,
        packets_recv: now.packets_recv,
        bytes_sent_per_second: rate(now.bytes_sent, before.bytes_sent, span),
        bytes_recv_per_second: rate(now.bytes_recv, before.bytes_recv, span),
        packets_sent_per_second: rate(now.packets_sent, before.packets_sent, span),
        packets_recv_per_second: rate(now.packets_recv, before.packets_recv, span),
    }
}

fn rate(now: u64, before: u64, span: Duration) -> f64 {
    if span.is_zero() {
        return 0.0;
    }
    now.saturating_sub(before) as f64 / span.as_secs_f64()
}

fn add(sum: &mut NetworkMetrics, one: &NetworkMetrics) {
    sum.bytes_sent = sum.bytes_sent.saturating_add(one.bytes_sent);
    sum.bytes_recv = sum.bytes_recv.saturating_add(one.bytes_recv);
    sum.packets_sent = sum.packets_sent.saturating_add(one.packets_sent);
    sum.packets_recv = sum.packets_recv.saturating_add(one.packets_recv);
    sum.bytes_sent_per_second += one.bytes_sent_per_second;
    sum.bytes_recv_per_second += one.bytes_recv_per_second;
    sum.packets_sent_per_second += one.packets_sent_per_second;
    sum.packets_recv_per_second += one.packets_recv_per_second;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(bytes_sent: u64, bytes_recv: u64, is_loopback: bool) -> Counters {
        Counters {
            bytes_sent,
            bytes_recv,
            packets_sent: bytes_sent / 100,
            packets_recv: bytes_recv / 100,
            is_loopback,
        }
    }

    fn table<const N: usize>(rows: [(&str, Counters); N]) -> BTreeMap<String, Counters> {
        rows.map(|(name, counters)| (name.to_owned(), counters)).into()
    }

    #[test]
    fn loopback_is_shown_but_not_summed() {
        let before = table([
            ("eth0", counters(1_000, 5_000, false)),
            ("lo", counters(9_000, 9_000, true)),
            ("wlan0", counters(0, 0, false)),
        ]);
        let now = table([
            ("eth0", counters(3_000, 5_500, false)),
            ("lo", counters(19_000, 19_000, true)),
            ("wlan0", counters(400, 800, false)),
        ]);
        let (each, sum) = rates(&now, &before, Duration::from_secs(2));
        let names: Vec<_> = each.iter().map(|one| one.interface.as_str()).collect();
        assert_eq!(names, ["eth0", "lo", "wlan0"]);
        assert_eq!(each[1].bytes_sent_per_second, 5_000.0);
        assert_eq!((sum.bytes_sent, sum.bytes_recv), (3_400, 6_300));
        assert_eq!(sum.bytes_sent_per_second, 1_200.0);
        assert_eq!(sum.bytes_recv_per_second, 650.0);
        assert_eq!(sum.packets_sent_per_second, 12.0);
    }

    #[test]
    fn a_reset_or_a_new_interface_has_no_rate_yet() {
        let before = table([("eth0", counters(1_000_000, 1_000_000, false))]);
        let now = table([
            ("eth0", counters(10, 2_000_000, false)),
            ("tun0", counters(777_000, 777_000, false)),
        ]);
        let (each, sum) = rates(&now, &before, Duration::from_secs(1));
        assert_eq!(each[0].bytes_sent_per_second, 0.0);
        assert_eq!(each[0].bytes_recv_per_second, 1_000_000.0);
        assert_eq!(each[1].bytes_recv_per_second, 0.0);
        assert_eq!(sum.bytes_recv_per_second, 1_000_000.0);
        let (at_once, _) = rates(&now, &before, Duration::ZERO);
        assert_eq!(at_once[0].bytes_recv_per_second, 0.0);
    }

    #[test]
    fn loopback_is_known_by_name() {
        for (name, is_loopback) in [
            ("lo", true),
            ("lo0", true),
            ("Loopback Pseudo-Interface 1", true),
            ("lora0", false),
            ("eth0", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_name(name), is_loopback, "{name}");
        }
    }
}
