//! The memory that stands in for a store keeps every promise of a store.

use std::sync::Arc;

use mcpmon_engine::MemoryStore;
use mcpmon_testkit::store_conformance::{store_conformance, store_faults};
use mcpmon_testkit::{FailingStore, Operations, StoreFault};

#[tokio::test]
async fn memory_keeps_the_promises_of_a_store() {
    store_conformance(async || MemoryStore::new()).await;
}

#[tokio::test]
async fn a_store_that_is_cut_off_keeps_nothing_of_what_it_refused() {
    store_faults(
        async || FailingStore::new(Arc::new(MemoryStore::new())),
        async |store| store.fail(Operations::Writes, StoreFault::Full),
        async |store| store.recover(),
    )
    .await;
}
