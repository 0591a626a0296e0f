//! A far side in memory: takes requests, keeps them, and answers as it is told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How it answers.
#[derive(Debug, Clone)]
pub(super) struct Says {
    bytes: Vec<u8>,
    headers: String,
    status: u16,
    body: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    Cut,
    HangUp,
    Nothing,
}

impl Says {
    pub(super) fn status(status: u16, body: &str) -> Self {
        Self {
            bytes: Vec::new(),
            headers: String::new(),
            status,
            body: body.to_owned(),
            kind: Kind::Whole,
        }
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn cut_short(mut self) -> Self {
        self.kind = Kind::Cut;
        self
    }

    pub(super) fn hang_up() -> Self {
        Self { kind: Kind::HangUp, ..Self::status(200, "") }
    }

    pub(super) fn nothing() -> Self {
        Self { kind: Kind::Nothing, ..Self::status(200, "") }
    }

    fn prepared(mut self) -> Self {
        let length = self.body.len() + if self.kind == Kind::Cut { 10 } else { 0 };
        self.bytes = format!(
            "HTTP/1.1 {} x\r\ncontent-length: {length}\r\n{}\r\n{}",
            self.status, self.headers, self.body
        )
        .into_bytes();
        self
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A far side on a port of its own.
pub(super) struct Far {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Far {
    pub(super) async fn that(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, says) = (Arc::clone(&requests), Arc::new(says.prepared()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&says), Arc::clone(&kept)));
            }
        });
        Self { port, requests }
    }

    pub(super) async fn gone() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { port, requests: Arc::default() }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn only(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

async fn converse(
    stream: TcpStream,
    says: Arc<Says>,
    kept: Arc<Mutex<Vec<Request>>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            match header.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body).unwrap();
        kept.lock().unwrap().push(Request { line: line.trim_end().to_owned(), headers, body });
        match says.kind {
            Kind::Nothing => std::future::pending().await,
            Kind::HangUp => return Ok(()),
            Kind::Whole | Kind::Cut => stream.write_all(&says.bytes).await?,
        }
        if says.kind == Kind::Cut {
            return Ok(());
        }
    }
}
