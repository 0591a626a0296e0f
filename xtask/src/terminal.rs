//! What a chore says, and how long it took.
//!
//! `println!` would panic when the reader of a pipe is gone, so lines go out through [`say`].

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

/// Prints one line on standard output; a closed pipe is no reason to stop working.
pub(crate) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Measures one step. The only clock in here; nothing is decided by it.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "no async runtime here, and no test waits on it")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(&self) -> String {
        in_words(self.0.elapsed())
    }
}

fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_would_say_them() {
        assert_eq!(in_words(Duration::from_millis(140)), "0.1 s");
        assert_eq!(in_words(Duration::from_secs(61)), "1 min 01 s");
    }
}
