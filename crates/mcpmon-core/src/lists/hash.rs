//! The hash of lists, made while they are read, and what a hash of an older form is worth.

use std::fmt;

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

/// SHA-256 over the name and the canonical form of one item. Its text is what stands beside a
/// definition that is too large to be kept ([`ListedItem::digest`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemDigest([u8; 32]);

impl ItemDigest {
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
}

impl fmt::Display for ItemDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes lists while their items are read: 32 bytes are held of each item, and its form only until
/// the next one.
#[derive(Debug, Clone, Default)]
pub struct ListHasher {
    /// By kind.
    digests: [Vec<ItemDigest>; ListKind::ALL.len()],
    instructions: Option<[u8; 32]>,
    scratch: String,
}

impl ListHasher {
    /// A hasher that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one item; `name` is the one it is listed under.
    pub fn add(&mut self, kind: ListKind, name: &str, definition: &Value) -> ItemDigest {
        let digest = digest(kind, name, definition, &mut self.scratch);
        self.add_digest(kind, digest);
        digest
    }

    /// Takes in one item whose digest is known.
    pub fn add_digest(&mut self, kind: ListKind, digest: ItemDigest) {
        self.digests[kind as usize].push(digest);
    }

    /// Takes back every item of a list, as of one that turned out not to be readable to its end.
    pub fn forget(&mut self, kind: ListKind) {
        self.digests[kind as usize].clear();
    }

    /// Takes in the server's instructions. Empty ones are as good as none.
    pub fn set_instructions(&mut self, instructions: Option<&str>) {
        let text = instructions.map(normalized).filter(|text| !text.is_empty());
        self.instructions = text.map(|text| Sha256::digest(text.as_bytes()).into());
    }

    /// The hash: `c2:` and 64 hexadecimal digits. The order in which items came does not matter;
    /// a list without items counts for nothing.
    pub fn finish(mut self) -> String {
        let mut hasher = Sha256::new();
        for (kind, digests) in ListKind::ALL.into_iter().zip(&mut self.digests) {
            if digests.is_empty() {
                continue;
            }
            // Every item's name is in its digest, so their order is as good as that of the names.
            digests.sort_unstable();
            hasher.update(format!("{} {}\n", digests.len(), kind.as_str()));
            digests.iter().for_each(|digest| hasher.update(digest.0));
        }
        if let Some(digest) = self.instructions {
            hasher.update("instructions\n");
            hasher.update(digest);
        }
        ItemDigest(hasher.finalize().into()).to_string()
    }
}

fn digest(kind: ListKind, name: &str, definition: &Value, scratch: &mut String) -> ItemDigest {
    scratch.clear();
    scratch.push_str(name);
    // No form has a line end in it, so the last one of the text is where the name ends.
    scratch.push('\n');
    write_item(kind, definition, scratch);
    ItemDigest(Sha256::digest(scratch.as_bytes()).into())
}

/// What is known of an item that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptItem {
    /// Its digest.
    Known(ItemDigest),
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
    match (item.digest.as_deref().map(ItemDigest::parse), form) {
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

/// The hash, in the current form, of those parts of the lists that `covered` covered; `None` where
/// a definition was cut under an older form, which kept nothing to derive it from.
pub fn rehash(lists: &Lists, covered: HashForm) -> Option<String> {
    let form = HashForm::of(&lists.hash);
    let mut hasher = ListHasher::new();
    let mut scratch = String::new();
    for kind in covered.kinds() {
        for item in lists.items(*kind) {
            match kept_item(form, *kind, item, &mut scratch) {
                KeptItem::Known(digest) => hasher.add_digest(*kind, digest),
                KeptItem::Unknown => return None,
            }
        }
    }
    if covered.has_instructions() {
        hasher.set_instructions(lists.instructions.as_deref());
    }
    Some(hasher.finish())
}

/// The lists that later ones are compared with, as their hash and how much of them that covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    hash: String,
    covers: HashForm,
}

impl Baseline {
    /// Lists as they were read or stored. Those stored under an older form are brought into the
    /// current one; `None` where that cannot be done (see [`rehash`]).
    pub fn new(lists: &Lists) -> Option<Self> {
        match HashForm::of(&lists.hash) {
            Some(HashForm::First) => {
                let hash = rehash(lists, HashForm::First)?;
                Some(Self { hash, covers: HashForm::First })
            }
            // A hash that somebody else's probe made is compared as it is.
            Some(HashForm::Second) | None => {
                Some(Self { hash: lists.hash.clone(), covers: HashForm::Second })
            }
        }
    }

    /// Whether the lists are the same, in all that the baseline covers.
    pub fn matches(&self, lists: &Lists) -> bool {
        match self.covers {
            HashForm::Second => self.hash == lists.hash,
            covers => rehash(lists, covers).as_ref() == Some(&self.hash),
        }
    }

    /// Its hash, in the current form.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether it covers all that is read today. What it does not cover is not known to have
    /// changed.
    pub fn is_whole(&self) -> bool {
        self.covers == HashForm::Second
    }
}
