//! Slow work beside the loop, none of which ends by a panic of what it calls: old samples are pruned, commands of other processes are taken, the
//! incident log is paid what it is owed, the machine is measured.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::store::{Retention, Store};
use mcpmon_core::{Clock, HostProbe, SystemMetrics};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at};

use crate::handle::Request;
use crate::outbox::Outbox;
use crate::panic::unpanicked;

const PRUNE_FIRST: Duration = Duration::from_secs(30);
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Between two steps of pruning others may write.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// A log that could not be written is tried again this often.
const PAY_EVERY: Duration = Duration::from_secs(1);
const LOOK_FOR_COMMANDS: Duration = Duration::from_secs(1);
const MEASURE_HOST: Duration = Duration::from_secs(15);
const LOOK_FOR_WAY_OUT: Duration = Duration::from_secs(2);

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
            match unpanicked(store.prune(&plan)).await {
                Some(Ok(pruned)) if pruned.more => tokio::time::sleep(PRUNE_PAUSE).await,
                Some(Ok(_)) => break,
                None => {
                    tracing::error!("Pruning panicked; this is a defect. Trying again later");
                    break;
                }
                Some(Err(error)) => {
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
    let start = tokio::time::Instant::now();
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
