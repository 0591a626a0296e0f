//! `mcpmon/export/v1`, an object a line: what a program reads as a stream, and what an import reads
//! back.
//!
//! A snapshot alone says how a service was, not how it came to be so. Therefore everything a
//! snapshot is made of goes before: what the services are, their lists and the changes of their
//! status; and behind the alerts, where open ones stand. What [`crate::import`] reads stands beside what is
//! written, so that the two do not drift apart.

use std::collections::BTreeMap;
use std::io::{self, Write};

use mcpmon_core::alert::AlertState;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    AlertRecord, CheckRecord, ListChange, ListRecord, RecordQuery, ServiceFacts,
};
use mcpmon_core::text::for_json;
use mcpmon_core::{ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{EXPORT_SCHEMA, ExportError, ExportQuery, ExportRecord, Exporter, subjects};

/// One line; `record` says which kind it is.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line<'a> {
    Export { schema: &'static str, export_time: Timestamp },
    Service(&'a ServiceFacts),
    List(&'a ListRecord),
    Change(&'a StatusChange),
    ListChange(&'a ListChange),
    Snapshot(&'a ExportRecord),
    Alert(&'a AlertRecord),
    AlertState(&'a AlertState),
}

/// The same, read back.
pub(crate) enum ReadLine {
    Export {
        schema: String,
        export_time: Option<Timestamp>,
    },
    Service(Box<ServiceFacts>),
    List(Box<ListRecord>),
    Change(Box<StatusChange>),
    ListChange(Box<ListChange>),
    /// The metrics beside the check are counted anew from checks and changes.
    Snapshot(Box<CheckRecord>),
    Alert(Box<AlertRecord>),
    AlertState(Box<AlertState>),
}

impl ReadLine {
    /// Reads a line. A kind that only a newer build knows is an error, not a loss.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Kind {
            Export,
            Service,
            List,
            Change,
            ListChange,
            Snapshot,
            Alert,
            AlertState,
        }
        // In two steps: serde's tagged enums cannot hold the raw JSON of a list.
        #[derive(Deserialize)]
        struct Tag {
            record: Kind,
        }
        #[derive(Deserialize)]
        struct Header {
            schema: String,
            export_time: Option<Timestamp>,
        }
        #[derive(Deserialize)]
        struct Snapshot {
            check: Box<CheckRecord>,
        }
        Ok(match serde_json::from_slice::<Tag>(text)?.record {
            Kind::Export => {
                let Header { schema, export_time } = serde_json::from_slice(text)?;
                Self::Export { schema, export_time }
            }
            Kind::Service => Self::Service(serde_json::from_slice(text)?),
            Kind::List => Self::List(serde_json::from_slice(text)?),
            Kind::Change => Self::Change(serde_json::from_slice(text)?),
            Kind::ListChange => Self::ListChange(serde_json::from_slice(text)?),
            Kind::Snapshot => Self::Snapshot(serde_json::from_slice::<Snapshot>(text)?.check),
            Kind::Alert => Self::Alert(subjects::read_alert(text)?),
            Kind::AlertState => Self::AlertState(subjects::read_state(text)?),
        })
    }
}

/// Writes the lines. Nothing is written where there is neither a snapshot nor an alert.
pub(super) async fn write(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    now: Timestamp,
    out: &mut (dyn Write + Send),
) -> Result<bool, ExportError> {
    if !has_data(exporter, query).await? {
        return Ok(false);
    }
    put(out, &Line::Export { schema: EXPORT_SCHEMA, export_time: now })?;
    write_services(exporter, query, out).await?;
    each_change(exporter, query, |change| put(out, &Line::Change(change))).await?;
    each_list_change(exporter, query, |change| put(out, &Line::ListChange(change))).await?;
    exporter.each_record(query, |record| Ok(put(out, &Line::Snapshot(record))?)).await?;
    exporter.each_alert(query, |alert| Ok(put(out, &Line::Alert(alert))?)).await?;
    for state in exporter.incidents.states().await? {
        let is_open = state.alert.as_ref().is_some_and(|alert| {
            let is_inside = query.until.is_none_or(|until| alert.timestamp < until);
            let is_asked =
                query.service.is_none() || query.service.as_ref() == alert.service_name();
            alert.resolved_at.is_none() && is_inside && is_asked
        });
        if is_open {
            put(out, &Line::AlertState(&state))?;
        }
    }
    out.flush()?;
    Ok(true)
}

fn put(out: &mut (dyn Write + Send), line: &Line<'_>) -> io::Result<()> {
    let mut text = for_json(&serde_json::to_string(line)?);
    text.push('\n');
    out.write_all(text.as_bytes())
}

async fn has_data(exporter: &Exporter<'_>, query: &ExportQuery) -> Result<bool, ExportError> {
    let alerts = mcpmon_core::store::AlertQuery {
        since: query.since,
        until: query.until,
        service: query.service.clone(),
        limit: 1,
        ..Default::default()
    };
    if !exporter.incidents.alerts(&alerts).await?.is_empty()
        || !exporter.open_before(query).await?.is_empty()
    {
        return Ok(true);
    }
    let mut page = RecordQuery { limit: 1, ..records(query) };
    loop {
        // A page may be empty and still have a next, where little was found in much.
        let found = exporter.samples.checks(&page).await?;
        match (found.items.is_empty(), found.next) {
            (false, _) => return Ok(true),
            (true, Some(next)) => page.after = Some(next),
            (true, None) => return Ok(false),
        }
    }
}

fn records(query: &ExportQuery) -> RecordQuery {
    RecordQuery {
        service: query.service.clone(),
        since: query.since,
        until: query.until,
        ..RecordQuery::all()
    }
}

async fn write_services(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    out: &mut (dyn Write + Send),
) -> Result<(), ExportError> {
    for stored in exporter.samples.services().await? {
        let name = &stored.facts.service;
        if query.service.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        put(out, &Line::Service(&stored.facts))?;
        if let Some(lists) = exporter.samples.lists(name).await? {
            put(out, &Line::List(&lists))?;
        }
    }
    Ok(())
}

/// Gives the changes of lists in a range, in order of time and service.
async fn each_list_change(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    mut give: impl FnMut(&ListChange) -> io::Result<()>,
) -> Result<(), ExportError> {
    let mut changes = Vec::new();
    let mut page = records(query);
    loop {
        let found = exporter.samples.list_changes(&page).await?;
        changes.extend(found.items);
        match found.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    // Stores order what happened at one moment as it was appended; an export is the same from any.
    changes.sort_by(|a, b| (a.at, &a.service).cmp(&(b.at, &b.service)));
    changes.iter().try_for_each(&mut give)?;
    Ok(())
}

/// Gives the changes of a range in order of time, and before them each service's last one before
/// it: that is the status the range begins with.
async fn each_change(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    mut give: impl FnMut(&StatusChange) -> io::Result<()>,
) -> Result<(), ExportError> {
    let mut before: BTreeMap<ServiceName, StatusChange> = BTreeMap::new();
    let mut moment: Vec<StatusChange> = Vec::new();
    let mut page = RecordQuery { since: None, ..records(query) };
    loop {
        let changes = exporter.samples.changes(&page).await?;
        for change in changes.items {
            if query.since.is_some_and(|since| change.at < since) {
                before.insert(change.service.clone(), change);
                continue;
            }
            if moment.last().is_some_and(|last| last.at != change.at) {
                give_moment(&mut before, &mut moment, &mut give)?;
            }
            moment.push(change);
        }
        match changes.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    give_moment(&mut before, &mut moment, &mut give)?;
    Ok(())
}

/// Gives what was before the range, once, and the changes of one moment by service.
fn give_moment(
    before: &mut BTreeMap<ServiceName, StatusChange>,
    moment: &mut Vec<StatusChange>,
    give: &mut impl FnMut(&StatusChange) -> io::Result<()>,
) -> io::Result<()> {
    std::mem::take(before).values().try_for_each(&mut *give)?;
    moment.sort_by(|a, b| a.service.cmp(&b.service));
    moment.drain(..).try_for_each(|change| give(&change))
}
