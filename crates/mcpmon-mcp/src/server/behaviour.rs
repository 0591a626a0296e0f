//! How well a server works: for each request, how long it takes and what goes wrong.
//!
//! A behaviour is a function of what was asked and of counters, with no randomness in it, so a
//! test or a demonstration sees the same failures every time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::value::RawValue;

use crate::jsonrpc::{Id, RpcError};

/// A request, as a behaviour sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is asked.
    pub method: &'a str,
    /// Under which id.
    pub id: &'a Id,
    /// With which parameters.
    pub params: Option<&'a RawValue>,
    /// The HTTP headers it came with; `None` on stdio.
    pub headers: Option<&'a HeaderMap>,
    /// The how-manieth request this is, from 1.
    pub number: u64,
    /// The how-manieth request of its method, from 1.
    pub of_method: u64,
    /// How long the server has been up.
    pub up: Duration,
}

impl Asked<'_> {
    /// An HTTP header's value, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers?.get(name)?.to_str().ok()
    }
}

/// How one request is treated.
#[derive(Debug, Clone, Default)]
pub struct Conduct {
    /// How long it takes before anything is answered.
    pub delay: Duration,
    /// What goes wrong, if anything does.
    pub fault: Option<Fault>,
}

/// What goes wrong with a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// Answered with this HTTP status and a line of text; on stdio with an internal error that
    /// names it.
    Status(u16),
    /// Answered with this JSON-RPC error.
    Rpc(RpcError),
    /// Never answered.
    Hang,
    /// The connection is closed without an answer; on stdio the server ends.
    Close,
    /// The right answer, cut off in the middle, and the connection closed.
    CutShort,
    /// Answered with exactly this.
    Raw(Raw),
}

/// An answer made by hand.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The HTTP status; not looked at on stdio.
    pub status: u16,
    /// HTTP headers; not looked at on stdio.
    pub headers: Vec<(&'static str, String)>,
    /// The body; on stdio written as it is, and a line end after it.
    pub body: Bytes,
}

impl Raw {
    /// A body of this type with status 200.
    pub fn new(content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status: 200, headers, body: body.into() }
    }

    /// The same with another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with one header more.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Raw> for Fault {
    fn from(raw: Raw) -> Self {
        Self::Raw(raw)
    }
}

/// Decides how each request is treated.
#[derive(Clone)]
pub struct Behaviour(Arc<dyn Fn(&Asked<'_>) -> Conduct + Send + Sync>);

impl Behaviour {
    /// Whatever `decide` says.
    pub fn new(decide: impl Fn(&Asked<'_>) -> Conduct + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// Answers rightly and at once.
    pub fn well() -> Self {
        Self::new(|_| Conduct::default())
    }

    /// Takes this long for each request.
    pub fn slow(delay: Duration) -> Self {
        Self::new(move |_| Conduct { delay, fault: None })
    }

    /// Goes wrong with every request.
    pub fn failing(fault: Fault) -> Self {
        Self::failing_when(fault, |_| true)
    }

    /// Goes wrong with those requests that `when` picks.
    pub fn failing_when(
        fault: Fault,
        when: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |asked| Conduct {
            delay: Duration::ZERO,
            fault: when(asked).then(|| fault.clone()),
        })
    }

    /// Answers `requests` rightly and goes wrong with all after them.
    pub fn failing_after(requests: u64, fault: Fault) -> Self {
        Self::failing_when(fault, move |asked| asked.number > requests)
    }

    /// Goes wrong with this share of the requests (0 to 1), spread evenly: a rate of 0.25 is every
    /// fourth.
    pub fn failing_at_rate(rate: f64, fault: Fault) -> Self {
        let rate = if rate.is_nan() { 0.0 } else { rate.clamp(0.0, 1.0) };
        let due = move |number: u64| (number as f64 * rate).floor();
        Self::failing_when(fault, move |asked| due(asked.number) > due(asked.number - 1))
    }

    /// Works for a `period`, goes wrong for as long, and so on.
    pub fn flapping(period: Duration, fault: Fault) -> Self {
        let period = period.as_nanos().max(1);
        Self::failing_when(fault, move |asked| asked.up.as_nanos() / period % 2 == 1)
    }

    /// Both at once: delays add up, and of two faults the first one's happens.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(move |asked| {
            let (first, second) = (self.conduct(asked), other.conduct(asked));
            Conduct { delay: first.delay + second.delay, fault: first.fault.or(second.fault) }
        })
    }

    /// The same for requests of these methods alone; others are answered well.
    #[must_use]
    pub fn only_for(self, methods: &'static [&'static str]) -> Self {
        Self::new(move |asked| {
            if methods.contains(&asked.method) { self.conduct(asked) } else { Conduct::default() }
        })
    }

    /// How this request is treated.
    pub fn conduct(&self, asked: &Asked<'_>) -> Conduct {
        (self.0)(asked)
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::well()
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Behaviour(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` well, `!` faulty, one for each request, a second apart.
    #[track_caller]
    fn check(behaviour: &Behaviour, expected: &str) {
        let id = Id::from(1);
        let seen: String = (1..=expected.len() as u64)
            .map(|number| {
                let conduct = behaviour.conduct(&Asked {
                    method: if number % 2 == 1 { "ping" } else { "tools/list" },
                    id: &id,
                    params: None,
                    headers: None,
                    number,
                    of_method: number.div_ceil(2),
                    up: Duration::from_secs(number - 1),
                });
                if conduct.fault.is_some() { '!' } else { '.' }
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn faults_come_on_cue() {
        check(&Behaviour::well(), "......");
        check(&Behaviour::failing(Fault::Hang), "!!!!!!");
        check(&Behaviour::failing_after(2, Fault::Hang), "..!!!!");
        check(&Behaviour::failing_at_rate(0.25, Fault::Hang), "...!...!");
        check(&Behaviour::failing_at_rate(0.0, Fault::Hang), "......");
        check(&Behaviour::failing_at_rate(7.0, Fault::Hang), "!!!!!!");
        check(&Behaviour::flapping(Duration::from_secs(2), Fault::Hang), "..!!..!!");
        check(&Behaviour::failing(Fault::Hang).only_for(&["tools/list"]), ".!.!.!");
        let both = Behaviour::failing_after(4, Fault::Close)
            .and(Behaviour::failing(Fault::Hang).only_for(&["ping"]));
        check(&both, "!.!.!!");
    }

    #[test]
    fn delays_add_up() {
        let behaviour = Behaviour::slow(Duration::from_millis(200))
            .and(Behaviour::slow(Duration::from_millis(100)));
        let conduct = behaviour.conduct(&Asked {
            method: "ping",
            id: &Id::from(1),
            params: None,
            headers: None,
            number: 1,
            of_method: 1,
            up: Duration::ZERO,
        });
        assert_eq!(conduct.delay, Duration::from_millis(300));
    }
}
