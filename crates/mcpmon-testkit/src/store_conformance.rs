//! Every promise of the store's ports, as tests any store can be put through.
//!
//! They want nothing of a store but the ports, so what passes can stand in for any other. Each
//! promise gets a store of its own. Values are on the grid every store keeps exactly: times at
//! 10 µs, percentages and rates at two decimals.
//!
//! | of the ports | a store promises | held by |
//! |---|---|---|
//! | transactions | a write is whole or nothing: dropped, failed, or read meanwhile; it may be given again | `whole` |
//! | records | all of them, in order of time, on bounded pages; text as it came; retention that leaves the last status | `samples` |
//! | spans | counts, codes, time in each status and points that add up; the newest checks | `questions` |
//! | numbers | quantiles within the sketch's bound, uptime to the millisecond, absence and maintenance apart, rankings, row caps | `spans` |
//! | alerts | states by key, alerts by id, newest first, each standing where its state does; silences, audit, commands | `incidents` |
//! | outbox | one message a key, in order, for its handler alone; retried, settled, given up, revived | `incidents` |
//! | the disk | everything outlives the process | [`store_persistence`] |
//! | faults | what could not be written left nothing | [`store_faults`] |

mod incidents;
mod questions;
mod samples;
mod spans;
mod whole;

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
    samples::lists_that_were_not_given_stay_as_they_were(&make().await).await;
    samples::every_change_of_lists_is_kept_once(&make().await).await;
    samples::the_newest_changes_of_lists_are_kept(&make().await).await;
    samples::the_machine_is_remembered(&make().await).await;
    samples::pruning_takes_what_is_old_and_leaves_the_last_status(&make().await).await;
    samples::hostile_text_is_kept_as_it_came(&make().await).await;
    whole::a_dropped_append_is_whole_or_nothing(&make().await).await;
    whole::readers_see_each_batch_whole(&make().await).await;
    whole::a_walk_over_pages_misses_nothing_while_more_is_written(&make().await).await;
    questions::a_history_is_what_its_records_say(&make().await).await;
    questions::points_cover_the_span_and_add_up(&make().await).await;
    questions::summaries_are_those_of_every_service(&make().await).await;
    questions::the_last_checks_are_the_newest(&make().await).await;
    spans::quantiles_stay_within_the_bound(&make().await).await;
    spans::uptime_is_exact_and_counts_neither_absence_nor_maintenance(&make().await).await;
    spans::a_status_is_known_although_its_change_is_older_than_retention(&make().await).await;
    spans::what_went_is_told_as_it_was_or_not_at_all(&make().await).await;
    spans::a_step_too_fine_is_widened(&make().await).await;
    spans::services_are_ranked_by_their_summaries(&make().await).await;
    spans::the_last_checks_are_bounded(&make().await).await;
    incidents::an_empty_log_answers(&make().await).await;
    incidents::a_transition_replaces_by_key_and_id(&make().await).await;
    incidents::alerts_are_chosen_newest_first(&make().await).await;
    incidents::subjects_of_one_name_are_kept_apart(&make().await).await;
    incidents::messages_are_due_in_order_for_their_handler_alone(&make().await).await;
    incidents::a_settled_message_is_never_due_again(&make().await).await;
    incidents::a_digest_is_settled_whole(&make().await).await;
    incidents::what_nobody_is_left_to_deliver_is_given_up(&make().await).await;
    incidents::an_acknowledged_alert_is_shown_so(&make().await).await;
    incidents::a_message_to_retry_waits_and_counts(&make().await).await;
    incidents::a_key_is_queued_once_for_a_handler(&make().await).await;
    incidents::an_open_alert_stands_where_its_state_does(&make().await).await;
    incidents::a_storm_is_queued_in_its_order(&make().await).await;
    incidents::what_was_given_up_can_be_sent_again_or_forgotten(&make().await).await;
    incidents::that_an_alert_fires_is_not_said_again_after_its_end(&make().await).await;
    incidents::a_word_about_an_unknown_message_is_no_error(&make().await).await;
    incidents::hostile_text_is_kept_as_it_came(&make().await).await;
    whole::a_dropped_commit_is_whole_or_nothing(&make().await).await;
    incidents::silences_end_and_are_replaced(&make().await).await;
    incidents::the_audit_trail_is_newest_first(&make().await).await;
    incidents::the_audit_trail_is_asked_by_service_and_time(&make().await).await;
    incidents::an_audit_entry_replaces_the_one_of_its_id(&make().await).await;
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

/// Puts a store through what it means that a write fails. `fail` makes every write fail from then
/// on (a full disk, a lock somebody holds), `mend` ends that; reading need not work in between.
///
/// # Panics
///
/// When something of a failed write is there, or it cannot be given again.
pub async fn store_faults<S: Store>(
    make: impl AsyncFn() -> S,
    fail: impl AsyncFn(&S),
    mend: impl AsyncFn(&S),
) {
    whole::what_fails_leaves_nothing_and_may_be_given_again(&make().await, fail, mend).await;
}

/// So many milliseconds after [`START`].
fn at(millis: u64) -> Timestamp {
    START.saturating_add(Duration::from_millis(millis))
}
