//! Writes records of repairs, in order and beside the loop; what cannot be written waits.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::remedy::AuditEntry;
use mcpmon_core::store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::outbox::ANSWER_WITHIN;

/// From one try to write to the next; doubled up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A record, and who waits for it to be written.
type Note = (AuditEntry, oneshot::Sender<()>);

/// The loop's end of the task that writes. What waits is bounded by how seldom anything is
/// repaired: five times an hour and service.
pub(crate) struct Recorder {
    notes: Option<mpsc::UnboundedSender<Note>>,
    task: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let (notes, queue) = mpsc::unbounded_channel();
        Self { notes: Some(notes), task: Some(tokio::spawn(write_all(store, queue))) }
    }

    /// Has a record written; resolves once it is, or never will be.
    pub(crate) fn record(&self, entry: AuditEntry) -> oneshot::Receiver<()> {
        let (done, written) = oneshot::channel();
        if let Some(notes) = &self.notes {
            let _ = notes.send((entry, done));
        }
        written
    }

    /// Takes no more; the task ends when everything is written.
    pub(crate) fn end(&mut self) -> Option<JoinHandle<()>> {
        self.notes = None;
        self.task.take()
    }
}

async fn write_all(store: Arc<dyn Store>, mut queue: mpsc::UnboundedReceiver<Note>) {
    while let Some((entry, done)) = queue.recv().await {
        let mut pause = PAUSES.0;
        loop {
            let why = match timeout(ANSWER_WITHIN, store.record(&entry)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the store does not answer".to_owned(),
            };
            tracing::warn!(service = %entry.service, %why, "Record of a repair waits in memory");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        let _ = done.send(());
    }
}
