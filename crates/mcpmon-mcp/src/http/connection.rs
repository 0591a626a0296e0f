//! One HTTP/1.1 connection, driven by whoever has a request on it.
//!
//! hyper leaves it to its user who polls a connection. A task of its own for each is the usual way,
//! and costs every request two hand-overs between tasks; here the task that waits for an answer
//! polls the connection meanwhile, and an idle connection is looked at when it is taken up again.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Response heads over this are refused; also how much of a body is read ahead. The library's own
/// cap of 100 headers stays, which it can hold without allocating.
const MAX_HEAD: usize = 64 * 1024;

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

/// A connection with at most one request on it; dropping it closes it.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once the connection came to its end.
    driver: Option<Driver>,
}

impl Connection {
    /// Speaks HTTP/1.1 over a stream that stands. Nothing is sent yet.
    pub(super) async fn over<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(connection)) })
    }

    /// Whether a request can be sent, as far as can be seen from here. Looks at what came while
    /// the connection lay idle, and leaves nobody to be woken for it.
    pub(super) fn is_ready(&mut self) -> bool {
        poll_driver(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends a request and gives the head of its answer, whose body has the connection until it
    /// was read.
    pub(super) async fn send(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<AnswerBody>> {
        let answer = self.sender.send_request(request);
        let answer = driven(&mut self.driver, answer).await?;
        Ok(answer.map(|body| AnswerBody { connection: self, body }))
    }
}

/// The body of an answer, as it comes; dropping it closes the connection.
#[derive(Debug)]
pub(super) struct AnswerBody {
    connection: Connection,
    body: Incoming,
}

impl AnswerBody {
    /// The next part of it; `None` after its good end.
    pub(super) async fn frame(&mut self) -> Option<hyper::Result<Frame<Bytes>>> {
        driven(&mut self.connection.driver, self.body.frame()).await
    }

    /// Whether it is known, without waiting, that there is no more of it.
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// What was announced of its length.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// The connection, for another request if the body was read to its end.
    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

/// Waits for something only the connection brings about, and polls it meanwhile.
async fn driven<F: Future>(driver: &mut Option<Driver>, awaited: F) -> F::Output {
    let mut awaited = pin!(awaited);
    poll_fn(|cx| {
        // Nobody is to be woken for what is awaited: it changes only while the connection is
        // polled, and is looked at right after.
        let mut unwoken = Context::from_waker(Waker::noop());
        if let Poll::Ready(output) = awaited.as_mut().poll(&mut unwoken) {
            return Poll::Ready(output);
        }
        poll_driver(driver, cx);
        awaited.as_mut().poll(&mut unwoken)
    })
    .await
}

fn poll_driver(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    // What goes wrong on a connection is told to the request on it; between requests, its end is
    // no news.
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

    fn request() -> Request<Full<Bytes>> {
        Request::post("/").header("host", "h").body(Full::default()).unwrap()
    }

    async fn exchange(connection: Connection) -> (Connection, Vec<u8>) {
        let mut body = connection.send(request()).await.unwrap().into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        (body.into_connection(), text)
    }

    #[tokio::test]
    async fn requests_follow_one_another_without_a_task() {
        let (near, mut far) = duplex(1_024);
        let mut connection = Connection::over(near).await.unwrap();
        for _ in 0..3 {
            assert!(connection.is_ready());
            let answering = async {
                let mut head = [0; 512];
                let length = far.read(&mut head).await.unwrap();
                assert!(head[..length].ends_with(b"\r\n\r\n"));
                // In pieces, so that it has to be woken.
                for piece in ANSWER.chunks(9) {
                    far.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let ((unused, text), ()) = tokio::join!(exchange(connection), answering);
            assert_eq!(text, b"hi");
            connection = unused;
        }
    }

    #[tokio::test]
    async fn the_end_of_an_idle_connection_is_seen_when_it_is_taken_up() {
        let (near, far) = duplex(1_024);
        let mut connection = Connection::over(near).await.unwrap();
        assert!(connection.is_ready());
        drop(far);
        assert!(!connection.is_ready());
        assert!(connection.send(request()).await.is_err());
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_had_a_connection_is_not_woken_for_its_next_request() {
        let (near, mut far) = duplex(1_024);
        let connection = Connection::over(near).await.unwrap();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut asking = Box::pin(exchange(connection));
        assert!(asking.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        far.write_all(ANSWER).await.unwrap();
        let Poll::Ready((mut connection, _)) =
            asking.as_mut().poll(&mut Context::from_waker(&waker))
        else {
            panic!("the whole answer is there")
        };
        assert!(connection.is_ready());
        let before = wakes.0.load(Ordering::Relaxed);
        let answering = async { far.write_all(ANSWER).await.unwrap() };
        tokio::join!(exchange(connection), answering);
        assert_eq!(wakes.0.load(Ordering::Relaxed), before);
    }
}
