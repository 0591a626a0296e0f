//! Places for processes: how many may be starting at once, because a start costs a CPU second, and
//! how many may be held, because each costs tens of megabytes.
//!
//! Who waits is served by standing: a service that worked comes before one never tried, and that
//! before one that fails. A process that has not answered yet gives its place up to a service of
//! better standing, and one that has been silent for as long as a start may take counts as failing
//! by then. So a thousand commands that hang delay a good one by seconds at its first start, and
//! not at all afterwards. Only services that do not fail take a place from another, so failing
//! ones never take turns in ending each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcpmon_mcp::child::{Lease, is_working};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

/// A start slot is given back after this long even if nothing was answered: a package runner that
/// downloads for a minute uses no CPU to speak of.
const START_SLOT: Duration = Duration::from_secs(5);
/// How often a process that starts is looked at: one that does nothing needs no slot.
const LOOK_AT_START: Duration = Duration::from_millis(250);
/// From one look for a place to be had to the next.
const LOOK_FOR_PLACE: Duration = Duration::from_secs(1);

/// How well a service has done so far; the better, the less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Standing {
    /// It answered when it was started last.
    Proven,
    /// Nobody knows yet.
    #[default]
    Untried,
    /// It did not answer when it was started last, nor so many times before that.
    Failing(u32),
}

impl Standing {
    /// After another failed start.
    pub(super) fn after_failure(self) -> Self {
        match self {
            Self::Proven | Self::Untried => Self::Failing(0),
            Self::Failing(times) => Self::Failing(times.saturating_add(1)),
        }
    }
}

/// Why no process may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("{max} processes are held, as many as `max_children` allows")]
    Held { max: u32 },
    #[error("{max} processes are being started, as many as `max_starting` allows")]
    Starting { max: u32 },
    #[error(
        "its process had not answered after {} s, and its place was needed by a service that \
         does not fail; `max_children` allows {max}", waited.as_secs()
    )]
    Yielded { waited: Duration, max: u32 },
    #[error(
        "it waited {:.1} s to be started, and what was left of its time was too short to judge it \
         by; `max_starting` and `max_children` bound how many are started at once",
        waited.as_secs_f64()
    )]
    Late { waited: Duration },
}

/// Whether less than a third of a check's time was left when its process could be started.
pub(super) fn was_late(asked: Instant, had_place: Instant, deadline: Instant) -> bool {
    had_place.duration_since(asked) > 2 * deadline.duration_since(had_place)
}

/// The places of one monitor; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    max_starting: u32,
    max_held: u32,
    starting: u32,
    waiting: BTreeMap<(Standing, u64), oneshot::Sender<Place>>,
    holders: HashMap<u64, Holder>,
    next: u64,
}

#[derive(Debug)]
struct Holder {
    standing: Standing,
    since: Instant,
    has_answered: bool,
    has_slot: bool,
    pid: Option<u32>,
    /// Wakes it when it is to give its place up.
    yields: Arc<Notify>,
    is_asked: bool,
}

/// The right to start and hold one process, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    state: Arc<Mutex<State>>,
    yields: Arc<Notify>,
}

impl Lease for Place {
    fn started(&self, pid: u32) {
        if let Some(holder) = lock(&self.state).holders.get_mut(&self.id) {
            holder.pid = Some(pid);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let granted = {
            let mut state = lock(&self.state);
            state.give_slot_back(self.id);
            state.holders.remove(&self.id);
            state.grant(&self.state)
        };
        // Outside the lock: a place nobody takes any more comes back here.
        granted.into_iter().for_each(Granted::hand_over);
    }
}

/// Somebody who waits; dropped, it no longer does.
struct Waits<'a> {
    places: &'a Places,
    key: (Standing, u64),
}

impl Waits<'_> {
    fn make_room(&self) {
        lock(&self.places.state).make_room(self.key, Instant::now());
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        lock(&self.places.state).waiting.remove(&self.key);
    }
}

/// A place on its way to who waits for it.
struct Granted {
    place: Place,
    to: oneshot::Sender<Place>,
}

impl Granted {
    fn hand_over(self) {
        let _ = self.to.send(self.place);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn held(&self) -> u32 {
        u32::try_from(self.holders.len()).unwrap_or(u32::MAX)
    }

    fn give_slot_back(&mut self, id: u64) {
        if let Some(holder) = self.holders.get_mut(&id)
            && std::mem::take(&mut holder.has_slot)
        {
            self.starting -= 1;
        }
    }

    /// Gives what is free to those who wait, the best first.
    fn grant(&mut self, shared: &Arc<Mutex<Self>>) -> Vec<Granted> {
        let mut granted = Vec::new();
        while self.starting < self.max_starting && self.held() < self.max_held {
            let Some(((standing, _), to)) = self.waiting.pop_first() else { break };
            if to.is_closed() {
                continue;
            }
            let id = self.next;
            self.next += 1;
            let yields = Arc::new(Notify::new());
            self.starting += 1;
            self.holders.insert(
                id,
                Holder {
                    standing,
                    since: Instant::now(),
                    has_answered: false,
                    has_slot: true,
                    pid: None,
                    yields: Arc::clone(&yields),
                    is_asked: false,
                },
            );
            granted.push(Granted { place: Place { id, state: Arc::clone(shared), yields }, to });
        }
        granted
    }

    /// Asks the worst of those who have not answered to give its place up, if it is worse than who
    /// waits. Those who were asked already count for those who wait before.
    fn make_room(&mut self, key: (Standing, u64), now: Instant) {
        if self.held() < self.max_held || matches!(key.0, Standing::Failing(_)) {
            return;
        }
        let before = self.waiting.range(..key).count();
        let asked = self.holders.values().filter(|holder| holder.is_asked).count();
        if asked > before {
            return;
        }
        let worst = self
            .holders
            .values_mut()
            .filter(|holder| !holder.has_answered && !holder.is_asked)
            .filter(|holder| holder.standing_at(now) > key.0)
            .max_by_key(|holder| (holder.standing_at(now), std::cmp::Reverse(holder.since)));
        if let Some(worst) = worst {
            worst.is_asked = true;
            worst.yields.notify_one();
        }
    }

    fn shortage(&self) -> NoPlace {
        if self.held() >= self.max_held {
            NoPlace::Held { max: self.max_held }
        } else {
            NoPlace::Starting { max: self.max_starting }
        }
    }
}

impl Holder {
    /// Silent for as long as a start may take, it fails as far as can be seen.
    fn standing_at(&self, now: Instant) -> Standing {
        match now.saturating_duration_since(self.since) < START_SLOT {
            true => self.standing,
            false => self.standing.max(Standing::Failing(0)),
        }
    }
}

impl Places {
    pub(super) fn new(max_starting: u32, max_held: u32) -> Self {
        let state = State {
            max_starting,
            max_held,
            starting: 0,
            waiting: BTreeMap::new(),
            holders: HashMap::new(),
            next: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on there are so many. What is held beyond that is kept until it is given back.
    pub(super) fn resize(&self, max_starting: u32, max_held: u32) {
        let mut state = lock(&self.state);
        (state.max_starting, state.max_held) = (max_starting, max_held);
        self.hand_over(state);
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>) {
        let granted = state.grant(&self.state);
        drop(state);
        granted.into_iter().for_each(Granted::hand_over);
    }

    /// Waits for the right to start and hold a process.
    ///
    /// # Errors
    ///
    /// What there is not enough of, when the deadline passes first.
    pub(super) async fn take(
        &self,
        standing: Standing,
        deadline: Instant,
    ) -> Result<Place, NoPlace> {
        let (to, place) = oneshot::channel();
        let key = {
            let mut state = lock(&self.state);
            let key = (standing, state.next);
            state.next += 1;
            state.waiting.insert(key, to);
            self.hand_over(state);
            key
        };
        let waits = Waits { places: self, key };
        tokio::pin!(place);
        loop {
            waits.make_room();
            let look = deadline.min(Instant::now() + LOOK_FOR_PLACE);
            tokio::select! {
                biased;
                Ok(place) = &mut place => return Ok(place),
                () = sleep_until(look) => {}
            }
            if look == deadline {
                return Err(lock(&self.state).shortage());
            }
        }
    }

    /// Runs a start in its slot, which is given back when the start is over, when the process
    /// works on nothing, or when it has taken [`START_SLOT`].
    ///
    /// # Errors
    ///
    /// [`NoPlace::Yielded`] if the place was needed for another before the start was over.
    pub(super) async fn start<F: Future>(
        &self,
        place: &Place,
        start: F,
    ) -> Result<F::Output, NoPlace> {
        let began = Instant::now();
        tokio::pin!(start);
        let mut has_slot = true;
        loop {
            tokio::select! {
                biased;
                done = &mut start => {
                    self.give_slot_back(place);
                    return Ok(done);
                }
                () = place.yields.notified() => {
                    let max = lock(&self.state).max_held;
                    return Err(NoPlace::Yielded { waited: began.elapsed(), max });
                }
                () = sleep(LOOK_AT_START), if has_slot => {
                    if began.elapsed() >= START_SLOT || self.is_idle(place).await {
                        has_slot = false;
                        self.give_slot_back(place);
                    }
                }
            }
        }
    }

    /// What was started answered: its place is its own from now on.
    pub(super) fn answered(&self, place: &Place) {
        if let Some(holder) = lock(&self.state).holders.get_mut(&place.id) {
            holder.has_answered = true;
        }
    }

    fn give_slot_back(&self, place: &Place) {
        let mut state = lock(&self.state);
        state.give_slot_back(place.id);
        self.hand_over(state);
    }

    async fn is_idle(&self, place: &Place) -> bool {
        let pid = {
            let state = lock(&self.state);
            // Nobody waits, so there is no need to know.
            if state.waiting.is_empty() {
                return false;
            }
            state.holders.get(&place.id).and_then(|holder| holder.pid)
        };
        let Some(pid) = pid else { return false };
        let looked = tokio::task::spawn_blocking(move || is_working(pid));
        looked.await.is_ok_and(|working| working == Some(false))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::Standing::{Failing, Proven, Untried};
    use super::*;

    fn in_(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_slot_is_given_back_after_five_seconds() {
        let places = Places::new(1, 8);
        let first = places.take(Untried, in_(1)).await.unwrap();
        let slow = places.start(&first, sleep(Duration::from_secs(60)));
        let quick = async {
            sleep(Duration::from_secs(1)).await;
            let asked = Instant::now();
            let place = places.take(Untried, in_(30)).await.unwrap();
            let waited = asked.elapsed();
            places.start(&place, async {}).await.unwrap();
            waited
        };
        let (slow, waited) = tokio::join!(slow, quick);
        assert_eq!(slow, Ok(()));
        assert_eq!(waited, Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_deadline_and_says_what_was_short() {
        let places = Places::new(1, 1);
        let held = places.take(Untried, in_(1)).await.unwrap();
        assert_eq!(places.take(Untried, in_(3)).await.unwrap_err(), NoPlace::Held { max: 1 });
        drop(held);
        assert!(places.take(Untried, in_(1)).await.is_ok());
        let places = Places::new(1, 2);
        let _starting = places.take(Untried, in_(1)).await.unwrap();
        assert_eq!(places.take(Untried, in_(3)).await.unwrap_err(), NoPlace::Starting { max: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_served_by_standing() {
        let places = Places::new(1, 1);
        let held = places.take(Proven, in_(1)).await.unwrap();
        places.answered(&held);
        let served = Mutex::new(Vec::new());
        let wait = |standing: Standing| {
            let (places, served) = (&places, &served);
            async move {
                let _place = places.take(standing, in_(60)).await.unwrap();
                served.lock().unwrap().push(standing);
            }
        };
        let free = async {
            sleep(Duration::from_secs(1)).await;
            drop(held);
        };
        tokio::join!(wait(Failing(7)), wait(Failing(0)), wait(Untried), wait(Proven), free);
        assert_eq!(*served.lock().unwrap(), [Proven, Untried, Failing(0), Failing(7)]);
    }

    /// After how many seconds a holder that never answers gives its place up, if it does.
    async fn yields_after(holder: Standing, waiter: Standing) -> Option<u64> {
        let places = Places::new(4, 1);
        let place = places.take(holder, in_(1)).await.unwrap();
        let began = Instant::now();
        let held = async {
            let outcome = places.start(&place, pending::<()>()).await;
            let after = began.elapsed().as_secs();
            drop(place);
            assert_eq!(outcome, Err(NoPlace::Yielded { waited: began.elapsed(), max: 1 }));
            after
        };
        tokio::select! {
            (after, taken) = async { tokio::join!(held, places.take(waiter, in_(90))) } => {
                assert!(taken.is_ok());
                Some(after)
            }
            () = sleep(Duration::from_secs(60)) => None,
        }
    }

    #[test]
    fn who_waited_for_two_thirds_of_the_time_was_late() {
        let asked = Instant::now();
        let late = |waited: u64| {
            was_late(asked, asked + Duration::from_secs(waited), asked + Duration::from_secs(10))
        };
        assert_eq!([0, 5, 6, 7, 9, 11].map(late), [false, false, false, true, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_gives_its_place_to_what_does_not_and_to_nothing_else() {
        for (holder, waiter, expected) in [
            (Failing(0), Proven, Some(0)),
            (Failing(3), Untried, Some(0)),
            (Untried, Proven, Some(0)),
            (Untried, Untried, Some(5)),
            (Proven, Untried, Some(5)),
            (Proven, Proven, Some(5)),
            (Failing(9), Failing(0), None),
            (Untried, Failing(0), None),
        ] {
            assert_eq!(yields_after(holder, waiter).await, expected, "{holder:?} to {waiter:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_answered_keeps_its_place() {
        let places = Places::new(4, 1);
        let place = places.take(Failing(5), in_(1)).await.unwrap();
        places.start(&place, async {}).await.unwrap();
        places.answered(&place);
        assert!(places.take(Proven, in_(120)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_several_who_wait_asks_for_one_place() {
        let places = Places::new(8, 3);
        let asked = async {
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(places.take(Failing(0), in_(1)).await.unwrap());
            }
            held
        };
        let held = asked.await;
        let holder = |place: Place| {
            let places = places.clone();
            async move { places.start(&place, sleep(Duration::from_secs(30))).await.is_err() }
        };
        let mut holders: Vec<_> = held.into_iter().map(holder).collect();
        let (a, b, c) = (holders.remove(0), holders.remove(0), holders.remove(0));
        let waiter = || async {
            let place = places.take(Proven, in_(60)).await.unwrap();
            places.answered(&place);
            sleep(Duration::from_secs(60)).await;
        };
        let (a, b, c, ..) = tokio::join!(a, b, c, waiter(), waiter());
        assert_eq!([a, b, c].iter().filter(|yielded| **yielded).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn more_places_are_given_at_once_and_fewer_as_they_come_back() {
        let places = Places::new(4, 1);
        let first = places.take(Proven, in_(1)).await.unwrap();
        places.answered(&first);
        let wider = async {
            sleep(Duration::from_secs(2)).await;
            places.resize(4, 2);
        };
        let (second, ()) = tokio::join!(places.take(Untried, in_(10)), wider);
        let second = second.unwrap();
        places.resize(4, 1);
        drop(first);
        assert!(places.take(Proven, in_(1)).await.is_err());
        drop(second);
        assert!(places.take(Proven, in_(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_no_longer_waits_is_passed_over() {
        let places = Places::new(1, 1);
        let held = places.take(Untried, in_(1)).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_secs(1), places.take(Proven, in_(60)));
        assert!(given_up.await.is_err());
        drop(held);
        assert!(places.take(Failing(2), in_(1)).await.is_ok());
    }
}
