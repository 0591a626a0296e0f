//! The history `up` writes: opened, or begun anew beside one that cannot be used.

use std::collections::BTreeMap;
use std::path::Path;

use mcpmon_alert::STORAGE_FAILING;
use mcpmon_core::alert::{ALERT_SCHEMA, Alert, Notification, NotificationKind};
use mcpmon_core::store::{IncidentLog as _, NewDelivery, Transition};
use mcpmon_core::{Clock as _, Level, StoreError, Subject, SystemClock, Timestamp};
use mcpmon_store::{FileSystem, OpenOptions, SetAside, SqliteStore};

use crate::commands::archive::with_next_step;
use crate::exit::CliError;
use crate::output;

/// Opens the history. Unless `strict`, a file that is damaged, empty, another program's or a
/// development version's is set aside and a new one begun.
pub(super) fn open(
    database: &Path,
    strict: bool,
) -> Result<(SqliteStore, Option<SetAside>), CliError> {
    let opened = match strict {
        true => {
            let opened = SqliteStore::open(database, OpenOptions::default());
            (opened.map_err(|error| with_next_step(error, "without --strict, `mcpmon up`"))?, None)
        }
        false => SqliteStore::open_or_begin(database, OpenOptions::default(), SystemClock.now())?,
    };
    if let Some(warning) = opened.0.file_system().as_ref().and_then(warning) {
        output::say(&warning);
    }
    if let Some(aside) = &opened.1 {
        output::say(&aside.to_string());
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
        subject: Subject::Monitor,
        level: Level::Critical,
        message: aside.to_string(),
        timestamp: now,
        resolved_at: None,
        metrics: serde_json::Value::Null,
        failure: None,
        labels: BTreeMap::new(),
        acknowledgements: Vec::new(),
        ended_because: None,
    };
    let notification = Notification::new(&alert.id, NotificationKind::Firing, vec![alert.clone()]);
    let deliveries = handlers
        .map(|handler| NewDelivery { handler, notification: notification.clone() })
        .collect();
    // Over as soon as it is told: there is nothing that could recover.
    let alerts = vec![Alert { resolved_at: Some(now), ..alert }];
    store.commit(&Transition { alerts, deliveries, at: now, ..Transition::default() }).await
}

/// What is to be said of a place where a database is not safe.
fn warning(place: &FileSystem) -> Option<String> {
    place.is_network.then(|| {
        format!(
            "warning: the history is on a network file system ({} at `{}`), where a database can \
             be damaged and a second monitor is not refused; put it on a local disk \
             (XDG_STATE_HOME, or StateDirectory under systemd)",
            place.kind,
            place.mounted_at.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_file_system_is_warned_of() {
        let place = |kind: &str, is_network| FileSystem {
            kind: kind.to_owned(),
            mounted_at: "/srv".into(),
            is_network,
        };
        assert_eq!(warning(&place("ext4", false)), None);
        let said = warning(&place("nfs4", true)).unwrap();
        assert!(said.contains("nfs4 at `/srv`"), "{said}");
    }
}
