//! What a service needs, and whether that is why it is down.
//!
//! Other services are known from their own state, everything else from the probe's look at it. A
//! service that is down beside something it needs is not one outage more: the cause is what it
//! needs, as deep down as it goes.

use std::collections::BTreeSet;

use mcpmon_core::dependency::Dependency;
use mcpmon_core::observation::DependencyObservation;
use mcpmon_core::service::ServiceName;

/// Whether this names something that a probe has to look at; else it is another service.
fn is_elsewhere(dependency: &str) -> bool {
    !matches!(dependency.parse(), Ok(Dependency::Service(_)))
}

/// Whether any of these is for a probe to look at.
pub(crate) fn want_a_look(depends_on: &[String]) -> bool {
    depends_on.iter().any(|dependency| is_elsewhere(dependency))
}

/// One service, as far as others may need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need<'a> {
    pub(crate) depends_on: &'a [String],
    /// What was last seen of the dependencies that are no services.
    pub(crate) looked_at: &'a [DependencyObservation],
    pub(crate) is_down: bool,
    /// Whether it is being asked and what it says is not known yet: it may be down.
    pub(crate) is_unsure: bool,
    /// Why it is, for people.
    pub(crate) problem: Option<&'a str>,
}

/// A dependency that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocker {
    pub(crate) dependency: String,
    pub(crate) problem: String,
}

/// What `service` needs and is down: the deepest of it, since that is the cause. `look` gives what
/// is known of a service. Services that need each other explain nothing of one another.
pub(crate) fn blocker<'a>(
    service: &ServiceName,
    look: &impl Fn(&ServiceName) -> Option<Need<'a>>,
) -> Option<Blocker> {
    let mut seen = BTreeSet::from([service.clone()]);
    deepest(service, service, look, &mut seen)
}

/// Whether alerts of `service` have to wait, because something it needs is down or may be: what is
/// being asked has not answered yet, and what has just begun to fail may be going down.
pub(crate) fn holds_up<'a>(
    service: &ServiceName,
    look: &impl Fn(&ServiceName) -> Option<Need<'a>>,
) -> bool {
    let is_unsure = |name: &ServiceName| look(name).is_some_and(|need| need.is_unsure);
    blocker(service, look).is_some()
        || all_of(service, look).iter().any(|name| is_unsure(name) && !reaches(name, service, look))
}

fn deepest<'a>(
    of: &ServiceName,
    service: &ServiceName,
    look: &impl Fn(&ServiceName) -> Option<Need<'a>>,
    seen: &mut BTreeSet<ServiceName>,
) -> Option<Blocker> {
    let need = look(service)?;
    for dependency in need.depends_on {
        if is_elsewhere(dependency) {
            let looked = need.looked_at.iter().find(|looked| looked.dependency == *dependency);
            if let Some(problem) = looked.and_then(|looked| looked.problem.clone()) {
                return Some(Blocker { dependency: dependency.clone(), problem });
            }
            continue;
        }
        let name = ServiceName::from(dependency.as_str());
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some(deeper) = deepest(of, &name, look, seen) {
            return Some(deeper);
        }
        let is_cause = look(&name).is_some_and(|need| need.is_down) && !reaches(&name, of, look);
        if is_cause {
            let problem = look(&name).and_then(|need| need.problem).unwrap_or("it is down");
            return Some(Blocker { dependency: dependency.clone(), problem: problem.to_owned() });
        }
    }
    None
}

/// The services that `service` needs, and those that they need, itself left out.
pub(crate) fn all_of<'a>(
    service: &ServiceName,
    look: &impl Fn(&ServiceName) -> Option<Need<'a>>,
) -> BTreeSet<ServiceName> {
    let mut seen = BTreeSet::new();
    let mut next = vec![service.clone()];
    while let Some(name) = next.pop() {
        if let Some(need) = look(&name) {
            let needed = need.depends_on.iter().map(|name| ServiceName::from(name.as_str()));
            next.extend(needed.filter(|name| seen.insert(name.clone())));
        }
    }
    seen.remove(service);
    seen
}

/// Whether `service` needs, by whatever way, something that is no service.
pub(crate) fn has_external<'a>(
    service: &ServiceName,
    look: &impl Fn(&ServiceName) -> Option<Need<'a>>,
) -> bool {
    let own = std::iter::once(service.clone());
    own.chain(all_of(service, look))
        .filter_map(|name| look(&name))
        .any(|need| want_a_look(need.depends_on))
}

/// Whether `from` needs `to`, by whatever way.
fn reaches<'a>(
    from: &ServiceName,
    to: &ServiceName,
    look: &impl Fn(&ServiceName) -> Option<Need<'a>>,
) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.clone()];
    while let Some(name) = next.pop() {
        if name == *to {
            return true;
        }
        if let Some(need) = look(&name) {
            let needed = need.depends_on.iter().map(|name| ServiceName::from(name.as_str()));
            next.extend(needed.filter(|name| seen.insert(name.clone())));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Services as `a>b,tcp://db` (`!` behind a name that is down; behind what is no service, that
    /// it is), and what is found to hold `a` up.
    #[track_caller]
    fn check(fleet: &str, expected: Option<&str>) {
        let mut services: BTreeMap<ServiceName, (bool, Vec<String>, Vec<DependencyObservation>)> =
            BTreeMap::new();
        for word in fleet.split_whitespace() {
            let (name, needs) = word.split_once('>').unwrap_or((word, ""));
            let mut looked = Vec::new();
            let needs: Vec<String> = needs
                .split(',')
                .filter(|need| !need.is_empty())
                .map(|need| {
                    let problem = need.ends_with('!').then(|| "refused".to_owned());
                    let dependency = need.trim_end_matches('!').to_owned();
                    looked.push(DependencyObservation { dependency: dependency.clone(), problem });
                    dependency
                })
                .collect();
            let down = name.ends_with('!');
            services.insert(name.trim_end_matches('!').into(), (down, needs, looked));
        }
        let look = |name: &ServiceName| {
            services.get(name).map(|(is_down, depends_on, looked_at)| Need {
                depends_on,
                looked_at,
                is_down: *is_down,
                is_unsure: false,
                problem: None,
            })
        };
        let found = blocker(&"a".into(), &look);
        assert_eq!(found.map(|found| found.dependency).as_deref(), expected, "{fleet}");
    }

    #[test]
    fn the_deepest_thing_that_is_down_is_the_cause() {
        check("a!>b b", None);
        check("a!>b b!", Some("b"));
        check("a!>b b!>c c!", Some("c"));
        check("a!>b b>c c!", Some("c"));
        check("a!>b,c b c!", Some("c"));
        check("a!>b b!>tcp://db:5432!", Some("tcp://db:5432"));
        check("a!>env:TOKEN!", Some("env:TOKEN"));
        check("a!>nobody", None);
    }

    #[test]
    fn those_that_need_each_other_explain_nothing() {
        check("a!>b b!>a", None);
        check("a!>b b!>c c!>a", None);
        check("a!>b b!>a,c c!", Some("c"));
        check("a!>a", None);
    }

    #[test]
    fn alerts_wait_for_what_may_be_down_but_not_for_those_that_wait_for_them() {
        let check = |needs: &[(&str, &[&str])], unsure: &str, waits: bool| {
            let services: BTreeMap<ServiceName, Vec<String>> = needs
                .iter()
                .map(|(name, needs)| {
                    ((*name).into(), needs.iter().map(|need| (*need).to_owned()).collect())
                })
                .collect();
            let look = |name: &ServiceName| {
                services.get(name).map(|depends_on| Need {
                    depends_on,
                    looked_at: &[],
                    is_down: false,
                    is_unsure: name.as_str() == unsure,
                    problem: None,
                })
            };
            assert_eq!(holds_up(&"a".into(), &look), waits, "{needs:?} {unsure}");
        };
        check(&[("a", &["b"]), ("b", &[])], "", false);
        check(&[("a", &["b"]), ("b", &[])], "b", true);
        check(&[("a", &["b"]), ("b", &["c"]), ("c", &[])], "c", true);
        check(&[("a", &["b"]), ("b", &["a"])], "b", false);
        check(&[("a", &["b"]), ("b", &[])], "a", false);
    }

    #[test]
    fn only_what_is_no_service_is_looked_at_by_a_probe() {
        assert!(want_a_look(&["b".into(), "file:///x".into()]));
        assert!(want_a_look(&["env:X".into()]));
        assert!(!want_a_look(&["b".into(), "ns:b".into()]));
    }
}
