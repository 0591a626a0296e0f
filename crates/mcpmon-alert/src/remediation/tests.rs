//! The decision as tables, on virtual time.

use super::*;
use mcpmon_core::failure::Phase;

fn restart() -> RemediationSpec {
    RemediationSpec::new(RemedyAction::Restart)
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000).saturating_add(Duration::from_secs(secs))
}

fn name() -> ServiceName {
    ServiceName::from("files")
}

/// A held process that answers, and answers wrongly.
fn wrong<'a>(service: &'a ServiceName, failure: &'a Failure) -> Situation<'a> {
    Situation {
        service,
        status: Status::Error,
        failure: Some(failure),
        failures_in_a_row: 3,
        max_consecutive_failures: 3,
        in_maintenance: false,
        awaits_recheck: false,
        blocked: false,
        process: Some(ProcessLife::Held),
    }
}

fn failure(code: FailureCode) -> Failure {
    Failure::new(code, Phase::Request, "no")
}

/// What is decided the first time, with something about the usual situation changed.
#[track_caller]
fn check(change: impl Fn(&mut Situation<'_>), expected: Decision) {
    let (service, failure) = (name(), failure(FailureCode::RpcError));
    let mut situation = wrong(&service, &failure);
    change(&mut situation);
    assert_eq!(decide(&situation, &restart(), &Attempts::default(), at(0)), expected);
}

#[test]
fn only_what_lives_and_is_wrong_is_repaired() {
    use Decision::Nothing;
    check(|_| {}, Decision::Act { attempt: 1 });
    check(|s| s.status = Status::Stopped, Decision::Act { attempt: 1 });
    check(|s| s.status = Status::Running, Nothing(Reason::Available));
    check(|s| s.status = Status::Degraded, Nothing(Reason::Available));
    check(|s| s.status = Status::AuthRequired, Nothing(Reason::WantsCredentials));
    check(|s| s.status = Status::Unknown, Nothing(Reason::Unclear));
    check(|s| s.status = Status::Starting, Nothing(Reason::Unclear));
    check(|s| s.status = Status::Paused, Nothing(Reason::Paused));
    check(|s| s.in_maintenance = true, Nothing(Reason::Maintenance));
    check(|s| s.awaits_recheck = true, Nothing(Reason::Unclear));
    check(|s| s.failures_in_a_row = 2, Nothing(Reason::TooSoon));
    check(|s| s.blocked = true, Nothing(Reason::Blocked));
    check(|s| s.process = Some(ProcessLife::LeftToProbing), Nothing(Reason::LeftToProbing));
    check(|s| s.process = None, Nothing(Reason::NothingToRestart));
}

#[test]
fn a_command_may_be_for_what_runs_elsewhere() {
    let (service, failure) = (name(), failure(FailureCode::ConnectionRefused));
    let situation = Situation { process: None, ..wrong(&service, &failure) };
    let mut action = RemediationSpec::new(RemedyAction::Docker);
    action.container = Some("files".to_owned());
    let decision = decide(&situation, &action, &Attempts::default(), at(0));
    assert_eq!(decision, Decision::Act { attempt: 1 });
    // Beside a process the monitor starts, it does not race with probing either.
    let process = Some(ProcessLife::LeftToProbing);
    let decision =
        decide(&Situation { process, ..situation }, &action, &Attempts::default(), at(0));
    assert_eq!(decision, Decision::Nothing(Reason::LeftToProbing));
}

/// Whether every code is repaired, held against the status it gives.
#[test]
fn what_an_end_and_a_new_beginning_cannot_mend_is_left_alone() {
    let service = name();
    let left_alone: Vec<&str> = FailureCode::ALL
        .iter()
        .filter(|code| code.status().is_down())
        .filter(|code| {
            let failure = failure(**code);
            let situation = Situation { status: code.status(), ..wrong(&service, &failure) };
            let decision = decide(&situation, &restart(), &Attempts::default(), at(0));
            decision != Decision::Act { attempt: 1 }
        })
        .map(|code| code.as_str())
        .collect();
    assert_eq!(
        left_alone,
        [
            "dns_failed",
            "connect_timeout",
            "network_unreachable",
            "unsupported_protocol_version",
            "input_required",
            "capability_missing",
            "dependency_down",
        ]
    );
}

#[test]
fn a_right_answer_that_came_late_is_slowness() {
    let service = name();
    for (expectation, expected) in
        [("within", Decision::Nothing(Reason::Slow)), ("contains", Decision::Act { attempt: 1 })]
    {
        let failure = failure(FailureCode::FunctionalMismatch).with("expectation", expectation);
        let situation = wrong(&service, &failure);
        let decision = decide(&situation, &restart(), &Attempts::default(), at(0));
        assert_eq!(decision, expected, "{expectation}");
    }
}

/// Runs second by second: `health` says how the service is (`x` down, `.` well; the last goes on).
/// Each attempt takes a second and does not help. Gives the second and the letter of each
/// decision: `A`ct, `S`ay, `G`ive up.
fn run(health: &str, action: &RemediationSpec, seconds: u64) -> Vec<(u64, char)> {
    let (service, failure) = (name(), failure(FailureCode::RpcError));
    let mut attempts = Attempts::default();
    let mut seen = Vec::new();
    let mut ends = None;
    for second in 0..seconds {
        let now = at(second);
        let symbol = health.chars().nth(second as usize).or(health.chars().last());
        if ends == Some(second) {
            attempts.end(now);
            ends = None;
        }
        if symbol == Some('.') {
            attempts.recovered();
            continue;
        }
        if ends.is_some() {
            continue;
        }
        let letter = match decide(&wrong(&service, &failure), action, &attempts, now) {
            Decision::Nothing(_) => continue,
            Decision::Act { .. } => 'A',
            Decision::Say { .. } => 'S',
            Decision::GiveUp { .. } => 'G',
        };
        match letter {
            'G' => attempts.give_up(),
            _ => {
                attempts.begin(now);
                ends = Some(second + 1);
            }
        }
        seen.push((second, letter));
    }
    seen
}

#[test]
fn attempts_are_spaced_further_and_further_and_end_with_one_word() {
    let seen = run("x", &restart(), 3 * 3_600);
    let letters: String = seen.iter().map(|(_, letter)| letter).collect();
    assert_eq!(letters, "AAAAAG", "{seen:?}");
    let gaps: Vec<u64> = seen.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // From the end of one, a second after its beginning, to the next whole second.
    let bounds = [(2, 3), (4, 7), (13, 21), (49, 62), (1, 1)];
    for (gap, (least, most)) in gaps.iter().zip(bounds) {
        assert!((least..=most).contains(gap), "{gaps:?}");
    }
}

#[test]
fn pauses_lie_between_one_second_and_sixty_and_differ_between_services() {
    let pauses = |attempts| -> Vec<Duration> {
        let named = |n: u32| pause(&ServiceName::from(format!("s{n}")), attempts, at(7));
        (0..100).map(named).collect()
    };
    for attempts in 1..20 {
        let pauses = pauses(attempts);
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least >= SHORTEST_PAUSE && *most <= LONGEST_PAUSE, "{least:?} {most:?}");
        assert!(least < most);
    }
}

#[test]
fn an_outage_that_ends_begins_the_spacing_anew_but_not_the_count() {
    // Down and well in turns of ten seconds: one attempt at each beginning, and what is over an
    // hour's five is told, once for each outage.
    let health = "xxxxx.....".repeat(20);
    let seen = run(&health, &restart(), 120);
    let acts = seen.iter().filter(|(_, letter)| *letter == 'A').count();
    assert_eq!(acts, MOST_ATTEMPTS);
    let begins: Vec<u64> = seen.iter().map(|(second, _)| *second).collect();
    assert_eq!(&begins[..1], [0]);
    assert!(begins.contains(&10), "the next outage is met at once: {seen:?}");
}

#[test]
fn the_hour_slides() {
    let (service, failure) = (name(), failure(FailureCode::RpcError));
    let mut attempts = Attempts::default();
    for n in 0..5 {
        attempts.recall(at(n * 600), true);
    }
    let decide_at = |secs| decide(&wrong(&service, &failure), &restart(), &attempts, at(secs));
    assert_eq!(decide_at(2_401), Decision::GiveUp { attempts: 5 });
    assert_eq!(decide_at(3_599), Decision::GiveUp { attempts: 5 });
    assert_eq!(decide_at(3_600), Decision::Act { attempt: 1 });
}

#[test]
fn a_dry_run_says_it_as_often_as_it_would_be_done_and_gives_nothing_up() {
    let mut action = restart();
    action.dry_run = true;
    let letters: String = run("x", &action, 3_000).iter().map(|(_, letter)| letter).collect();
    assert_eq!(letters, "SSSSS");
}

#[test]
fn given_up_means_nothing_more_until_it_is_well_or_something_was_changed() {
    let (service, failure) = (name(), failure(FailureCode::RpcError));
    let decide_now = |attempts: &Attempts, secs| {
        decide(&wrong(&service, &failure), &restart(), attempts, at(secs))
    };
    let mut attempts = Attempts::default();
    attempts.give_up();
    // Not even when the hour is over.
    assert_eq!(decide_now(&attempts, 90_000), Decision::Nothing(Reason::GivenUp));
    let mut changed = attempts.clone();
    assert!(changed.forget() && !changed.is_given_up());
    assert_eq!(decide_now(&changed, 1), Decision::Act { attempt: 1 });
    assert!(attempts.recovered() && !attempts.recovered(), "said once");
    assert_eq!(decide_now(&attempts, 1), Decision::Act { attempt: 1 });
    assert!(attempts.is_spent(at(1)));
}

#[test]
fn what_was_given_up_is_resumed_only_when_there_is_room_for_another_attempt() {
    let mut attempts = Attempts::default();
    for n in 0..5 {
        attempts.begin(at(n * 600));
    }
    assert!(attempts.may_resume(at(3_000)));
    attempts.give_up();
    assert!(!attempts.may_resume(at(3_599)));
    assert!(attempts.may_resume(at(3_600)));
}

#[test]
fn a_clock_set_back_keeps_no_repair_waiting() {
    let (service, failure) = (name(), failure(FailureCode::RpcError));
    let mut attempts = Attempts::default();
    attempts.begin(at(7_200));
    let decided = |attempts: &Attempts| {
        decide(&wrong(&service, &failure), &restart(), attempts, at(7_202).saturating_sub(HOUR))
    };
    assert!(matches!(decided(&attempts), Decision::Nothing(Reason::Pausing(_))));
    attempts.set_back(HOUR);
    assert_eq!(decided(&attempts), Decision::Act { attempt: 2 });
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn what_was_recorded_before_a_restart_counts() {
    let (service, failure) = (name(), failure(FailureCode::RpcError));
    let mut attempts = Attempts::default();
    attempts.recall(at(0), true);
    attempts.recall(at(100), false);
    attempts.recall(at(110), false);
    let decision = decide(&wrong(&service, &failure), &restart(), &attempts, at(111));
    assert!(matches!(decision, Decision::Nothing(Reason::Pausing(_))), "{decision:?}");
    let decision = decide(&wrong(&service, &failure), &restart(), &attempts, at(120));
    assert_eq!(decision, Decision::Act { attempt: 3 });
}
