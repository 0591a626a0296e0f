//! Whether a service's lists are what they were: `tools_changed` after a change, `tools_unstable`
//! where they go back and forth.

use std::collections::VecDeque;
use std::time::Duration;

use mcpmon_core::lists::{Baseline, Comparison};
use mcpmon_core::observation::Lists;
use mcpmon_core::store::ListChange;
use mcpmon_core::{Finding, FindingCode, ServiceName, Timestamp};

/// A change stands for so long from when it was found, or from when it was reported if that was
/// later: whoever looks once a day sees it.
const STANDS_FOR: Duration = Duration::from_secs(24 * 3_600);
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
    /// The newest change, while it stands.
    changed: Option<LastChange>,
    /// The moment of the newest change there was.
    last_change: Option<Timestamp>,
    /// The newest change that was handed on to be reported: its moment, and whether it was one of
    /// lists that go back and forth.
    offered: Option<(Timestamp, bool)>,
    /// Stored changes that no alert has reported yet, oldest first.
    unreported: VecDeque<ListChange>,
}

/// What follows from lists that were read.
#[derive(Debug, Default)]
pub(crate) struct ListNews {
    /// Whether they are to be stored.
    pub(crate) is_stored: bool,
    /// The change that led to them, to be stored with them.
    pub(crate) change: Option<ListChange>,
}

#[derive(Debug, Clone)]
struct LastChange {
    change: ListChange,
    since: Timestamp,
}

impl Drift {
    /// Takes up the lists stored last. Lists that were stored under an older canonical form are
    /// brought into the current one; a list of which that cannot be done counts as never read,
    /// since a new form is no change of the service.
    pub(crate) fn restore(&mut self, lists: &Lists) {
        self.baseline = Some(Baseline::new(lists));
        self.tools = lists.tools.len();
    }

    /// Takes up stored changes of the last days, oldest first, of which those up to `reported` were
    /// reported.
    pub(crate) fn restore_changes(
        &mut self,
        changes: Vec<ListChange>,
        reported: Option<Timestamp>,
        now: Timestamp,
    ) {
        // A moment that was reported names a change, so no later change may have it.
        self.last_change = self.last_change.max(reported);
        for change in changes {
            self.last_change = self.last_change.max(Some(change.at));
            self.remember_hashes(&change, change.at.min(now));
            if reported.is_some_and(|reported| change.at <= reported) {
                self.offered = Some((change.at, change.is_return));
            } else {
                self.offer_change(&change);
            }
            let is_unreported = self.unreported.back().is_some_and(|last| last.at == change.at);
            let since = if is_unreported { now } else { change.at.min(now) };
            self.changed = Some(LastChange { change, since });
        }
        self.offered = self.offered.max(reported.map(|reported| (reported, false)));
    }

    /// Compares lists that were read with those before.
    pub(crate) fn compare_lists(
        &mut self,
        service: &ServiceName,
        lists: &Lists,
        at: Timestamp,
    ) -> ListNews {
        let is_unsaid = std::mem::take(&mut self.is_unsaid);
        let had = std::mem::replace(&mut self.tools, lists.tools.len());
        let Some(baseline) = &mut self.baseline else {
            self.baseline = Some(Baseline::new(lists));
            return ListNews { is_stored: true, change: None };
        };
        let hash_before = baseline.hash();
        match baseline.advance_to(lists) {
            Comparison::Same => return ListNews { is_stored: is_unsaid, change: None },
            Comparison::Completed => return ListNews { is_stored: true, change: None },
            Comparison::Changed => {}
        }
        let hash = baseline.hash();
        // The moment names the change, so it rises although the clock may step back.
        let next = |last: Timestamp| last.saturating_add(Duration::from_millis(1));
        let read_at = at;
        let at = self.last_change.map_or(at, |last| at.max(next(last)));
        self.last_change = Some(at);
        let count = |tools: usize| u32::try_from(tools).unwrap_or(u32::MAX);
        let mut change = ListChange {
            service: service.clone(),
            at,
            hash_before,
            hash,
            tools_before: count(had),
            tools: count(self.tools),
            is_return: false,
        };
        self.remember_hashes(&change, read_at);
        change.is_return = self.goes_back_and_forth(read_at);
        self.changed = Some(LastChange { change: change.clone(), since: read_at });
        ListNews { is_stored: true, change: Some(change) }
    }

    fn remember_hashes(&mut self, change: &ListChange, at: Timestamp) {
        if self.changes.back().is_none_or(|(_, hash)| *hash != change.hash_before) {
            self.changes.push_back((at, change.hash_before.clone()));
        }
        self.changes.push_back((at, change.hash.clone()));
        while self.changes.len() > REMEMBERED {
            self.changes.pop_front();
        }
    }

    /// Hands on a change that is stored, or that waits in memory because nothing can be stored, so
    /// that it is reported if it is news: once, however often it is handed on.
    pub(crate) fn offer_change(&mut self, change: &ListChange) {
        if self.offered.is_some_and(|(at, _)| change.at <= at) {
            return;
        }
        let is_return_before = self.offered.is_some_and(|(_, is_return)| is_return);
        self.offered = Some((change.at, change.is_return));
        if change.is_news(is_return_before) {
            self.unreported.push_back(change.clone());
        }
    }

    /// The oldest change that is to be reported.
    pub(crate) fn next_unreported(&self) -> Option<&ListChange> {
        self.unreported.front()
    }

    /// The oldest change was reported at `now`, or no rule reports it.
    pub(crate) fn drop_reported(&mut self, now: Timestamp) {
        let Some(change) = self.unreported.pop_front() else { return };
        if let Some(standing) = &mut self.changed
            && standing.change.at == change.at
        {
            standing.since = standing.since.max(now);
        }
    }

    /// The wall clock was set back by `span`: what happened is as long ago as it was. The moments
    /// that name changes stay.
    pub(crate) fn set_back(&mut self, span: Duration) {
        for (at, _) in &mut self.changes {
            *at = at.saturating_sub(span);
        }
        if let Some(standing) = &mut self.changed {
            standing.since = standing.since.saturating_sub(span);
        }
    }

    /// What was to be stored was dropped: it is to be stored when it is read next.
    pub(crate) fn was_dropped(&mut self) {
        self.is_unsaid = true;
    }

    /// What is to be told of the lists at `now`.
    pub(crate) fn finding(&mut self, now: Timestamp) -> Option<Finding> {
        self.changed.take_if(|standing| now.since(standing.since) > STANDS_FOR);
        while self.changes.front().is_some_and(|(at, _)| now.since(*at) > UNSTABLE_WITHIN) {
            self.changes.pop_front();
        }
        let returns = self.returns();
        if self.goes_back_and_forth(now) {
            let text = format!("the lists came back {returns} times to what they were before");
            let hash = self.baseline.as_ref().map(Baseline::hash);
            let finding = Finding::new(FindingCode::ToolsUnstable, text);
            return Some(finding.with("returns", returns).with("hash", hash));
        }
        self.changed.as_ref().map(|standing| standing.change.to_finding())
    }

    /// Whether the lists went back and forth within the hour before `now`, and are now what they
    /// were before. Other lists than those are a change like any other.
    fn goes_back_and_forth(&self, now: Timestamp) -> bool {
        let recent = |(at, _): &&(Timestamp, String)| now.since(*at) <= UNSTABLE_WITHIN;
        let mut hashes = self.changes.iter().filter(recent).map(|(_, hash)| hash);
        let is_return = hashes.next_back().is_some_and(|last| hashes.any(|hash| hash == last));
        is_return && self.returns() >= RETURNS
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
                drift.compare_lists(&"s".into(), &lists, at);
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
        assert!(
            drift.compare_lists(&"s".into(), &lists, at).is_stored
                && !drift.compare_lists(&"s".into(), &lists, at).is_stored
        );
        drift.was_dropped();
        assert!(
            drift.compare_lists(&"s".into(), &lists, at).is_stored
                && !drift.compare_lists(&"s".into(), &lists, at).is_stored
        );
        assert!(drift.finding(at).is_none());
    }

    #[test]
    fn a_change_is_told_for_a_day_and_over_a_restart() {
        let at = |hours: u64| {
            Timestamp::from_millis(0).saturating_add(Duration::from_secs(hours * 3_600))
        };
        let lists = |hash: &str| Lists { hash: hash.to_owned(), ..Lists::default() };
        let mut drift = Drift::default();
        assert!(drift.compare_lists(&"s".into(), &lists("a"), at(0)).is_stored);
        assert!(drift.compare_lists(&"s".into(), &lists("b"), at(1)).is_stored);
        let change = ListChange {
            tools_before: 0,
            tools: 0,
            is_return: false,
            service: "s".into(),
            at: at(1),
            hash_before: "a".to_owned(),
            hash: "b".to_owned(),
        };
        assert_eq!(drift.finding(at(2)), Some(change.to_finding()));
        let mut again = Drift::default();
        again.restore(&lists("b"));
        again.restore_changes(vec![change], Some(at(1)), at(2));
        assert!(!again.compare_lists(&"s".into(), &lists("b"), at(3)).is_stored);
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
        lists.set_parts(hasher.finish());
        lists
    }

    /// Whether lists are stored, and the finding, when they follow lists of the first form.
    fn after_first_form(stored: &Lists, read: &Lists) -> (bool, Option<Finding>) {
        let stored = Lists { hash: "ab".repeat(32), parts: None, ..stored.clone() };
        let mut drift = Drift::default();
        drift.restore(&stored);
        let is_stored = drift.compare_lists(&"s".into(), read, Timestamp::from_millis(0)).is_stored;
        assert!(
            !drift.compare_lists(&"s".into(), read, Timestamp::from_millis(1)).is_stored,
            "once"
        );
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
        same.instructions = Some("Hello.".to_owned());
        same.set_parts(hasher.finish());
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
        assert!(drift.compare_lists(&"s".into(), &tool("d", ["a", "b"]), at(0)).is_stored);
        assert!(!drift.compare_lists(&"s".into(), &tool("d", ["b", "a"]), at(1)).is_stored);
        assert_eq!(drift.finding(at(1)), None);
        assert!(
            drift.compare_lists(&"s".into(), &tool("d, reworded", ["b", "a"]), at(2)).is_stored
        );
        assert!(drift.finding(at(2)).is_some());
    }
}
