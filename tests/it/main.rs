//! The whole path, through the public faces, with real peers.
//!
//! One binary, so that it links once. [`home`], [`peers`], [`mail`] and [`careless`] are what tests
//! stand on; the other modules say one thing each that users are promised.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod careless;
mod home;
mod mail;
mod peers;

mod alerting;
mod bad_input;
mod catalogue;
mod check;
mod children;
mod conformance;
mod deliveries;
mod discovery;
mod documents;
mod escapes;
mod explain;
mod failures;
mod faults;
mod first_run;
mod functional;
mod harmless;
mod history;
mod hostile;
mod kills;
mod list_changes;
mod mute;
mod one_history;
mod power;
mod ps;
mod reading;
mod real_servers;
mod reload;
mod remediation;
mod restarts;
mod secrets;
mod settings;
mod shutdown;
mod subjects;
