//! What a handler does when its far side misbehaves, as one test.

use std::net::SocketAddr;
use std::time::Duration;

use mcpmon_core::alert::{DeliveryError, Handler, NotificationKind, Receipt};
use mcpmon_core::secret::{Redactor, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::hostile::HOSTILE;
use crate::samples;
use crate::wait::within;

/// A delivery nobody answers is let go of after so long.
const LET_GO: Duration = Duration::from_millis(300);

/// A far side that does not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nobody listens there.
    Gone,
    /// Hangs up at once.
    HangsUp,
    /// Hangs up once it was asked something.
    HangsUpLater,
    /// Answers what no protocol knows, for as long as anybody reads.
    Babbles,
    /// Says back what it was told, secrets too, as a refusal.
    Echoes,
    /// Never says anything.
    Silent,
}

/// Checks what a handler that reaches its far side over TCP does when that fails:
///
/// - nobody there, or one that hangs up: "later", never a refusal for good, for it may come back;
/// - one that babbles without end, or refuses by saying back what it was told: an error in time,
///   not a panic, without escape sequences of its own;
/// - one that stays silent: the delivery can be let go of, and its connection is closed with it;
/// - in no error is the `secret` it was configured with, in no encoding.
///
/// `make` makes the handler for a far side at an address. Give `secret` to it wherever it takes one.
///
/// # Panics
///
/// When a promise is broken; the message says which.
pub async fn handler_faults(secret: &Secret, make: impl Fn(SocketAddr) -> Box<dyn Handler>) {
    for fault in [Fault::Gone, Fault::HangsUp, Fault::HangsUpLater, Fault::Babbles, Fault::Echoes] {
        let (address, _ended) = far_side(fault).await;
        let error = match deliver(&*make(address), fault).await {
            Ok(_) => panic!("a far side that {fault:?} took a notification"),
            Err(error) => error,
        };
        let is_away = matches!(fault, Fault::Gone | Fault::HangsUp | Fault::HangsUpLater);
        assert!(error.is_transient() || !is_away, "{fault:?} is refused for good: {error}");
        assert_presentable(fault, &error.to_string(), secret);
    }
    lets_go(&make).await;
}

/// The connection of a delivery that is let go of does not outlive it.
async fn lets_go(make: &impl Fn(SocketAddr) -> Box<dyn Handler>) {
    let (address, mut ended) = far_side(Fault::Silent).await;
    let handler = make(address);
    let notification = samples::notification("silent", NotificationKind::Firing);
    let answer = tokio::time::timeout(LET_GO, handler.deliver(&notification)).await;
    assert!(!matches!(answer, Ok(Ok(_))), "a far side that says nothing took a notification");
    within("the connection of a delivery that was let go of to end", ended.recv()).await;
}

async fn deliver(handler: &dyn Handler, fault: Fault) -> Result<Receipt, DeliveryError> {
    let notification = samples::notification("fault", NotificationKind::Firing);
    let what = format!("an answer about a far side that {fault:?}");
    within(&what, handler.deliver(&notification)).await
}

fn assert_presentable(fault: Fault, error: &str, secret: &Secret) {
    assert!(!error.trim().is_empty(), "{fault:?}: a failure says why");
    let redacted = Redactor::new([secret]).redact(error);
    assert_eq!(error, redacted, "{fault:?}: the error tells the secret");
    assert!(
        !error.contains('\u{1b}'),
        "{fault:?}: {error:?} has an escape sequence of the far side"
    );
    assert!(error.len() < 10_000, "{fault:?}: an error of {} bytes", error.len());
}

/// A far side on a port of its own, and when one of its conversations has ended.
async fn far_side(fault: Fault) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (end, ended) = mpsc::unbounded_channel();
    if fault != Fault::Gone {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let end = end.clone();
                tokio::spawn(async move {
                    // It ends as it ends; what matters is that it does.
                    let _ = converse(fault, stream).await;
                    let _ = end.send(());
                });
            }
        });
    }
    (address, ended)
}

async fn converse(fault: Fault, mut stream: TcpStream) -> std::io::Result<()> {
    let mut heard = vec![0; 64 * 1024];
    match fault {
        Fault::Gone | Fault::HangsUp => {}
        Fault::HangsUpLater => drop(stream.read(&mut heard).await?),
        Fault::Babbles => loop {
            for text in HOSTILE {
                stream.write_all(text.as_bytes()).await?;
            }
        },
        Fault::Echoes => {
            // A moment for the whole of it: headers and body may come apart.
            let mut length = 0;
            while let Ok(Ok(more)) =
                tokio::time::timeout(LET_GO, stream.read(&mut heard[length..])).await
            {
                length += more;
                if more == 0 {
                    break;
                }
            }
            let said = &heard[..length];
            let head = format!("HTTP/1.1 400 no\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(said).await?;
            stream.shutdown().await?;
        }
        Fault::Silent => while stream.read(&mut heard).await? > 0 {},
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use mcpmon_core::alert::Notification;
    use std::sync::Arc;

    const SECRET: &str = "hunter22";

    /// Sends its secret in a line, and says what came back.
    struct Line {
        address: SocketAddr,
        is_careless: bool,
        kept: Arc<tokio::sync::Mutex<Vec<TcpStream>>>,
    }

    #[async_trait]
    impl Handler for Line {
        fn name(&self) -> &str {
            "line"
        }

        async fn deliver(&self, _: &Notification) -> Result<Receipt, DeliveryError> {
            let connecting = TcpStream::connect(self.address).await;
            let mut stream = connecting.map_err(DeliveryError::transient)?;
            let sent = stream.write_all(format!("{SECRET}\n").as_bytes()).await;
            sent.map_err(DeliveryError::transient)?;
            let mut answer = [0; 200];
            let reading = stream.read(&mut answer).await;
            let length = reading.map_err(DeliveryError::transient)?;
            let told = String::from_utf8_lossy(&answer[..length]).into_owned();
            if length == 0 {
                return Err(DeliveryError::transient("it hung up"));
            }
            if self.is_careless {
                self.kept.lock().await.push(stream);
                return Err(DeliveryError::permanent(told));
            }
            Err(DeliveryError::permanent("it says what nobody understands"))
        }
    }

    fn line(is_careless: bool) -> impl Fn(SocketAddr) -> Box<dyn Handler> {
        move |address| Box::new(Line { address, is_careless, kept: Arc::default() })
    }

    #[tokio::test]
    async fn a_careful_handler_keeps_them() {
        handler_faults(&Secret::new(SECRET), line(false)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "has an escape sequence of the far side")]
    async fn one_that_repeats_what_it_is_told_breaks_them() {
        handler_faults(&Secret::new(SECRET), line(true)).await;
    }
}
