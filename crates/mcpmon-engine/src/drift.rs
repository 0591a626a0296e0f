//! Whether a service's lists are what they were: `tools_changed` after a change, `tools_unstable`
//! where they go back and forth.

use std::collections::VecDeque;
use std::time::Duration;

use mcpmon_core::lists::Baseline;
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
    /// What the next lists are compared with.
    baseline: Option<Baseline>,
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
    /// Takes up the lists stored last, and the finding of an earlier change. Lists that were stored
    /// under an older canonical form are brought into the current one; where that cannot be done,
    /// the next lists count as the first, since a new form is no change of the service.
    pub(crate) fn restore(&mut self, lists: &Lists, findings: &[Finding]) {
        self.baseline = Baseline::new(lists);
        self.tools = lists.tools.len();
        let told = findings.iter().find(|finding| finding.code == FindingCode::ToolsChanged);
        let at = told.and_then(|told| told.evidence.get("changed_at")?.as_str()?.parse().ok());
        self.changed = told.cloned().zip(at).map(|(told, at)| Change { at, told });
    }

    /// Takes in lists that were read; says whether they are to be stored.
    pub(crate) fn read(&mut self, lists: &Lists, at: Timestamp) -> bool {
        let is_unsaid = std::mem::take(&mut self.is_unsaid);
        let had = std::mem::replace(&mut self.tools, lists.tools.len());
        let before = match self.baseline.take() {
            Some(before) if before.matches(lists) => {
                // What an older form did not cover is stored now, and is not known to have changed.
                let is_news = is_unsaid || !before.is_whole();
                self.baseline = Baseline::new(lists);
                return is_news;
            }
            before => before,
        };
        self.baseline = Baseline::new(lists);
        let Some(before) = before.map(|before| before.hash().to_owned()) else { return true };
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
            let hash = self.baseline.as_ref().map(|baseline| baseline.hash().to_owned());
            let finding = Finding::new(FindingCode::ToolsUnstable, text);
            return Some(finding.with("returns", returns).with("hash", hash));
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
    use mcpmon_core::lists::{ListHasher, ListKind};
    use mcpmon_core::observation::ListedItem;
    use serde_json::json;

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

    fn listed(definitions: &[serde_json::Value]) -> Lists {
        let mut lists = Lists::default();
        let mut hasher = ListHasher::new();
        for definition in definitions {
            let name = definition["name"].as_str().unwrap();
            hasher.add(ListKind::Tools, name, definition);
            let definition = definition.into();
            lists.tools.push(ListedItem { name: name.to_owned(), definition, digest: None });
        }
        lists.hash = hasher.finish();
        lists
    }

    /// Whether lists are stored, and the finding, when they follow lists of the first form.
    fn after_first_form(stored: &Lists, read: &Lists) -> (bool, Option<Finding>) {
        let stored = Lists { hash: "ab".repeat(32), ..stored.clone() };
        let mut drift = Drift::default();
        drift.restore(&stored, &[]);
        let is_stored = drift.read(read, Timestamp::from_millis(0));
        assert!(!drift.read(read, Timestamp::from_millis(1)), "once");
        (is_stored, drift.finding(Timestamp::from_millis(1)))
    }

    #[test]
    fn a_new_form_is_stored_without_a_finding() {
        let tool = |required| json!({"name": "t", "inputSchema": {"required": required}});
        let stored = listed(&[tool(["a", "b"])]);
        let mut same = listed(&[tool(["b", "a"])]);
        let other = listed(&[tool(["b", "c"])]);
        assert_eq!(after_first_form(&stored, &same), (true, None));
        let (is_stored, finding) = after_first_form(&stored, &other);
        let finding = finding.unwrap();
        assert!(is_stored && finding.code == FindingCode::ToolsChanged);
        assert_eq!(finding.evidence["hash_before"], stored.hash, "in the current form");
        assert_eq!(finding.evidence["hash"], other.hash);

        // Instructions were not read when these lists were stored.
        let mut hasher = ListHasher::new();
        hasher.add(ListKind::Tools, "t", &tool(["b", "a"]));
        hasher.set_instructions(Some("Hello."));
        (same.instructions, same.hash) = (Some("Hello.".to_owned()), hasher.finish());
        assert_eq!(after_first_form(&stored, &same), (true, None));
    }

    #[test]
    fn lists_that_cannot_be_brought_into_the_new_form_are_no_change() {
        let cut = listed(&[json!({"name": "t", "cut": true})]);
        let whole = listed(&[json!({"name": "t", "description": "as long as ever"})]);
        assert_eq!(after_first_form(&cut, &whole), (true, None));
    }

    #[test]
    fn reordering_is_no_change_and_rewording_is() {
        let tool = |text: &str, required: [&str; 2]| {
            listed(&[
                json!({"name": "t", "description": text, "inputSchema": {"required": required}}),
            ])
        };
        let mut drift = Drift::default();
        let at = Timestamp::from_millis;
        assert!(drift.read(&tool("d", ["a", "b"]), at(0)));
        assert!(!drift.read(&tool("d", ["b", "a"]), at(1)));
        assert_eq!(drift.finding(at(1)), None);
        assert!(drift.read(&tool("d, reworded", ["b", "a"]), at(2)));
        assert!(drift.finding(at(2)).is_some());
    }
}
