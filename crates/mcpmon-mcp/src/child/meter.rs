//! Reads a stream no faster than a sane server writes.
//!
//! A program that prints without end costs whoever reads it a whole processor. Read slowly it is
//! held up by its own full pipe, and costs next to nothing. What a server has to say, its largest
//! lists included, passes at full speed. A line counts as more than its bytes, because it is looked
//! at as a message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Read at full speed: more than the largest message there usually may be.
const BURST: i64 = 64 * 1024 * 1024;
/// Bytes a second after that.
const RATE: i64 = 4 * 1024 * 1024;
/// What the end of a line counts, in bytes.
const LINE: i64 = 512;
/// How long to wait when nothing may be read.
const PAUSE: Duration = Duration::from_millis(20);

/// A stream with a limit on its speed.
#[derive(Debug)]
pub struct Metered<R> {
    inner: R,
    /// What may be read; below zero it is owed.
    allowance: i64,
    counted_at: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<R> Metered<R> {
    /// Reads `inner` at full speed at first, and at 4 MiB a second after 64 MiB; a line counts 512
    /// bytes beside its own.
    pub fn new(inner: R) -> Self {
        Self { inner, allowance: BURST, counted_at: Instant::now(), pause: None }
    }

    fn count(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.counted_at).as_secs_f64() * RATE as f64;
        // Less than a byte gained is not lost: the clock is only moved on when something was.
        if gained >= 1.0 {
            self.allowance = self.allowance.saturating_add(gained as i64).min(BURST);
            self.counted_at = now;
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Metered<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.allowance <= 0 {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            this.count(Instant::now());
            if this.allowance <= 0 {
                this.pause = Some(Box::pin(sleep(PAUSE)));
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let lines = read.iter().filter(|byte| **byte == b'\n').count();
        let cost = i64::try_from(read.len()).unwrap_or(BURST)
            + i64::try_from(lines).unwrap_or(BURST).saturating_mul(LINE);
        if this.allowance == BURST {
            this.counted_at = Instant::now();
        }
        this.allowance = this.allowance.saturating_sub(cost);
        if this.allowance < BURST / 2 {
            this.count(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_slowly_and_what_is_sane_at_once() {
        let mut flood = Metered::new(tokio::io::repeat(b'y'));
        let mut buffer = vec![0; 1024 * 1024];
        let started = Instant::now();
        for _ in 0..64 {
            flood.read_exact(&mut buffer).await.unwrap();
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "the burst");
        for _ in 0..40 {
            flood.read_exact(&mut buffer).await.unwrap();
        }
        let took = started.elapsed().as_secs_f64();
        assert!((9.0..11.0).contains(&took), "40 MiB at 4 MiB a second took {took} s");
        assert!(buffer.iter().all(|byte| *byte == b'y'));
    }

    #[tokio::test(start_paused = true)]
    async fn short_lines_count_for_more_than_their_bytes() {
        let mut flood = Metered::new(tokio::io::repeat(b'\n'));
        let mut lines = vec![0; 8 * 1024];
        let started = Instant::now();
        for _ in 0..15 {
            flood.read_exact(&mut lines).await.unwrap();
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "the burst");
        for _ in 0..15 {
            flood.read_exact(&mut lines).await.unwrap();
        }
        assert!(started.elapsed() > Duration::from_secs(10), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn the_end_of_a_stream_is_its_end() {
        let mut text = String::new();
        Metered::new(&b"all of it"[..]).read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all of it");
    }
}
