//! Waiting for events, with an end.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How long [`within`] waits where a test has no better idea: long enough for a loaded machine,
/// because a test that passes never waits it out.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `event`, at most [`PATIENCE`] of *real* time, and fails the test after that, saying
/// `what` it waited for.
///
/// The cap is kept by a thread, so it also holds under a paused runtime, where `tokio`'s own
/// timeouts would jump ahead of sockets and child processes.
///
/// # Panics
///
/// When `event` did not happen in time.
#[track_caller]
pub fn within<F: Future>(what: &str, event: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        let (_done, is_done) = mpsc::channel::<()>();
        let (expire, expired) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // The sender goes when the wait ends, which ends the thread.
            if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = expire.send(());
            }
        });
        let event = pin!(event);
        tokio::select! {
            biased;
            value = event => value,
            Ok(()) = expired => panic!("{caller}: waited {PATIENCE:?} in vain for {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passes_an_event_of_another_thread_through_under_a_paused_clock() {
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || send.send(7));
        assert_eq!(within("the thread", receive).await, Ok(7));
    }
}
