//! Whether this machine has a way out, by the kernel's own tables.
//!
//! A default route over an interface that is up is a way out; no route over any such interface is
//! none. What lies between (only the neighbours of a bridge or a VPN can be reached) cannot be told
//! apart from here, and is left open.

use std::collections::BTreeSet;
use std::path::Path;

/// A route that is up (`RTF_UP`).
const UP: u32 = 0x1;
/// A route to this machine itself, or one that refuses (`RTF_LOCAL`, `RTF_REJECT`).
const NOWHERE: u32 = 0x8000_0000 | 0x0200;
const LOOPBACK: &str = "lo";

/// Where routes lead: to everywhere, or only to some.
#[derive(Debug, Default, PartialEq, Eq)]
struct Routes {
    default: BTreeSet<String>,
    some: BTreeSet<String>,
}

/// Looks; `None` where it cannot be known.
pub(super) fn look() -> Option<bool> {
    let v4 = std::fs::read_to_string("/proc/net/route").ok()?;
    // Without IPv6 there is no such table.
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    has_way_out(&routes(&v4, &v6), is_up)
}

/// Whether an interface is up. Some (tunnels) say nothing of themselves, and are.
fn is_up(interface: &str) -> bool {
    let state = Path::new("/sys/class/net").join(interface).join("operstate");
    // Where the system does not show its interfaces, a route's word has to do.
    std::fs::read_to_string(state).map_or(true, |state| matches!(state.trim(), "up" | "unknown"))
}

fn has_way_out(routes: &Routes, is_up: impl Fn(&str) -> bool) -> Option<bool> {
    let any_up = |interfaces: &BTreeSet<String>| interfaces.iter().any(|name| is_up(name));
    match (any_up(&routes.default), any_up(&routes.some)) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

/// Reads the kernel's tables; lines that are none are left out.
fn routes(v4: &str, v6: &str) -> Routes {
    let mut routes = Routes::default();
    for (interface, leads_everywhere) in
        v4.lines().skip(1).filter_map(v4_route).chain(v6.lines().filter_map(v6_route))
    {
        let of = if leads_everywhere { &mut routes.default } else { &mut routes.some };
        of.insert(interface.to_owned());
    }
    routes
}

/// Interface, and whether it is a default route: `Iface Destination Gateway Flags … Mask …`.
fn v4_route(line: &str) -> Option<(&str, bool)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [interface, destination, _, flags, _, _, _, mask, ..] = fields[..] else { return None };
    let leads = leads_out(interface, flags)?;
    Some((leads, destination == "00000000" && mask == "00000000"))
}

/// The same of IPv6: `destination length source length hop metric references uses flags interface`.
fn v6_route(line: &str) -> Option<(&str, bool)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, length, _, _, _, _, _, _, flags, interface] = fields[..] else {
        return None;
    };
    let leads = leads_out(interface, flags)?;
    // Link-local and multicast: every interface has them, wherever it leads.
    let is_own = destination.starts_with("fe8") || destination.starts_with("ff");
    (!is_own).then(|| (leads, length == "00" && destination.bytes().all(|digit| digit == b'0')))
}

fn leads_out<'a>(interface: &'a str, flags: &str) -> Option<&'a str> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (interface != LOOPBACK && flags & UP != 0 && flags & NOWHERE == 0).then_some(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
    const WIFI: &str = "wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                        wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0\n";
    const BRIDGE: &str = "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    const V6_OWN: &str = "\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001    wlan0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";
    const V6_OUT: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003    wlan0\n";

    #[track_caller]
    fn check(v4: &str, v6: &str, up: &[&str], expected: Option<bool>) {
        let routes = routes(&format!("{HEAD}{v4}"), v6);
        assert_eq!(has_way_out(&routes, |name| up.contains(&name)), expected, "{routes:?}");
    }

    #[test]
    fn a_default_route_over_an_interface_that_is_up_is_a_way_out() {
        check(WIFI, V6_OWN, &["wlan0"], Some(true));
        check("", V6_OUT, &["wlan0"], Some(true));
        check(WIFI, V6_OUT, &[], Some(false));
    }

    #[test]
    fn a_machine_alone_has_none() {
        check("", "", &["wlan0", "lo"], Some(false));
        check("", V6_OWN, &["wlan0", "lo"], Some(false));
        check(BRIDGE, V6_OWN, &["wlan0"], Some(false));
    }

    #[test]
    fn neighbours_alone_leave_it_open() {
        check(BRIDGE, "", &["docker0"], None);
    }

    #[test]
    fn lines_that_are_no_routes_are_left_out() {
        assert_eq!(routes("\n\nwlan0\n\u{1b}\n", "x y\n\n"), Routes::default());
    }
}
