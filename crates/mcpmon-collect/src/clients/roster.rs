//! Services from many files as one list: the same server once, every name once.
//!
//! A server that two files name is one service under the name read first, so that adding a client
//! never renames what is watched already. Another server under a name that is taken gets the
//! client's name behind it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};

use mcpmon_core::{ServiceName, ServiceSpec, Transport};

/// Where a service was found, for its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a> {
    /// The client, or what else names the file.
    pub(super) source: &'a str,
    /// The project it is for.
    pub(super) project: Option<&'a str>,
    /// Only someone who wrote the current folder named it.
    pub(super) in_project: bool,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    services: Vec<ServiceSpec>,
    by_server: HashMap<Server, usize>,
    taken: HashMap<String, usize>,
    own: usize,
    from_project: BTreeSet<usize>,
}

impl Roster {
    /// Takes a service under the name it has; two entries of our own are two services even for
    /// the same server, because someone wrote them so.
    pub(super) fn keep(&mut self, spec: ServiceSpec) {
        self.taken.insert(spec.name.as_str().to_owned(), 1);
        if let Some(server) = server(&spec) {
            self.by_server.entry(server).or_insert(self.services.len());
        }
        self.services.push(spec);
        self.own = self.services.len();
    }

    /// Takes a service that was found: adds it to the one for the same server, or lists it under
    /// a name that is free.
    pub(super) fn add(&mut self, mut spec: ServiceSpec, tag: Tag<'_>) {
        if let Some(server) = server(&spec) {
            match self.by_server.entry(server) {
                Entry::Occupied(known) => {
                    let at = *known.get();
                    self.merge(at, &spec, tag);
                    return;
                }
                Entry::Vacant(free) => {
                    free.insert(self.services.len());
                }
            }
        }
        let name = self.free_name(spec.name.as_str(), tag);
        self.taken.insert(name.clone(), 1);
        spec.name = ServiceName::from(name);
        if tag.in_project {
            self.from_project.insert(self.services.len());
        }
        self.services.push(spec);
    }

    fn merge(&mut self, at: usize, spec: &ServiceSpec, tag: Tag<'_>) {
        let known = &mut self.services[at];
        if !known.origin.contains(&spec.origin) {
            known.origin.push_str(" and ");
            known.origin.push_str(&spec.origin);
            if spec.name != known.name {
                known.origin.push_str(" as `");
                known.origin.push_str(spec.name.as_str());
                known.origin.push('`');
            }
        }
        // Our own file has the last word; of two clients, one that uses it is enough.
        if at >= self.own {
            known.enabled |= spec.enabled;
        }
        for secret in &spec.secrets {
            if !known.secrets.contains(secret) {
                known.secrets.push(secret.clone());
            }
        }
        if !tag.in_project {
            self.from_project.remove(&at);
        }
    }

    fn free_name(&mut self, name: &str, tag: Tag<'_>) -> String {
        let with_client = format!("{name} ({})", tag.source);
        let with_project = tag.project.map(|project| format!("{name} ({}, {project})", tag.source));
        let candidates = [Some(name.to_owned()), Some(with_client.clone()), with_project];
        let free = |name: &String| !self.taken.contains_key(name);
        if let Some(free) = candidates.into_iter().flatten().find(free) {
            return free;
        }
        let mut count = self.taken.get(&with_client).copied().unwrap_or(1);
        loop {
            count += 1;
            let numbered = format!("{name} ({} {count})", tag.source);
            if !self.taken.contains_key(&numbered) {
                self.taken.insert(with_client, count);
                return numbered;
            }
        }
    }

    /// The services, and the names of those that only files of the current folder name.
    pub(super) fn finish(self) -> (Vec<ServiceSpec>, BTreeSet<ServiceName>) {
        let names = self.from_project.iter().map(|at| self.services[*at].name.clone());
        let names = names.collect();
        (self.services, names)
    }
}

/// What tells one server from another: how it is reached, and the name of an entry that cannot be
/// used. Of such an entry the text alone may look like another's (a variable one client fills in
/// and another does not) but mean something else. `None` for an entry that leads nowhere.
type Server = (Transport, Option<ServiceName>);

fn server(spec: &ServiceSpec) -> Option<Server> {
    let leads_nowhere = match &spec.transport {
        Transport::Stdio(stdio) => stdio.command.is_empty(),
        Transport::Http(http) | Transport::Sse(http) => http.url.is_empty(),
    };
    let name = spec.invalid.is_some().then(|| spec.name.clone());
    (!leads_nowhere).then(|| (spec.transport.clone(), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Failure, FailureCode, Phase};

    fn tag(source: &str) -> Tag<'_> {
        Tag { source, project: None, in_project: false }
    }

    fn found(name: &str, command: &str) -> ServiceSpec {
        ServiceSpec {
            origin: format!("origin of {command}"),
            ..ServiceSpec::stdio(name, command, ["-v"])
        }
    }

    fn names(roster: Roster) -> Vec<String> {
        let (services, _) = roster.finish();
        services.iter().map(|spec| spec.name.to_string()).collect()
    }

    #[test]
    fn a_taken_name_gets_the_client_the_project_and_then_a_number() {
        let mut roster = Roster::default();
        roster.add(found("fs", "a"), tag("claude-code"));
        roster.add(found("fs", "b"), tag("cursor"));
        roster.add(found("fs", "c"), tag("cursor"));
        let in_project = Tag { project: Some("web"), ..tag("cursor") };
        roster.add(found("fs", "d"), in_project);
        roster.add(found("fs", "e"), in_project);
        roster.add(found("fs", "f"), in_project);
        roster.add(found("fs (cursor)", "g"), tag("zed"));
        assert_eq!(
            names(roster),
            [
                "fs",
                "fs (cursor)",
                "fs (cursor 2)",
                "fs (cursor, web)",
                "fs (cursor 3)",
                "fs (cursor 4)",
                "fs (cursor) (zed)",
            ]
        );
    }

    #[test]
    fn the_same_server_is_one_service_whatever_it_is_called() {
        let mut roster = Roster::default();
        roster.add(ServiceSpec { enabled: false, ..found("fs", "a") }, tag("cursor"));
        let again = ServiceSpec { origin: "elsewhere".to_owned(), ..found("files", "a") };
        roster.add(again.clone(), tag("zed"));
        roster.add(again, tag("zed"));
        let (services, _) = roster.finish();
        assert_eq!(services.len(), 1);
        assert_eq!(services[0].name.as_str(), "fs");
        assert_eq!(services[0].origin, "origin of a and elsewhere as `files`");
        assert!(services[0].enabled, "one client uses it");
    }

    #[test]
    fn our_own_file_has_the_last_word() {
        let mut roster = Roster::default();
        roster.keep(ServiceSpec { enabled: false, ..found("mine", "a") });
        roster.keep(found("twin", "a"));
        roster.add(found("theirs", "a"), tag("cursor"));
        roster.add(found("mine", "b"), tag("cursor"));
        let (services, _) = roster.finish();
        let names: Vec<_> = services.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["mine", "twin", "mine (cursor)"]);
        assert!(!services[0].enabled);
    }

    #[test]
    fn entries_that_lead_nowhere_stay_apart() {
        let broken = |name: &str| ServiceSpec {
            invalid: Some(Failure::new(
                FailureCode::ConfigurationInvalid,
                Phase::Prepare,
                "no command",
            )),
            ..found(name, "")
        };
        let mut roster = Roster::default();
        roster.add(broken("a"), tag("zed"));
        roster.add(broken("b"), tag("zed"));
        assert_eq!(names(roster), ["a", "b"]);
    }

    #[test]
    fn what_only_the_folders_author_named_is_known() {
        let in_project = Tag { in_project: true, ..tag("cursor") };
        let mut roster = Roster::default();
        roster.add(found("both", "a"), in_project);
        roster.add(found("theirs", "b"), in_project);
        roster.add(found("both", "a"), tag("zed"));
        let (_, from_project) = roster.finish();
        assert_eq!(from_project, BTreeSet::from(["theirs".into()]));
    }
}
