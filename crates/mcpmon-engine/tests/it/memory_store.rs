//! The memory that stands in for a store keeps every promise of a store.

use mcpmon_engine::MemoryStore;
use mcpmon_testkit::store_conformance::store_conformance;

#[tokio::test]
async fn memory_keeps_the_promises_of_a_store() {
    store_conformance(async || MemoryStore::new()).await;
}
