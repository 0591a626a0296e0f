//! The bound in bytes: which part of the history goes next.
//!
//! Decided well below the bound, because deleting needs room too: a transaction that deletes
//! writes to the log before anything is given back.

use mcpmon_core::Timestamp;

/// Of a hundred parts of the bound, those that may be in use.
const LOW_WATER: u64 = 90;
/// Summaries of an hour that go at once, in ms; those of a quarter a quarter of it.
const HOURS_AT_ONCE: i64 = 10 * 86_400_000;

/// Where each part of the history begins, in ms; `None` for one that is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Oldest {
    /// End of the oldest packed checks.
    pub(crate) raw: Option<i64>,
    pub(crate) quarters: Option<i64>,
    pub(crate) hours: Option<i64>,
    /// The end of the first alert that ended, or the first change of lists.
    pub(crate) incidents: Option<i64>,
}

/// What goes next, and up to which moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Raw(Timestamp),
    Quarters(Timestamp),
    Hours(Timestamp),
    Incidents(Timestamp),
}

/// How many bytes may be in use.
pub(crate) fn allowed(most: u64) -> u64 {
    most / 100 * LOW_WATER
}

/// What has to go so that no more than is allowed stays in use; `None` where that is so already,
/// or nothing is left that may go.
pub(crate) fn next_cut(most: u64, used: u64, oldest: Oldest) -> Option<Cut> {
    if used <= allowed(most) {
        return None;
    }
    let behind = |at: i64, span: i64| Timestamp::from_millis(at.saturating_add(span));
    let raw = oldest.raw.map(|end| Cut::Raw(behind(end, 1)));
    let quarters = oldest.quarters.map(|at| Cut::Quarters(behind(at, HOURS_AT_ONCE / 4)));
    let hours = oldest.hours.map(|at| Cut::Hours(behind(at, HOURS_AT_ONCE)));
    let incidents = oldest.incidents.map(|at| Cut::Incidents(behind(at, HOURS_AT_ONCE)));
    raw.or(quarters).or(hours).or(incidents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_goes_first_then_quarters_then_hours_and_alerts_last() {
        let at = Timestamp::from_millis;
        let mut oldest =
            Oldest { raw: Some(5), quarters: Some(4), hours: Some(3), incidents: Some(2) };
        assert_eq!(next_cut(1_000, 900, oldest), None);
        assert_eq!(next_cut(1_000, 901, oldest), Some(Cut::Raw(at(6))));
        oldest.raw = None;
        assert_eq!(next_cut(1_000, 901, oldest), Some(Cut::Quarters(at(216_000_004))));
        oldest.quarters = None;
        assert_eq!(next_cut(1_000, 901, oldest), Some(Cut::Hours(at(864_000_003))));
        oldest.hours = None;
        assert_eq!(next_cut(1_000, 901, oldest), Some(Cut::Incidents(at(864_000_002))));
        oldest.incidents = None;
        assert_eq!(next_cut(1_000, u64::MAX, oldest), None);
    }
}
