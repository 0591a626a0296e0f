//! Servers written by hand, for what no decent server library would send.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    /// The JSON-RPC message; null where there is none.
    pub(crate) message: Value,
}

impl Asked {
    /// Reads the next request of a connection; `None` at its end.
    pub(crate) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0);
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let message = serde_json::from_slice(&bytes[end..]).unwrap_or_default();
        Some(Self { head, message })
    }

    pub(crate) fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The message that answers this one with a result.
    pub(crate) fn result(&self, result: &Value) -> Answer {
        Answer::json(&json!({ "jsonrpc": "2.0", "id": self.message["id"], "result": result }))
    }

    /// The message that answers this one with an error.
    pub(crate) fn error(&self, code: i64, message: &str, data: &Value) -> Answer {
        let error = json!({ "code": code, "message": message, "data": data });
        Answer::json(&json!({ "jsonrpc": "2.0", "id": self.message["id"], "error": error }))
    }
}

/// A response, byte by byte as it will be sent.
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    /// Whole lines with their ends.
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(message: &Value) -> Self {
        let headers = "content-type: application/json\r\n".to_owned();
        Self { status: "200 OK", headers, body: message.to_string() }
    }

    pub(crate) fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, headers: "content-type: text/plain\r\n".to_owned(), body: body.into() }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { status, headers, body } = self;
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
    }
}

/// Serves requests until it is dropped.
pub(crate) struct Careless {
    pub(crate) address: String,
    serving: JoinHandle<()>,
}

impl Careless {
    pub(crate) async fn serve(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::accept(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(asked) = Asked::read(&mut stream).await {
                    if stream.write_all(&answer(&asked).bytes()).await.is_err() {
                        break;
                    }
                }
            }
        })
        .await
    }

    /// Leaves the whole connection to `converse`.
    pub(crate) async fn accept<F>(converse: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream));
            }
        });
        Self { address, serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for Careless {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
