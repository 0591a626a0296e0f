//! The port of repair: decided by rules, carried out outside, run by the engine.

use async_trait::async_trait;

use crate::service::{RemediationSpec, ServiceSpec};

/// What an attempt to repair came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemedyOutcome {
    /// It was carried out; a check will tell whether it helped.
    Done,
    /// It was only said, because the configuration asks for that.
    DryRun,
    /// It could not be carried out, because.
    Failed(String),
}

/// Does one thing about a service that lives but is wrong.
#[async_trait]
pub trait Remedy: Send + Sync {
    /// Carries out `action` for `service`, once. The caller spaces attempts, counts them, gives up,
    /// and drops the future to cancel.
    async fn apply(&self, service: &ServiceSpec, action: &RemediationSpec) -> RemedyOutcome;
}
