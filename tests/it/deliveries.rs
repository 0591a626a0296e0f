//! Alerts on their way to real far sides that fail in every way they can: nothing is lost, nothing
//! comes twice, and what cannot be avoided is counted.
//!
//! Each test declares a time line (who fails when, who must be told what between when and when) and
//! [`stage`] plays it with the real `mcpmon up`. At its end every obligation must be met, nothing
//! else may have come, and a fresh alert must reach everybody.

mod alertmanager;
mod failpoints;
mod far_sides;
mod handlers_test;
mod hook;
mod hostile_names;
mod mail;
mod stage;
mod webhook;
