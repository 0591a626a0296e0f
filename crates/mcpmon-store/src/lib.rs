//! SQLite history of MCP services: checks, status changes, incidents, tool lists; and their
//! export.
//!
//! [`SqliteStore`] keeps core's three ports in one file. One monitor writes it; other processes
//! open [`SqliteStore::reader`], ask, and leave commands. [`export::Exporter`] works over the
//! ports, so it exports any store.
//!
//! What is written is small and sequential: checks are appended to a head without any index by
//! service, a batch is one transaction and one sync, and retention deletes runs from its front in
//! steps. `head` says how a question still finds its place.

mod aside;
mod backup;
mod baseline;
mod batch;
mod bits;
mod block;
mod bound;
mod codec;
mod database;
mod error;
pub mod export;
mod file;
mod head;
mod holds;
pub mod import;
mod incidents;
mod info;
mod mount;
mod packed;
mod pages;
mod prune;
mod questions;
mod rollup;
mod row;
mod schema;
mod seal;
mod services;
mod sizes;
mod store;
mod summary;

pub use aside::{SetAside, SetAsideCause};
pub use database::OpenOptions;
pub use holds::WriterHolds;
pub use info::{IntegrityReport, OutboxCounts, StoreInfo};
pub use mount::FileSystem;
pub use prune::PruneReport;
pub use sizes::{Forecast, Resolution, TableSize};
pub use store::SqliteStore;

/// Compiles what the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
