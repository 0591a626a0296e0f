//! What was decided and what must be said, in memory: the [`IncidentLog`] of a [`MemoryStore`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use async_trait::async_trait;
use mcpmon_core::Timestamp;
use mcpmon_core::alert::{Alert, AlertKey, AlertPhase, AlertState, Silence};
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, AuditQuery, Delivery, IncidentLog, NewDelivery,
    Settlement, StoreError, Transition,
};

use super::MemoryStore;

/// Ended alerts, messages that wait, messages given up and audit entries kept at most, of each.
const KEPT: usize = 10_000;

/// Says why a message was given up that nobody had refused.
const CROWDED_OUT: &str = "given up for newer ones: too many messages wait in memory";

/// What became of a message that was queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Waits,
    Delivered,
    /// Given up, because of this.
    Dead(String),
}

#[derive(Debug, Default)]
pub(super) struct Incidents {
    states: BTreeMap<AlertKey, AlertState>,
    alerts: HashMap<String, Alert>,
    last_delivery: i64,
    outbox: BTreeMap<i64, Delivery>,
    /// Handler and key of what was queued, so that a transition given twice queues nothing twice.
    queued: HashMap<(String, String), i64>,
    dead: VecDeque<Delivery>,
    silences: BTreeMap<String, Silence>,
    audit: VecDeque<AuditEntry>,
}

fn push_capped<T>(kept: &mut VecDeque<T>, item: T) {
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back(item);
}

impl Incidents {
    fn commit(&mut self, transition: &Transition) {
        for state in &transition.states {
            self.states.insert(state.key.clone(), state.clone());
        }
        for alert in &transition.alerts {
            self.alerts.insert(alert.id.clone(), alert.clone());
        }
        self.forget_ended();
        for new in &transition.deliveries {
            self.queue(new, transition.at);
        }
        self.forget_keys();
    }

    /// Of too many, the alerts that ended first go; what fires stays. By the sixteenth, so that a
    /// full log is not sorted at every commit.
    fn forget_ended(&mut self) {
        if self.alerts.len() <= KEPT + KEPT / 16 {
            return;
        }
        let ended = self.alerts.values().filter_map(|a| Some((a.resolved_at?, a.id.clone())));
        let mut ended: Vec<_> = ended.collect();
        ended.sort_unstable();
        let surplus = self.alerts.len() - KEPT;
        for (_, id) in ended.into_iter().take(surplus) {
            self.alerts.remove(&id);
        }
    }

    fn queue(&mut self, new: &NewDelivery, at: Timestamp) {
        let key = (new.handler.clone(), new.notification.key.clone());
        if self.queued.contains_key(&key) {
            return;
        }
        if self.outbox.len() >= KEPT
            && let Some((_, mut oldest)) = self.outbox.pop_first()
        {
            oldest.last_error.get_or_insert_with(|| CROWDED_OUT.to_owned());
            push_capped(&mut self.dead, oldest);
        }
        self.last_delivery += 1;
        let id = self.last_delivery;
        self.queued.insert(key, id);
        let delivery = Delivery {
            id,
            handler: new.handler.clone(),
            notification: new.notification.clone(),
            queued_at: at,
            due_at: at,
            last_error: None,
        };
        self.outbox.insert(id, delivery);
    }

    /// The keys of what still waits stay, and those of the newest beside them.
    fn forget_keys(&mut self) {
        if self.queued.len() > 2 * KEPT {
            let newest = self.last_delivery - KEPT as i64;
            let outbox = &self.outbox;
            self.queued.retain(|_, id| *id > newest || outbox.contains_key(id));
        }
    }

    fn settle(&mut self, delivery: i64, settlement: &Settlement) {
        match settlement {
            Settlement::Retry { due_at, error } => {
                if let Some(known) = self.outbox.get_mut(&delivery) {
                    known.due_at = *due_at;
                    known.last_error = Some(error.clone());
                    known.notification.attempt = known.notification.attempt.saturating_add(1);
                }
            }
            Settlement::Dead { error, .. } => {
                if let Some(mut known) = self.outbox.remove(&delivery) {
                    known.last_error = Some(error.clone());
                    push_capped(&mut self.dead, known);
                }
            }
            // Delivered, and whatever else ends it.
            _ => drop(self.outbox.remove(&delivery)),
        }
    }

    fn give_up_for_others(&mut self, handlers: &[String], why: &str) -> u64 {
        let is_left = |_: &i64, known: &mut Delivery| !handlers.contains(&known.handler);
        let given_up = self.outbox.extract_if(.., is_left);
        let given_up: Vec<Delivery> = given_up.map(|(_, delivery)| delivery).collect();
        let count = given_up.len() as u64;
        for mut delivery in given_up {
            delivery.last_error = Some(why.to_owned());
            push_capped(&mut self.dead, delivery);
        }
        count
    }

    /// Takes the dead letters of one handler out.
    fn exhume(&mut self, handler: &str) -> VecDeque<Delivery> {
        let (taken, left) =
            std::mem::take(&mut self.dead).into_iter().partition(|dead| dead.handler == handler);
        self.dead = left;
        taken
    }

    fn record(&mut self, entry: &AuditEntry) {
        match self.audit.iter_mut().rfind(|known| known.id == entry.id) {
            Some(known) => known.clone_from(entry),
            None => push_capped(&mut self.audit, entry.clone()),
        }
    }

    fn audit(&self, query: &AuditQuery) -> Vec<AuditEntry> {
        let wanted = |entry: &&AuditEntry| {
            query.since.is_none_or(|since| entry.at >= since)
                && query.service.as_ref().is_none_or(|service| *service == entry.service)
        };
        // By time; of one time the last recorded first.
        let mut found: Vec<&AuditEntry> = self.audit.iter().rev().filter(wanted).collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        found.into_iter().take(query.limit).cloned().collect()
    }

    fn revive(&mut self, handler: &str, now: Timestamp) -> u64 {
        let taken = self.exhume(handler);
        let queued = self.outbox.values().filter(|queued| queued.handler == handler);
        let ends = taken.iter().chain(queued).flat_map(Delivery::ends);
        let to_come: HashSet<String> = ends.map(str::to_owned).collect();
        let has_ended =
            |id: &str| self.alerts.get(id).is_some_and(|alert| alert.resolved_at.is_some());
        let (taken, left): (Vec<Delivery>, Vec<Delivery>) = taken
            .into_iter()
            .partition(|dead| dead.is_worth_reviving(has_ended, |id| to_come.contains(id)));
        self.dead.extend(left);
        let count = taken.len() as u64;
        for mut delivery in taken {
            delivery.due_at = now;
            delivery.notification.attempt = 1;
            self.outbox.insert(delivery.id, delivery);
        }
        count
    }

    fn alerts(&self, query: &AlertQuery) -> Vec<AlertRecord> {
        let mut found: Vec<&Alert> = self
            .alerts
            .values()
            .filter(|alert| {
                let last = alert.resolved_at.unwrap_or(alert.timestamp).max(alert.timestamp);
                (!query.active || alert.resolved_at.is_none())
                    && query.since.is_none_or(|since| last >= since)
                    && query.until.is_none_or(|until| alert.timestamp < until)
                    && query.service.as_ref().is_none_or(|s| alert.service_name() == Some(s))
            })
            .collect();
        found.sort_by(|a, b| (b.timestamp, &b.id).cmp(&(a.timestamp, &a.id)));
        found.truncate(query.limit);
        let shown = self.phases();
        let record = |alert: &Alert| AlertRecord {
            alert: alert.clone(),
            state: match alert.resolved_at {
                Some(_) => AlertPhase::Resolved,
                None => shown.get(alert.id.as_str()).copied().unwrap_or(AlertPhase::Firing),
            },
        };
        found.into_iter().map(record).collect()
    }

    /// Where open alerts stand that do more than fire.
    fn phases(&self) -> HashMap<&str, AlertPhase> {
        let special = |state: &AlertState| {
            let phase = state.shown_phase();
            matches!(
                phase,
                AlertPhase::Flapping
                    | AlertPhase::Suppressed
                    | AlertPhase::Silenced
                    | AlertPhase::Acknowledged
            )
            .then_some(phase)
        };
        let states = self.states.values();
        states
            .filter_map(|state| Some((state.alert.as_ref()?.id.as_str(), special(state)?)))
            .collect()
    }

    /// Forgets what ended before a moment; says how much went.
    pub(super) fn prune(&mut self, before: Timestamp) -> u64 {
        let size =
            |all: &Self| all.alerts.len() + all.dead.len() + all.silences.len() + all.audit.len();
        let held = size(self);
        self.alerts.retain(|_, alert| alert.resolved_at.is_none_or(|at| at >= before));
        self.dead.retain(|dead| dead.due_at >= before);
        self.silences.retain(|_, silence| silence.ends_at >= before);
        self.audit.retain(|entry| entry.at >= before);
        let waiting: HashSet<i64> =
            self.outbox.keys().copied().chain(self.dead.iter().map(|dead| dead.id)).collect();
        let newest = self.last_delivery - KEPT as i64;
        self.queued.retain(|_, id| *id > newest || waiting.contains(id));
        (held - size(self)) as u64
    }
}

impl MemoryStore {
    /// Queues messages as [`IncidentLog::commit`] does, at once.
    pub(crate) fn keep(&self, transition: &Transition) {
        self.lock().incidents.commit(transition);
    }

    /// Every message that waits, oldest first.
    pub(crate) fn waiting(&self) -> Vec<Delivery> {
        self.lock().incidents.outbox.values().cloned().collect()
    }

    /// What became of the message of this handler and key.
    pub(crate) fn fate(&self, name: &(String, String)) -> Fate {
        let incidents = &self.lock().incidents;
        let is_it = |delivery: &&Delivery| {
            delivery.handler == name.0 && delivery.notification.key == name.1
        };
        if incidents.queued.get(name).is_some_and(|id| incidents.outbox.contains_key(id)) {
            return Fate::Waits;
        }
        match incidents.dead.iter().find(is_it) {
            Some(dead) => Fate::Dead(dead.last_error.clone().unwrap_or_default()),
            None => Fate::Delivered,
        }
    }

    /// Forgets messages that were given up, by handler and key.
    pub(crate) fn forget_dead(&self, names: &HashSet<(String, String)>) {
        if !names.is_empty() {
            self.lock().incidents.dead.retain(|dead| {
                !names.contains(&(dead.handler.clone(), dead.notification.key.clone()))
            });
        }
    }
}

#[async_trait]
impl IncidentLog for MemoryStore {
    async fn states(&self) -> Result<Vec<AlertState>, StoreError> {
        Ok(self.lock().incidents.states.values().cloned().collect())
    }

    async fn commit(&self, transition: &Transition) -> Result<(), StoreError> {
        self.lock().incidents.commit(transition);
        Ok(())
    }

    async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let inner = self.lock();
        let waiting = inner.incidents.outbox.values();
        let due = waiting.filter(|known| known.handler == handler && known.due_at <= now);
        Ok(due.take(limit).cloned().collect())
    }

    async fn settle(&self, delivery: i64, settlement: &Settlement) -> Result<(), StoreError> {
        self.lock().incidents.settle(delivery, settlement);
        Ok(())
    }

    async fn settle_many(&self, settlements: &[(i64, Settlement)]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for (delivery, settlement) in settlements {
            inner.incidents.settle(*delivery, settlement);
        }
        Ok(())
    }

    async fn give_up_for_others(
        &self,
        handlers: &[String],
        _at: Timestamp,
        why: &str,
    ) -> Result<u64, StoreError> {
        Ok(self.lock().incidents.give_up_for_others(handlers, why))
    }

    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<AlertRecord>, StoreError> {
        Ok(self.lock().incidents.alerts(query))
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        Ok(self.lock().incidents.dead.iter().rev().take(limit).cloned().collect())
    }

    async fn revive(&self, handler: &str, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self.lock().incidents.revive(handler, now))
    }

    async fn discard(&self, handler: &str) -> Result<u64, StoreError> {
        Ok(self.lock().incidents.exhume(handler).len() as u64)
    }

    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        let inner = self.lock();
        let silences = inner.incidents.silences.values();
        Ok(silences.filter(|silence| silence.ends_at > now).cloned().collect())
    }

    async fn put_silence(&self, silence: &Silence) -> Result<(), StoreError> {
        self.lock().incidents.silences.insert(silence.id.clone(), silence.clone());
        Ok(())
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.lock().incidents.record(entry);
        Ok(())
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(self.lock().incidents.audit(query))
    }
}
