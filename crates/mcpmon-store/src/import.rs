//! What [`crate::export`] wrote as JSON lines, read back.
//!
//! Works over core's ports, as the export does. A file is read twice: once to see that every line
//! is right, and only then to write, so that a broken file changes nothing. What is written goes in
//! batches, each a transaction; a check is known again by everything it says and a change or alert
//! by its own, so an import that was cut short is finished by reading the file again, and reading a
//! whole one twice adds nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{AlertKey, AlertState};
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, Batch, CheckRecord, ListChange, ListRecord, RecordQuery, ServiceFacts,
    Transition,
};
use mcpmon_core::{
    Alert, FailureCode, IncidentLog, SampleStore, ServiceName, StoreError, Subject, Timestamp,
};

use crate::export::{EXPORT_SCHEMA, ReadLine};

/// Longest line, in bytes: the lists of a server are one, and may be long.
const LONGEST_LINE: u64 = 128 << 20;
/// Checks or changes of one batch.
const BATCH: usize = 5_000;
/// Lines between two words about progress.
const TELL_EVERY: u64 = 256;
const MILLISECOND: Duration = Duration::from_millis(1);
/// What is stored is not looked through where a batch has nothing for longer, in ms.
const LONGEST_GAP: i64 = 3_600_000;
/// Why an alert ended that was open in the file, where the store does not take its standing over.
const LEFT_OPEN: &str = "it was open when it was exported; its subject has been judged anew since";

/// A file could not be read back. Nothing of it was imported where a line is wrong; else what came
/// before may be there, and reading the file again goes on from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The history could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The input could not be read.
    #[error("cannot be read: {0}")]
    Input(#[from] std::io::Error),
    /// A line is not what an export writes.
    #[error("line {line}: {message}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// A line is wrong that was right when the file was looked at: it was written meanwhile.
    #[error("line {line}: {message}; it has changed since it was checked")]
    Changed {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
}

/// What was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Checks added.
    pub checks: u64,
    /// Changes of a service's status added.
    pub changes: u64,
    /// Alerts added.
    pub alerts: u64,
    /// Checks, changes and alerts that were there already.
    pub known: u64,
    /// The oldest check of the file.
    pub oldest: Option<Timestamp>,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    /// Whether lines are being written; before that, they are looked at.
    pub is_writing: bool,
    /// Lines read in this pass.
    pub lines: u64,
    /// Bytes read in this pass.
    pub bytes: u64,
}

/// Puts exports back into a store.
#[derive(Clone)]
pub struct Importer<'a> {
    samples: &'a dyn SampleStore,
    incidents: &'a dyn IncidentLog,
    watcher: Option<Arc<dyn Fn(ImportProgress) + Send + Sync + 'a>>,
}

impl<'a> Importer<'a> {
    /// Puts them into these.
    pub fn new(samples: &'a dyn SampleStore, incidents: &'a dyn IncidentLog) -> Self {
        Self { samples, incidents, watcher: None }
    }

    /// Tells `watcher` every few hundred lines how far it has come.
    #[must_use]
    pub fn watched(mut self, watcher: impl Fn(ImportProgress) + Send + Sync + 'a) -> Self {
        self.watcher = Some(Arc::new(watcher));
        self
    }

    /// Reads JSON lines to their end, from where the input stands; twice.
    ///
    /// # Errors
    ///
    /// At the first line that is not an export's, before anything is written; or when the store
    /// cannot be written.
    pub async fn read_jsonl<R: BufRead + Seek + Send>(
        &self,
        input: &mut R,
    ) -> Result<Imported, ImportError> {
        let begin = input.stream_position()?;
        let mut lines = Lines::new(self, input, false);
        while lines.next()?.is_some() {}
        input.seek(SeekFrom::Start(begin))?;

        let mut lines = Lines::new(self, input, true);
        let mut write = Writing::begin(self).await?;
        while let Some(line) = lines.next().map_err(as_changed)? {
            write.take(line).await?;
        }
        write.finish().await
    }
}

fn as_changed(error: ImportError) -> ImportError {
    match error {
        ImportError::Line { line, message } => ImportError::Changed { line, message },
        other => other,
    }
}

/// The lines of an input, each seen to be what an export writes.
struct Lines<'i, 'a, R> {
    input: &'i mut R,
    importer: &'i Importer<'a>,
    progress: ImportProgress,
    text: Vec<u8>,
}

impl<'i, 'a, R: BufRead> Lines<'i, 'a, R> {
    fn new(importer: &'i Importer<'a>, input: &'i mut R, is_writing: bool) -> Self {
        let progress = ImportProgress { is_writing, lines: 0, bytes: 0 };
        Self { input, importer, progress, text: Vec::new() }
    }

    fn next(&mut self) -> Result<Option<ReadLine>, ImportError> {
        loop {
            self.text.clear();
            let read = (&mut *self.input).take(LONGEST_LINE).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return match self.progress.lines {
                    0 => Err(self.wrong("there is none; is it the right file?", 1)),
                    _ => Ok(None),
                };
            }
            self.progress.lines += 1;
            self.progress.bytes += read as u64;
            let line = self.progress.lines;
            if line.is_multiple_of(TELL_EVERY)
                && let Some(watcher) = &self.importer.watcher
            {
                watcher(self.progress);
            }
            if read as u64 == LONGEST_LINE {
                return Err(self.wrong(&format!("longer than {LONGEST_LINE} bytes"), line));
            }
            if line > 1 && self.text.trim_ascii().is_empty() {
                continue;
            }
            let record = ReadLine::parse(&self.text);
            return match (line, record) {
                (_, Ok(ReadLine::Export { schema, export_time })) if schema == EXPORT_SCHEMA => {
                    Ok(Some(ReadLine::Export { schema, export_time }))
                }
                // Also where one export follows another.
                (1, _) | (_, Ok(ReadLine::Export { .. })) => {
                    Err(self.wrong(&format!("not the first line of `{EXPORT_SCHEMA}`"), line))
                }
                (_, Ok(record)) => Ok(Some(record)),
                (_, Err(error)) => Err(self.wrong(&error.to_string(), line)),
            };
        }
    }

    fn wrong(&self, message: &str, line: u64) -> ImportError {
        // The place in the line stays; the line is ours.
        ImportError::Line { line, message: message.replace(" at line 1 column ", " at column ") }
    }
}

/// An import that is being written.
struct Writing<'a> {
    samples: &'a dyn SampleStore,
    incidents: &'a dyn IncidentLog,
    /// Services the store can say something of by itself.
    described: HashSet<ServiceName>,
    /// When the lists the store has were first seen.
    listed: HashMap<ServiceName, Timestamp>,
    /// Subjects whose standing the store knows.
    judged: HashSet<AlertKey>,
    /// States of the rule that reports changes of lists, as they are stored.
    list_rules: HashMap<ServiceName, AlertState>,
    /// When what is being read was exported.
    exported_at: Option<Timestamp>,
    /// Alerts that were open then and whose standing is not read yet, by id.
    open: BTreeMap<String, Alert>,
    batch: Batch,
    done: Imported,
}

impl<'a> Writing<'a> {
    async fn begin(importer: &Importer<'a>) -> Result<Self, ImportError> {
        let (samples, incidents) = (importer.samples, importer.incidents);
        let mut described = HashSet::new();
        let mut listed = HashMap::new();
        for stored in samples.services().await? {
            let name = stored.facts.service;
            if let Some(lists) = samples.lists(&name).await? {
                listed.insert(name.clone(), lists.at);
            }
            // A transport is what every service has that was ever watched.
            if !stored.facts.transport.is_empty() {
                described.insert(name);
            }
        }
        let (mut judged, mut list_rules) = (HashSet::new(), HashMap::new());
        for state in incidents.states().await? {
            if !is_mark(&state) {
                judged.insert(state.key.clone());
            }
            if let Some(service) = list_rule_service(&state.key) {
                list_rules.insert(service.clone(), state);
            }
        }
        Ok(Self {
            samples,
            incidents,
            described,
            listed,
            judged,
            list_rules,
            exported_at: None,
            open: BTreeMap::new(),
            batch: Batch::default(),
            done: Imported::default(),
        })
    }

    async fn take(&mut self, line: ReadLine) -> Result<(), ImportError> {
        match line {
            ReadLine::Export { export_time, .. } => {
                self.exported_at = self.exported_at.max(export_time);
            }
            ReadLine::Service(facts) => self.take_facts(*facts),
            ReadLine::List(lists) => self.take_lists(*lists),
            ReadLine::Change(change) => self.batch.changes.push(*change),
            ReadLine::ListChange(change) => self.batch.list_changes.push(*change),
            ReadLine::Snapshot(check) => {
                let oldest = self.done.oldest.map_or(check.at, |oldest| oldest.min(check.at));
                self.done.oldest = Some(oldest);
                self.batch.checks.push(*check);
            }
            ReadLine::Alert(record) => self.add_alert(*record).await?,
            ReadLine::AlertState(state) => self.add_state(*state).await?,
        }
        let batch = &self.batch;
        let longest = batch.checks.len().max(batch.changes.len()).max(batch.list_changes.len());
        if longest >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    /// What a service is now is for the store to say, where it knows.
    fn take_facts(&mut self, facts: ServiceFacts) {
        if self.described.insert(facts.service.clone()) {
            self.batch.facts.push(facts);
        }
    }

    fn take_lists(&mut self, lists: ListRecord) {
        if self.listed.get(&lists.service).is_none_or(|known| *known < lists.at) {
            self.listed.insert(lists.service.clone(), lists.at);
            self.batch.lists.push(lists);
        }
    }

    async fn finish(mut self) -> Result<Imported, ImportError> {
        self.flush().await?;
        for (_, alert) in std::mem::take(&mut self.open) {
            let at = self.exported_at.map_or(alert.timestamp, |at| at.max(alert.timestamp));
            let ended_because = Some(LEFT_OPEN.to_owned());
            let ended = Alert { resolved_at: Some(at), ended_because, ..alert };
            self.commit(None, Some(ended), at).await?;
        }
        Ok(self.done)
    }

    async fn flush(&mut self) -> Result<(), ImportError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.only_new_checks(&mut batch.checks).await?;
        self.only_new_changes(&mut batch.changes).await?;
        let (checks, changes) = (batch.checks.len() as u64, batch.changes.len() as u64);
        // Before they are there: an import that ends in between leaves none that counts as news.
        self.mark_reported(&batch.list_changes).await?;
        self.samples.put_back(&batch).await?;
        self.done.checks += checks;
        self.done.changes += changes;
        Ok(())
    }

    /// Leaves the checks the store does not have. Of what it has only the moments of the batch are
    /// kept, however far apart they lie.
    async fn only_new_checks(&mut self, checks: &mut Vec<CheckRecord>) -> Result<(), ImportError> {
        let whose = checks.iter().map(|check| (&check.service, check.at));
        let moments: HashSet<Timestamp> = whose.clone().map(|(_, at)| at).collect();
        let mut known = HashSet::new();
        for mut query in stretches(whose) {
            loop {
                let page = self.samples.checks(&query).await?;
                let asked = page.items.iter().filter(|check| moments.contains(&check.at));
                known.extend(asked.map(check_identity));
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
        }
        let all = checks.len();
        checks.retain(|check| known.insert(check_identity(check)));
        self.done.known += (all - checks.len()) as u64;
        Ok(())
    }

    async fn only_new_changes(
        &mut self,
        changes: &mut Vec<StatusChange>,
    ) -> Result<(), ImportError> {
        let whose = changes.iter().map(|change| (&change.service, change.at));
        let moments: HashSet<Timestamp> = whose.clone().map(|(_, at)| at).collect();
        let mut known = HashSet::new();
        for mut query in stretches(whose) {
            loop {
                let page = self.samples.changes(&query).await?;
                let asked = page.items.iter().filter(|change| moments.contains(&change.at));
                known.extend(asked.map(change_identity));
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
        }
        let all = changes.len();
        changes.retain(|change| known.insert(change_identity(change)));
        self.done.known += (all - changes.len()) as u64;
        Ok(())
    }

    /// History that is read back is no news: the next monitor does not report these changes.
    async fn mark_reported(&mut self, changes: &[ListChange]) -> Result<(), ImportError> {
        let mut moments: BTreeMap<&ServiceName, Vec<Timestamp>> = BTreeMap::new();
        for change in changes {
            moments.entry(&change.service).or_default().push(change.at);
        }
        for (service, moments) in moments {
            let Some(until) = self.find_reported(service, &moments).await? else { continue };
            let new = || {
                let subject = Subject::Service(service.clone());
                AlertState::new(AlertKey::new(ListChange::RULE, subject), until)
            };
            let state = self.list_rules.entry(service.clone()).or_insert_with(new);
            state.reported_change = Some(until);
            let state = state.clone();
            self.commit(Some(state), None, until).await?;
        }
        Ok(())
    }

    /// Up to which moment a service's changes of lists count as reported, now that those of these
    /// moments are imported; `None` where that stays as it is.
    async fn find_reported(
        &self,
        service: &ServiceName,
        moments: &[Timestamp],
    ) -> Result<Option<Timestamp>, ImportError> {
        let mut stored = Vec::new();
        let mut query = RecordQuery::of(service.clone());
        loop {
            let page = self.samples.list_changes(&query).await?;
            stored.extend(page.items);
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        let reported = self.list_rules.get(service).and_then(|state| state.reported_change);
        Ok(reported_until(reported, &stored, moments))
    }

    /// Adds one that ended; one that is open waits for where it stands.
    async fn add_alert(&mut self, record: AlertRecord) -> Result<(), ImportError> {
        let alert = record.alert;
        // Of two exports in one file the later knows better.
        let is_again = self.open.remove(&alert.id).is_some();
        if is_again {
            self.done.known += 1;
        } else if self.is_known(&alert).await? {
            self.done.known += 1;
            return Ok(());
        } else {
            self.done.alerts += 1;
        }
        if alert.resolved_at.is_none() {
            self.open.insert(alert.id.clone(), alert);
            return Ok(());
        }
        let at = alert.timestamp;
        self.commit(None, Some(alert), at).await
    }

    async fn is_known(&self, alert: &Alert) -> Result<bool, ImportError> {
        let query = AlertQuery {
            since: Some(alert.timestamp),
            until: Some(alert.timestamp.saturating_add(MILLISECOND)),
            limit: usize::MAX,
            ..AlertQuery::default()
        };
        let there = self.incidents.alerts(&query).await?;
        Ok(there.iter().any(|known| known.alert.id == alert.id))
    }

    /// Where an open alert stands: only of subjects the store has not judged itself.
    async fn add_state(&mut self, mut state: AlertState) -> Result<(), ImportError> {
        if !self.judged.insert(state.key.clone()) {
            return Ok(());
        }
        if let Some(service) = list_rule_service(&state.key).cloned() {
            let known = self.list_rules.get(&service).and_then(|known| known.reported_change);
            let moments: Vec<Timestamp> = state.reported_change.into_iter().collect();
            state.reported_change = self.find_reported(&service, &moments).await?.or(known);
            self.list_rules.insert(service, state.clone());
        }
        let mut alert = state.alert.as_ref().and_then(|alert| self.open.remove(&alert.id));
        // Development versions left out the line of an alert that fired before the range.
        if alert.is_none()
            && let Some(open) = &state.alert
            && !self.is_known(open).await?
        {
            alert = Some(open.clone());
            self.done.alerts += 1;
        }
        let at = state.since;
        self.commit(Some(state), alert, at).await
    }

    async fn commit(
        &self,
        state: Option<AlertState>,
        alert: Option<Alert>,
        at: Timestamp,
    ) -> Result<(), ImportError> {
        let (states, alerts) = (state.into_iter().collect(), alert.into_iter().collect());
        let transition = Transition { states, alerts, at, ..Transition::default() };
        Ok(self.incidents.commit(&transition).await?)
    }
}

/// The service whose changes of lists are reported under this key.
fn list_rule_service(key: &AlertKey) -> Option<&ServiceName> {
    match &key.subject {
        Subject::Service(service) if key.rule == ListChange::RULE => Some(service),
        _ => None,
    }
}

/// Whether an import alone made this state, to mark changes of lists as reported: a monitor reports
/// no change without an alert.
fn is_mark(state: &AlertState) -> bool {
    list_rule_service(&state.key).is_some()
        && state.reported_change.is_some()
        && state.alert.is_none()
}

/// Up to which moment a service's changes of lists count as reported, once those of the moments
/// `imported` are added to `stored`, of which those up to `reported` were reported; `None` where
/// that stays as it is.
///
/// One moment stands for all changes before it. A stored change that a monitor has still to report
/// therefore stays ahead of that moment, although imported changes that are newer are then reported
/// with it: repeated rather than lost.
fn reported_until(
    reported: Option<Timestamp>,
    stored: &[ListChange],
    imported: &[Timestamp],
) -> Option<Timestamp> {
    let known: HashSet<Timestamp> = stored.iter().map(|change| change.at).collect();
    let new = || imported.iter().copied().filter(|at| !known.contains(at));
    let newest = new().max()?;
    let returns = stored.iter().map(|change| change.is_return);
    let is_due = |(change, is_return_before): &(&ListChange, bool)| {
        // The monitor starts after the newest change, and does not report what is too old then.
        let is_recent = newest.since(change.at) <= ListChange::REPORTED_WITHIN;
        change.is_news(*is_return_before) && Some(change.at) > reported && is_recent
    };
    let mut due = stored.iter().zip(std::iter::once(false).chain(returns)).filter(is_due);
    let first_due = due.next().map(|(change, _)| change.at);
    let until = new().filter(|at| first_due.is_none_or(|due| *at < due)).max();
    until.filter(|until| Some(*until) > reported)
}

/// The records around these moments, without the long times between them; of one service where all
/// are.
fn stretches<'a>(
    whose: impl Iterator<Item = (&'a ServiceName, Timestamp)> + Clone,
) -> Vec<RecordQuery> {
    let mut services = whose.clone().map(|(service, _)| service);
    let only = services.next().filter(|first| services.all(|other| other == *first));
    let mut moments: Vec<i64> = whose.map(|(_, at)| at.as_millis()).collect();
    moments.sort_unstable();
    let stretches = moments.chunk_by(|one, next| next.saturating_sub(*one) <= LONGEST_GAP);
    let queries = stretches.map(|stretch| {
        let [first, last] = [stretch[0], stretch[stretch.len() - 1]].map(Timestamp::from_millis);
        let until = Some(last.saturating_add(MILLISECOND));
        RecordQuery { service: only.cloned(), until, ..RecordQuery::all().since(first) }
    });
    queries.collect()
}

type CheckIdentity =
    (ServiceName, Timestamp, [&'static str; 2], Option<FailureCode>, Option<u128>, u128);

/// What no two checks of a service have in common.
fn check_identity(check: &CheckRecord) -> CheckIdentity {
    // As exact as a store keeps it.
    let ticks = |duration: Duration| (duration.as_nanos() + 5_000) / 10_000;
    let words = [check.question.as_str(), check.status.as_str()];
    let (latency, total) = (check.latency.map(ticks), ticks(check.total));
    (check.service.clone(), check.at, words, check.code, latency, total)
}

type ChangeIdentity = (ServiceName, Timestamp, [&'static str; 2], Timestamp, String);

/// Everything a change says: a service may change twice within a moment.
fn change_identity(change: &StatusChange) -> ChangeIdentity {
    let words = [change.from.as_str(), change.status.as_str()];
    let cause = format!("{:?}{:?}", change.failure, change.findings);
    (change.service.clone(), change.at, words, change.since, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments of services, in minutes, and the spans that are asked for, each with its service.
    #[track_caller]
    fn check(moments: &[(&str, i64)], asked: &[(Option<&str>, i64, i64)]) {
        let at = |minute: i64| Timestamp::from_millis(minute * 60_000);
        let moments: Vec<_> =
            moments.iter().map(|(name, minute)| (ServiceName::from(*name), at(*minute))).collect();
        let found = stretches(moments.iter().map(|(name, at)| (name, *at)));
        let asked = asked.iter().map(|(service, first, last)| RecordQuery {
            service: service.map(ServiceName::from),
            until: Some(at(*last).saturating_add(MILLISECOND)),
            ..RecordQuery::all().since(at(*first))
        });
        assert_eq!(found, asked.collect::<Vec<_>>());
    }

    /// Changes of one service, in twenty-fourths of the time within which they are reported: stored
    /// ones with `r` for a return, imported ones, the newest that was reported before the import and
    /// after it.
    #[track_caller]
    fn check_reported(before: Option<i64>, stored: &str, imported: &[i64], after: Option<i64>) {
        let step = i64::try_from(ListChange::REPORTED_WITHIN.as_millis() / 24).unwrap();
        let at = |steps: i64| Timestamp::from_millis(steps * step);
        let change = |word: &str| ListChange {
            service: "s".into(),
            at: at(word.trim_end_matches('r').parse().unwrap()),
            hash_before: String::new(),
            hash: String::new(),
            tools_before: 1,
            tools: 1,
            is_return: word.ends_with('r'),
        };
        let stored: Vec<_> = stored.split_whitespace().map(change).collect();
        let imported: Vec<_> = imported.iter().map(|hour| at(*hour)).collect();
        let until = reported_until(before.map(at), &stored, &imported);
        assert_eq!(until.or(before.map(at)), after.map(at), "{stored:?}");
    }

    #[test]
    fn imported_changes_count_as_reported_and_those_still_to_be_reported_do_not() {
        check_reported(None, "", &[], None);
        check_reported(None, "", &[1, 3, 2], Some(3));
        check_reported(Some(2), "1 2", &[3], Some(3));
        check_reported(Some(2), "2", &[1], Some(2));
        // The store's own, not reported yet.
        check_reported(None, "5", &[3], Some(3));
        check_reported(None, "5", &[7], None);
        check_reported(Some(1), "1 5", &[3, 7], Some(3));
        // Known already: an import of what the store itself exported.
        check_reported(None, "5", &[5], None);
        check_reported(None, "4 5", &[3, 4, 5], Some(3));
        // No monitor reports these any more.
        check_reported(Some(4), "4r 5r", &[7], Some(7));
        check_reported(Some(4), "4 5r", &[7], Some(4));
        check_reported(None, "5 40", &[30], Some(30));
        check_reported(None, "5", &[29], None);
    }

    #[test]
    fn what_lies_far_from_a_batch_is_not_asked_for() {
        check(&[], &[]);
        check(&[("a", 5)], &[(Some("a"), 5, 5)]);
        check(&[("a", 5), ("b", 40), ("a", 90)], &[(None, 5, 90)]);
        check(
            &[("a", 500_000), ("a", 0), ("a", 500_060)],
            &[(Some("a"), 0, 0), (Some("a"), 500_000, 500_060)],
        );
        check(&[("a", 0), ("b", 61)], &[(None, 0, 0), (None, 61, 61)]);
    }
}
