//! Restarts over the real store: stopped, let go and killed on virtual time, in every state an alert
//! can have. The store is opened anew for each life.

use std::cell::Cell;
use std::sync::Arc;

use mcpmon_core::store::Store;
use mcpmon_store::{OpenOptions, SqliteStore};
use tempfile::TempDir;

use self::house::House;

#[path = "../../crates/mcpmon-engine/tests/it/simulator/fleet.rs"]
#[allow(dead_code, reason = "the engine's own tests use all of it")]
mod fleet;
#[path = "../../crates/mcpmon-engine/tests/it/simulator/house.rs"]
#[allow(dead_code, reason = "the engine's own tests use all of it")]
mod house;
#[path = "../../crates/mcpmon-engine/tests/it/simulator/oracle.rs"]
#[allow(dead_code, reason = "the engine's own tests use all of it")]
mod oracle;
#[path = "../../crates/mcpmon-engine/tests/it/simulator/restarts.rs"]
#[allow(dead_code, reason = "the engine's own tests use all of it")]
mod runs;

#[test]
fn a_restart_over_the_real_store_repeats_nothing_and_forgets_nothing() {
    let home = TempDir::new().unwrap();
    let count = Cell::new(0);
    runs::all_over(|| {
        count.set(count.get() + 1);
        let path = home.path().join(format!("{}.db", count.get()));
        let mut house = House::new(9);
        house.reopen = Some(Box::new(move || -> Arc<dyn Store> {
            Arc::new(SqliteStore::open(&path, OpenOptions::default()).unwrap())
        }));
        house
    });
}
