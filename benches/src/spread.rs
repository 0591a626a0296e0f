//! How figures spread.

use mcpmon_core::sketch::LatencySketch;
use serde_json::{Value, json};

/// Figures in order.
#[derive(Debug, Clone, Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Puts figures in order.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The figure this share of all does not exceed; not a number where there is none.
    pub fn at(&self, share: f64) -> f64 {
        let place = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(place.saturating_sub(1)).or(self.0.last()).copied().unwrap_or(f64::NAN)
    }
}

/// How times spread, in milliseconds: what a share of them does not exceed, and how many there are.
pub fn quantiles(times: &LatencySketch) -> Value {
    let at = |share| times.quantile(share).map(|time| (time.as_secs_f64() * 1e5).round() / 1e2);
    json!({
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "longest": at(1.0),
        "count": times.count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_all_is_not_above_its_figure() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(
            [0.0, 0.25, 0.5, 0.51, 0.99, 1.0].map(|at| spread.at(at)),
            [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
        );
        assert!(Spread::default().at(0.5).is_nan());
    }
}
