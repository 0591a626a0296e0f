//! Slow work beside the loop: old samples are pruned, commands of other processes are taken, the
//! incident log is paid what it is owed, the machine is measured.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::store::{Retention, Store};
use mcpmon_core::{Clock, HostProbe, SystemMetrics};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at};

use crate::handle::Request;
use crate::outbox::Outbox;

const PRUNE_FIRST: Duration = Duration::from_secs(30);
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Between two steps of pruning others may write.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// A log that could not be written is tried again this often.
const PAY_EVERY: Duration = Duration::from_secs(1);
const LOOK_FOR_COMMANDS: Duration = Duration::from_secs(1);
const MEASURE_HOST: Duration = Duration::from_secs(15);

/// Deletes what is older than retention says, step by step.
pub(crate) async fn prune(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    mut retention: watch::Receiver<Retention>,
) {
    let mut pause = PRUNE_FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = retention.changed() => if changed.is_err() { return },
        }
        pause = PRUNE_EVERY;
        let plan = retention.borrow().plan(clock.now());
        loop {
            match store.prune(&plan).await {
                Ok(pruned) if pruned.more => tokio::time::sleep(PRUNE_PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "Old samples could not be pruned; trying again later");
                    break;
                }
            }
        }
    }
}

/// Passes on what other processes left in the command queue.
pub(crate) async fn take_commands(store: Arc<dyn Store>, requests: mpsc::UnboundedSender<Request>) {
    let mut ticks = interval(LOOK_FOR_COMMANDS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        match store.take().await {
            Ok(commands) => {
                for command in commands {
                    if requests.send(Request::Command(command, None)).is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "Commands could not be read"),
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

/// Measures the machine.
pub(crate) async fn measure(
    mut host: Box<dyn HostProbe>,
    mut enabled: watch::Receiver<bool>,
    samples: mpsc::Sender<SystemMetrics>,
) {
    let start = tokio::time::Instant::now();
    let mut ticks = interval_at(start, MEASURE_HOST);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if enabled.wait_for(|enabled| *enabled).await.is_err() {
            return;
        }
        if samples.send(host.sample().await).await.is_err() {
            return;
        }
    }
}
