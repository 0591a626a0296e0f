//! The timetable on virtual time.

use super::*;
use mcpmon_core::{Failure, FailureCode, Phase};

fn refused() -> Observation {
    Observation::failed(Failure::new(FailureCode::ConnectionRefused, Phase::Connect, "no"))
}

fn held() -> Observation {
    let mut observation = Observation::answered();
    observation.active_connections = Some(1);
    observation
}

fn spec(spawns: bool) -> ServiceSpec {
    match spawns {
        true => ServiceSpec::stdio("s", "server", [""; 0]),
        false => ServiceSpec::http("s", "http://s.test/mcp"),
    }
}

fn schedule(spawns: bool, start: Instant) -> Schedule {
    Schedule::new(&spec(spawns), StartTimes::default(), start, Duration::ZERO)
}

/// A start that did not come to an answer.
fn not_started() -> Observation {
    Observation { restarted: true, ..refused() }
}

/// Runs a service for `seconds`, each check taking 100 ms, and gives second and question of
/// each (`L`ist, `h`ealth, `.` heartbeat).
fn run(seconds: u64, spawns: bool, mut answer: impl FnMut(u64) -> Observation) -> Vec<(u64, char)> {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(spawns, start);
    let mut now = start;
    let mut asked = Vec::new();
    loop {
        let due = schedule.next(now);
        now = now.max(due.at);
        let second = now.duration_since(start).as_secs_f64().round() as u64;
        if second > seconds {
            return asked;
        }
        let symbol = match due.question {
            Question::List => 'L',
            Question::Heartbeat => '.',
            _ => 'h',
        };
        asked.push((second, symbol));
        let observation = answer(second);
        let ended = now + Duration::from_millis(100);
        schedule.answered(due.question, &observation, now, ended);
        now = ended;
    }
}

#[test]
fn lists_first_then_asks_start_to_start() {
    let asked = run(95, false, |_| Observation::answered());
    assert_eq!(asked[0], (0, 'L'));
    assert_eq!(asked.len(), 4, "{asked:?}");
    for (round, (second, symbol)) in asked.iter().enumerate().skip(1) {
        assert!(second.abs_diff(round as u64 * 30) <= 1, "{asked:?}");
        assert_eq!(*symbol, 'h');
    }
}

#[test]
fn lists_again_after_the_list_interval() {
    let asked = run(310, false, |_| Observation::answered());
    assert_eq!(asked.iter().filter(|(_, symbol)| *symbol == 'L').count(), 2, "{asked:?}");
}

#[test]
fn a_held_session_has_heartbeats_between() {
    let asked = run(50, true, |_| held());
    let symbols: String = asked.iter().map(|(_, symbol)| *symbol).collect();
    assert_eq!(symbols, "L.h.", "{asked:?}");
}

#[test]
fn a_failure_is_asked_again_after_two_and_five_seconds() {
    let asked =
        run(25, false, |second| if second == 0 { Observation::answered() } else { refused() });
    assert_eq!(asked.len(), 1);
    let asked =
        run(75, false, |second| if second == 0 { Observation::answered() } else { refused() });
    let gaps: Vec<u64> = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(&gaps[1..3], [2, 5], "{asked:?}");
    assert!(gaps[3] > 15, "{asked:?}");
}

#[test]
fn what_cannot_start_is_asked_less_and_less() {
    let asked = run(7_200, true, |_| not_started());
    let http = run(3_600, false, |_| refused());
    assert!(asked.len() < 25, "{}", asked.len());
    assert!(http.len() > 110, "{}", http.len());
    let last = asked[asked.len() - 1].0 - asked[asked.len() - 2].0;
    assert!((540..=660).contains(&last), "{asked:?}");
}

#[test]
fn a_process_that_is_held_and_mute_is_asked_on() {
    let mute = Observation { active_connections: Some(1), ..refused() };
    let asked = run(3_600, true, |_| mute.clone());
    assert!(asked.len() > 110, "{}", asked.len());
}

#[test]
fn what_dies_again_and_again_is_started_less_and_less_and_one_that_lives_as_ever() {
    let gone = || Observation::failed(Failure::new(FailureCode::Exited, Phase::Request, "gone"));
    let mut alive = false;
    let mut starts = 0;
    run(3_600, true, |_| {
        alive = !alive;
        starts += u32::from(alive);
        if alive { Observation { restarted: true, ..Observation::answered() } } else { gone() }
    });
    assert!(starts < 15, "{starts}");
}

#[test]
fn calls_follow_a_good_check_and_dependencies_any() {
    let start = tokio::time::Instant::now().into_std();
    let mut spec = spec(false);
    spec.functional = vec![serde_json::from_str(r#"{"tool": "t"}"#).unwrap()];
    spec.depends_on = vec!["tcp://db:5432".to_owned(), "other".to_owned()];
    let timeline = |refused_from: u64| {
        let mut schedule = Schedule::new(&spec, StartTimes::default(), start, Duration::ZERO);
        let mut now = start;
        let mut asked = String::new();
        while now < start + Duration::from_secs(80) {
            let due = schedule.next(now);
            now = now.max(due.at);
            asked.push_str(&due.question.as_str()[..1]);
            let good = now < start + Duration::from_secs(refused_from);
            let seen = if good { Observation::answered() } else { refused() };
            let ended = now + Duration::from_millis(10);
            schedule.answered(due.question, &seen, now, ended);
            now = ended;
        }
        asked
    };
    assert_eq!(timeline(1_000), "ldfhdfhdfh");
    // Down from the second round on: what it depends on is looked at before the next attempt, and
    // no call is made.
    assert_eq!(timeline(20), "ldfhdhhhdh");
}

#[test]
fn a_round_that_took_longer_than_the_interval_counts_what_it_made_miss() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(false, start);
    let ended = start + Duration::from_secs(100);
    let noted = schedule.answered(Question::List, &Observation::answered(), start, ended);
    assert_eq!(noted.missed, 3);
}

#[test]
fn what_waited_as_it_was_asked_to_says_so_once() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(false, start);
    let mut limited = refused();
    limited.retry_after = Some(Duration::from_secs(90));
    schedule.answered(Question::List, &limited, start, start);
    let at = schedule.next(start).at;
    assert_eq!(at, start + Duration::from_secs(90));
    let good = Observation::answered();
    let noted = schedule.answered(Question::Health, &good, at, at);
    assert_eq!((noted.waited, noted.missed), (Some(Duration::from_secs(90)), 0));
    assert_eq!(schedule.answered(Question::Health, &good, at, at).waited, None);
}

#[test]
fn after_a_gap_services_are_asked_again_one_after_the_other() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(false, start);
    schedule.answered(Question::List, &Observation::answered(), start, start);
    schedule.recheck_within(Duration::from_secs(3), start);
    assert!(schedule.next(start).at < start + Duration::from_secs(3));
}

#[test]
fn jitter_neither_doubles_nor_drops_a_round() {
    let asked = run(30 * 200, false, |_| Observation::answered());
    assert_eq!(asked.len(), 201, "{asked:?}");
}

#[test]
fn missed_rounds_are_skipped() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(false, start);
    let ended = start + Duration::from_secs(100);
    schedule.answered(Question::List, &Observation::answered(), start, ended);
    let next = schedule.next(ended).at.duration_since(start).as_secs_f64();
    assert!((119.0..121.0).contains(&next), "{next}");
}

#[test]
fn retry_after_is_obeyed_within_bounds() {
    let mut limited =
        Observation::failed(Failure::new(FailureCode::RateLimited, Phase::Handshake, "429"));
    limited.retry_after = Some(Duration::from_secs(90));
    let asked = run(200, false, move |_| limited.clone());
    assert_eq!(asked.iter().map(|(second, _)| *second).take(3).collect::<Vec<_>>(), [0, 90, 180]);
}

#[test]
fn signs_are_followed_up_at_once_but_a_storm_of_them_is_not() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(true, start);
    let mut now = start;
    let mut followed = Vec::new();
    schedule.answered(Question::List, &held(), now, now);
    while now < start + Duration::from_secs(100) {
        schedule.woken(now);
        let due = schedule.next(now);
        now = now.max(due.at);
        if due.question == Question::List {
            followed.push(now.duration_since(start).as_secs());
        }
        schedule.answered(due.question, &held(), now, now);
    }
    assert_eq!(followed, [0, 2, 6, 14, 30, 60, 90]);
    let later = now + Duration::from_secs(3_600);
    schedule.answered(Question::List, &held(), later, later);
    schedule.woken(later);
    assert_eq!(schedule.next(later), Due { at: later, question: Question::List });
}

#[test]
fn no_interval_and_no_word_of_a_server_breaks_the_clock() {
    let start = tokio::time::Instant::now().into_std();
    for interval in [Duration::ZERO, Duration::MAX] {
        let mut spec = spec(true);
        spec.limits.check_interval = interval;
        spec.limits.status_check_interval = interval;
        spec.limits.list_interval = interval;
        let mut schedule = Schedule::new(&spec, StartTimes::default(), start, interval);
        let mut now = start;
        for observation in [held(), refused(), refused(), refused(), refused(), refused()] {
            let mut observation = observation;
            observation.list_ttl = Some(Duration::MAX);
            observation.retry_after = Some(Duration::MAX);
            schedule.answered(Question::List, &observation, now, now);
            schedule.woken(now);
            now = schedule.next(now).at;
        }
        schedule.answered(Question::List, &held(), now, now);
        assert!(schedule.next(now).at > now, "{interval:?}");
    }
}

#[test]
fn nothing_is_due_while_another_question_is_open() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(true, start);
    let ended = start + Duration::from_secs(22);
    schedule.answered(Question::List, &held(), start, ended);
    assert_eq!(schedule.next(ended).at, ended);
}

#[test]
fn every_question_somebody_wants_is_asked() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule = schedule(false, start);
    schedule.want(Question::Functional);
    schedule.want(Question::List);
    for question in [Question::Functional, Question::List] {
        assert_eq!(schedule.next(start).question, question);
        schedule.answered(question, &Observation::answered(), start, start);
    }
    assert_eq!(schedule.next(start).question, Question::Health);
}

#[test]
fn a_wanted_question_comes_first() {
    let start = tokio::time::Instant::now().into_std();
    let mut schedule =
        Schedule::new(&spec(false), StartTimes::default(), start, Duration::from_secs(20));
    schedule.want(Question::Health);
    assert_eq!(schedule.next(start), Due { at: start, question: Question::Health });
}

#[test]
fn starts_are_spread_but_few_services_do_not_wait() {
    let interval = Duration::from_secs(30);
    assert_eq!(Schedule::spread(1, interval), Duration::ZERO);
    assert!(Schedule::spread(10, interval) < Duration::from_millis(300));
    assert_eq!(Schedule::spread(10_000, interval), interval);
}
