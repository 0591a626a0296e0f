//! One line that says how far a long command has come: on standard error, only where a person
//! watches, and gone when it is done.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line. Hidden where standard error is no terminal.
#[derive(Debug)]
pub(crate) struct Meter(ProgressBar);

impl Meter {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        if !std::io::stderr().is_terminal() || std::env::var_os("TERM").is_some_and(|t| t == "dumb")
        {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            return Self(bar);
        }
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Says how far it is now; drawn a few times a second at most.
    pub(crate) fn show(&self, words: &str) {
        self.0.set_message(words.to_owned());
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}
