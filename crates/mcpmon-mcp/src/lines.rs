//! Newline framing, as MCP's stdio transport has it: one message a line.
//!
//! A line over the cap is never held: reading it stops at the cap, says so once, and goes on after
//! the line's end, so that a server with one absurd line can still be understood afterwards.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const CHUNK: usize = 8 * 1024;
/// A buffer that grew for one long line is given back down to this.
const KEEP: usize = 64 * 1024;

/// One line of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its end; never empty.
    Text(&'a [u8]),
    /// A line longer than the cap, whose text is gone.
    TooLong,
}

/// Cuts a stream into lines of at most `cap` bytes.
#[derive(Debug)]
pub struct LineReader<R> {
    inner: R,
    buffer: Vec<u8>,
    /// Bytes at the front that were given out already.
    consumed: usize,
    /// Bytes from the front that are known to hold no line end.
    scanned: usize,
    cap: usize,
    skipping: bool,
    ended: bool,
}

/// What the buffer holds, decided before anything is borrowed from it.
enum Cut {
    Line { start: usize, end: usize },
    TooLong,
    More,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// A reader whose lines are at most `cap` bytes long, line end not counted.
    pub fn new(inner: R, cap: usize) -> Self {
        let buffer = Vec::new();
        Self { inner, buffer, consumed: 0, scanned: 0, cap, skipping: false, ended: false }
    }

    /// The next line that is not empty, or `None` at the end of the stream. A last line without an
    /// end counts. Cancel-safe: what was read stays in the buffer.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.forget_consumed();
        loop {
            match self.cut() {
                Cut::Line { start, end } => return Ok(Some(Line::Text(&self.buffer[start..end]))),
                Cut::TooLong => return Ok(Some(Line::TooLong)),
                Cut::More if self.ended => return Ok(None),
                Cut::More => {}
            }
            self.forget_consumed();
            self.buffer.reserve(CHUNK);
            if self.inner.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
            }
        }
    }

    fn forget_consumed(&mut self) {
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEEP);
        } else if self.consumed >= CHUNK || self.buffer.len() + CHUNK > self.buffer.capacity() {
            self.buffer.drain(..self.consumed);
        } else {
            return;
        }
        self.scanned -= self.consumed;
        self.consumed = 0;
    }

    fn cut(&mut self) -> Cut {
        loop {
            let start = self.consumed;
            let newline = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
            let Some(offset) = newline else {
                self.scanned = self.buffer.len();
                return self.cut_without_newline(start);
            };
            let mut end = self.scanned + offset;
            self.consumed = end + 1;
            self.scanned = self.consumed;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if end > start && self.buffer[end - 1] == b'\r' {
                end -= 1;
            }
            if end - start > self.cap {
                return Cut::TooLong;
            }
            if end > start {
                return Cut::Line { start, end };
            }
        }
    }

    fn cut_without_newline(&mut self, start: usize) -> Cut {
        let held = self.buffer.len() - start;
        if self.skipping {
            self.consumed = self.buffer.len();
        } else if held > self.cap.saturating_add(1) {
            // One byte more than the cap may still be the `\r` of a line that is just long enough.
            self.consumed = self.buffer.len();
            self.skipping = true;
            return Cut::TooLong;
        } else if self.ended && held > 0 {
            let end = self.buffer.len();
            self.consumed = end;
            return if held > self.cap { Cut::TooLong } else { Cut::Line { start, end } };
        }
        Cut::More
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    /// Gives its chunks one read at a time.
    struct Chunks(std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut chunk) = self.0.pop_front() {
                let n = chunk.len().min(buf.remaining());
                buf.put_slice(&chunk[..n]);
                if n < chunk.len() {
                    self.0.push_front(chunk.split_off(n));
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// `None` for a line that was too long.
    type Lines = Vec<Option<Vec<u8>>>;

    fn lines(chunks: Vec<Vec<u8>>, cap: usize) -> Lines {
        let chunks = chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = LineReader::new(Chunks(chunks), cap);
            let mut out = Vec::new();
            while let Some(line) = reader.next().await.unwrap() {
                out.push(match line {
                    Line::Text(text) => Some(text.to_vec()),
                    Line::TooLong => None,
                });
                assert!(reader.buffer.capacity() <= cap + 4 * CHUNK + KEEP);
            }
            out
        })
    }

    #[test]
    fn cuts_at_line_ends_and_skips_what_is_too_long() {
        let text = |t: &str| Some(t.as_bytes().to_vec());
        let cases: [(&[&str], Lines); 6] = [
            (&["a\nbc\n"], vec![text("a"), text("bc")]),
            (&["a\r\n\r\n\nb"], vec![text("a"), text("b")]),
            (&["12345", "678\nok\n"], vec![None, text("ok")]),
            (&["1234\r\n12345\n"], vec![text("1234"), None]),
            (&["1234", "\r", "\nx\n"], vec![text("1234"), text("x")]),
            (&["12345"], vec![None]),
        ];
        for (chunks, expected) in cases {
            let bytes = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
            assert_eq!(lines(bytes, 4), expected, "{chunks:?}");
        }
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_lines(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'x'), any::<u8>()], 0..400),
            cuts in prop::collection::vec(1_usize..40, 1..60),
        ) {
            let mut rest = bytes.as_slice();
            let mut chunks = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = tail;
            }
            prop_assert_eq!(lines(chunks, 20), lines(vec![bytes], 20));
        }
    }
}
