//! Processes on their way out, and what they turned out to have left behind.

use mcpmon_core::failure::{Finding, FindingCode};
use tokio::task::JoinSet;

use crate::child::{ChildProcess, GRACE, Leftovers};
use crate::pipe::Pipe;

/// Processes that are being ended while nobody waits for them.
///
/// Ending a process takes seconds, a check has a deadline. Dropped with processes in it, they are
/// killed at once.
#[derive(Debug, Default)]
pub struct Endings {
    tasks: JoinSet<Leftovers>,
    left: Vec<Leftovers>,
}

impl Endings {
    pub(super) fn add(&mut self, mut pipe: Pipe, process: Option<ChildProcess>) {
        self.tasks.spawn(async move {
            pipe.close_input(GRACE).await;
            match process {
                Some(mut process) => process.end().await,
                None => Leftovers::default(),
            }
        });
    }

    /// Waits until every one of them is gone. Cancel-safe.
    pub async fn all(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.left.extend(ended.ok().filter(|left| !left.is_empty()));
        }
    }

    /// Kills at once what is not gone yet, and waits until that is.
    pub async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    /// What those that are gone left behind, told once.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        while let Some(ended) = self.tasks.try_join_next() {
            self.left.extend(ended.ok().filter(|left| !left.is_empty()));
        }
        self.left.drain(..).map(|left| leftover_process(&left)).collect()
    }
}

fn leftover_process(left: &Leftovers) -> Finding {
    let count = left.names().len();
    let text = match count {
        1 => "a process it had started outlived it and was killed".to_owned(),
        _ => format!("{count} processes it had started outlived it and were killed"),
    };
    Finding::new(FindingCode::LeftoverProcess, text).with("processes", left.names().to_vec())
}
