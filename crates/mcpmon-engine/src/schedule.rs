//! When a service is asked next, and what: a pure function of what was asked and what came back.
//!
//! Checks run start to start on a monotonic clock; what was missed is skipped, never caught up
//! with. Every service has a phase of its own, so that a thousand of them do not ask at once.
//! Configured calls follow a good health check, since of a service that is not well they would only
//! say the same again; what it depends on is looked at whether it is well or not.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use mcpmon_core::service::{ServiceLimits, ServiceSpec};
use mcpmon_core::{CheckMeaning, Observation, Question, Transport};

use crate::lives::Lives;
use crate::needs;
use crate::startup::StartTimes;

/// Time from a failed attempt to the next: at once, after 2 s, after 5 s more.
const RECHECK_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Starts are spread so far apart on average, up to a whole interval.
const START_SPACING: Duration = Duration::from_millis(25);
/// A check begins up to this share of its interval early or late.
const JITTER_SHARE: f64 = 0.015;
/// However hopeless a service is, it is tried this often.
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);
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

/// A question that is asked once with each round of health checks, right after it.
#[derive(Debug, Clone, Copy)]
struct Beside {
    /// Whether there is anything to ask.
    wanted: bool,
    due: bool,
}

impl Beside {
    const fn new(wanted: bool) -> Self {
        Self { wanted, due: wanted }
    }
}

/// What an answer means beside its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Noted {
    /// The process is not to be trusted yet.
    pub(crate) unproven: bool,
    /// Rounds of the timetable that were skipped because this one took so long.
    pub(crate) missed: u32,
    /// The server had asked to be left alone for so long before this check, and was.
    pub(crate) waited: Option<Duration>,
}

/// The timetable of one service.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    limits: ServiceLimits,
    /// Whether asking means starting a process, so that hopeless ones are asked less.
    spawns: bool,
    seed: u64,
    starts: StartTimes,
    lives: Lives,
    /// Starts in a row that failed.
    failed_starts: u32,
    /// No process is started before this.
    start_not_before: Option<Instant>,
    calls: Beside,
    needs: Beside,
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
    /// How long the server asked to be left alone.
    retry_after: Option<Duration>,
    /// When the last answer was there: nothing can be due while another question is open.
    free_since: Instant,
    failures: u32,
    rounds: u64,
}

impl Schedule {
    /// A timetable that begins at `start`, or up to `spread` later.
    pub(crate) fn new(
        spec: &ServiceSpec,
        starts: StartTimes,
        start: Instant,
        spread: Duration,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        spec.name.hash(&mut hasher);
        let seed = hasher.finish();
        let first = start + spread.min(INTERVALS.1).mul_f64(share(seed, 0));
        Self {
            limits: within_bounds(&spec.limits),
            spawns: matches!(spec.transport, Transport::Stdio(_)),
            seed,
            starts,
            lives: Lives::default(),
            failed_starts: 0,
            start_not_before: None,
            calls: Beside::new(!spec.functional.is_empty()),
            needs: Beside::new(needs::want_a_look(&spec.depends_on)),
            health: first,
            list: first,
            heartbeat: None,
            recheck: None,
            wanted: Vec::new(),
            wake: None,
            last_wake: None,
            wake_pause: WAKE_PAUSE,
            not_before: None,
            retry_after: None,
            free_since: start,
            failures: 0,
            rounds: 0,
        }
    }

    /// How long a process that is started now may take to its first answer.
    pub(crate) fn grace(&self) -> Duration {
        self.starts.grace(&self.limits)
    }

    /// Whether the last check found it failing.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Nothing that was known holds any longer: it is asked again within `spread`.
    pub(crate) fn recheck_within(&mut self, spread: Duration, now: Instant) {
        let at = now + spread.min(INTERVALS.1).mul_f64(share(self.seed, self.rounds));
        self.recheck = Some(self.recheck.map_or(at, |recheck| recheck.min(at)));
    }

    /// What was held was ended, so that the next check begins anew, which it does now.
    pub(crate) fn released(&mut self, now: Instant) {
        self.lives.cut_short();
        self.start_not_before = None;
        self.recheck = Some(now);
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
        if let Some(start) = self.start_not_before {
            due.at = due.at.max(start);
        }
        let (is_asked, is_well) = (self.rounds > 0, self.failures == 0);
        if due.at > self.free_since {
            if self.needs.due && is_asked {
                due = Due { at: self.free_since, question: Question::Dependency };
            } else if self.calls.due && is_asked && is_well {
                due = Due { at: self.free_since, question: Question::Functional };
            }
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
    ) -> Noted {
        self.wanted.retain(|wanted| *wanted != question);
        self.free_since = ended;
        if question == Question::Dependency {
            // Asked by another way than the service itself, of which it says nothing.
            self.needs.due = false;
            return Noted { unproven: self.lives.is_unproven(), ..Noted::default() };
        }
        if question == Question::List {
            self.wake = None;
        }
        let is_due_again = |at: Option<Instant>| at.is_none_or(|at| at <= ended);
        if question != Question::Functional || is_due_again(self.recheck) {
            self.recheck = None;
        }
        self.rounds += 1;
        let failed = CheckMeaning::of_observation(question, observation).is_failed();
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        // Whether it is down because of another is known before it counts as down.
        self.needs.due |= self.needs.wanted && self.failures == 1;
        let obeyed = self.not_before.take().is_some_and(|until| until <= started);
        let waited = self.retry_after.take().filter(|_| obeyed);
        self.retry_after = observation.retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER));
        self.not_before = self.retry_after.map(|wait| ended + wait);
        let mut missed = 0;
        match question {
            Question::Functional => self.calls.due = false,
            Question::Heartbeat => {}
            _ => missed = self.advance_health(started, ended),
        }
        if question == Question::List && !failed {
            let ttl = observation.list_ttl.unwrap_or_default().min(LONGEST_TTL);
            self.list = started + ttl.max(self.limits.list_interval);
        }
        let holds_session = observation.active_connections.is_some_and(|open| open > 0);
        let beats = self.limits.status_check_interval < self.limits.check_interval;
        self.heartbeat = (holds_session && beats && !failed)
            .then(|| started + self.limits.status_check_interval);
        if observation.restarted {
            self.starts.observe(observation);
            self.failed_starts =
                if failed && !holds_session { self.failed_starts.saturating_add(1) } else { 0 };
        }
        let died_young = self.lives.observe(observation, self.limits.check_interval, ended);
        if failed {
            self.after_failure(ended);
        }
        if self.spawns && (failed || died_young) {
            self.space_starts(ended);
        }
        // Rounds it is left alone in are none that were missed.
        let left_alone = self.start_not_before.max(self.not_before);
        self.health = left_alone.map_or(self.health, |until| self.health.max(until));
        Noted { unproven: self.lives.is_unproven(), missed, waited }
    }

    /// The next round of the timetable after `ended`; says how many were missed and are skipped.
    fn advance_health(&mut self, started: Instant, ended: Instant) -> u32 {
        let interval = self.limits.check_interval;
        // Asked for, or a re-check: the timetable stays as it is. What began a little early by its
        // jitter was the timetable's own.
        if started + interval.mul_f64(JITTER_SHARE) < self.health && ended < self.health {
            return 0;
        }
        let behind = ended.saturating_duration_since(self.health).as_nanos();
        let missed = behind / interval.as_nanos().max(1);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX - 1);
        self.health += interval * (missed + 1);
        self.calls.due = self.calls.wanted;
        self.needs.due = self.needs.wanted;
        missed
    }

    fn after_failure(&mut self, ended: Instant) {
        if self.failures < self.limits.health_check_retries {
            let step = (self.failures as usize - 1).min(RECHECK_AFTER.len() - 1);
            self.recheck = Some(ended + RECHECK_AFTER[step]);
        }
    }

    /// What cannot start, or does not live, is started less and less often: each attempt costs the
    /// machine a second of CPU.
    fn space_starts(&mut self, ended: Instant) {
        let hopeless = self.failed_starts.saturating_sub(self.limits.max_consecutive_failures);
        let steps = hopeless.max(self.lives.habit()).min(10);
        if steps == 0 {
            return;
        }
        let interval = self.limits.check_interval;
        let pause = interval.saturating_mul(1 << steps).min(LONGEST_BACKOFF).max(interval);
        let jittered = pause.mul_f64(0.9 + 0.2 * share(self.seed, self.rounds));
        self.start_not_before = Some(ended + jittered);
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
mod tests;
