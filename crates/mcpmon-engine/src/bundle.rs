//! What goes out as one message: a pure decision over what is due for one handler.
//!
//! People read one message of twenty services and none of twenty messages. So a message waits a
//! moment for others of its cause ([`GROUP_WAIT`]); what has one cause goes as one; once a cause
//! made a digest, more of it waits for the next ([`GROUP_INTERVAL`]); and a storm of many causes is
//! one digest too. What began and ended before it could be told is one message that says both.
//!
//! Nothing is lost by it: each message stays a row of the outbox until the one it went out in has
//! arrived.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use mcpmon_core::alert::{Alert, Notification, NotificationKind};
use mcpmon_core::store::Delivery;
use mcpmon_core::{Level, Timestamp};

use crate::outbox::Origin;

/// A message waits so long for others of its cause.
pub(crate) const GROUP_WAIT: Duration = Duration::from_secs(3);
/// Once a cause made a digest, more of it waits so long for the next.
pub(crate) const GROUP_INTERVAL: Duration = Duration::from_secs(300);
/// More messages at once than this are a storm.
const STORM: usize = 10;

/// What alerts have in common: the rule, and the failure it saw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cause {
    rule: String,
    failure: &'static str,
}

impl Cause {
    fn of(alert: &Alert) -> Self {
        let failure = alert.failure.as_ref().map_or("", |failure| failure.code.as_str());
        Self { rule: alert.rule_name.clone(), failure }
    }
}

/// Messages that go out as one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bundle {
    /// What is sent.
    pub(crate) notification: Notification,
    /// The rows of the outbox it settles, oldest first.
    pub(crate) members: Vec<(Origin, Delivery)>,
}

impl Bundle {
    /// Each member as a message of its own.
    pub(crate) fn singles(&self) -> impl Iterator<Item = Self> + '_ {
        self.members.iter().map(|(origin, delivery)| Self {
            notification: delivery.notification.clone(),
            members: vec![(*origin, delivery.clone())],
        })
    }

    /// Ends come first, since what began again after them is another alert of the same subject;
    /// that somebody took one on comes after it was told.
    fn rank(&self) -> u8 {
        let over = |alert: &Alert| alert.resolved_at.is_some();
        match self.notification.kind {
            NotificationKind::Acknowledged => 2,
            _ if self.notification.alerts.iter().all(over) => 0,
            _ => 1,
        }
    }
}

/// What to do with what is due.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// What goes out now, in order.
    pub(crate) ready: Vec<Bundle>,
    /// How many rows wait for others.
    pub(crate) waiting: usize,
}

/// When each cause last made a digest for a handler.
#[derive(Debug, Default)]
pub(crate) struct Recent(HashMap<Cause, Timestamp>);

impl Recent {
    /// Notes that a digest went out.
    pub(crate) fn note(&mut self, bundle: &Bundle, now: Timestamp) {
        self.0.retain(|_, at| now.since(*at) < GROUP_INTERVAL);
        if bundle.notification.alerts.len() > 1 {
            for alert in &bundle.notification.alerts {
                self.0.insert(Cause::of(alert), now);
            }
        }
    }

    fn holds(&self, cause: &Cause, now: Timestamp) -> bool {
        self.0.get(cause).is_some_and(|at| *at <= now && now.since(*at) < GROUP_INTERVAL)
    }
}

/// Decides what goes out at `now`. With `all`, nothing waits: there will be no later.
pub(crate) fn plan(
    due: Vec<(Origin, Delivery)>,
    recent: &Recent,
    all: bool,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let mut groups: BTreeMap<(News, Cause), Vec<Bundle>> = BTreeMap::new();
    for bundle in overtaken(due) {
        match common(&bundle.notification) {
            None => plan.ready.push(bundle),
            Some(key) => groups.entry(key).or_default().push(bundle),
        }
    }
    let taken_on: HashSet<&str> = plan
        .ready
        .iter()
        .filter(|bundle| bundle.notification.kind == NotificationKind::Acknowledged)
        .flat_map(|bundle| bundle.notification.alerts.iter().map(|alert| alert.id.as_str()))
        .collect();
    let is_taken_on = |bundles: &[Bundle]| {
        let mut alerts = bundles.iter().flat_map(|bundle| &bundle.notification.alerts);
        alerts.any(|alert| taken_on.contains(alert.id.as_str()))
    };
    let (now_or_never, later): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|(_, bundles)| all || is_taken_on(bundles));
    plan.ready.extend(now_or_never.into_iter().map(|(_, bundles)| merged(bundles)));
    for ((_, cause), bundles) in later {
        if is_ready(&bundles, recent.holds(&cause, now), now) {
            plan.ready.push(merged(bundles));
        } else {
            plan.waiting += bundles.iter().map(|bundle| bundle.members.len()).sum::<usize>();
        }
    }
    if plan.ready.len() > STORM {
        plan.ready = becalmed(plan.ready);
    }
    plan.ready.sort_by_key(|bundle| {
        let oldest = bundle.members.iter().map(|(_, delivery)| (delivery.queued_at, delivery.id));
        (bundle.rank(), oldest.min())
    });
    plan
}

/// What a message says that can go with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Begun,
    Ended,
    GoesOn,
}

/// What it says and of which cause, for a message that can go with others.
fn common(notification: &Notification) -> Option<(News, Cause)> {
    let [alert] = notification.alerts.as_slice() else { return None };
    let news = match notification.kind {
        NotificationKind::Firing => News::Begun,
        NotificationKind::Resolved => News::Ended,
        NotificationKind::Reminder => News::GoesOn,
        _ => return None,
    };
    Some((news, Cause::of(alert)))
}

/// A group goes when its oldest member has waited long enough, or one of them is critical or was
/// tried already.
fn is_ready(bundles: &[Bundle], held: bool, now: Timestamp) -> bool {
    let mut members = bundles.iter().flat_map(|bundle| &bundle.members);
    members.any(|(_, delivery)| {
        let waited = now.since(delivery.queued_at);
        // A clock that was set back makes nobody wait.
        let is_old = delivery.queued_at > now || waited >= GROUP_WAIT;
        let urgent = delivery.notification.level() == Level::Critical;
        let tried = delivery.notification.attempt > 1;
        tried || (urgent && is_old) || (is_old && (!held || waited >= GROUP_INTERVAL))
    })
}

/// Every message a bundle of its own, but what ended while its beginning was not told takes that
/// along.
fn overtaken(due: Vec<(Origin, Delivery)>) -> Vec<Bundle> {
    let over: HashSet<String> = due
        .iter()
        .filter(|(_, delivery)| delivery.notification.kind == NotificationKind::Resolved)
        .flat_map(|(_, delivery)| delivery.notification.alerts.iter().map(|a| a.id.clone()))
        .collect();
    let mut begun: HashMap<String, Vec<(Origin, Delivery)>> = HashMap::new();
    let mut bundles = Vec::new();
    for (origin, delivery) in due {
        let notification = &delivery.notification;
        match notification.alerts.as_slice() {
            [alert]
                if over.contains(&alert.id)
                    && matches!(
                        notification.kind,
                        NotificationKind::Firing | NotificationKind::Reminder
                    ) =>
            {
                begun.entry(alert.id.clone()).or_default().push((origin, delivery));
            }
            _ => bundles.push(Bundle {
                notification: notification.clone(),
                members: vec![(origin, delivery)],
            }),
        }
    }
    for bundle in &mut bundles {
        if bundle.notification.kind != NotificationKind::Resolved {
            continue;
        }
        for alert in &bundle.notification.alerts {
            bundle.members.extend(begun.remove(&alert.id).unwrap_or_default());
        }
        let attempts = bundle.members.iter().map(|(_, delivery)| delivery.notification.attempt);
        bundle.notification.attempt = attempts.max().unwrap_or(1);
    }
    bundles
}

/// One bundle of several.
fn merged(mut bundles: Vec<Bundle>) -> Bundle {
    if bundles.len() == 1 {
        return bundles.remove(0);
    }
    let keys: Vec<&str> = bundles.iter().map(|b| b.notification.key.as_str()).collect();
    let key = format!("digest/{:016x}", hash(&keys));
    let attempt = bundles.iter().map(|b| b.notification.attempt).max().unwrap_or(1);
    let mut alerts: Vec<Alert> = Vec::new();
    for alert in bundles.iter().flat_map(|bundle| &bundle.notification.alerts) {
        // What got worse while it waited is one alert: the one it has become.
        match alerts.iter_mut().find(|known| known.id == alert.id) {
            Some(known) => known.clone_from(alert),
            None => alerts.push(alert.clone()),
        }
    }
    let notification = Notification::new(key, NotificationKind::Digest, alerts).at_attempt(attempt);
    let members = bundles.into_iter().flat_map(|bundle| bundle.members).collect();
    Bundle { notification, members }
}

/// A storm as one digest of what began and one of what ended; what is neither stays as it is.
fn becalmed(bundles: Vec<Bundle>) -> Vec<Bundle> {
    let is_over = |bundle: &Bundle| {
        bundle.notification.alerts.iter().all(|alert| alert.resolved_at.is_some())
    };
    let tells = |bundle: &Bundle| {
        matches!(
            bundle.notification.kind,
            NotificationKind::Firing | NotificationKind::Resolved | NotificationKind::Digest
        )
    };
    let (storm, rest): (Vec<Bundle>, Vec<Bundle>) = bundles.into_iter().partition(tells);
    let (ended, begun): (Vec<Bundle>, Vec<Bundle>) = storm.into_iter().partition(is_over);
    let digests = [begun, ended].into_iter().filter(|bundles| !bundles.is_empty()).map(merged);
    digests.chain(rest).collect()
}

/// The same members give the same key: whoever gets a digest twice can tell.
fn hash(keys: &[&str]) -> u64 {
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in sorted.iter().flat_map(|key| key.bytes().chain([0xff])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_testkit::{START, samples};

    fn at(second: u64) -> Timestamp {
        START.saturating_add(Duration::from_secs(second))
    }

    /// A message queued at a second: `down a`, `slow b`; `+` before the service: it is over.
    fn message(id: i64, queued: u64, what: &str) -> (Origin, Delivery) {
        let (rule, service) = what.split_once(' ').unwrap();
        let (kind, mut alert) = match service.strip_prefix('+') {
            Some(service) => (NotificationKind::Resolved, samples::resolved_alert(rule, service)),
            None => (NotificationKind::Firing, samples::alert(rule, service)),
        };
        alert.id = format!("{rule}-{}", service.trim_start_matches('+'));
        let key = format!("{}/{}", alert.id, kind.as_str());
        let delivery = Delivery {
            id,
            handler: "ops".to_owned(),
            notification: Notification::new(key, kind, vec![alert]),
            queued_at: at(queued),
            due_at: at(queued),
            last_error: None,
        };
        (Origin::Log, delivery)
    }

    fn messages(all: &[(u64, &str)]) -> Vec<(Origin, Delivery)> {
        all.iter().zip(1..).map(|((queued, what), id)| message(id, *queued, what)).collect()
    }

    /// What goes out at a second, each message by its kind and services, and what waits.
    fn told(plan: &Plan) -> (Vec<String>, usize) {
        let line = |bundle: &Bundle| {
            let names: Vec<&str> = bundle
                .notification
                .alerts
                .iter()
                .map(|alert| alert.service_name().unwrap().as_str())
                .collect();
            format!("{} {}", bundle.notification.kind.as_str(), names.join(","))
        };
        (plan.ready.iter().map(line).collect(), plan.waiting)
    }

    #[track_caller]
    fn check(now: u64, all: &[(u64, &str)], ready: &[&str], waiting: usize) {
        let plan = plan(messages(all), &Recent::default(), false, at(now));
        let (lines, waits) = told(&plan);
        assert_eq!((lines, waits), (ready.iter().map(|l| (*l).to_owned()).collect(), waiting));
        let settled: usize = plan.ready.iter().map(|bundle| bundle.members.len()).sum();
        assert_eq!(settled + waiting, all.len(), "every row is settled once or waits");
    }

    #[test]
    fn a_message_waits_a_moment_for_others_of_its_cause() {
        check(2, &[(0, "down a")], &[], 1);
        check(3, &[(0, "down a")], &["firing a"], 0);
        check(3, &[(0, "down a"), (2, "down b")], &["digest a,b"], 0);
        check(3, &[(0, "down a"), (2, "slow b")], &["firing a"], 1);
    }

    #[test]
    fn what_ended_before_it_was_told_is_one_message() {
        check(9, &[(0, "down a"), (1, "down +a")], &["resolved a"], 0);
        check(9, &[(0, "down a"), (1, "down +b")], &["resolved b", "firing a"], 0);
    }

    #[test]
    fn an_end_goes_before_what_began_again_after_it() {
        let mut due = messages(&[(5, "down d"), (60, "down +a"), (400, "down a")]);
        due[2].1.notification.alerts[0].id = "again".to_owned();
        let plan = plan(due, &Recent::default(), false, at(600));
        assert_eq!(told(&plan).0, ["resolved a", "digest d,a"]);
    }

    #[test]
    fn what_got_worse_while_it_waited_is_one_alert() {
        let mut due = messages(&[(0, "down a"), (1, "down a")]);
        due[1].1.notification.alerts[0].level = Level::Critical;
        let plan = plan(due, &Recent::default(), false, at(9));
        let alerts = &plan.ready[0].notification.alerts;
        assert_eq!((alerts.len(), alerts[0].level), (1, Level::Critical));
        assert_eq!(plan.ready[0].members.len(), 2);
    }

    #[test]
    fn that_somebody_took_it_on_comes_after_it_was_told() {
        let mut due = messages(&[(0, "down a"), (1, "down a")]);
        due[1].1.notification.kind = NotificationKind::Acknowledged;
        let plan = plan(due, &Recent::default(), false, at(1));
        assert_eq!(told(&plan).0, ["firing a", "acknowledged a"]);
    }

    #[test]
    fn what_was_tried_does_not_wait() {
        let mut due = messages(&[(0, "down a")]);
        due[0].1.notification.attempt = 2;
        assert_eq!(plan(due, &Recent::default(), false, at(0)).ready.len(), 1);
    }

    #[test]
    fn nothing_waits_when_there_is_no_later() {
        let plan = plan(messages(&[(0, "down a")]), &Recent::default(), true, at(0));
        assert_eq!(plan.ready.len(), 1);
    }

    #[test]
    fn after_a_digest_more_of_its_cause_waits_for_the_next() {
        let mut recent = Recent::default();
        let first = plan(messages(&[(0, "down a"), (0, "down b")]), &recent, false, at(3));
        recent.note(&first.ready[0], at(3));
        let later = [(10, "down c"), (200, "down d"), (10, "slow x")];
        let (ready, waiting) = told(&plan(messages(&later), &recent, false, at(20)));
        assert_eq!((ready, waiting), (vec!["firing x".to_owned()], 2));
        let (ready, waiting) = told(&plan(messages(&later[..2]), &recent, false, at(303)));
        assert_eq!((ready, waiting), (vec!["digest c,d".to_owned()], 0));
    }

    #[test]
    fn a_critical_alert_waits_for_no_digest() {
        let mut recent = Recent::default();
        let first = plan(messages(&[(0, "down a"), (0, "down b")]), &recent, false, at(3));
        recent.note(&first.ready[0], at(3));
        let mut due = messages(&[(10, "down c")]);
        due[0].1.notification.alerts[0].level = Level::Critical;
        assert_eq!(plan(due, &recent, false, at(13)).ready.len(), 1);
    }

    #[test]
    fn a_storm_is_two_messages_and_settles_every_row() {
        let names: Vec<String> = (0..1_000).map(|n| format!("r{} s{n}", n % 40)).collect();
        let ended: Vec<String> = (0..1_000).map(|n| format!("r{} +t{n}", n % 40)).collect();
        let all: Vec<(u64, &str)> =
            names.iter().chain(&ended).map(|name| (0, name.as_str())).collect();
        let plan = plan(messages(&all), &Recent::default(), false, at(3));
        let sizes: Vec<usize> =
            plan.ready.iter().map(|bundle| bundle.notification.alerts.len()).collect();
        assert_eq!(sizes, [1_000, 1_000]);
        let settled: usize = plan.ready.iter().map(|bundle| bundle.members.len()).sum();
        assert_eq!(settled, 2_000);
    }

    #[test]
    fn the_same_members_make_the_same_key() {
        let key = |all: &[(u64, &str)]| {
            plan(messages(all), &Recent::default(), false, at(9)).ready[0].notification.key.clone()
        };
        assert_eq!(key(&[(0, "down a"), (0, "down b")]), key(&[(0, "down b"), (0, "down a")]));
        assert_ne!(key(&[(0, "down a"), (0, "down b")]), key(&[(0, "down a"), (0, "down c")]));
    }
}
