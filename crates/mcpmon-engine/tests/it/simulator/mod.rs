//! Hours and days of trouble on virtual time: the real loop, rules and delivery over scripted
//! services, with an oracle that holds every run to its obligations.
//!
//! [`restarts`] runs over any store; `tests/it/restarts.rs` of the workspace takes the real one.

mod chance;
mod fleet;
mod house;
mod oracle;
mod outages;
mod replayed;
mod restarts;

#[test]
fn a_restart_repeats_nothing_and_forgets_nothing() {
    restarts::all_over(|| house::House::new(9));
}
