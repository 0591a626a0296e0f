//! Every promise of the store's ports, as tests any store can be put through.
//!
//! They want nothing of a store but the ports, so what passes can stand in for any other. Each
//! promise gets a store of its own. Values are on the grid every store keeps exactly: times at
//! 10 µs, percentages and rates at two decimals.

mod incidents;
mod questions;
mod samples;

use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::store::{Batch, Store};

use crate::clock::START;
use crate::samples::check;

/// Puts a store through every promise of `SampleStore`, `IncidentLog` and `CommandQueue`. `make`
/// gives a new, empty store each time.
///
/// # Panics
///
/// At the first promise that is not kept.
pub async fn store_conformance<S: Store>(make: impl AsyncFn() -> S) {
    samples::an_empty_store_answers(&make().await).await;
    samples::what_was_appended_is_there(&make().await).await;
    samples::pages_are_complete_ordered_and_without_duplicates(&make().await).await;
    samples::since_is_included_and_until_is_not(&make().await).await;
    samples::pages_are_bounded(&make().await).await;
    samples::facts_and_conditions_replace_those_before(&make().await).await;
    samples::the_last_check_is_the_one_appended_last(&make().await).await;
    samples::changes_are_pages_too(&make().await).await;
    samples::lists_keep_the_moment_they_were_first_seen(&make().await).await;
    samples::the_machine_is_remembered(&make().await).await;
    samples::pruning_takes_what_is_old_and_leaves_the_last_status(&make().await).await;
    questions::a_history_is_what_its_records_say(&make().await).await;
    questions::points_cover_the_span_and_add_up(&make().await).await;
    questions::summaries_are_those_of_every_service(&make().await).await;
    questions::the_last_checks_are_the_newest(&make().await).await;
    incidents::an_empty_log_answers(&make().await).await;
    incidents::a_transition_replaces_by_key_and_id(&make().await).await;
    incidents::alerts_are_chosen_newest_first(&make().await).await;
    incidents::messages_are_due_in_order_for_their_handler_alone(&make().await).await;
    incidents::a_settled_message_is_never_due_again(&make().await).await;
    incidents::a_message_to_retry_waits_and_counts(&make().await).await;
    incidents::a_key_is_queued_once_for_a_handler(&make().await).await;
    incidents::silences_end_and_are_replaced(&make().await).await;
    incidents::the_audit_trail_is_newest_first(&make().await).await;
    incidents::commands_are_taken_once_and_in_order(&make().await).await;
    incidents::pruning_leaves_what_is_open(&make().await).await;
}

/// Puts a store that outlives its process through what that means. `reopen` closes a store and
/// opens the same one again.
///
/// # Panics
///
/// At the first thing that is gone.
pub async fn store_persistence<S: Store>(make: impl AsyncFn() -> S, reopen: impl AsyncFn(S) -> S) {
    let store = make().await;
    samples::fill(&store).await;
    incidents::fill(&store).await;
    let before = (samples::read(&store).await, incidents::read(&store).await);
    let store = reopen(store).await;
    assert_eq!((samples::read(&store).await, incidents::read(&store).await), before);

    // It goes on where it stopped: nothing is overwritten, no number is given twice.
    let later = Batch { checks: vec![check("files", at(9_000))], ..Batch::default() };
    store.append(&later).await.expect("a reopened store takes a batch");
    incidents::queue_one_more(&store).await;
    let store = reopen(store).await;
    let after = samples::read(&store).await;
    assert_eq!(after.checks.len(), before.0.checks.len() + 1);
    assert_eq!(after.checks.last(), later.checks.last());
    assert_eq!(incidents::read(&store).await.due.len(), before.1.due.len() + 1);
}

/// So many milliseconds after [`START`].
fn at(millis: u64) -> Timestamp {
    START.saturating_add(Duration::from_millis(millis))
}
