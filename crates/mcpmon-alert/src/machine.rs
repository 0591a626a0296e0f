//! One rule's standing towards one subject: from verdicts to what is said. Pure.
//!
//! [`step`] decides and changes nothing; [`apply`] writes down what was decided, and [`note_told`]
//! who heard of it. The alert itself is made and delivered elsewhere, so that everything that
//! makes a monitor noisy or silent stands in this one table-tested place. What else keeps an alert
//! quiet (a dependency that is down, a silence, an acknowledgement) stands between the two:
//! [`quieten`] changes a [`Decision`] into a quieter one, and never the end of what was told.

use std::time::Duration;

use mcpmon_core::alert::{AlertPhase, AlertState};
use mcpmon_core::rule::{RulePolicy, Verdict};
use mcpmon_core::status::Level;
use mcpmon_core::time::Timestamp;

/// A rule's times, with the monitor's cooldown filled in where the rule has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long the condition must hold before the alert fires.
    pub hold: Duration,
    /// How long it fires on after the condition ended.
    pub keep_firing: Duration,
    /// Least time between two firing notices. Zero: never held back, and never reminded.
    pub cooldown: Duration,
}

impl Timing {
    /// The times of `policy`, with `cooldown` where it has none of its own.
    pub fn new(policy: &RulePolicy, cooldown: Duration) -> Self {
        Self {
            hold: policy.hold,
            keep_firing: policy.keep_firing,
            cooldown: policy.cooldown.unwrap_or(cooldown),
        }
    }
}

/// What follows from a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changes.
    Quiet,
    /// The condition began to hold; it must hold for longer.
    Pend,
    /// It ended before it had held for long enough.
    Lapse,
    /// It fires. Told unless the cooldown of an earlier notice still runs.
    Open {
        /// Whether it is told now.
        tell: bool,
    },
    /// It fires since a while, and the cooldown that kept it quiet has ended.
    TellLate,
    /// It would fire, but what it depends on is down, and told.
    Suppress,
    /// It fires on, and got worse: told at once, because the last notice said less.
    Escalate,
    /// It fires on, and a cooldown has passed since the last notice.
    Remind,
    /// The condition ended, but the alert fires on for a while (`keep_firing`).
    Linger,
    /// The condition came back while it lingered.
    Revive,
    /// It ended. Told to whoever was told that it fired.
    Resolve {
        /// Whether anybody was.
        tell: bool,
    },
}

/// Decides what follows from `verdict` at `now`, without doing it. `level` is how bad a firing
/// verdict is.
pub fn step(
    state: &AlertState,
    verdict: Verdict,
    level: Level,
    timing: &Timing,
    now: Timestamp,
) -> Decision {
    match (state.phase, verdict) {
        (_, Verdict::NoData) => Decision::Quiet,
        (AlertPhase::Firing, Verdict::Ok) => ended(state, timing, now),
        (AlertPhase::Firing, Verdict::Firing) => goes_on(state, level, timing, now),
        (AlertPhase::Pending, Verdict::Ok) => Decision::Lapse,
        (AlertPhase::Pending, Verdict::Firing) if !has_passed(timing.hold, state.since, now) => {
            Decision::Quiet
        }
        (AlertPhase::Pending | AlertPhase::Suppressed, Verdict::Firing) => open(state, timing, now),
        (AlertPhase::Suppressed, Verdict::Ok) => Decision::Lapse,
        (_, Verdict::Ok) => Decision::Quiet,
        (_, Verdict::Firing) if timing.hold > Duration::ZERO => Decision::Pend,
        (_, Verdict::Firing) => open(state, timing, now),
    }
}

/// What keeps an alert quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hush {
    /// What the service depends on is down, and that is told by an alert of its own.
    pub suppressed: bool,
    /// A silence covers the alert.
    pub silenced: bool,
}

/// Makes a decision as quiet as it should be. Suppression keeps an alert from beginning; a silence
/// and an acknowledgement keep it from being told again. None of them keeps its end from whoever
/// was told of it.
pub fn quieten(state: &AlertState, decision: Decision, hush: Hush) -> Decision {
    match decision {
        Decision::Open { .. } if hush.suppressed => match state.phase {
            AlertPhase::Suppressed => Decision::Quiet,
            _ => Decision::Suppress,
        },
        Decision::Open { .. } if hush.silenced => Decision::Open { tell: false },
        // Decided again when the silence ends: who was told less must hear that it got worse.
        Decision::Escalate | Decision::TellLate | Decision::Remind if hush.silenced => {
            unsaid(state)
        }
        Decision::Remind if state.acknowledged.is_some() => unsaid(state),
        other => other,
    }
}

/// That it fires on is not told, but one that lingered has come back all the same.
fn unsaid(state: &AlertState) -> Decision {
    match state.ended {
        Some(_) => Decision::Revive,
        None => Decision::Quiet,
    }
}

fn open(state: &AlertState, timing: &Timing, now: Timestamp) -> Decision {
    Decision::Open { tell: cooldown_is_over(state, timing, now) }
}

fn goes_on(state: &AlertState, level: Level, timing: &Timing, now: Timestamp) -> Decision {
    // What nobody was told is as bad as it is known to be.
    let known_level = state.alert.as_ref().map(|alert| alert.level);
    let told_level = state.told_level.or(known_level);
    if told_level.is_some_and(|told| level > told) {
        Decision::Escalate
    } else if !state.told && cooldown_is_over(state, timing, now) {
        Decision::TellLate
    } else if state.told && timing.cooldown > Duration::ZERO && cooldown_is_over(state, timing, now)
    {
        Decision::Remind
    } else if state.ended.is_some() {
        Decision::Revive
    } else {
        Decision::Quiet
    }
}

fn ended(state: &AlertState, timing: &Timing, now: Timestamp) -> Decision {
    let over = match state.ended {
        Some(since) => has_passed(timing.keep_firing, since, now),
        None if timing.keep_firing == Duration::ZERO => true,
        None => return Decision::Linger,
    };
    if over { Decision::Resolve { tell: state.told } } else { Decision::Quiet }
}

fn cooldown_is_over(state: &AlertState, timing: &Timing, now: Timestamp) -> bool {
    state.last_notified.is_none_or(|last| has_passed(timing.cooldown, last, now))
}

/// Whether `span` lies between the two moments, in either direction: after a wall clock was set
/// back by hours, nothing waits hours for it.
fn has_passed(span: Duration, since: Timestamp, now: Timestamp) -> bool {
    now.since(since).max(since.since(now)) >= span
}

/// Writes down what was decided. Who was told is [`note_told`]'s affair.
pub fn apply(state: &mut AlertState, decision: Decision, now: Timestamp) {
    match decision {
        Decision::Quiet => {}
        Decision::Pend => enter(state, AlertPhase::Pending, now),
        Decision::Lapse => enter(state, AlertPhase::Inactive, now),
        Decision::Suppress => enter(state, AlertPhase::Suppressed, now),
        Decision::Open { .. } => {
            enter(state, AlertPhase::Firing, now);
            state.told = false;
            state.told_to.clear();
            state.told_level = None;
            state.acknowledged = None;
        }
        Decision::TellLate | Decision::Remind | Decision::Revive => state.ended = None,
        // Whoever took it on took on less than this.
        Decision::Escalate => (state.ended, state.acknowledged) = (None, None),
        Decision::Linger => state.ended = Some(now),
        Decision::Resolve { .. } => {
            enter(state, AlertPhase::Resolved, now);
            if let Some(alert) = &mut state.alert {
                alert.resolved_at = Some(now);
            }
        }
    }
}

fn enter(state: &mut AlertState, phase: AlertPhase, now: Timestamp) {
    state.phase = phase;
    state.since = now;
    state.ended = None;
}

/// Writes down that a firing notice went to these handlers; the cooldown runs from now.
pub fn note_told<'a>(
    state: &mut AlertState,
    handlers: impl IntoIterator<Item = &'a str>,
    now: Timestamp,
) {
    for handler in handlers {
        state.told = true;
        state.told_level = state.alert.as_ref().map(|alert| alert.level);
        state.last_notified = Some(now);
        if !state.told_to.iter().any(|known| known == handler) {
            state.told_to.push(handler.to_owned());
        }
    }
}

/// When something may follow for this state although no number changes.
pub fn next_due(state: &AlertState, timing: &Timing) -> Option<Timestamp> {
    match state.phase {
        AlertPhase::Pending => Some(state.since.saturating_add(timing.hold)),
        AlertPhase::Firing => match (state.ended, state.last_notified) {
            (Some(ended), _) => Some(ended.saturating_add(timing.keep_firing)),
            (None, Some(last)) if timing.cooldown > Duration::ZERO => {
                Some(last.saturating_add(timing.cooldown))
            }
            (None, _) => None,
        },
        _ => None,
    }
}

/// Whether a state says nothing that matters any more and may be dropped from memory.
pub(crate) fn is_spent(state: &AlertState, timing: &Timing, now: Timestamp) -> bool {
    !matches!(state.phase, AlertPhase::Firing | AlertPhase::Pending | AlertPhase::Suppressed)
        && cooldown_is_over(state, timing, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::alert::{Alert, AlertKey};
    use mcpmon_core::subject::Subject;
    use proptest::prelude::*;

    fn key() -> AlertKey {
        AlertKey::new("rule", Subject::Service("service".into()))
    }

    fn alert(level: Level, now: Timestamp) -> Alert {
        Alert {
            schema: mcpmon_core::alert::ALERT_SCHEMA.to_owned(),
            id: "1".to_owned(),
            rule_name: "rule".to_owned(),
            subject: Subject::Service("service".into()),
            level,
            message: String::new(),
            timestamp: now,
            resolved_at: None,
            metrics: serde_json::Value::Null,
            failure: None,
            labels: std::collections::BTreeMap::new(),
            acknowledgements: Vec::new(),
            ended_because: None,
        }
    }

    fn at(second: usize) -> Timestamp {
        Timestamp::from_millis(1_000 * (1_000 + i64::try_from(second).unwrap()))
    }

    /// Runs verdicts one a second through the machine as a manager does, everybody told.
    fn run(timing: &Timing, verdicts: &str) -> (String, AlertState) {
        run_hushed(timing, verdicts, |_| Hush::default())
    }

    fn run_hushed(
        timing: &Timing,
        verdicts: &str,
        hush: impl Fn(usize) -> Hush,
    ) -> (String, AlertState) {
        let mut state = AlertState::new(key(), at(0));
        let mut said = String::new();
        for (second, symbol) in verdicts.chars().enumerate() {
            let now = at(second);
            let (verdict, level) = match symbol {
                '.' => (Verdict::Ok, Level::Warning),
                '!' => (Verdict::Firing, Level::Warning),
                'X' => (Verdict::Firing, Level::Critical),
                '?' => (Verdict::NoData, Level::Warning),
                other => panic!("no verdict is spelled {other}"),
            };
            let decision = step(&state, verdict, level, timing, now);
            let decision = quieten(&state, decision, hush(second));
            apply(&mut state, decision, now);
            if let Decision::Open { .. } | Decision::Escalate = decision {
                state.alert = Some(alert(level, now));
            }
            said.push(match decision {
                Decision::Open { tell: true } | Decision::TellLate => 'O',
                Decision::Escalate => 'E',
                Decision::Suppress => 's',
                Decision::Remind => 'R',
                Decision::Resolve { tell: true } => 'r',
                _ => '-',
            });
            if matches!(said.chars().last(), Some('O' | 'E' | 'R')) {
                note_told(&mut state, ["ops"], now);
            }
        }
        (said, state)
    }

    #[track_caller]
    fn check_with(hold: u64, keep: u64, cooldown: u64, verdicts: &str, decisions: &str) {
        let timing = Timing {
            hold: Duration::from_secs(hold),
            keep_firing: Duration::from_secs(keep),
            cooldown: Duration::from_secs(cooldown),
        };
        assert_eq!(run(&timing, verdicts).0, decisions, "{verdicts}");
    }

    /// One verdict a second (`.` ok, `!` firing, `X` firing worse, `?` no data), one decision a
    /// second (`-` quiet, `O` opened, `E` got worse, `R` reminder, `r` resolved).
    #[track_caller]
    fn check(hold_secs: u64, cooldown_secs: u64, verdicts: &str, decisions: &str) {
        check_with(hold_secs, 0, cooldown_secs, verdicts, decisions);
    }

    #[test]
    fn tells_once_and_tells_the_end() {
        check(0, 60, "..!!!..", "--O--r-");
    }

    #[test]
    fn reminds_once_per_cooldown() {
        check(0, 3, "!!!!!!!", "O--R--R");
    }

    #[test] // told late, because it was told a moment ago; a recovery nobody was told of is not told
    fn holds_a_second_firing_back_until_the_cooldown_ends() {
        check(0, 5, "!.!!!!!", "Or---O-");
        check(0, 5, "!.!.!.!", "Or----O");
        check(0, 9, "!.!.!.!.", "Or------");
    }

    #[test]
    fn a_cooldown_of_nothing_neither_holds_back_nor_reminds() {
        check(0, 0, "!!!.!.", "O--rOr");
    }

    #[test]
    fn no_data_neither_opens_nor_resolves() {
        check(0, 60, "?!??.", "-O--r");
        check(2, 60, "!??!", "---O");
        check(0, 2, "!???!", "O---R");
    }

    #[test]
    fn a_condition_must_hold_for_long_enough() {
        check(2, 60, "!!!!", "--O-");
        check(2, 60, "!!.!!!", "-----O");
        check(2, 60, "!.!.!.", "------");
    }

    #[test]
    fn fires_on_for_a_while_after_the_condition_ended() {
        check_with(0, 2, 60, "!...", "O--r");
        check_with(0, 2, 60, "!.!...", "O----r");
        check_with(0, 2, 60, "!.??.", "O---r");
        check_with(0, 2, 3, "!..", "O--");
    }

    #[test]
    fn what_gets_worse_is_told_at_once_and_only_once() {
        check(0, 60, "!!XX!X.", "O-E---r");
        check(0, 3, "X!!!", "O--R");
        // Held back by the cooldown, but worse than what was told.
        check(0, 60, "!.!X.", "Or-Er");
    }

    /// As [`check`], with what keeps it quiet each second (`d` a dependency is down, `s` silenced,
    /// ` ` nothing).
    #[track_caller]
    fn check_hushed(hold: u64, cooldown: u64, verdicts: &str, hushes: &str, decisions: &str) {
        let timing = Timing {
            hold: Duration::from_secs(hold),
            keep_firing: Duration::ZERO,
            cooldown: Duration::from_secs(cooldown),
        };
        let hush = |second: usize| {
            let symbol = hushes.as_bytes().get(second);
            Hush { suppressed: symbol == Some(&b'd'), silenced: symbol == Some(&b's') }
        };
        assert_eq!(run_hushed(&timing, verdicts, hush).0, decisions, "{verdicts} {hushes}");
    }

    #[test]
    fn a_dependency_that_is_down_keeps_an_alert_from_beginning_not_from_ending() {
        check_hushed(0, 60, "!!!...", "dddddd", "s-----");
        check_hushed(2, 60, "!!!!...", "dddd   ", "--s----");
        check_hushed(0, 60, "!!!!.", "  dd d", "O---r");
    }

    #[test] // the dependency is back, and it still fails
    fn what_was_suppressed_fires_when_it_stays_after_the_dependency_is_back() {
        check_hushed(0, 60, "!!!!.", "dd   ", "s-O-r");
        check_hushed(9, 60, "!!!!!!!!!!!!.", "dddddddddd  ", "---------sO-r");
    }

    #[test]
    fn a_silence_keeps_it_untold_and_what_was_never_told_does_not_end() {
        check_hushed(0, 60, "!!!..", "sssss", "-----");
        check_hushed(0, 2, "!!!!!!.", " ssss  ", "O----Rr");
    }

    #[test]
    fn what_still_fires_when_a_silence_ends_is_told_then() {
        check_hushed(0, 60, "!!!!.", "ss   ", "--O-r");
    }

    #[test]
    fn a_silence_does_not_keep_the_end_of_what_was_told() {
        check_hushed(0, 60, "!!...", " ssss", "O-r--");
        check_hushed(0, 60, "!XX..", " ssss", "O--r-");
        check_hushed(0, 60, "!XXX.", " ss  ", "O--Er");
    }

    #[test]
    fn an_acknowledgement_ends_reminders_until_it_gets_worse() {
        let timing = Timing {
            hold: Duration::ZERO,
            keep_firing: Duration::ZERO,
            cooldown: Duration::from_secs(2),
        };
        let (_, mut state) = run(&timing, "!");
        state.acknowledged = Some(mcpmon_core::alert::Acknowledgement {
            by: "me".to_owned(),
            comment: String::new(),
            at: at(1),
        });
        let decide = |state: &AlertState, level| {
            let decision = step(state, Verdict::Firing, level, &timing, at(9));
            quieten(state, decision, Hush::default())
        };
        assert_eq!(decide(&state, Level::Warning), Decision::Quiet);
        let worse = decide(&state, Level::Critical);
        assert_eq!(worse, Decision::Escalate);
        apply(&mut state, worse, at(9));
        assert_eq!(state.acknowledged, None);
    }

    #[test]
    fn what_comes_back_unsaid_while_it_lingers_lingers_anew_when_it_ends() {
        let timing = Timing {
            hold: Duration::ZERO,
            keep_firing: Duration::from_secs(4),
            cooldown: Duration::from_secs(1),
        };
        let taken_on = Some(mcpmon_core::alert::Acknowledgement {
            at: at(0),
            by: "me".to_owned(),
            comment: String::new(),
        });
        for (acknowledged, silenced) in [(taken_on, false), (None, true)] {
            let mut state = run(&timing, "!.").1;
            state.acknowledged = acknowledged;
            let decision = step(&state, Verdict::Firing, Level::Warning, &timing, at(3));
            assert_eq!(decision, Decision::Remind);
            let hush = Hush { silenced, ..Hush::default() };
            let decision = quieten(&state, decision, hush);
            assert_eq!(decision, Decision::Revive);
            apply(&mut state, decision, at(3));
            assert_eq!(step(&state, Verdict::Ok, Level::Warning, &timing, at(6)), Decision::Linger);
        }
    }

    #[test]
    fn says_when_to_look_again() {
        let timing = Timing {
            hold: Duration::from_secs(2),
            keep_firing: Duration::from_secs(4),
            cooldown: Duration::from_secs(7),
        };
        let due = |verdicts: &str| next_due(&run(&timing, verdicts).1, &timing);
        assert_eq!(due("."), None);
        assert_eq!(due("!"), Some(at(2)));
        assert_eq!(due("!!!"), Some(at(2 + 7)));
        assert_eq!(due("!!!."), Some(at(3 + 4)));
        assert_eq!(due("!!!....."), None);
    }

    #[test]
    fn a_clock_set_back_does_not_silence() {
        let timing = Timing {
            hold: Duration::ZERO,
            keep_firing: Duration::ZERO,
            cooldown: Duration::from_secs(300),
        };
        let (_, state) = run(&timing, "!");
        let decide = |now| step(&state, Verdict::Firing, Level::Warning, &timing, now);
        let hours_before = at(0).saturating_sub(Duration::from_secs(7_200));
        assert_eq!(decide(hours_before), Decision::Remind);
        let a_moment_before = at(0).saturating_sub(Duration::from_millis(5));
        assert_eq!(decide(a_moment_before), Decision::Quiet);
    }

    proptest! {
        #[test]
        fn whoever_is_told_of_a_firing_is_told_of_its_end_and_nobody_else(
            hold in 0_u64..4, keep in 0_u64..4, cooldown in 0_u64..6, verdicts in "[.!?X]{0,40}",
        ) {
            let timing = Timing {
                hold: Duration::from_secs(hold),
                keep_firing: Duration::from_secs(keep),
                cooldown: Duration::from_secs(cooldown),
            };
            let (said, _) = run(&timing, &format!("{verdicts}{}", ".".repeat(10)));
            let mut open = false;
            for symbol in said.chars() {
                match symbol {
                    'O' => { prop_assert!(!open, "{}", said); open = true; }
                    'R' => prop_assert!(open, "{}", said),
                    'E' => open = true,
                    'r' => { prop_assert!(open, "{}", said); open = false; }
                    _ => {}
                }
            }
            prop_assert!(!open, "{}", said);
        }

        #[test]
        fn no_two_notices_at_one_level_come_within_a_cooldown(
            cooldown in 1_usize..8, verdicts in "[.!?]{0,60}",
        ) {
            let timing = Timing {
                hold: Duration::ZERO,
                keep_firing: Duration::ZERO,
                cooldown: Duration::from_secs(cooldown as u64),
            };
            let (said, _) = run(&timing, &verdicts);
            let notices: Vec<usize> = said.match_indices(['O', 'R']).map(|(at, _)| at).collect();
            for pair in notices.windows(2) {
                prop_assert!(pair[1] - pair[0] >= cooldown, "{} {}", verdicts, said);
            }
        }
    }
}
