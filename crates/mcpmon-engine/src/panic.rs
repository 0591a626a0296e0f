//! A panic in one probe or handler is a defect of that one, and takes no other with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs the future; `None` if it panicked. What it held may then be in any state and should be
/// thrown away.
pub(crate) async fn unpanicked<T>(
    future: Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> Option<T> {
    Unpanicked(future).await
}

struct Unpanicked<'a, T>(Pin<Box<dyn Future<Output = T> + Send + 'a>>);

impl<T> Future for Unpanicked<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}
