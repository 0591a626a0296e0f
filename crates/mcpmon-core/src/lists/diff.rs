//! What differs between two readings of a service's lists.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ListKind;
use super::canonical::normalized;
use super::hash::{HashForm, KeptItem, kept_item};
use crate::observation::{ListedItem, Lists};

/// What differs in one list, by name and in the order of names. A name is here once for each item
/// of that name that differs, since a list may repeat one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KindDiff {
    /// Items that are new.
    pub added: Vec<String>,
    /// Items that are gone.
    pub removed: Vec<String>,
    /// Items of the same name whose canonical form is another.
    pub changed: Vec<String>,
}

impl KindDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// What differs between two readings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListDiff {
    /// Among the tools.
    pub tools: KindDiff,
    /// Among the prompts.
    pub prompts: KindDiff,
    /// Among the resources.
    pub resources: KindDiff,
    /// Among the resource templates.
    pub resource_templates: KindDiff,
    /// Whether the server's instructions are others.
    pub instructions_changed: bool,
}

impl ListDiff {
    /// What differs in one list.
    pub fn kind(&self, kind: ListKind) -> &KindDiff {
        match kind {
            ListKind::Tools => &self.tools,
            ListKind::Prompts => &self.prompts,
            ListKind::Resources => &self.resources,
            ListKind::ResourceTemplates => &self.resource_templates,
        }
    }

    fn kind_mut(&mut self, kind: ListKind) -> &mut KindDiff {
        match kind {
            ListKind::Tools => &mut self.tools,
            ListKind::Prompts => &mut self.prompts,
            ListKind::Resources => &mut self.resources,
            ListKind::ResourceTemplates => &mut self.resource_templates,
        }
    }

    /// Whether nothing differs. For two whole readings whose hashes are of the current form, that
    /// is so exactly if the hashes are equal.
    pub fn is_empty(&self) -> bool {
        ListKind::ALL.into_iter().all(|kind| self.kind(kind).is_empty())
            && !self.instructions_changed
    }
}

/// Compares two readings by their canonical form, from the definitions kept with them.
///
/// Only what both cover is compared: a list that was not given when the others were read is not
/// known to differ. A definition that was cut by an older form, which kept no digest of the whole, is
/// taken to be unchanged.
pub fn diff(before: &Lists, after: &Lists) -> ListDiff {
    let forms = (HashForm::of(&before.hash), HashForm::of(&after.hash));
    let mut diff = ListDiff::default();
    let mut scratch = String::new();
    for kind in ListKind::ALL
        .into_iter()
        .filter(|kind| before.covers_list(*kind) && after.covers_list(*kind))
    {
        let mut by_name: BTreeMap<&str, Sides> = BTreeMap::new();
        for item in before.items(kind) {
            let kept = kept_item(forms.0, kind, item, &mut scratch);
            sides(&mut by_name, item).before.push(kept);
        }
        for item in after.items(kind) {
            let kept = kept_item(forms.1, kind, item, &mut scratch);
            sides(&mut by_name, item).after.push(kept);
        }
        let found = diff.kind_mut(kind);
        for (name, sides) in by_name {
            sides.compare(name, found);
        }
    }
    diff.instructions_changed = before.covers_instructions()
        && after.covers_instructions()
        && instructions(before) != instructions(after);
    diff
}

fn instructions(lists: &Lists) -> Option<Cow<'_, str>> {
    lists.instructions.as_deref().map(normalized).filter(|text| !text.is_empty())
}

fn sides<'m, 'a>(by_name: &'m mut BTreeMap<&'a str, Sides>, item: &'a ListedItem) -> &'m mut Sides {
    by_name.entry(item.name.as_str()).or_default()
}

/// The items of one name, before and after.
#[derive(Default)]
struct Sides {
    before: Vec<KeptItem>,
    after: Vec<KeptItem>,
}

impl Sides {
    /// Pairs what is the same, then what may be, then what is left: a pair of those is a change,
    /// and one without a partner was added or removed.
    fn compare(mut self, name: &str, diff: &mut KindDiff) {
        let after = &mut self.after;
        self.before.retain(|kept| match after.iter().position(|other| other == kept) {
            Some(same) => {
                after.swap_remove(same);
                false
            }
            None => true,
        });
        let is_unknown =
            |items: &[KeptItem]| items.iter().filter(|kept| **kept == KeptItem::Unknown).count();
        let pairs = self.before.len().min(self.after.len());
        let may_be_same = (is_unknown(&self.before) + is_unknown(&self.after)).min(pairs);
        let repeat = |count: usize| std::iter::repeat_n(name.to_owned(), count);
        diff.changed.extend(repeat(pairs - may_be_same));
        diff.removed.extend(repeat(self.before.len() - pairs));
        diff.added.extend(repeat(self.after.len() - pairs));
    }
}
