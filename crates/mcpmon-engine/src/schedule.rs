//! When a service is asked next, and what: a pure function of what was asked and what came back.
//!
//! Checks run start to start on a monotonic clock; what was missed is skipped, never caught up
//! with. Every service has a phase of its own, so that a thousand of them do not ask at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use mcpmon_core::service::{ServiceLimits, ServiceName};
use mcpmon_core::{Observation, Question};

/// Time from a failed attempt to the next: at once, after 2 s, after 5 s more.
const RECHECK_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Starts are spread so far apart on average, up to a whole interval.
const START_SPACING: Duration = Duration::from_millis(25);
/// A check begins up to this share of its interval early or late.
const JITTER_SHARE: f64 = 0.015;
/// However hopeless a service is, it is tried this often.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// However long a server asks to be left alone, it is asked this often.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// However long its lists are said to stay good, they are not believed for longer.
const LONGEST_TTL: Duration = Duration::from_secs(3_600);
/// From one wake to the next that is answered; doubled while they go on, up to an interval. A
/// process that exits as soon as it has answered would otherwise be started without end.
const WAKE_PAUSE: Duration = Duration::from_secs(2);
/// Outside these an interval is no interval: it would spin, or overflow the clock.
const INTERVALS: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(365 * 86_400));

/// What is due, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) question: Question,
}

/// The timetable of one service.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    limits: ServiceLimits,
    /// Whether asking means starting a process, so that hopeless ones are asked less.
    spawns: bool,
    seed: u64,
    /// The unjittered due time of the next health check.
    health: Instant,
    list: Instant,
    heartbeat: Option<Instant>,
    recheck: Option<Instant>,
    /// Questions somebody asked for, before any timetable.
    wanted: Vec<Question>,
    /// When the service's own sign that something happened is followed up.
    wake: Option<Instant>,
    last_wake: Option<Instant>,
    wake_pause: Duration,
    not_before: Option<Instant>,
    /// When the last answer was there: nothing can be due while another question is open.
    free_since: Instant,
    failures: u32,
    rounds: u64,
}

impl Schedule {
    /// A timetable that begins at `start`, or up to `spread` later.
    pub(crate) fn new(
        service: &ServiceName,
        limits: &ServiceLimits,
        spawns: bool,
        start: Instant,
        spread: Duration,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        service.hash(&mut hasher);
        let seed = hasher.finish();
        let first = start + spread.min(INTERVALS.1).mul_f64(share(seed, 0));
        Self {
            limits: within_bounds(limits),
            spawns,
            seed,
            health: first,
            list: first,
            heartbeat: None,
            recheck: None,
            wanted: Vec::new(),
            wake: None,
            last_wake: None,
            wake_pause: WAKE_PAUSE,
            not_before: None,
            free_since: start,
            failures: 0,
            rounds: 0,
        }
    }

    /// Over which span the starts of `count` services are spread.
    pub(crate) fn spread(count: usize, interval: Duration) -> Duration {
        let spacing = START_SPACING * u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
        spacing.min(interval)
    }

    /// Somebody wants this answered now.
    pub(crate) fn want(&mut self, question: Question) {
        if !self.wanted.contains(&question) {
            self.wanted.push(question);
        }
    }

    /// The service gave a sign: it exited, or its lists changed. Reading the lists answers either.
    /// The first sign is followed up at once, more of them less and less often.
    pub(crate) fn woken(&mut self, now: Instant) {
        if self.wake.is_some() {
            return;
        }
        let interval = self.limits.check_interval;
        let at = self.last_wake.map_or(now, |last| now.max(last + self.wake_pause));
        let goes_on = self.last_wake.is_some_and(|last| now < last + self.wake_pause + interval);
        let longest = interval.max(WAKE_PAUSE);
        self.wake_pause = if goes_on { (self.wake_pause * 2).min(longest) } else { WAKE_PAUSE };
        self.last_wake = Some(at);
        self.wake = Some(at);
    }

    /// Whether a sign waits to be followed up.
    pub(crate) fn is_woken(&self) -> bool {
        self.wake.is_some()
    }

    /// From now on these are the service's times. Nothing waits for longer than the new ones say,
    /// and each service keeps a phase of its own: they are changed all at once.
    pub(crate) fn retime(&mut self, limits: &ServiceLimits, now: Instant) {
        self.limits = within_bounds(limits);
        let phase = share(self.seed, 0);
        let soon = |interval: Duration| now + interval.mul_f64(phase);
        self.health = self.health.min(soon(self.limits.check_interval));
        self.list = self.list.min(soon(self.limits.list_interval));
        let beat = soon(self.limits.status_check_interval);
        self.heartbeat = self.heartbeat.map(|heartbeat| heartbeat.min(beat));
    }

    /// What is due next. May lie in the past.
    pub(crate) fn next(&self, now: Instant) -> Due {
        if let Some(question) = self.wanted.first() {
            return Due { at: now, question: *question };
        }
        let jitter = self.limits.check_interval.mul_f64(JITTER_SHARE);
        let early = self.rounds > 0;
        let mut at = match early {
            true => self.health - jitter + (jitter * 2).mul_f64(share(self.seed, self.rounds)),
            false => self.health,
        };
        if let Some(recheck) = self.recheck {
            at = at.min(recheck);
        }
        // Lists are read with a health check, not beside one.
        let half = self.limits.check_interval / 2;
        let mut due = match at + half >= self.list {
            true => Due { at, question: Question::List },
            false => Due { at, question: Question::Health },
        };
        // A health check that is about to come proves life as well.
        let worth = self.limits.status_check_interval / 2;
        if let Some(heartbeat) = self.heartbeat.filter(|heartbeat| *heartbeat + worth <= due.at) {
            due = Due { at: heartbeat, question: Question::Heartbeat };
        }
        if let Some(wake) = self.wake.filter(|wake| *wake <= due.at) {
            due = Due { at: wake, question: Question::List };
        }
        due.at = due.at.max(self.free_since);
        if let Some(not_before) = self.not_before {
            due.at = due.at.max(not_before);
        }
        due
    }

    /// Takes in what came of a question asked at `started` and answered at `ended`.
    pub(crate) fn answered(
        &mut self,
        question: Question,
        observation: &Observation,
        started: Instant,
        ended: Instant,
    ) {
        self.wanted.retain(|wanted| *wanted != question);
        if question == Question::List {
            self.wake = None;
        }
        self.free_since = ended;
        self.recheck = None;
        self.rounds += 1;
        let status = observation.raw_status();
        let failed = mcpmon_core::window::is_failed(status);
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.not_before = observation.retry_after.map(|wait| ended + wait.min(LONGEST_RETRY_AFTER));
        if question != Question::Heartbeat {
            self.advance_health(started, ended);
        }
        if question == Question::List && !failed {
            let ttl = observation.list_ttl.unwrap_or_default().min(LONGEST_TTL);
            self.list = started + ttl.max(self.limits.list_interval);
        }
        let holds_session = observation.active_connections.is_some_and(|open| open > 0);
        let beats = self.limits.status_check_interval < self.limits.check_interval;
        self.heartbeat = (holds_session && beats && !failed)
            .then(|| started + self.limits.status_check_interval);
        if failed {
            self.after_failure(ended);
        }
    }

    /// The next round of the timetable after `ended`; rounds that were missed are skipped.
    fn advance_health(&mut self, started: Instant, ended: Instant) {
        let interval = self.limits.check_interval;
        // Asked for, or a re-check: the timetable stays as it is. What began a little early by its
        // jitter was the timetable's own.
        if started + interval.mul_f64(JITTER_SHARE) < self.health && ended < self.health {
            return;
        }
        let behind = ended.saturating_duration_since(self.health).as_nanos();
        let rounds = behind / interval.as_nanos().max(1) + 1;
        self.health += interval * u32::try_from(rounds).unwrap_or(u32::MAX);
    }

    fn after_failure(&mut self, ended: Instant) {
        if self.failures < self.limits.health_check_retries {
            let step = (self.failures as usize - 1).min(RECHECK_AFTER.len() - 1);
            self.recheck = Some(ended + RECHECK_AFTER[step]);
            return;
        }
        let hopeless = self.failures.saturating_sub(self.limits.max_consecutive_failures);
        if self.spawns && hopeless > 0 {
            let factor = 1_u32 << hopeless.min(6);
            let pause = (self.limits.check_interval * factor).min(LONGEST_BACKOFF);
            let pause = pause.max(self.limits.check_interval);
            self.health =
                self.health.max(ended + pause.mul_f64(0.9 + 0.2 * share(self.seed, self.rounds)));
        }
    }
}

fn within_bounds(limits: &ServiceLimits) -> ServiceLimits {
    let mut limits = limits.clone();
    for interval in
        [&mut limits.check_interval, &mut limits.status_check_interval, &mut limits.list_interval]
    {
        *interval = (*interval).clamp(INTERVALS.0, INTERVALS.1);
    }
    limits
}

/// A number from 0 to 1 that is the same for the same seed and round.
fn share(seed: u64, round: u64) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, round).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Failure, FailureCode, Phase};

    fn limits() -> ServiceLimits {
        ServiceLimits::default()
    }

    fn refused() -> Observation {
        Observation::failed(Failure::new(FailureCode::ConnectionRefused, Phase::Connect, "no"))
    }

    fn held() -> Observation {
        let mut observation = Observation::answered();
        observation.active_connections = Some(1);
        observation
    }

    /// Runs a service for `seconds`, each check taking 100 ms, and gives second and question of
    /// each (`L`ist, `h`ealth, `.` heartbeat).
    fn run(
        seconds: u64,
        spawns: bool,
        mut answer: impl FnMut(u64) -> Observation,
    ) -> Vec<(u64, char)> {
        let start = tokio::time::Instant::now().into_std();
        let name = ServiceName::from("s");
        let mut schedule = Schedule::new(&name, &limits(), spawns, start, Duration::ZERO);
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
        let asked = run(3_600, true, |_| refused());
        let http = run(3_600, false, |_| refused());
        assert!(asked.len() < 25, "{}", asked.len());
        assert!(http.len() > 110, "{}", http.len());
        let last = asked[asked.len() - 1].0 - asked[asked.len() - 2].0;
        assert!((250..=350).contains(&last), "{asked:?}");
    }

    #[test]
    fn jitter_neither_doubles_nor_drops_a_round() {
        let asked = run(30 * 200, false, |_| Observation::answered());
        assert_eq!(asked.len(), 201, "{asked:?}");
    }

    #[test]
    fn missed_rounds_are_skipped() {
        let start = tokio::time::Instant::now().into_std();
        let name = ServiceName::from("s");
        let mut schedule = Schedule::new(&name, &limits(), false, start, Duration::ZERO);
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
        assert_eq!(
            asked.iter().map(|(second, _)| *second).take(3).collect::<Vec<_>>(),
            [0, 90, 180]
        );
    }

    #[test]
    fn signs_are_followed_up_at_once_but_a_storm_of_them_is_not() {
        let start = tokio::time::Instant::now().into_std();
        let name = ServiceName::from("s");
        let mut schedule = Schedule::new(&name, &limits(), true, start, Duration::ZERO);
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
        let name = ServiceName::from("s");
        for interval in [Duration::ZERO, Duration::MAX] {
            let mut limits = limits();
            limits.check_interval = interval;
            limits.status_check_interval = interval;
            limits.list_interval = interval;
            let mut schedule = Schedule::new(&name, &limits, true, start, interval);
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
        let name = ServiceName::from("s");
        let mut schedule = Schedule::new(&name, &limits(), true, start, Duration::ZERO);
        let ended = start + Duration::from_secs(22);
        schedule.answered(Question::List, &held(), start, ended);
        assert_eq!(schedule.next(ended).at, ended);
    }

    #[test]
    fn every_question_somebody_wants_is_asked() {
        let start = tokio::time::Instant::now().into_std();
        let name = ServiceName::from("s");
        let mut schedule = Schedule::new(&name, &limits(), false, start, Duration::ZERO);
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
        let name = ServiceName::from("s");
        let mut schedule = Schedule::new(&name, &limits(), false, start, Duration::from_secs(20));
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
}
