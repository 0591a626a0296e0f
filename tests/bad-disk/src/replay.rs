//! A trace played up to any operation, and what a disk may hold if the power goes there.
//!
//! What was synced is there. Of what was not, each write may be there, may be missing, or be there
//! in part, by sectors of 512 bytes, and later ones may be there without earlier ones: a disk's
//! cache writes in whatever order it likes. Names made and taken away become durable in order.

use std::collections::BTreeMap;

use crate::trace::{Op, Trace};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Lots that are drawn the same way every time.
#[derive(Debug, Clone)]
pub struct Lots(u64);

impl Lots {
    /// Lots from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64: every bit is good, also for neighbouring seeds.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

/// Done to a file and not synced.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Its first sync makes its name durable too, as SQLite syncs the directory with it.
    new: bool,
}

/// How the disk's cache went down with the power.
#[derive(Debug, Clone, Copy)]
enum Way {
    Nothing,
    Everything,
    /// In order, up to one that is torn.
    InOrder,
    /// Each for itself.
    Anyhow,
}

/// A disk in the middle of a trace.
#[derive(Debug, Clone)]
pub struct Replay {
    files: BTreeMap<u32, File>,
    names: BTreeMap<String, u32>,
    /// Names made (with their file) and taken away since the directory was synced.
    renamed: Vec<(String, Option<u32>)>,
    promises: Vec<u64>,
}

impl Replay {
    /// The beginning of a trace.
    pub fn of(trace: &Trace) -> Self {
        let (mut files, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (number, (name, bytes)) in (0..).zip(&trace.files) {
            names.insert(name.clone(), number);
            files.insert(number, File { durable: bytes.clone(), ..File::default() });
        }
        Self { files, names, renamed: Vec::new(), promises: Vec::new() }
    }

    /// What was promised to be durable so far.
    pub fn promises(&self) -> &[u64] {
        &self.promises
    }

    /// Writes that no sync has made durable yet.
    pub fn unsynced(&self) -> usize {
        self.files.values().map(|file| file.pending.len()).sum()
    }

    /// Does the next thing.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Create { file, name } => {
                self.files.insert(*file, File { new: true, ..File::default() });
                self.renamed.push((name.clone(), Some(*file)));
            }
            Op::Write { file, offset, data } => {
                let change = Change::Write { offset: *offset, data: data.clone() };
                self.files.entry(*file).or_default().pending.push(change);
            }
            Op::Truncate { file, length } => {
                self.files.entry(*file).or_default().pending.push(Change::Length(*length));
            }
            Op::Sync { file } => {
                let file = self.files.entry(*file).or_default();
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
                if std::mem::take(&mut file.new) {
                    self.sync_names();
                }
            }
            Op::Delete { name, synced } => {
                self.renamed.push((name.clone(), None));
                if *synced {
                    self.sync_names();
                }
            }
            Op::Promise(number) => self.promises.push(*number),
        }
    }

    fn sync_names(&mut self) {
        let count = self.renamed.len();
        rename(&mut self.names, self.renamed.drain(..count));
    }

    /// What the disk may hold if the power goes now.
    pub fn cut(&self, lots: &mut Lots) -> BTreeMap<String, Vec<u8>> {
        let way = match lots.below(6) {
            0 => Way::Nothing,
            1 => Way::Everything,
            2 | 3 => Way::InOrder,
            _ => Way::Anyhow,
        };
        let mut names = self.names.clone();
        let kept = lots.below(self.renamed.len() as u64 + 1) as usize;
        rename(&mut names, self.renamed.iter().take(kept).cloned());
        let held = |(name, number)| Some((name, self.files.get(&number)?.after(way, lots)));
        names.into_iter().filter_map(held).collect()
    }
}

fn rename(names: &mut BTreeMap<String, u32>, changes: impl Iterator<Item = (String, Option<u32>)>) {
    for (name, file) in changes {
        match file {
            Some(file) => names.insert(name, file),
            None => names.remove(&name),
        };
    }
}

impl File {
    fn after(&self, way: Way, lots: &mut Lots) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let count = self.pending.len() as u64;
        let torn = lots.below(count) as usize;
        for (at, change) in self.pending.iter().enumerate() {
            match way {
                Way::Nothing => {}
                Way::Everything => change.apply(&mut bytes),
                Way::InOrder if at < torn => change.apply(&mut bytes),
                Way::InOrder if at == torn => change.tear(&mut bytes, lots),
                Way::InOrder => {}
                Way::Anyhow => match lots.below(3) {
                    0 => {}
                    1 => change.apply(&mut bytes),
                    _ => change.tear(&mut bytes, lots),
                },
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => place(bytes, *offset, data),
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// Some of its sectors: the first few, or any.
    fn tear(&self, bytes: &mut Vec<u8>, lots: &mut Lots) {
        let Self::Write { offset, data } = self else {
            if lots.below(2) == 0 {
                self.apply(bytes);
            }
            return;
        };
        let end = offset + data.len();
        let sectors = (end.div_ceil(SECTOR) - offset / SECTOR) as u64;
        let first = (lots.below(2) == 0).then(|| lots.below(sectors + 1));
        for sector in 0..sectors {
            let is_there = match first {
                Some(first) => sector < first,
                None => lots.below(2) == 0,
            };
            let start = (offset / SECTOR + sector as usize) * SECTOR;
            let (from, to) = (start.max(*offset), (start + SECTOR).min(end));
            if is_there {
                place(bytes, from, &data[from - offset..to - offset]);
            }
        }
    }
}

fn place(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: u32, offset: usize, data: &[u8]) -> Op {
        Op::Write { file, offset, data: data.to_vec() }
    }

    /// Everything the disk may hold of one file after these operations, over many cuts.
    fn outcomes(ops: &[Op], name: &str) -> Vec<Option<Vec<u8>>> {
        let trace = Trace { files: [("a".to_owned(), vec![1; 1_024])].into(), ops: ops.to_vec() };
        let mut replay = Replay::of(&trace);
        trace.ops.iter().for_each(|op| replay.step(op));
        let mut seen: Vec<_> =
            (0..400).map(|seed| replay.cut(&mut Lots::new(seed)).remove(name)).collect();
        seen.sort();
        seen.dedup();
        seen
    }

    #[test]
    fn what_was_synced_is_there_whatever_happens() {
        let ops = [write(0, 512, &[2; 512]), Op::Sync { file: 0 }];
        let whole = [vec![1; 512], vec![2; 512]].concat();
        assert_eq!(outcomes(&ops, "a"), [Some(whole)]);
    }

    #[test]
    fn what_was_not_may_be_missing_whole_or_torn_by_sectors() {
        let seen = outcomes(&[write(0, 0, &[2; 1_024])], "a");
        let sectors = |first, second| Some([vec![first; 512], vec![second; 512]].concat());
        assert_eq!(seen, [sectors(1, 1), sectors(1, 2), sectors(2, 1), sectors(2, 2)]);
    }

    #[test]
    fn a_later_write_may_be_there_without_an_earlier_one() {
        let seen = outcomes(&[write(0, 0, &[2; 512]), write(0, 512, &[3; 512])], "a");
        assert!(seen.contains(&Some([vec![1; 512], vec![3; 512]].concat())));
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_new_name_is_durable_with_its_files_first_sync() {
        let made = [Op::Create { file: 1, name: "b".into() }, write(1, 0, b"x")];
        assert!(outcomes(&made, "b").contains(&None));
        let synced = [made.to_vec(), vec![Op::Sync { file: 1 }]].concat();
        assert_eq!(outcomes(&synced, "b"), [Some(b"x".to_vec())]);
    }

    #[test]
    fn a_name_taken_away_may_come_back() {
        let delete = |synced| [Op::Delete { name: "a".into(), synced }];
        assert_eq!(outcomes(&delete(false), "a"), [None, Some(vec![1; 1_024])]);
        assert_eq!(outcomes(&delete(true), "a"), [None]);
    }
}
