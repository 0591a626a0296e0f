//! Whether a service is to be repaired now: a pure decision from what is known of it, what was
//! tried before, and `now`.
//!
//! A repair is an intrusion, so nearly every line here is a reason not to make one. It is for what
//! lives and is wrong: what is down, has failed as often in a row as `service_down` wants, and is
//! not down because of us, of something it depends on, or of credentials. Slowness is none of it,
//! whatever rule asks. What exited is started again by probing, which has a back-off of its own.
//!
//! Attempts are spaced (1, 4, 16, 60 s, jittered, counted from when the one before was over) and
//! bounded (five within any hour, whether they helped or not). Who needs a sixth is in a crash
//! loop: that is told once, and nothing more is tried until it is well again or somebody changes
//! what was tried.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use mcpmon_core::failure::{Failure, FailureCode};
use mcpmon_core::service::{RemediationSpec, RemedyAction, ServiceName};
use mcpmon_core::status::Status;
use mcpmon_core::time::Timestamp;

#[cfg(test)]
mod tests;

/// Attempts within [`WINDOW`], at most.
pub const MOST_ATTEMPTS: usize = 5;
/// The sliding span attempts are counted over.
pub const WINDOW: Duration = Duration::from_secs(3_600);
/// From the end of the first attempt to the second; four times as long each time after.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Of a pause, so much more or less.
const JITTER: f64 = 0.2;

/// What is known of a service when it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// Its status.
    pub status: Status,
    /// Why, where something is wrong.
    pub failure: Option<&'a Failure>,
    /// Failed checks in a row, those of its configured calls among them.
    pub failures_in_a_row: u32,
    /// So many count as down.
    pub max_consecutive_failures: u32,
    /// A maintenance window holds for it.
    pub in_maintenance: bool,
    /// Nobody looked lately, so what is known may not be so any more.
    pub awaits_recheck: bool,
    /// Something it depends on is down, or it is not known yet whether it is.
    pub blocked: bool,
    /// Its process, where the monitor starts it; `None` for a service behind a URL.
    pub process: Option<ProcessLife>,
}

/// A process the monitor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessLife {
    /// It is there, and held.
    Held,
    /// It is gone, or died young too often to be trusted: probing starts it, and spaces starts.
    LeftToProbing,
}

/// What was tried before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attempts {
    /// When attempts of the last hour began, said ones included.
    began: Vec<Timestamp>,
    /// Since it was last well.
    in_a_row: u32,
    /// When the last one was over.
    last_over: Option<Timestamp>,
    given_up: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, because.
    Nothing(Reason),
    /// The action, as this attempt of the outage.
    Act {
        /// 1 is the first.
        attempt: u32,
    },
    /// Only to say that it would be done.
    Say {
        /// 1 is the first.
        attempt: u32,
    },
    /// To say that nothing more is tried.
    GiveUp {
        /// Attempts within the last hour.
        attempts: usize,
    },
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It works, perhaps slowly.
    Available,
    /// It is not asked: disabled, not consented to.
    Paused,
    /// Somebody works on it, and has said so.
    Maintenance,
    /// What it is cannot be told, by our own doing or because it only starts.
    Unclear,
    /// It wants credentials, which no repair brings.
    WantsCredentials,
    /// It has not failed often enough in a row.
    TooSoon,
    /// Its failure is none that a repair mends.
    NotMendable(FailureCode),
    /// What it got was right, but late.
    Slow,
    /// Something it depends on is down.
    Blocked,
    /// Its process is gone: starting it again is probing's.
    LeftToProbing,
    /// A restart is asked for, and the monitor holds no process of it.
    NothingToRestart,
    /// The pause after the last attempt goes on until then.
    Pausing(Timestamp),
    /// Too much was tried; it has to be well first.
    GivenUp,
    /// It was said often enough what would be done.
    SaidEnough,
}

impl Attempts {
    /// Takes up an attempt that was recorded; oldest first.
    pub fn recall(&mut self, began: Timestamp, helped: bool) {
        self.began.push(began);
        self.in_a_row = if helped { 0 } else { self.in_a_row.saturating_add(1) };
        self.last_over = Some(began);
    }

    /// An attempt begins.
    pub fn begin(&mut self, now: Timestamp) {
        self.began.retain(|began| now.since(*began) < WINDOW);
        self.began.push(now);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last_over = Some(now);
    }

    /// The attempt is over.
    pub fn end(&mut self, now: Timestamp) {
        self.last_over = Some(now);
    }

    /// Nothing more is tried.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// The service is well: the next outage begins anew, but what was tried within the hour
    /// counts. Says whether it had been given up.
    pub fn recovered(&mut self) -> bool {
        self.in_a_row = 0;
        std::mem::take(&mut self.given_up)
    }

    /// Somebody changed what is tried, so what was tried before says nothing. Says whether it had
    /// been given up.
    pub fn forget(&mut self) -> bool {
        std::mem::take(self).given_up
    }

    /// Whether nothing more is tried.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether anything was tried since it was last well, or given up.
    pub fn has_open(&self) -> bool {
        self.given_up || self.in_a_row > 0
    }

    /// Whether attempts may be made again once it is well: what was given up is not taken up before
    /// there is room for another, or giving up and resuming would take turns.
    pub fn may_resume(&self, now: Timestamp) -> bool {
        !self.given_up || self.recent(now) < MOST_ATTEMPTS
    }

    /// Whether it would limit what is tried for a service that was taken away and comes back.
    pub fn counts_on(&self, now: Timestamp) -> bool {
        self.given_up || self.recent(now) > 0
    }

    /// The wall clock was set back by so much: ages stay what they were.
    pub fn set_back(&mut self, span: Duration) {
        for at in self.began.iter_mut().chain(&mut self.last_over) {
            *at = at.saturating_sub(span);
        }
    }

    /// Whether nothing of it matters any more at `now`.
    pub fn is_spent(&self, now: Timestamp) -> bool {
        !self.given_up && self.in_a_row == 0 && self.recent(now) == 0
    }

    fn recent(&self, now: Timestamp) -> usize {
        self.began.iter().filter(|began| now.since(**began) < WINDOW).count()
    }

    /// The end of the pause after the last attempt.
    fn pause_ends(&self, service: &ServiceName) -> Option<Timestamp> {
        let over = self.last_over.filter(|_| self.in_a_row > 0)?;
        Some(over.saturating_add(pause(service, self.in_a_row, over)))
    }
}

/// How long to wait after so many attempts in a row, the last of which was over at `over`.
fn pause(service: &ServiceName, attempts: u32, over: Timestamp) -> Duration {
    let steps = attempts.saturating_sub(1).min(8);
    let usual = SHORTEST_PAUSE.saturating_mul(4_u32.pow(steps)).min(LONGEST_PAUSE);
    let mut hasher = DefaultHasher::new();
    (service, attempts, over.as_millis()).hash(&mut hasher);
    let share = (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64;
    usual.mul_f64(1.0 - JITTER + 2.0 * JITTER * share).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Decides whether `action` is to be carried out for a service now.
pub fn decide(
    situation: &Situation<'_>,
    action: &RemediationSpec,
    attempts: &Attempts,
    now: Timestamp,
) -> Decision {
    if let Some(reason) = forbidden(situation, action) {
        return Decision::Nothing(reason);
    }
    if attempts.given_up {
        return Decision::Nothing(Reason::GivenUp);
    }
    let recent = attempts.recent(now);
    if recent >= MOST_ATTEMPTS {
        return match action.dry_run {
            true => Decision::Nothing(Reason::SaidEnough),
            false => Decision::GiveUp { attempts: recent },
        };
    }
    if let Some(until) = attempts.pause_ends(situation.service).filter(|until| *until > now) {
        return Decision::Nothing(Reason::Pausing(until));
    }
    let attempt = attempts.in_a_row.saturating_add(1);
    match action.dry_run {
        true => Decision::Say { attempt },
        false => Decision::Act { attempt },
    }
}

/// Why this service is not to be touched, whatever was tried before.
fn forbidden(situation: &Situation<'_>, action: &RemediationSpec) -> Option<Reason> {
    match situation.status {
        Status::Running | Status::Degraded => return Some(Reason::Available),
        Status::Unknown | Status::Starting => return Some(Reason::Unclear),
        Status::AuthRequired => return Some(Reason::WantsCredentials),
        Status::Paused if situation.in_maintenance => return Some(Reason::Maintenance),
        Status::Paused => return Some(Reason::Paused),
        Status::Stopped | Status::Error => {}
    }
    if situation.in_maintenance {
        return Some(Reason::Maintenance);
    }
    if situation.awaits_recheck {
        return Some(Reason::Unclear);
    }
    if situation.failures_in_a_row < situation.max_consecutive_failures.max(1) {
        return Some(Reason::TooSoon);
    }
    if let Some(failure) = situation.failure {
        if failure.code == FailureCode::DependencyDown {
            return Some(Reason::Blocked);
        }
        if !is_mendable(failure.code) {
            return Some(Reason::NotMendable(failure.code));
        }
        if is_mere_slowness(failure) {
            return Some(Reason::Slow);
        }
    }
    if situation.blocked {
        return Some(Reason::Blocked);
    }
    match situation.process {
        Some(ProcessLife::LeftToProbing) => Some(Reason::LeftToProbing),
        None if action.action == RemedyAction::Restart => Some(Reason::NothingToRestart),
        _ => None,
    }
}

/// Whether an end and a new beginning could change it. What was not even reached may be our own
/// network; what a revision or a person has to decide stays as it is.
const fn is_mendable(code: FailureCode) -> bool {
    !code.is_of_reach()
        && !matches!(
            code,
            FailureCode::UnsupportedProtocolVersion
                | FailureCode::InputRequired
                | FailureCode::CapabilityMissing
                | FailureCode::RateLimited
        )
}

/// A configured call that was answered as expected, only later than its `within`.
fn is_mere_slowness(failure: &Failure) -> bool {
    failure.code == FailureCode::FunctionalMismatch
        && failure.evidence.get("expectation").and_then(|which| which.as_str()) == Some("within")
}
