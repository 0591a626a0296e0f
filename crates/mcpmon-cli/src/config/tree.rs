//! A configuration file as a tree that knows where each part of it stands.
//!
//! TOML, YAML and JSON become the same tree, so that one reader and one set of messages serve all
//! three, and so that a check made long after parsing can still say line and column.

use std::fmt;

/// A place in a file: line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Finds the position of a byte offset.
#[derive(Debug)]
pub(crate) struct LineIndex<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        Position { line, column: self.text[start..offset].chars().count() + 1 }
    }
}

/// One value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// One key of a table, where the key stands, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) node: Node,
}

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Spells a path as people write it: `rules[0].when`.
pub(crate) fn spell(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Reads what [`spell`] writes.
pub(crate) fn read_path(text: &str) -> Vec<Step> {
    let mut path = Vec::new();
    for part in text.split('.') {
        let (key, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !key.is_empty() {
            path.push(Step::from(key));
        }
        while let Some((index, tail)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            match index.parse::<usize>() {
                Ok(index) => path.push(Step::Index(index)),
                Err(_) => break,
            }
            rest = tail;
        }
    }
    path
}

impl Node {
    pub(crate) fn new(at: Position, value: Value) -> Self {
        Self { at, value }
    }

    /// An empty table, for a file that holds nothing.
    pub(crate) fn empty() -> Self {
        Self::new(Position::START, Value::Table(Vec::new()))
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.node)
            }
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    /// Follows a path to its end.
    pub(crate) fn get(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.child(step))
    }

    /// Where the path's value stands, or the nearest part of the path that is there.
    pub(crate) fn locate(&self, path: &[Step]) -> Position {
        let mut node = self;
        for step in path {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.at
    }

    /// Where the key at the path's end stands; its value's place if it is no key.
    pub(crate) fn locate_key(&self, path: &[Step]) -> Position {
        if let Some((Step::Key(key), parents)) = path.split_last()
            && let Some(Value::Table(entries)) = self.get(parents).map(|node| &node.value)
            && let Some(entry) = entries.iter().find(|entry| entry.key == *key)
        {
            return entry.at;
        }
        self.locate(path)
    }

    /// Takes out what a path leads to, so that reading can go on without it. Says whether anything
    /// was there.
    pub(crate) fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        let mut node = self;
        for step in parents {
            let next = match (&mut node.value, step) {
                (Value::Table(entries), Step::Key(key)) => {
                    entries.iter_mut().find(|entry| entry.key == *key).map(|entry| &mut entry.node)
                }
                (Value::List(items), Step::Index(index)) => items.get_mut(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return false,
            }
        }
        match (&mut node.value, last) {
            (Value::Table(entries), Step::Key(key)) => {
                let before = entries.len();
                entries.retain(|entry| entry.key != *key);
                entries.len() < before
            }
            (Value::List(items), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            _ => false,
        }
    }

    /// Every key that stands twice in one table: its path, where it stands first and again.
    pub(crate) fn duplicates(&self) -> Vec<(Vec<Step>, Position, Position)> {
        let mut found = Vec::new();
        self.collect_duplicates(&mut Vec::new(), &mut found);
        found
    }

    fn collect_duplicates(
        &self,
        path: &mut Vec<Step>,
        found: &mut Vec<(Vec<Step>, Position, Position)>,
    ) {
        match &self.value {
            Value::Table(entries) => {
                let mut seen = std::collections::HashMap::new();
                for entry in entries {
                    path.push(Step::from(entry.key.as_str()));
                    match seen.entry(entry.key.as_str()) {
                        std::collections::hash_map::Entry::Occupied(first) => {
                            found.push((path.clone(), *first.get(), entry.at));
                        }
                        std::collections::hash_map::Entry::Vacant(slot) => {
                            slot.insert(entry.at);
                        }
                    }
                    entry.node.collect_duplicates(path, found);
                    path.pop();
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Index(index));
                    item.collect_duplicates(path, found);
                    path.pop();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let index = LineIndex::new("a\nüb\n");
        assert_eq!(index.position(0), Position { line: 1, column: 1 });
        assert_eq!(index.position(2), Position { line: 2, column: 1 });
        assert_eq!(index.position(4), Position { line: 2, column: 2 });
        assert_eq!(index.position(3), Position { line: 2, column: 1 });
        assert_eq!(index.position(99), Position { line: 3, column: 1 });
    }

    #[test]
    fn a_path_reads_back_what_it_writes() {
        for text in ["rules[0].when", "services.github.url", "handlers[12]"] {
            assert_eq!(spell(&read_path(text)), text);
        }
    }
}
