//! The whole path, through the public faces, with real peers.
//!
//! One binary, so that it links once. [`home`], [`peers`] and [`mail`] are what tests stand on; the
//! other modules say one thing each that users are promised.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod home;
mod mail;
mod peers;

mod alerting;
mod bad_input;
mod check;
mod discovery;
mod documents;
mod failures;
mod first_run;
mod kills;
mod reading;
mod reload;
mod secrets;
mod settings;
mod shutdown;
