//! Ports of memory: what was seen ([`SampleStore`]), what was said ([`IncidentLog`]), and what
//! other processes ask for ([`CommandQueue`]).
//!
//! Every method that writes is one transaction and returns once it is durable: what was reported
//! committed is there after a crash. The futures may be dropped; the work then still happens whole
//! or not at all.

mod commands;
mod error;
pub mod history;
pub mod hours;
mod incidents;
mod query;
mod records;
mod restarts;
mod retention;
mod room;
mod samples;

pub use crate::remedy::{AuditEntry, AuditQuery};
pub use commands::CommandQueue;
pub use error::StoreError;
pub use history::{History, HistoryPoint, HistoryQuery, PerStatus, Ranking, Summary};
pub use hours::{HourSample, HoursQuery, ServiceHours};
pub use incidents::{
    AlertQuery, AlertRecord, Delivery, IncidentLog, NewDelivery, Settlement, Transition,
};
pub use query::{Cursor, Page, RecordQuery};
pub use records::{
    Batch, CheckRecord, HostRecord, ListChange, ListRecord, ServiceFacts, StoredService,
};
pub use restarts::restarts_before;
pub use retention::{PrunePlan, Pruned, Retention};
pub use room::Room;
pub use samples::SampleStore;

/// Everything a monitor remembers with.
pub trait Store: SampleStore + IncidentLog + CommandQueue {}

impl<T: SampleStore + IncidentLog + CommandQueue> Store for T {}
