//! Counts what a test runner reports while its output passes through.
//!
//! nextest and `cargo test` sum up in different words, the latter once per binary; one line with
//! the total at the end serves both, and whoever reads only the last line.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use anyhow::{Context as _, Result};

/// How many tests did what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Passed for the runner, but only because a peer was missing.
    pub(crate) skipped: usize,
}

impl Tally {
    /// Adds what one line of a runner's output says, if it is a summary.
    fn read_line(&mut self, line: &str) {
        let line = without_escapes(line);
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result:") {
            // "ok. 3 passed; 0 failed; 1 ignored; …"
            let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
            self.add(counts.split(';'));
        } else if line.starts_with("Summary [")
            && let Some((_, counts)) = line.split_once("run: ")
        {
            // "3 tests run: 2 passed (1 slow, 1 leaky), 1 timed out, 4 skipped"
            self.add(without_brackets(counts).split(','));
        }
    }

    fn add<'a>(&mut self, counts: impl Iterator<Item = &'a str>) {
        for count in counts {
            let Some((number, what)) = count.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match what.trim() {
                "passed" => self.passed += number,
                "failed" | "timed out" | "exec failed" => self.failed += number,
                _ => {}
            }
        }
    }

    /// Moves the tests that did nothing from the passed to the skipped. `log` has one line
    /// `TEST: PEER: REASON` for each peer a test missed.
    pub(crate) fn take_skips(&mut self, log: &str) {
        let tests: BTreeSet<&str> =
            log.lines().filter_map(|line| line.split_once(": ").map(|(test, _)| test)).collect();
        self.skipped = tests.len();
        self.passed = self.passed.saturating_sub(self.skipped);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped for want of a peer", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs a test runner, shows its output as it comes, and adds its counts to `tally`.
///
/// # Errors
///
/// If it cannot be started; how it ended is the caller's to judge.
pub(crate) fn run(mut command: Command, tally: &Mutex<Tally>) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", command.get_program().display()))?;
    let (out, error) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| pass_through(out, std::io::stdout(), tally));
        scope.spawn(|| pass_through(error, std::io::stderr(), tally));
    });
    child.wait().context("the test runner could not be waited for")
}

fn pass_through(from: Option<impl Read>, mut to: impl Write, tally: &Mutex<Tally>) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        let _ = to.write_all(&line).and_then(|()| to.flush());
        if let Ok(mut tally) = tally.lock() {
            tally.read_line(&String::from_utf8_lossy(&line));
        }
        line.clear();
    }
}

/// Runners colour their numbers on a terminal.
fn without_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

fn without_brackets(text: &str) -> String {
    let mut depth = 0_usize;
    text.chars()
        .filter(|&character| {
            match character {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, passed: usize, failed: usize) {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read_line(line));
        assert_eq!(tally, Tally { passed, failed, skipped: 0 });
    }

    #[test]
    fn sums_up_every_binary_of_cargo_test() {
        check(
            "running 3 tests\n\
             test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            4,
            2,
        );
    }

    #[test]
    fn reads_the_summary_of_nextest() {
        check("     Summary [   0.012s] 3 tests run: 3 passed, 0 skipped", 3, 0);
        check(
            "     Summary [   9.1s] 7 tests run: 4 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 3 skipped",
            4,
            3,
        );
        check("  Summary [   9.1s] 2/7 tests run: 1 passed, 1 exec failed, 0 skipped", 1, 1);
    }

    #[test]
    fn reads_through_colours() {
        check(
            "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] \u{1b}[1m1\u{1b}[0m test run: \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped",
            1,
            0,
        );
    }

    #[test]
    fn what_a_test_prints_is_not_counted() {
        check("Summary: 12 tests run: 12 passed", 0, 0);
    }

    #[test]
    fn a_test_that_missed_two_peers_is_one_skip() {
        let mut tally = Tally { passed: 10, failed: 0, skipped: 0 };
        tally.take_skips("a::b: time: no pip\na::b: smtpd: no pip\nc: smtpd: no pip\n");
        assert_eq!(tally.to_string(), "8 passed, 0 failed, 2 skipped for want of a peer");
    }
}
