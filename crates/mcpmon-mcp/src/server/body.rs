//! The bodies of the server's answers: whole ones, and one that breaks off on purpose.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::streams::Incoming;

/// A body.
#[derive(Debug)]
pub(super) enum Out {
    /// All of it, once.
    Whole(Option<Bytes>),
    /// It says `promised` bytes, gives the half and breaks.
    Half { promised: u64, half: Option<Bytes>, flushed: bool },
    /// What comes, for as long as something can come.
    Stream(Incoming),
}

impl Out {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    pub(super) fn half(bytes: &Bytes) -> Self {
        Self::Half {
            promised: bytes.len() as u64,
            half: Some(bytes.slice(..bytes.len() / 2)),
            flushed: false,
        }
    }
}

impl Body for Out {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Half { half, flushed, .. } => {
                if let Some(half) = half.take() {
                    return Poll::Ready(Some(Ok(Frame::data(half))));
                }
                // The connection writes out what it has while its body has nothing to give.
                if !std::mem::replace(flushed, true) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())))
            }
            Self::Stream(incoming) => {
                incoming.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Half { promised, .. } => SizeHint::with_exact(*promised),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
