//! What the store knows of services that are watched from now on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::alert::AlertState;
use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::state::{ChangeOrigin, StatusChange};
use mcpmon_core::store::history::LATEST_DISCOUNT;
use mcpmon_core::store::{ListChange, RecordQuery, ServiceFacts, Store, StoreError};
use mcpmon_core::window::RING_SPAN;

use crate::outbox::ANSWER_WITHIN;
use crate::pulse::is_gap;
use crate::world::Watched;

/// Services by name, with what is known of them.
pub(crate) type Known = BTreeMap<ServiceName, Watched>;

/// The newest list change that was reported of each service.
pub(crate) fn reported_changes(states: &[AlertState]) -> HashMap<ServiceName, Timestamp> {
    let of_lists = states.iter().filter(|state| state.key.rule == ListChange::RULE);
    let reported = of_lists
        .filter_map(|state| Some((state.key.subject.service()?.clone(), state.reported_change?)));
    reported.collect()
}

/// What else the store knows.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    /// Others that were watched when it was written last.
    pub(crate) others: Vec<ServiceFacts>,
    /// The last moment of which a record of the services is stored.
    pub(crate) last_record: Option<Timestamp>,
    /// The last start of a monitor that is stored of each service, in the windows.
    pub(crate) last_starts: HashMap<ServiceName, Timestamp>,
}

/// When an alert last came to what it is.
pub(crate) fn last_step(state: &AlertState) -> Timestamp {
    let moments = [Some(state.since), state.last_notified, state.ended];
    moments.into_iter().flatten().max().unwrap_or(state.since)
}

/// Takes up what the store knows of `services`, in windows of at least `reach`.
pub(crate) async fn recall_services(
    store: &dyn Store,
    services: &mut Known,
    reported: &HashMap<ServiceName, Timestamp>,
    reach: Duration,
    now: Timestamp,
) -> Result<Recalled, StoreError> {
    let mut recalled = Recalled::default();
    for stored in store.services().await? {
        match services.get_mut(&stored.facts.service) {
            Some(one) => {
                let last = stored.last_check.as_ref();
                let ended = last.map(|check| check.at.saturating_add(check.total));
                recalled.last_record = recalled.last_record.max(ended);
                one.restore(&stored);
                // A status since a moment that is yet to come: the clock was set back while no
                // monitor ran, and no later change is to be stored under that moment.
                one.set_back(stored.since.since(now));
            }
            None if stored.facts.watched => recalled.others.push(stored.facts),
            None => {}
        }
    }
    for (name, one) in services.iter_mut() {
        if let Some(record) = store.lists(name).await? {
            one.signs.drift.restore(&record.lists);
        }
    }
    let only = (services.len() == 1).then(|| services.keys().next().cloned()).flatten();
    let since = |span: Duration| RecordQuery {
        service: only.clone(),
        ..RecordQuery::all().since(now.saturating_sub(span)).up_to(now)
    };
    let mut query = since(reach.max(RING_SPAN));
    loop {
        let page = store.checks(&query).await?;
        for check in &page.items {
            if let Some(one) = services.get_mut(&check.service) {
                one.refill(check);
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    // A change may be stored before the checks that it attributes to the monitor.
    let mut query = since(reach.max(RING_SPAN).saturating_add(LATEST_DISCOUNT));
    loop {
        let page = store.changes(&query).await?;
        for change in &page.items {
            recalled.last_record = recalled.last_record.max(Some(change.noticed_at()));
            if let Some((_, last_start)) = change.span_without_monitor() {
                recalled.last_starts.insert(change.service.clone(), last_start);
            }
            if let Some(one) = services.get_mut(&change.service) {
                one.fold.discount(&change.origin);
            }
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let mut changes: HashMap<ServiceName, Vec<ListChange>> = HashMap::new();
    // Its moments rise although the clock may step back, so one that is yet to come counts too.
    let mut query = RecordQuery { until: None, ..since(ListChange::REPORTED_WITHIN) };
    loop {
        let page = store.list_changes(&query).await?;
        for change in page.items {
            changes.entry(change.service.clone()).or_default().push(change);
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    for (name, changes) in changes {
        if let Some(one) = services.get_mut(&name) {
            one.signs.drift.restore_changes(changes, reported.get(&name).copied(), now);
        }
    }
    Ok(recalled)
}

/// What the store knows of services that a running monitor is to watch from now on. Where it does
/// not answer, nothing is known.
pub(crate) async fn recall_new(
    store: &dyn Store,
    specs: impl IntoIterator<Item = &ServiceSpec>,
    reach: Duration,
    now: Timestamp,
) -> Known {
    let name_and_spec = |spec: &ServiceSpec| {
        (spec.name.clone(), Watched::new(Arc::new(spec.clone()), 0, reach, now))
    };
    let mut known: Known = specs.into_iter().map(name_and_spec).collect();
    if known.is_empty() {
        return known;
    }
    let recalled = tokio::time::timeout(ANSWER_WITHIN, async {
        let reported = reported_changes(&store.states().await?);
        recall_services(store, &mut known, &reported, reach, now).await
    })
    .await;
    let error = match recalled {
        Ok(Ok(_)) => return known,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the store does not answer".to_owned(),
    };
    tracing::warn!(%error, services = known.len(),
        "What is stored of new services could not be read; they begin without a past");
    Known::new()
}

/// A service that was left alone for longer than any timetable would leave it, because no monitor
/// ran after `ran_until`, is `unknown` from its last check on.
pub(crate) fn interrupted(
    watched: &mut Watched,
    ran_until: Timestamp,
    now: Timestamp,
) -> Option<StatusChange> {
    // The check that was stored last, not that of the latest moment: where the clock was set back,
    // checks from before that are stored under moments close to now.
    let last = watched.stored_check.or(watched.fold.window.last_check())?;
    let limits = &watched.spec.limits;
    let is_asked = watched.resting().is_none();
    // A last check that is yet to come has no age: the clock was set back since, by at least the
    // time until then. By how much more, and for how long no monitor ran, is not known.
    let apart = now.since(last).max(last.since(now));
    let is_left = is_gap(apart, limits.check_interval, limits.health_check_timeout);
    let origin = ChangeOrigin::NotRunning { noticed_at: now, ran_until };
    (is_asked && is_left).then(|| watched.interrupt(None, last.min(now), origin)).flatten()
}

/// The record of a start for a service that waits for its first check and did not wait already since
/// `last_start`: a monitor that is started again and again stores nothing where nothing was checked.
pub(crate) fn record_start(
    watched: &mut Watched,
    ran_until: Timestamp,
    last_start: Option<Timestamp>,
    now: Timestamp,
) -> Option<StatusChange> {
    let is_asked = watched.resting().is_none();
    let was_checked =
        watched.stored_check.is_some_and(|at| last_start.is_none_or(|last| at > last));
    let name = watched.spec.name.clone();
    (is_asked && (was_checked || watched.is_paused()))
        .then(|| watched.fold.state.note_start(&name, ran_until, now))
}
