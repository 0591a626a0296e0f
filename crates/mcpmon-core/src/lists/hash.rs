//! The hash of lists, made while they are read, and what a hash of an older form is worth.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::ListKind;
use super::canonical::{normalized, write_item};
use crate::observation::{ListedItem, Lists};

/// What the text of a hash begins with, by the form it is of.
const PREFIX: &str = "c2:";

/// The canonical form a hash was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashForm {
    /// Hexadecimal digits alone. It covered tools, prompts and resources, and kept the order of
    /// every array.
    First,
    /// `c2:` and hexadecimal digits: the current one.
    Second,
}

impl HashForm {
    /// The form of a hash; `None` if it is no hash of ours.
    pub fn of(hash: &str) -> Option<Self> {
        let (form, digits) = match hash.strip_prefix(PREFIX) {
            Some(digits) => (Self::Second, digits),
            None => (Self::First, hash),
        };
        let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then_some(form)
    }

    /// The lists it covers.
    pub const fn kinds(self) -> &'static [ListKind] {
        match self {
            Self::First => ListKind::ALL.split_at(3).0,
            Self::Second => &ListKind::ALL,
        }
    }

    /// Whether it covers the server's instructions.
    pub const fn has_instructions(self) -> bool {
        matches!(self, Self::Second)
    }
}

/// SHA-256 over a canonical form: of an item with its name, of one list, of instructions, or of all
/// of them. Its text is `c2:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanonicalDigest([u8; 32]);

impl CanonicalDigest {
    /// Reads the text of a digest; `None` if it is not one of the current form.
    pub fn parse(text: &str) -> Option<Self> {
        if HashForm::of(text) != Some(HashForm::Second) {
            return None;
        }
        let digits = text.strip_prefix(PREFIX)?;
        let mut digest = [0; 32];
        for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }

    fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl fmt::Display for CanonicalDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for CanonicalDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CanonicalDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no digest of lists"))
    }
}

/// What each part of lists comes to: the four lists and the instructions. A part is `None` where it
/// is not known: the server has such a list and did not give it when the others were read, or
/// whoever read them did not ask for it.
///
/// A part without content is known, and has a digest like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListParts {
    /// The tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<CanonicalDigest>,
    /// The prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<CanonicalDigest>,
    /// The resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<CanonicalDigest>,
    /// The resource templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_templates: Option<CanonicalDigest>,
    /// The instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<CanonicalDigest>,
}

impl ListParts {
    /// The parts of lists as they were read or stored: those kept with them, else those that follow
    /// from the definitions in what the form of their hash covered. A list of which a definition
    /// was cut under an older form, which kept nothing to derive it from, is not known.
    pub fn of_lists(lists: &Lists) -> Self {
        lists.parts.unwrap_or_else(|| Self::derive_from(lists))
    }

    /// The parts that follow from the definitions kept with lists.
    pub(super) fn derive_from(lists: &Lists) -> Self {
        let form = HashForm::of(&lists.hash);
        let covered = form.unwrap_or(HashForm::Second);
        let mut hasher = ListHasher::new();
        let mut scratch = String::new();
        for kind in ListKind::ALL {
            if !covered.kinds().contains(&kind) {
                hasher.mark_unknown(kind);
            }
            for item in lists.items(kind) {
                match kept_item(form, kind, item, &mut scratch) {
                    KeptItem::Known(digest) => hasher.add_digest(kind, digest),
                    KeptItem::Unknown => hasher.mark_unknown(kind),
                }
            }
        }
        hasher.set_instructions(lists.instructions.as_deref());
        let parts = hasher.finish();
        match covered.has_instructions() {
            true => parts,
            false => Self { instructions: None, ..parts },
        }
    }

    /// What one list comes to, if it is known.
    pub const fn list_digest(&self, kind: ListKind) -> Option<CanonicalDigest> {
        match kind {
            ListKind::Tools => self.tools,
            ListKind::Prompts => self.prompts,
            ListKind::Resources => self.resources,
            ListKind::ResourceTemplates => self.resource_templates,
        }
    }

    const fn list_digest_mut(&mut self, kind: ListKind) -> &mut Option<CanonicalDigest> {
        match kind {
            ListKind::Tools => &mut self.tools,
            ListKind::Prompts => &mut self.prompts,
            ListKind::Resources => &mut self.resources,
            ListKind::ResourceTemplates => &mut self.resource_templates,
        }
    }

    /// The hash of all of it. A part that is not known counts for nothing, as one without content
    /// does.
    pub fn hash(&self) -> String {
        let empty = CanonicalDigest::of_text("");
        let names = ListKind::ALL.map(|kind| (kind.as_str(), self.list_digest(kind)));
        let mut hasher = Sha256::new();
        for (name, digest) in names.into_iter().chain([("instructions", self.instructions)]) {
            if let Some(digest) = digest.filter(|digest| *digest != empty) {
                hasher.update(name);
                hasher.update("\n");
                hasher.update(digest.0);
            }
        }
        CanonicalDigest(hasher.finalize().into()).to_string()
    }

    /// These parts, and those of `before` where one is not known.
    pub fn filled_from(self, before: Self) -> Self {
        Self {
            tools: self.tools.or(before.tools),
            prompts: self.prompts.or(before.prompts),
            resources: self.resources.or(before.resources),
            resource_templates: self.resource_templates.or(before.resource_templates),
            instructions: self.instructions.or(before.instructions),
        }
    }

    /// Whether a part that both know is not the same.
    pub fn differs_from(&self, other: &Self) -> bool {
        let differs = |one: Option<CanonicalDigest>, other: Option<CanonicalDigest>| {
            one.zip(other).is_some_and(|(one, other)| one != other)
        };
        ListKind::ALL
            .into_iter()
            .any(|kind| differs(self.list_digest(kind), other.list_digest(kind)))
            || differs(self.instructions, other.instructions)
    }
}

/// Hashes lists while their items are read: 32 bytes are held of each item, and its form only until
/// the next one.
#[derive(Debug, Clone, Default)]
pub struct ListHasher {
    /// By kind; `None` for a list that is not known.
    digests: [Digests; ListKind::ALL.len()],
    instructions: Option<CanonicalDigest>,
    scratch: String,
}

#[derive(Debug, Clone, Default)]
struct Digests {
    is_unknown: bool,
    items: Vec<CanonicalDigest>,
}

impl ListHasher {
    /// A hasher that has read nothing: every list is empty until an item of it is added.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one item; `name` is the one it is listed under.
    pub fn add(&mut self, kind: ListKind, name: &str, definition: &Value) -> CanonicalDigest {
        let digest = digest(kind, name, definition, &mut self.scratch);
        self.add_digest(kind, digest);
        digest
    }

    /// Takes in one item whose digest is known.
    pub fn add_digest(&mut self, kind: ListKind, digest: CanonicalDigest) {
        self.digests[kind as usize].items.push(digest);
    }

    /// The list is not known, whatever was read of it: it could not be read to its end.
    pub fn mark_unknown(&mut self, kind: ListKind) {
        self.digests[kind as usize] = Digests { is_unknown: true, items: Vec::new() };
    }

    /// Takes in the server's instructions. Empty ones are as good as none.
    pub fn set_instructions(&mut self, instructions: Option<&str>) {
        self.instructions = instructions.map(|text| CanonicalDigest::of_text(&normalized(text)));
    }

    /// What each part comes to. The order in which items came does not matter.
    pub fn finish(self) -> ListParts {
        let instructions = self.instructions.unwrap_or_else(|| CanonicalDigest::of_text(""));
        let mut parts = ListParts { instructions: Some(instructions), ..ListParts::default() };
        for (kind, mut digests) in ListKind::ALL.into_iter().zip(self.digests) {
            // Every item's name is in its digest, so their order is as good as that of the names.
            digests.items.sort_unstable();
            let mut hasher = Sha256::new();
            digests.items.iter().for_each(|digest| hasher.update(digest.0));
            let digest = CanonicalDigest(hasher.finalize().into());
            *parts.list_digest_mut(kind) = (!digests.is_unknown).then_some(digest);
        }
        parts
    }
}

fn digest(kind: ListKind, name: &str, definition: &Value, scratch: &mut String) -> CanonicalDigest {
    scratch.clear();
    scratch.push_str(name);
    // No form has a line end in it, so the last one of the text is where the name ends.
    scratch.push('\n');
    write_item(kind, definition, scratch);
    CanonicalDigest::of_text(scratch)
}

/// What is known of an item that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptItem {
    /// Its digest.
    Known(CanonicalDigest),
    /// It was cut, under a form that kept no digest of what was cut away.
    Unknown,
}

/// Brings an item of lists whose hash is of this form into the current one.
pub(super) fn kept_item(
    form: Option<HashForm>,
    kind: ListKind,
    item: &ListedItem,
    scratch: &mut String,
) -> KeptItem {
    match (item.digest.as_deref().map(CanonicalDigest::parse), form) {
        (Some(Some(digest)), _) => KeptItem::Known(digest),
        (Some(None), _) => KeptItem::Unknown,
        (None, form) => {
            let definition = item.definition.value();
            let is_cut = form == Some(HashForm::First) && definition["cut"] == Value::Bool(true);
            if is_cut {
                return KeptItem::Unknown;
            }
            KeptItem::Known(digest(kind, &item.name, &definition, scratch))
        }
    }
}
