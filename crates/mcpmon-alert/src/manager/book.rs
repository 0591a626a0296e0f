//! The states of alerts, by what they are about; few of them at a time.

use std::collections::HashMap;

use mcpmon_core::alert::AlertState;
use mcpmon_core::subject::Subject;

#[derive(Debug, Default)]
pub(super) struct Book {
    states: HashMap<Subject, Vec<AlertState>>,
}

impl Book {
    /// Removes the states of a subject for the time of an evaluation.
    pub(super) fn take(&mut self, subject: &Subject) -> Vec<AlertState> {
        self.states.get_mut(subject).map(std::mem::take).unwrap_or_default()
    }

    /// Puts the states of a subject back. A subject without any leaves nothing behind.
    pub(super) fn put(&mut self, subject: &Subject, states: Vec<AlertState>) {
        if states.is_empty() {
            self.states.remove(subject);
        } else if let Some(known) = self.states.get_mut(subject) {
            *known = states;
        } else {
            self.states.insert(subject.clone(), states);
        }
    }

    /// Adds one state, in the place of another of its key.
    pub(super) fn insert(&mut self, state: AlertState) {
        let states = self.states.entry(state.key.subject.clone()).or_default();
        states.retain(|known| known.key != state.key);
        states.push(state);
    }

    /// Removes and returns the states that are meant, in the order of their keys.
    pub(super) fn extract(&mut self, is_meant: impl Fn(&AlertState) -> bool) -> Vec<AlertState> {
        let mut out = Vec::new();
        self.states.retain(|_, states| {
            out.extend(states.extract_if(.., |state| is_meant(state)));
            !states.is_empty()
        });
        // A map has no order; what is recorded and shown should have one.
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &AlertState> {
        self.states.values().flatten()
    }

    pub(super) fn find_mut(
        &mut self,
        is_meant: impl Fn(&AlertState) -> bool,
    ) -> Option<&mut AlertState> {
        self.states.values_mut().flatten().find(|state| is_meant(state))
    }
}
