//! The past of a fleet as it might have been: what every figure of the store is taken on.
//!
//! Each service is asked every 30 s ± 0.5 s. Latency is log-normal (25 ms, σ 0.3), connecting and
//! listing take their own log-normal times, the whole check what they sum up to and a little more.
//! 1 % of the checks fail, in runs of ten on average; one service in five drifts (its latency
//! doubles over a week and comes back), one in five jumps to another level every few hours.

use std::time::Duration;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::observation::{Phases, Question};
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{Batch, CheckRecord};
use mcpmon_core::{ServiceName, Status, Timestamp};

/// When the fleet was first asked: 2026-01-01T00:00:00Z.
pub const BEGIN: i64 = 1_767_225_600_000;
const INTERVAL: i64 = 30_000;
const JITTER: u64 = 1_001;

/// Numbers that look random and are the same every time.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A row of numbers for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Any number below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn share(&mut self) -> f64 {
        self.next() as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.share().max(1e-300).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }

    fn log_normal(&mut self, middle: f64, sigma: f64) -> f64 {
        middle * (sigma * self.normal()).exp()
    }
}

struct Member {
    name: ServiceName,
    dice: Dice,
    next_at: i64,
    kind: u64,
    level: f64,
    level_until: i64,
    failing: u64,
    in_a_row: u32,
    good_in_a_row: u32,
    status: Status,
}

/// Services and where each of them stands.
pub struct Past {
    members: Vec<Member>,
}

impl Past {
    /// Their names, in the order they are asked.
    pub fn names(&self) -> Vec<ServiceName> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Of so many services, which nobody has asked yet.
    pub fn new(services: usize) -> Self {
        let members = (0..services).map(|n| {
            let mut dice = Dice::new(n as u64 + 1);
            let next_at = BEGIN + dice.below(INTERVAL as u64) as i64;
            Member {
                name: ServiceName::from(format!("service-{n}")),
                dice,
                next_at,
                kind: n as u64 % 5,
                level: 1.0,
                level_until: 0,
                failing: 0,
                in_a_row: 0,
                good_in_a_row: 0,
                status: Status::Unknown,
            }
        });
        Self { members: members.collect() }
    }

    /// Everything from the last call up to `until`, in order of time.
    pub fn until(&mut self, until: i64) -> Batch {
        let mut batch = Batch::default();
        for member in &mut self.members {
            while member.next_at < until {
                member.ask(&mut batch);
            }
        }
        batch.checks.sort_by_key(|check| check.at);
        batch.changes.sort_by_key(|change| change.at);
        batch
    }
}

impl Member {
    fn ask(&mut self, batch: &mut Batch) {
        let at = self.next_at;
        self.next_at += INTERVAL - 500 + self.dice.below(JITTER) as i64;
        if self.failing == 0 && self.dice.below(990) == 0 {
            self.failing = 1 + self.dice.below(19);
        }
        let check = if self.failing > 0 {
            self.failing -= 1;
            self.failed(at)
        } else {
            self.answered(at)
        };
        let raw = check.status;
        batch.checks.push(check);
        batch.changes.extend(self.judge(raw, at));
    }

    fn answered(&mut self, at: i64) -> CheckRecord {
        let level = self.level_at(at);
        let latency = self.dice.log_normal(25.0 * level, 0.3);
        let connect = self.dice.log_normal(2.0, 0.3);
        let list = self.dice.log_normal(20.0 * level, 0.3);
        let rest = 0.2 + self.dice.share() * 0.4;
        let ticks = |ms: f64| (ms * 100.0).round() / 100.0;
        let micros = |ms: f64| Duration::from_micros((ms * 100.0).round() as u64 * 10);
        CheckRecord {
            service: self.name.clone(),
            at: Timestamp::from_millis(at),
            question: Question::Health,
            status: Status::Running,
            code: None,
            latency: Some(micros(latency)),
            total: micros(latency + connect + list + rest),
            phases: Phases {
                connect_ms: Some(ticks(connect)),
                list_ms: Some(ticks(list)),
                ..Phases::default()
            },
            restarted: false,
            unproven: false,
            process: None,
        }
    }

    fn failed(&mut self, at: i64) -> CheckRecord {
        let code = match self.kind {
            0 | 1 => FailureCode::ResponseTimeout,
            2 => FailureCode::ServerError,
            _ => FailureCode::ConnectionRefused,
        };
        let total = match code {
            FailureCode::ResponseTimeout => 10_000.0 + self.dice.share() * 2.0,
            _ => self.dice.log_normal(1.5, 0.5),
        };
        CheckRecord {
            service: self.name.clone(),
            at: Timestamp::from_millis(at),
            question: Question::Health,
            status: code.status(),
            code: Some(code),
            latency: None,
            total: Duration::from_micros((total * 100.0).round() as u64 * 10),
            phases: Phases::default(),
            restarted: false,
            unproven: false,
            process: None,
        }
    }

    fn level_at(&mut self, at: i64) -> f64 {
        match self.kind {
            1 => {
                let week = (at - BEGIN) as f64 / 604_800_000.0;
                1.5 - 0.5 * (week * std::f64::consts::TAU).cos()
            }
            3 => {
                if at >= self.level_until {
                    self.level_until = at + 3_600_000 * (1 + self.dice.below(8) as i64);
                    self.level = 0.6 + self.dice.share() * 2.4;
                }
                self.level
            }
            _ => 1.0,
        }
    }

    /// Three failures in a row and two answers in a row change the status, as in the engine.
    fn judge(&mut self, raw: Status, at: i64) -> Option<StatusChange> {
        if raw.is_available() {
            self.in_a_row = 0;
            self.good_in_a_row += 1;
        } else {
            self.good_in_a_row = 0;
            self.in_a_row += 1;
        }
        let first = self.status == Status::Unknown;
        let enough = first || self.in_a_row >= 3 || self.good_in_a_row >= 2;
        if raw == self.status || !enough {
            return None;
        }
        let at = Timestamp::from_millis(at);
        let from = std::mem::replace(&mut self.status, raw);
        Some(StatusChange {
            service: self.name.clone(),
            at,
            from,
            status: raw,
            since: at,
            failure: None,
            findings: Vec::new(),
            origin: Default::default(),
        })
    }
}
