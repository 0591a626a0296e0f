//! What a service lists: which lists there are, their canonical form and hash, and what differs
//! between two readings.
//!
//! The canonical form and the comparison are here rather than beside the client, because the parts
//! that compare lists (the engine, the store, the commands) do not depend on the client: lists that
//! were stored under an older form are brought into the current one from the definitions kept with
//! them, so that a new form is never reported as a change of a service.
//! [ADR 0067](https://github.com/mcpmon/mcpmon/blob/main/docs/adr/0067-the-canonical-form-of-lists.md)
//! gives the reasons for the form.

mod baseline;
mod canonical;
mod diff;
mod hash;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use self::baseline::{Baseline, Comparison};
pub use self::diff::{KindDiff, ListDiff, diff};
pub use self::hash::{CanonicalDigest, HashForm, ListHasher, ListParts};
use crate::observation::{ListedItem, Lists};

/// One of the lists a service may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListKind {
    /// What a model may call.
    Tools,
    /// Messages a person may start with.
    Prompts,
    /// What can be read.
    Resources,
    /// Patterns of URIs that can be read.
    ResourceTemplates,
}

impl ListKind {
    /// Every kind, in the order in which they are read.
    pub const ALL: [Self; 4] =
        [Self::Tools, Self::Prompts, Self::Resources, Self::ResourceTemplates];

    /// The kind in words, plural.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resource templates",
        }
    }

    /// One item of it in words.
    pub const fn item(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Prompts => "prompt",
            Self::Resources => "resource",
            Self::ResourceTemplates => "resource template",
        }
    }

    /// The field of a definition that identifies the item in its list.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::ResourceTemplates => "uriTemplate",
        }
    }
}

impl Lists {
    /// The items of one list, in the server's order.
    pub fn items(&self, kind: ListKind) -> &[ListedItem] {
        match kind {
            ListKind::Tools => &self.tools,
            ListKind::Prompts => &self.prompts,
            ListKind::Resources => &self.resources,
            ListKind::ResourceTemplates => &self.resource_templates,
        }
    }

    /// The items of one list, to be changed.
    pub fn items_mut(&mut self, kind: ListKind) -> &mut Vec<ListedItem> {
        match kind {
            ListKind::Tools => &mut self.tools,
            ListKind::Prompts => &mut self.prompts,
            ListKind::Resources => &mut self.resources,
            ListKind::ResourceTemplates => &mut self.resource_templates,
        }
    }
}
