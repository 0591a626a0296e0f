//! Whether it is our own network that is gone: a service is not down because we cannot leave the
//! house.
//!
//! Two signs. The machine itself says that it has no way out; that is sure, and holds for every
//! service that is not on this machine. Or no service far away can be reached, whatever its host,
//! and none was since the first of them could not: then it is not they. The second sign wants
//! several services at several hosts, or one server's failure would be called ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mcpmon_core::service::ServiceName;
use mcpmon_core::{FailureCode, ServiceSpec, Timestamp, Transport};

/// Fewer unreachable services, or hosts, may as well be their own trouble.
const FEWEST_SERVICES: usize = 3;
const FEWEST_ORIGINS: usize = 2;
/// So many hosts that cannot be reached are as good as all of them; and no more are asked to find
/// out.
const ENOUGH_ORIGINS: usize = 16;

/// Where a service is: scheme, host and port. `None` for one on this machine, which needs no
/// network.
pub(crate) fn origin(spec: &ServiceSpec) -> Option<String> {
    let url = match &spec.transport {
        Transport::Stdio(_) => return None,
        Transport::Http(http) | Transport::Sse(http) => &http.url,
    };
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => authority.split(':').next()?,
    };
    let host = host.to_ascii_lowercase();
    let is_here = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    (!is_here).then(|| format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

/// What a check says of the way to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Something at the far end answered, however badly.
    Open,
    /// Nothing was reached.
    Closed,
    /// Neither.
    Untold,
}

/// What the result of a check says of the way.
pub(crate) fn way(code: Option<FailureCode>) -> Way {
    match code {
        Some(code) if code.is_of_reach() => Way::Closed,
        // Silence may be the server's or the network's.
        Some(FailureCode::HandshakeTimeout | FailureCode::ResponseTimeout) => Way::Untold,
        Some(code) if code.status() == mcpmon_core::Status::Unknown => Way::Untold,
        _ => Way::Open,
    }
}

/// A turn of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Gone; by what was seen since then.
    Lost(Timestamp),
    /// Back.
    Found,
}

/// What is known of our own network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Hosts of all services that are asked and not on this machine, by service.
    origins: BTreeMap<ServiceName, String>,
    /// What could not be reached since anything was; empty while something can.
    closed: BTreeSet<ServiceName>,
    closed_since: Option<Timestamp>,
    /// The machine's own word.
    has_way_out: Option<bool>,
    offline: bool,
    /// Services were taken away since it was last told whether the network is there.
    lessened: bool,
}

impl Network {
    /// A service is asked from now on, or asked at another place.
    pub(crate) fn watch(&mut self, spec: &ServiceSpec) {
        let origin = origin(spec);
        if origin.is_some() && self.origins.get(&spec.name) == origin.as_ref() {
            return;
        }
        self.forget(&spec.name);
        if let Some(origin) = origin {
            self.origins.insert(spec.name.clone(), origin);
        }
    }

    /// A service is asked no more. What follows, [`Self::look`] says.
    pub(crate) fn forget(&mut self, service: &ServiceName) {
        self.lessened |= self.origins.remove(service).is_some();
        self.closed.remove(service);
    }

    /// Whether the network turned because services are asked no more: without those that could not
    /// be reached nothing may be left that says it is gone.
    pub(crate) fn look(&mut self, now: Timestamp) -> Option<Turn> {
        std::mem::take(&mut self.lessened).then(|| self.turn(now)).flatten()
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline
    }

    /// By what it shows that we are offline, for people.
    pub(crate) fn sign(&self) -> &'static str {
        match (self.offline, self.has_way_out) {
            (false, _) => "",
            (true, Some(false)) => "no interface that is up leads anywhere",
            (true, _) => "no service on another machine can be reached",
        }
    }

    /// Whether this result of a service is to be put down to our own network.
    pub(crate) fn explains(&self, service: &ServiceName, code: FailureCode) -> bool {
        let cut_off = self.has_way_out == Some(false)
            && (code.is_timeout() || code == FailureCode::ConnectionReset);
        self.offline && self.origins.contains_key(service) && (code.is_of_reach() || cut_off)
    }

    /// The machine said whether it has a way out.
    pub(crate) fn told(&mut self, has_way_out: Option<bool>, now: Timestamp) -> Option<Turn> {
        let before = std::mem::replace(&mut self.has_way_out, has_way_out);
        if before == Some(false) && has_way_out == Some(true) {
            self.closed.clear();
            self.closed_since = None;
        }
        self.turn(now)
    }

    /// A check of a service ended. `Turn::Found` may also come of one that failed: it was reached.
    pub(crate) fn heard(&mut self, service: &ServiceName, way: Way, at: Timestamp) -> Option<Turn> {
        if !self.origins.contains_key(service) {
            return None;
        }
        match way {
            Way::Untold => return None,
            Way::Open => {
                self.closed.clear();
                self.closed_since = None;
                // A machine that reaches others has a way out, whatever it says.
                if self.has_way_out == Some(false) {
                    self.has_way_out = None;
                }
            }
            Way::Closed => {
                self.closed_since.get_or_insert(at);
                self.closed.insert(service.clone());
            }
        }
        self.turn(at)
    }

    /// Services to ask now, one at each host not heard of, to learn whether nothing can be reached.
    pub(crate) fn witnesses(&self) -> Vec<ServiceName> {
        let mut known = self.closed_origins();
        let mut asked = Vec::new();
        for (service, origin) in &self.origins {
            if known.len() >= ENOUGH_ORIGINS {
                break;
            }
            if known.insert(origin) {
                asked.push(service.clone());
            }
        }
        // Two hosts can be enough, but two services are not.
        if self.closed.len() + asked.len() < FEWEST_SERVICES {
            let more = self.origins.keys().filter(|name| !self.closed.contains(*name));
            let more = more.filter(|name| !asked.contains(name)).cloned();
            asked.extend(
                more.take(FEWEST_SERVICES - self.closed.len() - asked.len()).collect::<Vec<_>>(),
            );
        }
        asked
    }

    /// The services that are not on this machine.
    pub(crate) fn far_away(&self) -> impl Iterator<Item = &ServiceName> {
        self.origins.keys()
    }

    /// The services that could not be reached since anything could.
    pub(crate) fn unreached(&self) -> &BTreeSet<ServiceName> {
        &self.closed
    }

    fn closed_origins(&self) -> BTreeSet<&String> {
        self.closed.iter().filter_map(|service| self.origins.get(service)).collect()
    }

    fn turn(&mut self, now: Timestamp) -> Option<Turn> {
        let offline = self.has_way_out == Some(false) || self.nothing_is_reached();
        let was = std::mem::replace(&mut self.offline, offline);
        match (was, offline) {
            (false, true) => Some(Turn::Lost(self.closed_since.unwrap_or(now))),
            (true, false) => Some(Turn::Found),
            _ => None,
        }
    }

    fn nothing_is_reached(&self) -> bool {
        if self.closed.len() < FEWEST_SERVICES {
            return false;
        }
        let closed = self.closed_origins().len();
        // A host that is new while we are offline was not reached either.
        let all = || self.origins.values().collect::<BTreeSet<_>>().len();
        closed >= FEWEST_ORIGINS && (self.offline || closed >= all().min(ENOUGH_ORIGINS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine_has_no_origin() {
        for (url, expected) in [
            ("http://127.0.0.1:8000/mcp", None),
            ("http://localhost/mcp", None),
            ("https://[::1]:8443/mcp", None),
            ("https://API.Example.com/mcp", Some("https://api.example.com")),
            ("https://user:pw@db.test:444/mcp?x", Some("https://db.test:444")),
            ("http://[2001:db8::1]:80/", Some("http://[2001:db8::1]:80")),
        ] {
            assert_eq!(origin(&ServiceSpec::http("a", url)).as_deref(), expected, "{url}");
        }
        assert_eq!(origin(&ServiceSpec::stdio("a", "server", [""; 0])), None);
    }

    /// Services by their hosts, one letter each; then what is heard of them in turn (`a` could not
    /// be reached, `A` was, `?` is silent, `!` the machine has no way out, `+` it has, `-` it does not
    /// say) and after each whether we are offline.
    #[track_caller]
    fn check(hosts: &str, heard: &str, offline: &str) {
        let mut network = Network::default();
        for (n, host) in hosts.chars().enumerate() {
            network.watch(&ServiceSpec::http(format!("{n}"), format!("http://{host}.test/")));
        }
        let service = |host: char| {
            let at = hosts.find(host.to_ascii_lowercase()).unwrap();
            ServiceName::from(at.to_string())
        };
        let mut next_of = BTreeMap::new();
        let seen: String = heard
            .chars()
            .enumerate()
            .map(|(second, symbol)| {
                let at = Timestamp::from_millis(second as i64);
                match symbol {
                    '!' => network.told(Some(false), at),
                    '+' => network.told(Some(true), at),
                    '-' => network.told(None, at),
                    '?' => network.heard(&service('a'), Way::Untold, at),
                    'A'..='Z' => network.heard(&service(symbol), Way::Open, at),
                    host => {
                        // Each time another service of that host.
                        let nth: &mut usize = next_of.entry(host).or_default();
                        let of: Vec<usize> = hosts.match_indices(host).map(|(at, _)| at).collect();
                        let name = ServiceName::from(of[*nth % of.len()].to_string());
                        *nth += 1;
                        network.heard(&name, Way::Closed, at)
                    }
                };
                if network.is_offline() { '!' } else { '.' }
            })
            .collect();
        assert_eq!(seen, offline, "{hosts}: {heard}");
    }

    #[test]
    fn nothing_reached_at_any_host_is_our_own_network() {
        check("aab", "aab", "..!");
        check("abc", "abc", "..!");
        check("abc", "abcA", "..!.");
    }

    #[test]
    fn one_host_or_two_services_are_their_own_trouble() {
        check("aaaa", "aaaaaaa", ".......");
        check("ab", "abab", "....");
        check("aabc", "aab", "...");
        check("abc", "abCab", ".....");
    }

    #[test]
    fn silence_says_nothing_of_the_way() {
        check("abc", "ab?c", "...!");
        assert_eq!(way(Some(FailureCode::ResponseTimeout)), Way::Untold);
        assert_eq!(way(Some(FailureCode::ConnectionRefused)), Way::Open);
        assert_eq!(way(Some(FailureCode::Unauthorized)), Way::Open);
        assert_eq!(way(Some(FailureCode::MonitorOverloaded)), Way::Untold);
        assert_eq!(way(None), Way::Open);
    }

    #[test]
    fn without_those_that_could_not_be_reached_nothing_says_it_is_gone() {
        let spec = |host: &str| ServiceSpec::http(host, format!("http://{host}.test/"));
        let at = Timestamp::from_millis;
        let mut network = Network::default();
        ["a", "b", "c"].map(spec).iter().for_each(|spec| network.watch(spec));
        assert_eq!(network.look(at(0)), None);
        for host in ["a", "b", "c"] {
            network.heard(&host.into(), Way::Closed, at(1));
        }
        // What comes new, or is asked anew at the same place, changes nothing of it.
        ["a", "d"].map(spec).iter().for_each(|spec| network.watch(spec));
        assert_eq!(network.heard(&"b".into(), Way::Closed, at(2)), None);
        assert_eq!((network.look(at(3)), network.is_offline()), (None, true));
        network.forget(&"a".into());
        assert_eq!((network.look(at(4)), network.is_offline()), (Some(Turn::Found), false));
        assert_eq!(network.look(at(5)), None);
    }

    #[test]
    fn the_machine_knows_best_but_for_what_is_seen() {
        check("a", "!+", "!.");
        check("a", "!-", "!.");
        check("a", "!A", "!.");
        check("abc", "!abc+", "!!!!.");
    }

    #[test]
    fn the_span_begins_with_the_first_that_could_not_be_reached() {
        let mut network = Network::default();
        for host in ["a", "b", "c"] {
            network.watch(&ServiceSpec::http(host, format!("http://{host}.test/")));
        }
        let at = Timestamp::from_millis;
        network.heard(&"b".into(), Way::Closed, at(7));
        assert_eq!(network.witnesses(), ["a".into(), "c".into()]);
        network.heard(&"a".into(), Way::Closed, at(8));
        let turn = network.heard(&"c".into(), Way::Closed, at(9));
        assert_eq!(turn, Some(Turn::Lost(at(7))));
        assert!(network.explains(&"a".into(), FailureCode::DnsFailed));
        assert!(!network.explains(&"a".into(), FailureCode::ResponseTimeout));
        assert_eq!(network.heard(&"a".into(), Way::Open, at(10)), Some(Turn::Found));
        assert!(!network.explains(&"a".into(), FailureCode::DnsFailed));
    }
}
