//! Stored checks and changes, folded by core once more: the metrics as they were at each check.
//!
//! One pass over checks in order of time serves every service. Checks of one moment come by name of the service: a store may order them by
//! numbers of its own, and the same history is to give the same bytes from any file.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    CheckRecord, Cursor, RecordQuery, SampleStore, StoredService, restarts_before,
};
use mcpmon_core::{ServiceMetrics, ServiceName, StoreError, StoredFold, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ExportError, ExportQuery};

/// How far before the first exported check the replay begins, besides the window: what counts in a
/// row is right from the start for all but the longest rows.
const RUN_UP: Duration = Duration::from_secs(3_600);

/// A service at one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportRecord {
    /// The moment of the check.
    pub timestamp: Timestamp,
    /// The service's metrics then, over the window.
    #[serde(flatten)]
    pub metrics: ServiceMetrics,
    /// The check itself.
    pub check: CheckRecord,
}

/// Gives each check of a query as a record, in order of time.
pub(super) async fn each_record(
    samples: &dyn SampleStore,
    query: &ExportQuery,
    mut give: impl FnMut(&ExportRecord) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let run_up = RUN_UP.max(query.window);
    let range = RecordQuery {
        service: query.service.clone(),
        since: query.since.map(|since| since.saturating_sub(run_up)),
        until: query.until,
        ..RecordQuery::all()
    };
    let mut replays = begin(samples, query, &range).await?;
    let mut changes = Changes::new(samples, query);
    let mut moments = Moments::default();
    let mut page = range;
    loop {
        let checks = samples.checks(&page).await?;
        let is_last = checks.next.is_none();
        for check in moments.in_order(checks.items, is_last) {
            let ended = check.at.saturating_add(check.total);
            while let Some(change) = changes.next_until(ended).await? {
                if let Some(replay) = replays.get_mut(&change.service) {
                    replay.stored.add_change(change, check.at);
                }
            }
            let Some(replay) = replays.get_mut(&check.service) else { continue };
            replay.apply_check(&check, ended);
            if query.since.is_none_or(|since| check.at >= since) {
                give(&replay.record(check, query.window))?;
            }
        }
        match checks.next {
            Some(next) => page.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Puts checks of one moment in order of their services. Holds back the newest moment of a page,
/// which may go on in the next.
#[derive(Default)]
struct Moments(Vec<CheckRecord>);

impl Moments {
    fn in_order(&mut self, page: Vec<CheckRecord>, is_last: bool) -> Vec<CheckRecord> {
        let mut checks = std::mem::take(&mut self.0);
        checks.extend(page);
        if !is_last && let Some(newest) = checks.last().map(|check| check.at) {
            let held = checks.iter().rposition(|check| check.at != newest).map_or(0, |at| at + 1);
            self.0 = checks.split_off(held);
        }
        // What a service has of one moment stays as it was appended.
        checks.sort_by(|a, b| (a.at, &a.service).cmp(&(b.at, &b.service)));
        checks
    }
}

/// A replay for each service that is exported.
async fn begin(
    samples: &dyn SampleStore,
    query: &ExportQuery,
    range: &RecordQuery,
) -> Result<HashMap<ServiceName, Replay>, StoreError> {
    let mut replays = HashMap::new();
    let stored = samples.services().await?;
    let restarts = restarts_before(samples, &stored, range).await?;
    for stored in stored {
        let service = stored.facts.service.clone();
        if query.service.as_ref().is_none_or(|only| *only == service) {
            let lists = samples.lists(&service).await?;
            let listed = lists.map(|record| (record.at, record.lists.tools.len()));
            let restarts = restarts.get(&service).copied().unwrap_or_default();
            replays.insert(service, Replay::new(&stored, restarts, query.window, listed));
        }
    }
    Ok(replays)
}

/// Stored changes in order of time, one at a time.
struct Changes<'a> {
    samples: &'a dyn SampleStore,
    query: RecordQuery,
    read: VecDeque<StatusChange>,
    next: Option<Cursor>,
    begun: bool,
}

impl<'a> Changes<'a> {
    fn new(samples: &'a dyn SampleStore, query: &ExportQuery) -> Self {
        // From the first on, however long ago: the last before the range is the status in it.
        let query = RecordQuery {
            service: query.service.clone(),
            until: query.until,
            ..RecordQuery::all()
        };
        Self { samples, query, read: VecDeque::new(), next: None, begun: false }
    }

    /// The next change, if it is no later than `moment`.
    async fn next_until(&mut self, moment: Timestamp) -> Result<Option<StatusChange>, StoreError> {
        while self.read.is_empty() && (!self.begun || self.next.is_some()) {
            self.begun = true;
            let page = RecordQuery { after: self.next.take(), ..self.query.clone() };
            let page = self.samples.changes(&page).await?;
            self.read.extend(page.items);
            self.next = page.next;
        }
        Ok(self.read.pop_front_if(|change| change.at <= moment))
    }
}

/// One service, as far as it was replayed.
struct Replay {
    service: ServiceName,
    stored: StoredFold,
    /// Restarts there ever were, and those up to the check that was taken last.
    all_restarts: u64,
    restarts: u64,
    /// When the lists now known were first seen, and how many tools they have.
    listed: Option<(Timestamp, usize)>,
    tools_count: Option<u32>,
    tool_list_tokens: Option<u64>,
}

impl Replay {
    fn new(
        stored: &StoredService,
        restarts: u64,
        window: Duration,
        listed: Option<(Timestamp, usize)>,
    ) -> Self {
        Self {
            service: stored.facts.service.clone(),
            stored: StoredFold::new(window),
            all_restarts: stored.facts.restarts,
            restarts,
            listed,
            tools_count: stored.facts.tools_count,
            tool_list_tokens: stored.facts.tool_list_tokens,
        }
    }

    /// Takes in a check that ended at `ended`.
    fn apply_check(&mut self, check: &CheckRecord, ended: Timestamp) {
        self.stored.apply_check(check);
        self.restarts += u64::from(check.restarted);
        let fold = &mut self.stored.fold;
        fold.state.restarts = self.restarts.min(self.all_restarts);
        let tools_count = match self.listed {
            Some((at, tools)) => (at <= ended).then(|| u32::try_from(tools).unwrap_or(u32::MAX)),
            None => self.tools_count,
        };
        fold.window.note_tools(tools_count, self.tool_list_tokens);
    }

    fn record(&self, check: CheckRecord, window: Duration) -> ExportRecord {
        let timestamp = check.at;
        let metrics = self.stored.fold.metrics(&self.service, window, timestamp);
        ExportRecord { timestamp, metrics, check }
    }
}
