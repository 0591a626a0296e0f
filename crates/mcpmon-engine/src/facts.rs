//! What the monitor knows of itself and of what its services depend on, as rules want it.

use std::collections::BTreeMap;

use mcpmon_alert::{DELIVERY_FAILING, DEPENDENCY_DOWN, MONITOR_OFFLINE, STORAGE_FAILING};
use mcpmon_core::rule::MonitorFact;
use mcpmon_core::{Subject, Timestamp};

use crate::network::Network;
use crate::world::World;

/// A rule's name and what it judges.
pub(crate) type Fact = (&'static str, MonitorFact);

/// Everything that is known at `now`; one fact for each handler, and for each dependency that is no
/// service, however many services need it.
pub(crate) fn of(world: &World, network: &Network, now: Timestamp) -> Vec<Fact> {
    let report = &world.report;
    let offline = MonitorFact {
        failing: Some(network.is_offline()),
        detail: network.sign().to_owned(),
        affected: u64::try_from(network.far_away().count()).unwrap_or(u64::MAX),
        ..MonitorFact::default()
    };
    let low = report.storage_warning.as_ref().filter(|_| world.is_disk_low);
    let storage = MonitorFact {
        failing: Some(report.store_error.is_some() || world.is_disk_low),
        detail: report.store_error.as_ref().or(low).cloned().unwrap_or_default(),
        affected: report.waiting_samples,
        ..MonitorFact::default()
    };
    let mut facts = vec![(MONITOR_OFFLINE, offline), (STORAGE_FAILING, storage)];
    let reached = world.reach.iter().map(|(handler, reach)| reach.fact(handler, now));
    facts.extend(reached.map(|fact| (DELIVERY_FAILING, fact)));
    facts.extend(dependencies(world).into_values().map(|fact| (DEPENDENCY_DOWN, fact)));
    facts
}

fn dependencies(world: &World) -> BTreeMap<&str, MonitorFact> {
    let mut facts: BTreeMap<&str, MonitorFact> = BTreeMap::new();
    for looked in world.services.values().flat_map(|watched| &watched.looked_at) {
        let fact = facts.entry(&looked.dependency).or_insert_with(|| MonitorFact {
            failing: Some(false),
            ..MonitorFact::new(Subject::Dependency(looked.dependency.clone()))
        });
        fact.affected += 1;
        // Of several that look at the same, one that does not find it is enough.
        if let Some(problem) = &looked.problem {
            fact.failing = Some(true);
            fact.detail.clone_from(problem);
        }
    }
    facts
}
