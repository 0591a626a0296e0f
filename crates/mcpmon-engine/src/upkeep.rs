//! Slow work beside the loop, none of which ends by a panic of what it calls: old samples are
//! pruned, the disk is looked at, commands of other processes are taken, the incident log is paid
//! what it is owed, the machine is measured.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::store::{PrunePlan, Pruned, Retention, Room, Store};
use mcpmon_core::{HostProbe, StoreError, SystemMetrics};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use crate::handle::{Request, Shared};
use crate::outbox::Outbox;
use crate::panic::unpanicked;
use crate::room::Standing;

const PRUNE_FIRST: Duration = Duration::from_secs(30);
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// A disk fills within minutes, not within ten.
const LOOK_AT_ROOM: Duration = Duration::from_secs(5);
/// Between two steps of pruning others may write.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// A log that could not be written is tried again this often.
const PAY_EVERY: Duration = Duration::from_secs(1);
const LOOK_FOR_COMMANDS: Duration = Duration::from_secs(1);
const MEASURE_HOST: Duration = Duration::from_secs(15);
const LOOK_FOR_WAY_OUT: Duration = Duration::from_secs(2);

/// Deletes what is older than retention says, step by step, and sees that the disk stays well.
pub(crate) async fn prune(shared: Arc<Shared>, mut retention: watch::Receiver<Retention>) {
    let mut standing = Standing::default();
    let mut due = Instant::now() + PRUNE_FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AT_ROOM.min(due - Instant::now())) => {}
            changed = retention.changed() => {
                if changed.is_err() {
                    return;
                }
                due = Instant::now();
            }
        }
        if look(&shared, &mut standing).await {
            due = Instant::now();
        }
        if Instant::now() < due {
            continue;
        }
        due = Instant::now() + PRUNE_EVERY;
        let plan = retention.borrow().plan(shared.clock.now());
        let Some(within) = standing.within(plan) else { continue };
        let pruning = Pruning { shared: &shared, standing: &mut standing, plan, within };
        if prune_by_steps(pruning).await {
            due = Instant::now();
        }
    }
}

/// Looks at the disk, and says what is new of it; `true` if pruning should not wait for its turn.
async fn look(shared: &Shared, standing: &mut Standing) -> bool {
    let before = *standing;
    match unpanicked(shared.store.room()).await {
        Some(Ok(Some(room))) => {
            *standing = before.after(room);
            tell_room(shared, before, *standing);
            return standing.calls_for_pruning(before);
        }
        Some(Ok(None)) => {}
        Some(Err(error)) => tracing::debug!(%error, "Room of the store is not known"),
        None => tracing::error!("Looking at the store's room panicked; this is a defect"),
    }
    false
}

/// What pruning does in turns.
trait Steps: Send {
    /// Deletes a little; `None` where that panicked.
    fn step(&mut self) -> impl Future<Output = Option<Result<Pruned, StoreError>>> + Send;

    /// Looks at the disk; says whether to go on as before.
    fn may_go_on(&mut self) -> impl Future<Output = bool> + Send;
}

struct Pruning<'a> {
    shared: &'a Shared,
    standing: &'a mut Standing,
    plan: PrunePlan,
    /// The plan within the room there was.
    within: PrunePlan,
}

impl Steps for Pruning<'_> {
    async fn step(&mut self) -> Option<Result<Pruned, StoreError>> {
        unpanicked(self.shared.store.prune(&self.within)).await
    }

    async fn may_go_on(&mut self) -> bool {
        look(self.shared, self.standing).await;
        self.standing.within(self.plan) == Some(self.within)
    }
}

/// Prunes step by step. As it may take long and makes the log longer, the disk is looked at as often
/// as at other times. Says whether it was left undone for that.
async fn prune_by_steps(mut steps: impl Steps) -> bool {
    let mut looked = Instant::now();
    loop {
        match steps.step().await {
            Some(Ok(pruned)) if pruned.more => tokio::time::sleep(PRUNE_PAUSE).await,
            Some(Ok(_)) => return false,
            None => {
                tracing::error!("Pruning panicked; this is a defect. Trying again later");
                return false;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "Old samples could not be pruned; trying again later");
                return false;
            }
        }
        if looked.elapsed() >= LOOK_AT_ROOM {
            if !steps.may_go_on().await {
                return true;
            }
            looked = Instant::now();
        }
    }
}

/// Puts what was measured into the report, and says what is new of it.
fn tell_room(shared: &Shared, before: Standing, standing: Standing) {
    let (room, warning) = (standing.room(), standing.warning());
    if before.warning().is_some() != warning.is_some() {
        let Room { file_bytes, log_bytes, free_bytes, .. } = room;
        match &warning {
            Some(warning) => {
                tracing::warn!(
                    file_bytes,
                    log_bytes,
                    free_bytes,
                    "Room for the history: {warning}"
                );
            }
            None => tracing::info!(file_bytes, log_bytes, free_bytes, "Room for the history again"),
        }
    }
    let mut world = shared.write();
    world.is_disk_low = standing.is_low();
    let report = &mut world.report;
    report.storage_warning = warning;
    report.disk_free_bytes = room.free_bytes;
    report.log_bytes = Some(room.log_bytes);
}

/// Passes on what other processes left in the command queue.
pub(crate) async fn take_commands(store: Arc<dyn Store>, requests: mpsc::UnboundedSender<Request>) {
    let mut ticks = interval(LOOK_FOR_COMMANDS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        match unpanicked(store.take()).await {
            Some(Ok(commands)) => {
                for command in commands {
                    if requests.send(Request::Command(command, None)).is_err() {
                        return;
                    }
                }
            }
            Some(Err(error)) => tracing::debug!(%error, "Commands could not be read"),
            None => tracing::error!("Reading commands panicked; this is a defect"),
        }
    }
}

/// Writes what the incident log could not take, once it can.
pub(crate) async fn pay(outbox: Arc<Outbox>) {
    let mut ticks = interval(PAY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if outbox.owes()
            && let Err(error) = outbox.pay().await
        {
            tracing::debug!(%error, "Incident log still cannot be written");
        }
    }
}

/// What the machine says of itself.
#[derive(Debug)]
pub(crate) enum HostNews {
    Measured(Box<SystemMetrics>),
    /// Whether it has a way out; told when that changes.
    WayOut(Option<bool>),
}

/// Measures the machine, and looks whether it has a way out.
pub(crate) async fn measure(
    mut host: Box<dyn HostProbe>,
    enabled: watch::Receiver<bool>,
    news: mpsc::Sender<HostNews>,
) {
    let start = Instant::now();
    let mut samples = interval_at(start, MEASURE_HOST);
    samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut looks = interval_at(start, LOOK_FOR_WAY_OUT);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut has_way_out = None;
    loop {
        tokio::select! {
            biased;
            _ = looks.tick() => {
                let looked = catch_unwind(AssertUnwindSafe(|| host.is_online())).unwrap_or(None);
                if std::mem::replace(&mut has_way_out, looked) != looked
                    && news.send(HostNews::WayOut(looked)).await.is_err()
                {
                    return;
                }
            }
            _ = samples.tick() => {
                if !*enabled.borrow() {
                    continue;
                }
                let Some(sample) = unpanicked(host.sample()).await else {
                    tracing::error!("Measuring the machine panicked; this is a defect");
                    continue;
                };
                if news.send(HostNews::Measured(Box::new(sample))).await.is_err() {
                    return;
                }
            }
            () = news.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many steps, and looks before something is different.
    struct Counted {
        steps: u32,
        looks: u32,
    }

    impl Steps for &mut Counted {
        async fn step(&mut self) -> Option<Result<Pruned, StoreError>> {
            self.steps -= 1;
            Some(Ok(Pruned { rows: 1, more: self.steps > 0 }))
        }

        async fn may_go_on(&mut self) -> bool {
            self.looks -= 1;
            self.looks > 0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_disk_is_looked_at_while_pruning_takes_long() {
        let mut long = Counted { steps: 100_000, looks: 3 };
        let begun = Instant::now();
        assert!(prune_by_steps(&mut long).await, "left, since the room is another");
        assert!(long.looks == 0 && long.steps > 99_000);
        assert!(begun.elapsed() >= LOOK_AT_ROOM * 3 && begun.elapsed() < LOOK_AT_ROOM * 4);
        let mut short = Counted { steps: 9, looks: 1 };
        assert!(!prune_by_steps(&mut short).await, "done");
        assert_eq!((short.steps, short.looks), (0, 1));
    }
}
