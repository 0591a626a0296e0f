//! What people and programs read: one writer for standard output, words on standard error.
//!
//! `println!` panics when the reader has gone; this writer goes quiet instead, so that
//! `mcpmon check | head -1` ends as it should. Everything from a server is escaped here or in the
//! renderers below this module, never later.

mod calls;
mod machine;
mod meter;
mod repairs;
mod status_page;
mod style;
mod table;
mod words;
mod wrap;

pub use machine::{json_line, json_object};
pub use status_page::{StatusOptions, render_status, render_status_with};
pub use style::Look;

pub(crate) use calls::render_calls;
pub(crate) use meter::Meter;
pub(crate) use repairs::repair;
pub(crate) use status_page::render_check;
pub(crate) use style::{level_style, status_style};
pub(crate) use table::{Align, Cell, Table};
pub(crate) use words::{bytes, count, local_day, local_time, moment, number, rough, span};
pub(crate) use wrap::{Indent, wrap};

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Standard output, shared by everything that writes to it; whole writes never mix.
#[derive(Clone)]
pub struct Output {
    inner: Arc<Mutex<Inner>>,
    look: Look,
    terminal: bool,
}

struct Inner {
    stream: Box<dyn Write + Send>,
    closed: bool,
    failure: Option<io::Error>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("look", &self.look)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

impl Output {
    /// The process's standard output. Colours are left out where the terminal, `NO_COLOR` or
    /// `TERM=dumb` say so.
    pub fn stdout() -> Self {
        let stream = anstream::AutoStream::auto(io::stdout());
        let colour = stream.current_choice() != anstream::ColorChoice::Never;
        Self {
            look: Look::from_env(colour),
            terminal: io::stdout().is_terminal(),
            inner: Inner::shared(Box::new(stream)),
        }
    }

    /// Output into another writer, without colour, as into a pipe.
    pub fn to_writer(writer: impl Write + Send + 'static) -> Self {
        Self { look: Look::plain(), terminal: false, inner: Inner::shared(Box::new(writer)) }
    }

    /// How to draw.
    pub fn look(&self) -> Look {
        self.look
    }

    /// Whether a person watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The terminal's width; `None` in a pipe, where no line is cut.
    pub fn width(&self) -> Option<usize> {
        if !self.terminal {
            return None;
        }
        let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| size.ws_col);
        Some(usize::from(if columns == 0 { 80 } else { columns }))
    }

    /// Writes text as it is.
    pub fn text(&self, text: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.put(text.as_bytes());
    }

    /// Writes one line.
    pub fn line(&self, line: &str) {
        self.text(&format!("{line}\n"));
    }

    /// Writes one JSON object, indented, and a line break.
    pub fn json(&self, value: &impl Serialize) {
        self.text(&json_object(value));
    }

    /// Whether the reader has gone: what is written from now on reaches nobody.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Why something could not be written, other than that the reader has gone.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).failure.take()
    }
}

impl Inner {
    fn shared(stream: Box<dyn Write + Send>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { stream, closed: false, failure: None }))
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        if let Err(error) = self.stream.write_all(bytes).and_then(|()| self.stream.flush()) {
            self.closed = true;
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.failure = Some(error);
            }
        }
    }
}

/// For those who want a writer; never fails, see [`Output::is_closed`].
impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says something to the person at the terminal: one or more lines on standard error. A standard
/// error that cannot be written has nobody to tell about it.
pub fn say(words: &str) {
    let mut out = anstream::stderr().lock();
    for line in words.lines() {
        let _ = writeln!(out, "{}", mcpmon_core::text::for_terminal(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let output = Output::to_writer(Gone);
        output.line("a");
        output.line("b");
        assert!(output.is_closed());
        assert!(output.take_failure().is_none());
    }

    #[test]
    fn a_full_disk_is_not() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let output = Output::to_writer(Full);
        output.line("a");
        assert!(output.take_failure().is_some());
    }
}
