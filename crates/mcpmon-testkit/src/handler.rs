//! A handler that remembers what it was told, and refuses on cue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, NotificationKind, Receipt};
use tokio::sync::watch;

use crate::wait::within;

/// What a [`RecordingHandler`] does with one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reaction {
    /// Takes it.
    #[default]
    Accept,
    /// Says "later", as a busy mail server does.
    Later,
    /// Says "later", and when.
    LaterAfter(Duration),
    /// Says that trying again will not help.
    Never,
    /// Does not answer; only dropping the future ends it.
    Hang,
    /// Panics, as a handler with a bug does.
    Panic,
}

/// Remembers every attempt and every delivery. Clones share what they remember.
#[derive(Debug, Clone)]
pub struct RecordingHandler {
    name: Arc<str>,
    seen: Arc<watch::Sender<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    attempts: Vec<Notification>,
    delivered: Vec<Notification>,
    cues: VecDeque<Reaction>,
    usual: Reaction,
}

impl RecordingHandler {
    /// A handler that takes everything.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), seen: Arc::default() }
    }

    /// What it does with the next attempts, one each; after them it does the usual again.
    #[must_use]
    pub fn first(self, reactions: impl IntoIterator<Item = Reaction>) -> Self {
        self.next(reactions);
        self
    }

    /// The same while it is in use.
    pub fn next(&self, reactions: impl IntoIterator<Item = Reaction>) {
        self.seen.send_modify(|seen| seen.cues.extend(reactions));
    }

    /// What it does with every attempt it has no cue for; [`Reaction::Accept`] at first.
    pub fn usually(&self, reaction: Reaction) {
        self.seen.send_modify(|seen| seen.usual = reaction);
    }

    /// Every attempt, refused ones too.
    pub fn attempts(&self) -> Vec<Notification> {
        self.seen.borrow().attempts.clone()
    }

    /// What it took.
    pub fn delivered(&self) -> Vec<Notification> {
        self.seen.borrow().delivered.clone()
    }

    /// How many notifications of this kind it took.
    pub fn count(&self, kind: NotificationKind) -> usize {
        self.seen.borrow().delivered.iter().filter(|n| n.kind == kind).count()
    }

    /// Waits until it took `count` notifications, and gives them all.
    ///
    /// # Panics
    ///
    /// When they do not come in time (see [`within`]).
    pub async fn wait_for(&self, count: usize) -> Vec<Notification> {
        let what = format!("{count} notifications to `{}`", self.name);
        self.wait(&what, |seen| seen.delivered.len() >= count).await;
        self.delivered()
    }

    /// Waits until it was tried `count` times.
    ///
    /// # Panics
    ///
    /// When they do not come in time (see [`within`]).
    pub async fn wait_for_attempts(&self, count: usize) -> Vec<Notification> {
        let what = format!("{count} attempts at `{}`", self.name);
        self.wait(&what, |seen| seen.attempts.len() >= count).await;
        self.attempts()
    }

    async fn wait(&self, what: &str, done: impl FnMut(&Seen) -> bool) {
        let mut changes = self.seen.subscribe();
        // The sender is ours, so the wait can only end by the condition or by the cap.
        let _ = within(what, changes.wait_for(done)).await;
    }

    fn react(&self, notification: &Notification) -> Reaction {
        let mut reaction = Reaction::Accept;
        self.seen.send_modify(|seen| {
            reaction = seen.cues.pop_front().unwrap_or(seen.usual);
            seen.attempts.push(notification.clone());
            if reaction == Reaction::Accept {
                seen.delivered.push(notification.clone());
            }
        });
        reaction
    }
}

#[async_trait]
impl Handler for RecordingHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        match self.react(notification) {
            Reaction::Accept => Ok(Receipt::with_id(format!("{}:{}", self.name, notification.key))),
            Reaction::Later => Err(DeliveryError::transient("busy, try later")),
            Reaction::LaterAfter(wait) => {
                Err(DeliveryError::transient("busy, try later").after(wait))
            }
            Reaction::Never => Err(DeliveryError::permanent("no such mailbox")),
            Reaction::Hang => std::future::pending().await,
            Reaction::Panic => panic!("the handler `{}` panics on cue", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[tokio::test]
    async fn says_later_twice_and_then_takes_it() {
        let handler = RecordingHandler::new("ops").first([Reaction::Later; 2]);
        let message = samples::notification("k", NotificationKind::Firing);
        for attempt in 1..=2 {
            let error = handler.deliver(&message.clone().at_attempt(attempt)).await.unwrap_err();
            assert!(error.is_transient());
        }
        let receipt = handler.deliver(&message.clone().at_attempt(3)).await.unwrap();
        assert_eq!(receipt.id.as_deref(), Some("ops:k"));
        assert_eq!(handler.wait_for_attempts(3).await.len(), 3);
        assert_eq!(handler.wait_for(1).await[0].attempt, 3);
    }

    #[tokio::test]
    async fn refuses_for_good_until_told_otherwise() {
        let handler = RecordingHandler::new("ops");
        handler.usually(Reaction::Never);
        let message = samples::notification("k", NotificationKind::Firing);
        assert!(!handler.deliver(&message).await.unwrap_err().is_transient());
        handler.usually(Reaction::Accept);
        handler.deliver(&message).await.unwrap();
        assert_eq!(handler.count(NotificationKind::Firing), 1);
    }
}
