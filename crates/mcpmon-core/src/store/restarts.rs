//! How often processes of services were started again, seen from the middle of the history.

use std::collections::HashMap;

use super::{RecordQuery, SampleStore, StoreError, StoredService};
use crate::service::ServiceName;

/// How often the process of each service had been started again before `range` begins: as often as
/// its facts count, less the stored checks from then on that found a new process. `restarts` knows
/// no window, so a reader that begins in the middle of the history begins with this number.
///
/// Of `range` the service and the beginning matter. A store in which no process was started again is
/// not read for it.
///
/// # Errors
///
/// When the store cannot be read.
pub async fn restarts_before(
    store: &(impl SampleStore + ?Sized),
    services: &[StoredService],
    range: &RecordQuery,
) -> Result<HashMap<ServiceName, u64>, StoreError> {
    let counted = services.iter().filter(|stored| stored.facts.restarts > 0);
    let mut restarts: HashMap<ServiceName, u64> =
        counted.map(|stored| (stored.facts.service.clone(), stored.facts.restarts)).collect();
    if restarts.is_empty() {
        return Ok(restarts);
    }
    let mut page = RecordQuery { until: None, after: None, ..range.clone() };
    loop {
        let checks = store.checks(&page).await?;
        for check in checks.items.iter().filter(|check| check.restarted) {
            if let Some(restarts) = restarts.get_mut(&check.service) {
                *restarts = restarts.saturating_sub(1);
            }
        }
        match checks.next {
            Some(next) => page.after = Some(next),
            None => return Ok(restarts),
        }
    }
}
