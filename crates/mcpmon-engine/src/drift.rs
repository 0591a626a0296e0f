//! Whether a service's lists are what they were: `tools_changed` after a change, `tools_unstable`
//! where they go back and forth.

use std::collections::VecDeque;
use std::time::Duration;

use mcpmon_core::observation::Lists;
use mcpmon_core::{Finding, FindingCode, Timestamp};

/// A change is told for so long: whoever looks once a day sees it.
const TOLD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Lists that come back within this time were not changed by somebody.
const UNSTABLE_WITHIN: Duration = Duration::from_secs(3_600);
/// So many times lists that were there before have to come back: once is a change taken back.
const RETURNS: usize = 2;
/// Changes remembered.
const REMEMBERED: usize = 8;

/// What is known of a service's lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drift {
    hash: Option<String>,
    /// The store was not given them after all.
    is_unsaid: bool,
    tools: usize,
    changes: VecDeque<(Timestamp, String)>,
    changed: Option<Change>,
}

#[derive(Debug, Clone)]
struct Change {
    at: Timestamp,
    told: Finding,
}

impl Drift {
    /// Takes up the lists stored last, and what is still told of a change before.
    pub(crate) fn restore(&mut self, lists: &Lists, findings: &[Finding]) {
        self.hash = Some(lists.hash.clone());
        self.tools = lists.tools.len();
        let told = findings.iter().find(|finding| finding.code == FindingCode::ToolsChanged);
        let at = told.and_then(|told| told.evidence.get("changed_at")?.as_str()?.parse().ok());
        self.changed = told.cloned().zip(at).map(|(told, at)| Change { at, told });
    }

    /// Takes in lists that were read; says whether they are to be stored.
    pub(crate) fn read(&mut self, lists: &Lists, at: Timestamp) -> bool {
        let is_unsaid = std::mem::take(&mut self.is_unsaid);
        if self.hash.as_ref() == Some(&lists.hash) {
            return is_unsaid;
        }
        let (before, had) = (self.hash.replace(lists.hash.clone()), self.tools);
        self.tools = lists.tools.len();
        let Some(before) = before else { return true };
        if self.changes.is_empty() {
            self.changes.push_back((at, before.clone()));
        }
        self.changes.push_back((at, lists.hash.clone()));
        if self.changes.len() > REMEMBERED {
            self.changes.pop_front();
        }
        let message = match (had, self.tools) {
            (had, has) if had == has => "the lists are others than those stored before".to_owned(),
            (had, has) => format!("the lists are others: {has} tools, before {had}"),
        };
        let told = Finding::new(FindingCode::ToolsChanged, message)
            .with("changed_at", at.to_string())
            .with("tools_before", had)
            .with("tools", self.tools)
            .with("hash_before", before)
            .with("hash", lists.hash.clone());
        self.changed = Some(Change { at, told });
        true
    }

    /// What was to be stored was dropped: it is to be stored when it is read next.
    pub(crate) fn was_dropped(&mut self) {
        self.is_unsaid = true;
    }

    /// What is to be told of the lists at `now`.
    pub(crate) fn finding(&mut self, now: Timestamp) -> Option<Finding> {
        self.changed.take_if(|change| now.since(change.at) > TOLD_FOR);
        while self.changes.front().is_some_and(|(at, _)| now.since(*at) > UNSTABLE_WITHIN) {
            self.changes.pop_front();
        }
        let returns = self.returns();
        if returns >= RETURNS {
            let text = format!("the lists came back {returns} times to what they were before");
            let finding = Finding::new(FindingCode::ToolsUnstable, text);
            return Some(finding.with("returns", returns).with("hash", self.hash.clone()));
        }
        self.changed.as_ref().map(|change| change.told.clone())
    }

    fn returns(&self) -> usize {
        let hashes = self.changes.iter().map(|(_, hash)| hash);
        hashes
            .enumerate()
            .filter(|(n, hash)| self.changes.iter().take(*n).any(|(_, earlier)| earlier == *hash))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists read every five minutes, and what is told after each (`c`hanged, `u`nstable).
    #[track_caller]
    fn check(read: &str, told: &str) {
        let mut drift = Drift::default();
        let seen: String = read
            .chars()
            .enumerate()
            .map(|(n, hash)| {
                let at = Timestamp::from_millis(n as i64 * 300_000);
                let lists = Lists { hash: hash.to_string(), ..Lists::default() };
                drift.read(&lists, at);
                match drift.finding(at).map(|finding| finding.code) {
                    Some(FindingCode::ToolsChanged) => 'c',
                    Some(FindingCode::ToolsUnstable) => 'u',
                    _ => '.',
                }
            })
            .collect();
        assert_eq!(seen, told, "{read}");
    }

    #[test]
    fn the_first_lists_are_no_change_and_a_change_taken_back_is_one() {
        check("aaabbb", "...ccc");
        check("abba", ".ccc");
    }

    #[test]
    fn lists_that_go_back_and_forth_are_unstable_until_they_stay() {
        check("abab", ".ccu");
        check("abcabc", ".cccuu");
        check("ababbbbbbbbbbbbbb", ".ccuuuuuuuuuuuccc");
    }

    #[test]
    fn lists_that_were_dropped_are_stored_when_they_are_read_again_and_are_no_change() {
        let at = Timestamp::from_millis(0);
        let lists = Lists { hash: "a".to_owned(), ..Lists::default() };
        let mut drift = Drift::default();
        assert!(drift.read(&lists, at) && !drift.read(&lists, at));
        drift.was_dropped();
        assert!(drift.read(&lists, at) && !drift.read(&lists, at));
        assert!(drift.finding(at).is_none());
    }

    #[test]
    fn a_change_is_told_for_a_day_and_over_a_restart() {
        let at = |hours: u64| {
            Timestamp::from_millis(0).saturating_add(Duration::from_secs(hours * 3_600))
        };
        let lists = |hash: &str| Lists { hash: hash.to_owned(), ..Lists::default() };
        let mut drift = Drift::default();
        assert!(drift.read(&lists("a"), at(0)));
        assert!(drift.read(&lists("b"), at(1)));
        let told = drift.finding(at(2)).unwrap();
        let mut again = Drift::default();
        again.restore(&lists("b"), &[told]);
        assert!(!again.read(&lists("b"), at(3)));
        assert!(again.finding(at(25)).is_some());
        assert!(again.finding(at(26)).is_none());
    }
}
