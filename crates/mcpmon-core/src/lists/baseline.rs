//! The lists that later ones are compared with.

use super::ListKind;
use super::hash::{HashForm, ListParts};
use crate::observation::Lists;

/// Lists that later ones are compared with, in as much of them as is known.
///
/// A part that a reading does not have, because the server refused it or did not answer, is taken
/// to be as it was: a list that is missing for a moment is no change. A part that was not known is
/// not known to have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    known: Known,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Parts(ListParts),
    /// A hash that somebody else's probe made; it is compared as it is.
    Hash(String),
}

/// What lists are, compared with those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The same in all that is known.
    Same,
    /// The same in all that was known, and more is known now.
    Completed,
    /// Changed.
    Changed,
}

impl Baseline {
    /// Lists as they were read or stored, under this form or an older one.
    pub fn new(lists: &Lists) -> Self {
        let is_foreign = lists.parts.is_none() && HashForm::of(&lists.hash).is_none();
        let known = match is_foreign {
            true => Known::Hash(lists.hash.clone()),
            false => Known::Parts(ListParts::of_lists(lists)),
        };
        Self { known }
    }

    /// Compares `lists` with it, and makes them what the next ones are compared with.
    pub fn advance_to(&mut self, lists: &Lists) -> Comparison {
        let mut next = Self::new(lists);
        let comparison = match (&self.known, &mut next.known) {
            (Known::Parts(before), Known::Parts(parts)) => {
                let is_changed = parts.differs_from(before);
                *parts = parts.filled_from(*before);
                match is_changed {
                    true => Comparison::Changed,
                    false if parts == before => Comparison::Same,
                    false => Comparison::Completed,
                }
            }
            (before, known) if before == known => Comparison::Same,
            _ => Comparison::Changed,
        };
        *self = next;
        comparison
    }

    /// Its hash, in the current form.
    pub fn hash(&self) -> String {
        match &self.known {
            Known::Parts(parts) => parts.hash(),
            Known::Hash(hash) => hash.clone(),
        }
    }
}

impl Lists {
    /// Whether one list is known: it was asked for and given whole.
    pub fn covers_list(&self, kind: ListKind) -> bool {
        match &self.parts {
            Some(parts) => parts.list_digest(kind).is_some(),
            None => HashForm::of(&self.hash).is_none_or(|form| form.kinds().contains(&kind)),
        }
    }

    /// Whether it is known what instructions there are.
    pub fn covers_instructions(&self) -> bool {
        match &self.parts {
            Some(parts) => parts.instructions.is_some(),
            None => HashForm::of(&self.hash).is_none_or(HashForm::has_instructions),
        }
    }

    /// Sets what each part comes to, and the hash that follows.
    pub fn set_parts(&mut self, parts: ListParts) {
        self.hash = parts.hash();
        self.parts = Some(parts);
    }

    /// Takes from `before`, which was stored of the same service, each list that was not given when
    /// these were read. A store does so with what it appends, so that what it holds is whole and
    /// has the hash that the monitor compares with.
    pub fn complete_from(&mut self, before: &Self) {
        let Some(own) = self.parts else { return };
        let has_both =
            |kind: &ListKind| own.list_digest(*kind).is_none() && before.covers_list(*kind);
        let taken: Vec<ListKind> = ListKind::ALL.into_iter().filter(has_both).collect();
        if taken.is_empty() {
            return;
        }
        for kind in taken {
            *self.items_mut(kind) = before.items(kind).to_vec();
        }
        self.set_parts(own.filled_from(ListParts::of_lists(before)));
    }
}
