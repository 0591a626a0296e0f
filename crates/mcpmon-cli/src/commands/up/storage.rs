//! The history `up` writes: opened, or begun anew beside one that cannot be used.

use std::collections::BTreeMap;
use std::path::Path;

use mcpmon_alert::STORAGE_FAILING;
use mcpmon_core::alert::{ALERT_SCHEMA, Alert, Notification, NotificationKind};
use mcpmon_core::store::{IncidentLog as _, NewDelivery, Transition};
use mcpmon_core::{Clock as _, Level, Scope, StoreError, SystemClock, Timestamp};
use mcpmon_store::{OpenOptions, SetAside, SqliteStore};

use crate::exit::CliError;
use crate::output;

/// Opens the history. Unless `strict`, a file that is damaged, empty or another program's is set
/// aside and a new one begun.
pub(super) fn open(
    database: &Path,
    strict: bool,
) -> Result<(SqliteStore, Option<SetAside>), CliError> {
    if strict {
        return Ok((SqliteStore::open(database, OpenOptions::default())?, None));
    }
    let opened = SqliteStore::open_or_begin(database, OpenOptions::default(), SystemClock.now())?;
    if let Some(aside) = &opened.1 {
        output::say(&message(aside));
    }
    Ok(opened)
}

/// Tells every handler, once, that the history begins anew.
pub(super) async fn tell(
    store: &SqliteStore,
    aside: &SetAside,
    handlers: impl Iterator<Item = String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let alert = Alert {
        schema: ALERT_SCHEMA.to_owned(),
        id: format!("{STORAGE_FAILING}-set-aside-{}", now.as_millis()),
        rule_name: STORAGE_FAILING.to_owned(),
        scope: Scope::Host,
        service_name: None,
        tool_name: None,
        level: Level::Critical,
        message: message(aside),
        timestamp: now,
        resolved_at: None,
        metrics: serde_json::Value::Null,
        failure: None,
        labels: BTreeMap::new(),
    };
    let notification = Notification::new(&alert.id, NotificationKind::Firing, vec![alert.clone()]);
    let deliveries = handlers
        .map(|handler| NewDelivery { handler, notification: notification.clone() })
        .collect();
    // Over as soon as it is told: there is nothing that could recover.
    let alerts = vec![Alert { resolved_at: Some(now), ..alert }];
    store.commit(&Transition { alerts, deliveries, at: now, ..Transition::default() }).await
}

fn message(aside: &SetAside) -> String {
    format!(
        "{}; it was set aside as `{}`, and a new history begins",
        aside.reason,
        aside.path.display()
    )
}
