//! Fakes, fixture servers and each port's promises as tests, for mcpmon and for crates that
//! extend it.
//!
//! A fake stands where the outside world begins, never for our own logic, and it fails on cue: a
//! probe that hangs, a full disk, a handler that says "later" twice. Every fake can be waited on
//! ([`within`] caps the wait in real time), so no test needs to sleep to be right.
//!
//! | in place of | stands |
//! |---|---|
//! | the wall clock | [`FakeClock`], moved by hand, or [`TokioClock`], which moves with tokio's |
//! | a service and its probe | [`ScriptedFactory`] with a [`Script`] for each service |
//! | an MCP server | `FixtureServer` (feature `server`), a real one on 127.0.0.1 |
//! | somebody to tell | [`RecordingHandler`] |
//! | a store on a bad disk | [`FailingStore`] around any store |
//! | a program | [`ChildGuard`], which outlives no test |
//!
//! [`samples`] has values as they occur, [`HOSTILE`] text as it should not. Who implements a port
//! runs its promises: [`store_conformance`], [`handler_conformance()`] with [`handler_faults`] and
//! [`handler_messages`].

mod child;
mod clock;
#[cfg(feature = "server")]
mod fixture;
mod handler;
mod handler_conformance;
mod handler_faults;
mod handler_messages;
mod hostile;
mod probe;
pub mod samples;
mod store;
pub mod store_conformance;
mod wait;

pub use child::{ChildGuard, Stream};
pub use clock::{FakeClock, START, TokioClock};
#[cfg(feature = "server")]
pub use fixture::FixtureServer;
pub use handler::{Reaction, RecordingHandler};
pub use handler_conformance::handler_conformance;
pub use handler_faults::handler_faults;
pub use handler_messages::handler_messages;
pub use hostile::HOSTILE;
pub use probe::{Script, ScriptedFactory, ScriptedProbe, Step};
pub use store::{FailingStore, Operations, StoreFault};
pub use wait::{PATIENCE, within};
