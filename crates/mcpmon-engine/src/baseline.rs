//! What is usual for a service: its own past at the same hour of earlier days, once there are
//! enough of them, by medians that no outage moves.
//!
//! The past is asked of the store beside the loop, each service once an hour at a second of its
//! own, so that ten thousand of them are a trickle. Only the hour that is and the next are kept:
//! what was asked for today's three o'clock is asked anew for tomorrow's.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::rule::{Spread, Usual};
use mcpmon_core::store::hours::{hour_begins, hour_of};
use mcpmon_core::store::{HourSample, HoursQuery, SampleStore};
use mcpmon_core::{ServiceName, StoreError, Timestamp};
use tokio::time::{MissedTickBehavior, interval_at};

use crate::handle::Shared;
use crate::panic::unpanicked;

/// The same hour of so many days of the same kind (working day or weekend) is compared with alone.
const FEWEST_OF_KIND: usize = 5;
/// The same hour of so many days of any kind.
const FEWEST_DAYS: usize = 7;
/// Until there are so many days, all hours are compared with, if there are so many of them.
const FEWEST_HOURS: usize = 12;
/// An hour with fewer checks says nothing.
const FEWEST_CHECKS: u32 = 4;
/// Days looked back, for one hour of the day and for all hours.
const DAYS: i64 = 35;
const DAYS_OF_ALL_HOURS: i64 = 14;

/// Who wants to know is looked for this often.
const LOOK: Duration = Duration::from_secs(30);
/// Services asked about in one question, and the pause before the next.
const AT_ONCE: usize = 200;
const PAUSE: Duration = Duration::from_millis(100);

/// What is usual for one service at this hour and the next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Baseline {
    hours: [Option<(i64, Usual)>; 2],
}

impl Baseline {
    /// What is usual now, as far as anything is.
    pub(crate) fn usual(&self, now: Timestamp) -> Option<&Usual> {
        let now = hour_of(now);
        let (_, usual) = self.hours.iter().flatten().find(|(hour, _)| *hour == now)?;
        (usual.response_time.is_some() || usual.error_rate.is_some()).then_some(usual)
    }

    /// Takes in what is usual at an hour, in the place of the oldest.
    pub(crate) fn put(&mut self, hour: i64, usual: Usual) {
        let oldest = self.hours.iter_mut().min_by_key(|slot| match slot {
            Some((known, _)) if *known == hour => i64::MIN,
            Some((known, _)) => *known,
            None => i64::MIN + 1,
        });
        if let Some(slot) = oldest {
            *slot = Some((hour, usual));
        }
    }

    /// The hours that are to be asked for now: this one if it is not known, and the next one from
    /// the service's own second of the hour on.
    fn wants(&self, service: &ServiceName, now: Timestamp) -> Vec<i64> {
        let this = hour_of(now);
        let into = now.since(hour_begins(this)).as_secs();
        let knows = |hour: i64| self.hours.iter().flatten().any(|(known, _)| *known == hour);
        let next = (into >= second_of(service)).then_some(this + 1);
        [Some(this), next].into_iter().flatten().filter(|hour| !knows(*hour)).collect()
    }
}

/// A second of the hour, spread evenly over services.
fn second_of(service: &ServiceName) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    service.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, mix) % 3_500
}

/// What is usual in the hour of this number, by what hours before it were like.
pub(crate) fn usual(samples: &[HourSample], hour: i64) -> Usual {
    let response_time = |sample: &HourSample| {
        (sample.timed >= FEWEST_CHECKS).then_some((sample.latency, sample.latency_deviation))
    };
    let error_rate = |sample: &HourSample| {
        let rate = sample.error_rate().filter(|_| sample.counted >= FEWEST_CHECKS)?;
        Some((rate, 0.0))
    };
    Usual {
        response_time: spread(samples, hour, response_time),
        error_rate: spread(samples, hour, error_rate),
    }
}

fn spread(
    samples: &[HourSample],
    hour: i64,
    value: impl Fn(&HourSample) -> Option<(f64, f64)>,
) -> Option<Spread> {
    let values = |wanted: &dyn Fn(i64) -> bool| -> Vec<(f64, f64)> {
        let before = samples.iter().filter(|sample| sample.hour < hour && wanted(sample.hour));
        before.filter_map(&value).collect()
    };
    let same_hour = |other: i64| (hour - other) % 24 == 0;
    let of_kind = values(&|other| same_hour(other) && is_weekend(other) == is_weekend(hour));
    if of_kind.len() >= FEWEST_OF_KIND {
        return of(&of_kind);
    }
    let of_days = values(&same_hour);
    if of_days.len() >= FEWEST_DAYS {
        return of(&of_days);
    }
    let all = values(&|_| true);
    if all.len() < FEWEST_HOURS {
        return None;
    }
    // A day has busy hours. As long as they are not told apart, a tenth of all hours may lie where
    // it likes.
    let mut spread = of(&all)?;
    let mut sorted: Vec<f64> = all.iter().map(|(value, _)| *value).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let high = sorted[(sorted.len() * 9).div_ceil(10) - 1];
    // So far does a tenth of a normal distribution lie from its middle, in MADs.
    spread.deviation = spread.deviation.max((high - spread.median) / 1.9);
    Some(spread)
}

fn of(values: &[(f64, f64)]) -> Option<Spread> {
    let (mut middles, mut noises): (Vec<f64>, Vec<f64>) = values.iter().copied().unzip();
    let noise = Spread::of(&mut noises)?.median;
    Some(Spread { noise, ..Spread::of(&mut middles)? })
}

/// Whether an hour lies on a Saturday or Sunday, in UTC.
fn is_weekend(hour: i64) -> bool {
    // The first day of 1970 was a Thursday.
    (hour.div_euclid(24) + 3).rem_euclid(7) >= 5
}

/// Asks what is usual in some hours, by what was before the hour `before`.
pub(crate) async fn ask(
    store: &dyn SampleStore,
    services: &[ServiceName],
    hours: &[i64],
    before: i64,
) -> Result<Vec<(ServiceName, Vec<(i64, Usual)>)>, StoreError> {
    let question = |services: Vec<ServiceName>, days: i64, times_of_day: Vec<i64>| HoursQuery {
        services,
        since: before.saturating_sub(days * 24),
        until: before,
        times_of_day,
    };
    let times = hours.iter().map(|hour| hour.rem_euclid(24)).collect();
    let found = store.hours(&question(services.to_vec(), DAYS, times)).await?;
    let mut known: Vec<(ServiceName, Vec<(i64, Usual)>)> = Vec::with_capacity(services.len());
    let mut young: Vec<ServiceName> = Vec::new();
    let is_whole = |usual: &Usual| usual.response_time.is_some() && usual.error_rate.is_some();
    for service in services {
        let samples = found.iter().find(|(name, _)| name == service);
        let samples = samples.map_or(&[][..], |(_, samples)| samples);
        let usual: Vec<_> = hours.iter().map(|hour| (*hour, usual(samples, *hour))).collect();
        if !usual.iter().all(|(_, usual)| is_whole(usual)) {
            young.push(service.clone());
        }
        known.push((service.clone(), usual));
    }
    if young.is_empty() {
        return Ok(known);
    }
    for (service, samples) in store.hours(&question(young, DAYS_OF_ALL_HOURS, Vec::new())).await? {
        if let Some((_, hours)) = known.iter_mut().find(|(name, _)| *name == service) {
            for (hour, known) in hours {
                let other = usual(&samples, *hour);
                known.response_time = known.response_time.or(other.response_time);
                known.error_rate = known.error_rate.or(other.error_rate);
            }
        }
    }
    Ok(known)
}

/// Keeps every service's baseline as new as the hour.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut looks = interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        looks.tick().await;
        let now = shared.clock.now();
        let mut wanting: Vec<(Vec<i64>, ServiceName)> = {
            let world = shared.read();
            let all = world.services.iter();
            all.map(|(name, watched)| (watched.baseline.wants(name, now), name.clone()))
                .filter(|(hours, _)| !hours.is_empty())
                .collect()
        };
        wanting.sort();
        for same in wanting.chunk_by(|a, b| a.0 == b.0) {
            for some in same.chunks(AT_ONCE) {
                let names: Vec<ServiceName> = some.iter().map(|(_, name)| name.clone()).collect();
                if !renew(&shared, &names, &some[0].0, hour_of(now)).await {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Asks for some services; says whether going on makes sense.
async fn renew(shared: &Shared, names: &[ServiceName], hours: &[i64], before: i64) -> bool {
    let store: &dyn SampleStore = &*shared.store;
    let known = match unpanicked(Box::pin(ask(store, names, hours, before))).await {
        Some(Ok(known)) => known,
        Some(Err(error)) => {
            tracing::debug!(%error, "What is usual could not be asked for; trying again");
            return false;
        }
        None => {
            tracing::error!("Asking for what is usual panicked; this is a defect");
            return false;
        }
    };
    let mut world = shared.write();
    for (name, hours) in known {
        if let Some(watched) = world.services.get_mut(&name) {
            hours.into_iter().for_each(|(hour, usual)| watched.baseline.put(hour, usual));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday, at midnight.
    const MONDAY: i64 = 4 * 24;

    /// So many days of hours from a Monday on; `seconds` gives the latency by day and hour.
    fn days(days: i64, seconds: impl Fn(i64, i64) -> f64) -> Vec<HourSample> {
        let hours = (0..days).flat_map(|day| (0..24).map(move |hour| (day, hour)));
        let sample = |(day, hour)| HourSample {
            hour: MONDAY + day * 24 + hour,
            counted: 120,
            failed: 0,
            timed: 120,
            latency: seconds(day, hour),
            latency_deviation: 0.001,
        };
        hours.map(sample).collect()
    }

    /// How unusual the median of ten measurements is at an hour of a day after these.
    fn z(samples: &[HourSample], day: i64, hour: i64, seconds: f64) -> Option<f64> {
        let usual = usual(samples, MONDAY + day * 24 + hour).response_time?;
        Some(usual.z_of_median(seconds, 10, (usual.median / 10.0).max(0.005)))
    }

    #[track_caller]
    fn quiet(samples: &[HourSample], day: i64, hour: i64, seconds: f64) {
        let z = z(samples, day, hour, seconds).unwrap();
        assert!(z < 3.0, "{z} on day {day} at {hour}");
    }

    #[track_caller]
    fn loud(samples: &[HourSample], day: i64, hour: i64, seconds: f64) {
        let z = z(samples, day, hour, seconds).unwrap();
        assert!(z > 6.0, "{z} on day {day} at {hour}");
    }

    fn busy_at_nine(_: i64, hour: i64) -> f64 {
        if hour == 9 { 0.8 } else { 0.1 }
    }

    #[test]
    fn a_daily_pattern_is_usual_and_a_jump_at_the_same_hour_is_not() {
        let past = days(14, busy_at_nine);
        quiet(&past, 14, 9, 0.8);
        quiet(&past, 14, 10, 0.1);
        loud(&past, 14, 10, 0.8);
        loud(&past, 14, 9, 2.4);
    }

    #[test]
    fn what_never_varied_is_not_alarmed_by_a_hair_but_by_a_jump() {
        let past = days(14, |_, _| 0.02);
        let usual = usual(&past, MONDAY + 14 * 24).response_time.unwrap();
        assert_eq!(usual.deviation, 0.0);
        quiet(&past, 14, 3, 0.021);
        quiet(&past, 14, 3, 0.03);
        loud(&past, 14, 3, 0.08);
    }

    #[test]
    fn slow_drift_is_no_storm() {
        for percent in [0.5, 2.0, 5.0] {
            let grows = |day: i64, _| 0.1 * (1.0 + percent / 100.0_f64).powi(day as i32);
            let past = days(35, grows);
            quiet(&past, 35, 12, grows(35, 12));
        }
    }

    #[test]
    fn weekends_are_compared_with_weekends() {
        let weekend = |day: i64| day % 7 >= 5;
        let batch = move |day: i64, _| if weekend(day) { 0.9 } else { 0.1 };
        let past = days(26, batch);
        assert!(is_weekend(MONDAY + 5 * 24) && !is_weekend(MONDAY + 4 * 24));
        quiet(&past, 26, 12, 0.9);
        // A working day is not excused by weekends.
        loud(&days(28, batch), 28, 12, 0.9);
    }

    #[test]
    fn an_outage_and_a_slow_day_do_not_move_what_is_usual() {
        let mut past = days(14, |day, _| if day == 9 { 7.0 } else { 0.1 });
        for sample in past.iter_mut().filter(|sample| sample.hour / 24 == MONDAY / 24 + 3) {
            (sample.counted, sample.failed, sample.timed) = (120, 120, 0);
        }
        let usual = usual(&past, MONDAY + 14 * 24 + 4);
        assert!((usual.response_time.unwrap().median - 0.1).abs() < 1e-9);
        assert_eq!(usual.error_rate.unwrap().median, 0.0);
        loud(&past, 14, 4, 0.7);
    }

    #[test]
    fn all_hours_stand_in_until_there_are_days_enough_and_excuse_a_busy_hour() {
        let noon = |_: i64, hour: i64| if (12..15).contains(&hour) { 0.8 } else { 0.1 };
        let past = days(2, noon);
        quiet(&past, 2, 13, 0.8);
        loud(&past, 2, 13, 9.0);
        let flat = days(1, |_, _| 0.1);
        loud(&flat, 1, 5, 0.5);
    }

    #[test]
    fn too_little_says_nothing() {
        assert_eq!(z(&days(1, |_, _| 0.1)[..11], 1, 5, 9.0), None);
        let mut few = days(14, |_, _| 0.1);
        few.iter_mut().for_each(|sample| (sample.timed, sample.counted) = (3, 3));
        assert_eq!(usual(&few, MONDAY + 14 * 24), Usual::default());
        assert_eq!(usual(&[], 0), Usual::default());
        // What comes later is not known yet.
        assert_eq!(usual(&days(14, |_, _| 0.1), MONDAY), Usual::default());
    }

    #[test]
    fn services_ask_each_at_its_own_second_and_for_what_they_lack() {
        let name = ServiceName::from("files");
        let mut baseline = Baseline::default();
        let begins = hour_begins(10);
        assert_eq!(baseline.wants(&name, begins), [10]);
        baseline.put(10, Usual::default());
        assert!(baseline.wants(&name, begins).is_empty());
        let later = begins.saturating_add(Duration::from_secs(3_599));
        assert_eq!(baseline.wants(&name, later), [11]);
        let spread = Spread::of(&mut [0.1; 9]);
        baseline.put(11, Usual { response_time: spread, error_rate: None });
        assert!(baseline.wants(&name, later).is_empty());
        assert!(baseline.usual(later).is_none(), "nothing is usual at ten");
        let next = hour_begins(11);
        assert_eq!(baseline.usual(next).unwrap().response_time, spread);
        baseline.put(12, Usual::default());
        assert!(baseline.usual(next).is_some(), "the oldest goes first");
        let seconds: Vec<u64> =
            (0..1_000).map(|n| second_of(&format!("s{n}").into()) / 700).collect();
        for fifth in 0..5 {
            assert!(seconds.iter().filter(|place| **place == fifth).count() > 120);
        }
    }
}
