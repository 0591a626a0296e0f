//! The disk of the history, before it is full: deciding what its room means.
//!
//! On a full disk even deleting fails, because what is deleted goes to the log first. So below a
//! low-water mark the history stops growing: it is held at the size it has, and what is oldest
//! makes room for what comes. Nothing is deleted for the sake of others on the disk, who may be the
//! ones that fill it. Pure: a state, a measurement, the next state.

use mcpmon_core::store::{PrunePlan, Room};

/// Below this the disk is low, unless it is small.
const LOW_WATER: u64 = 64 << 20;
/// Of a small disk, this part of it; but the log needs some room always.
const LOW_PART: u64 = 20;
const LEAST_LOW_WATER: u64 = 8 << 20;
/// A log longer than this is held up by somebody who reads.
const LONG_LOG: u64 = 64 << 20;

/// What is known of the room for the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    room: Room,
    /// The size the file is held at while the disk is low.
    held_at: Option<u64>,
    has_long_log: bool,
}

impl Standing {
    /// What follows from a measurement. The disk is no longer low only a quarter above the mark.
    #[must_use]
    pub(crate) fn after(self, room: Room) -> Self {
        let held_at = room.free_bytes.and_then(|free| {
            let mark = low_water(room.disk_bytes);
            let mark = if self.held_at.is_some() { mark + mark / 4 } else { mark };
            (free < mark).then(|| self.held_at.unwrap_or(room.file_bytes))
        });
        let long = if self.has_long_log { LONG_LOG / 2 } else { LONG_LOG };
        Self { room, held_at, has_long_log: room.log_bytes > long }
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Whether the disk is nearly full: worth an alert.
    pub(crate) fn is_low(&self) -> bool {
        self.held_at.is_some()
    }

    /// The plan of retention within the room there is; `None` while nothing should be pruned or
    /// packed, because all of it would only make a log longer that cannot be put into the file.
    pub(crate) fn within(&self, plan: PrunePlan) -> Option<PrunePlan> {
        if self.has_long_log {
            return None;
        }
        let most = plan.most_bytes.into_iter().chain(self.held_at).min();
        Some(PrunePlan { most_bytes: most, ..plan })
    }

    /// Whether pruning should not wait for its turn.
    pub(crate) fn calls_for_pruning(&self, before: Self) -> bool {
        self.is_low() || before.has_long_log && !self.has_long_log
    }

    /// What a person should know.
    pub(crate) fn warning(&self) -> Option<String> {
        let megabytes = |bytes: u64| bytes >> 20;
        if self.is_low() {
            let free = self.room.free_bytes.map_or(0, megabytes);
            return Some(format!(
                "the disk of the history has {free} MB left; free some: until then the history \
                 does not grow, and its oldest checks make room for new ones"
            ));
        }
        self.has_long_log.then(|| {
            format!(
                "the history's log has grown to {} MB, because something has been reading the \
                 database for long; end that (an export, a shell, a backup tool) and it shrinks",
                megabytes(self.room.log_bytes)
            )
        })
    }
}

fn low_water(disk: Option<u64>) -> u64 {
    let part = disk.map_or(LOW_WATER, |disk| disk / LOW_PART);
    part.clamp(LEAST_LOW_WATER, LOW_WATER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn room(file: u64, log: u64, free: u64, disk: u64) -> Room {
        Room {
            file_bytes: file * MB,
            log_bytes: log * MB,
            free_bytes: Some(free * MB),
            disk_bytes: Some(disk * MB),
        }
    }

    /// Free megabytes on a disk of so many, one look after the other; `l` low, `.` not.
    #[track_caller]
    fn check(disk: u64, free: &[u64], expected: &str) {
        let mut standing = Standing::default();
        let seen: String = free
            .iter()
            .map(|free| {
                standing = standing.after(room(100, 4, *free, disk));
                if standing.is_low() { 'l' } else { '.' }
            })
            .collect();
        assert_eq!(seen, expected, "{free:?} of {disk}");
    }

    #[test]
    fn a_disk_is_low_below_the_mark_and_not_again_until_well_above() {
        check(100_000, &[500, 64, 63, 70, 79, 80, 64, 63], "..lll..l");
        check(400, &[21, 20, 19, 24, 25], "..ll.");
        check(10, &[9, 8, 7], "..l");
    }

    #[test]
    fn what_nobody_knows_is_no_reason_to_worry() {
        let standing = Standing::default().after(Room::default());
        assert!(!standing.is_low());
        assert_eq!(standing.warning(), None);
    }

    #[test]
    fn the_file_is_held_at_the_size_it_had_and_never_above_the_setting() {
        let plan = |most| PrunePlan { most_bytes: Some(most * MB), ..PrunePlan::default() };
        let most = |standing: Standing, setting| standing.within(plan(setting)).unwrap().most_bytes;
        let enough = Standing::default().after(room(100, 4, 500, 10_000));
        assert_eq!(most(enough, 512), Some(512 * MB));
        let low = enough.after(room(100, 4, 50, 10_000));
        assert_eq!(most(low, 512), Some(100 * MB));
        assert_eq!(most(low, 80), Some(80 * MB));
        let still = low.after(room(110, 4, 40, 10_000));
        assert_eq!(most(still, 512), Some(100 * MB), "not at what it has grown to since");
    }

    #[test]
    fn a_log_that_is_held_up_is_said_and_not_made_longer() {
        let long = Standing::default().after(room(100, 65, 5_000, 10_000));
        assert_eq!(long.within(PrunePlan::default()), None);
        assert!(long.warning().unwrap().contains("65 MB"));
        assert!(!long.is_low());
        let shorter = long.after(room(100, 33, 5_000, 10_000));
        assert!(shorter.warning().is_some());
        let short = long.after(room(100, 4, 5_000, 10_000));
        assert_eq!(short.warning(), None);
        assert!(short.within(PrunePlan::default()).is_some());
    }
}
