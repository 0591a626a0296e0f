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
use crate::records::Records;
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
    let mut recalled = restore_services(store, services, now).await?;
    recall_records(store, services, None, reach, now, &mut recalled).await?;
    recall_lists(store, services, None, reported, now).await?;
    Ok(recalled)
}

/// What the store knows of those of these services that it knows, for a running monitor that is to
/// watch them from now on. Where it does not answer, nothing is known.
pub(crate) async fn recall_new(
    store: &dyn Store,
    specs: impl IntoIterator<Item = &ServiceSpec>,
    reach: Duration,
    now: Timestamp,
) -> Known {
    let name_and_spec = |spec: &ServiceSpec| {
        (spec.name.clone(), Watched::new(Arc::new(spec.clone()), 0, reach, now))
    };
    let mut services: Known = specs.into_iter().map(name_and_spec).collect();
    if services.is_empty() {
        return services;
    }
    let recalled = tokio::time::timeout(ANSWER_WITHIN, async {
        let mut recalled = restore_services(store, &mut services, now).await?;
        services.retain(|_, one| one.facts.is_some());
        if services.is_empty() {
            return Ok(());
        }
        let reported = reported_changes(&store.states().await?);
        // Few of many: what is stored of the others is not read.
        for name in services.keys().cloned().collect::<Vec<_>>() {
            let only = Some(&name);
            recall_records(store, &mut services, only, reach, now, &mut recalled).await?;
            recall_lists(store, &mut services, only, &reported, now).await?;
        }
        Ok(())
    })
    .await;
    let error = match recalled {
        Ok(Ok(())) => return services,
        Ok(Err(error)) => StoreError::to_string(&error),
        Err(_) => "the store does not answer".to_owned(),
    };
    tracing::warn!(%error, services = services.len(),
        "What is stored of new services could not be read; they begin without a past");
    Known::new()
}

/// Takes up the status and the counters of services.
async fn restore_services(
    store: &dyn Store,
    services: &mut Known,
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
    Ok(recalled)
}

/// Fills windows with the checks of all services, or of one.
async fn recall_records(
    store: &dyn Store,
    services: &mut Known,
    only: Option<&ServiceName>,
    reach: Duration,
    now: Timestamp,
    recalled: &mut Recalled,
) -> Result<(), StoreError> {
    let reach = reach.max(RING_SPAN);
    let query = query_since(only, reach, now).up_to(now);
    let mut checks = Records::new(store, query, |store, query| store.checks(query));
    while let Some(check) = checks.take_next().await? {
        if let Some(one) = services.get_mut(&check.service) {
            one.refill(&check);
        }
    }
    // A change may be stored before the checks that it attributes to the monitor.
    let query = query_since(only, reach.saturating_add(LATEST_DISCOUNT), now).up_to(now);
    let mut changes = Records::new(store, query, |store, query| store.changes(query));
    while let Some(change) = changes.take_next().await? {
        recalled.last_record = recalled.last_record.max(Some(change.noticed_at()));
        if let Some((_, last_start)) = change.span_without_monitor() {
            recalled.last_starts.insert(change.service.clone(), last_start);
        }
        if let Some(one) = services.get_mut(&change.service) {
            one.fold.discount(&change.origin);
        }
    }
    Ok(())
}

/// Takes up the lists of all services, or of one, and changes of them that may be unreported.
async fn recall_lists(
    store: &dyn Store,
    services: &mut Known,
    only: Option<&ServiceName>,
    reported: &HashMap<ServiceName, Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    // Moments of changes rise although the clock may step back, so one that is yet to come counts.
    let query = query_since(only, ListChange::REPORTED_WITHIN, now);
    let mut stored = Records::new(store, query, |store, query| store.list_changes(query));
    let mut changes: HashMap<ServiceName, Vec<ListChange>> = HashMap::new();
    while let Some(change) = stored.take_next().await? {
        changes.entry(change.service.clone()).or_default().push(change);
    }
    for (name, one) in services.iter_mut().filter(|(name, _)| only.is_none_or(|it| it == *name)) {
        let drift = &mut one.signs.drift;
        if let Some(record) = store.lists(name).await? {
            drift.restore(&record.lists);
        }
        if let Some(changes) = changes.remove(name) {
            drift.restore_changes(changes, reported.get(name).copied(), now);
        }
    }
    Ok(())
}

fn query_since(only: Option<&ServiceName>, span: Duration, now: Timestamp) -> RecordQuery {
    RecordQuery { service: only.cloned(), ..RecordQuery::all().since(now.saturating_sub(span)) }
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
