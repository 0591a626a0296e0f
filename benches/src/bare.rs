//! The least a client can do: the requests of a check on kept connections, the answers read to
//! their end and not looked into.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use mcpmon_core::Era;
use mcpmon_mcp::protocol::{LATEST_LEGACY, MODERN, headers, meta, methods};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failure;
use crate::fleet::{Speaks, path};

/// A client with a number of connections, each asking its share of the services in turn.
#[derive(Debug)]
pub struct BareClient {
    workers: Vec<Worker>,
}

impl BareClient {
    /// Opens the connections and, for the legacy era, a session with every service.
    ///
    /// # Errors
    ///
    /// When the fleet does not answer as it should.
    pub async fn connect(
        fleet: SocketAddr,
        era: Era,
        services: usize,
        connections: usize,
    ) -> Result<Self, Failure> {
        let mut workers = Vec::new();
        for index in 0..connections {
            let share = (index..services).step_by(connections);
            workers.push(Worker::connect(fleet, era, share).await?);
        }
        Ok(Self { workers })
    }

    /// Checks every service once: two requests each. Gives the number of checks.
    ///
    /// # Errors
    ///
    /// When the fleet does not answer as it should.
    pub async fn sweep(&mut self) -> Result<usize, Failure> {
        self.sweep_by(false).await
    }

    /// The same with what comes before a first check: each service is asked what it is.
    ///
    /// # Errors
    ///
    /// When the fleet does not answer as it should.
    pub async fn first_sweep(&mut self) -> Result<usize, Failure> {
        self.sweep_by(true).await
    }

    async fn sweep_by(&mut self, first: bool) -> Result<usize, Failure> {
        let mut sweeping = JoinSet::new();
        for worker in self.workers.drain(..) {
            sweeping.spawn(worker.sweep(first));
        }
        let mut checks = 0;
        while let Some(swept) = sweeping.join_next().await {
            let worker = swept??;
            checks += worker.services.len();
            self.workers.push(worker);
        }
        Ok(checks)
    }
}

#[derive(Debug)]
struct Service {
    path: String,
    session: Option<HeaderValue>,
}

#[derive(Debug)]
struct Worker {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    era: Era,
    services: Vec<Service>,
    next_id: u64,
}

impl Worker {
    async fn connect(
        fleet: SocketAddr,
        era: Era,
        share: impl Iterator<Item = usize>,
    ) -> Result<Self, Failure> {
        let stream = TcpStream::connect(fleet).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let host = HeaderValue::try_from(fleet.to_string())?;
        let mut worker = Self { sender, host, era, services: Vec::new(), next_id: 1 };
        for index in share {
            let speaks = if era == Era::Legacy { Speaks::Legacy } else { Speaks::Both };
            let mut service = Service { path: path(speaks, index), session: None };
            if era == Era::Legacy {
                service.session = Some(worker.open(&service).await?);
            }
            worker.services.push(service);
        }
        Ok(worker)
    }

    async fn open(&mut self, service: &Service) -> Result<HeaderValue, Failure> {
        let params = json!({
            "protocolVersion": LATEST_LEGACY, "capabilities": {},
            "clientInfo": {"name": "bare", "version": "1"},
        });
        let response = self.send(service, methods::INITIALIZE, &params).await?;
        let session = response.headers().get(headers::SESSION_ID).cloned();
        response.into_body().collect().await?;
        session.ok_or_else(|| "the fleet opens no sessions".into())
    }

    async fn sweep(mut self, opens: bool) -> Result<Self, Failure> {
        let (first, params) = match self.era {
            Era::Modern => (methods::DISCOVER, modern_params()),
            Era::Legacy => (methods::PING, json!({})),
        };
        let services = std::mem::take(&mut self.services);
        for service in &services {
            let opening = opens.then_some(first);
            for method in opening.into_iter().chain([first, methods::TOOLS_LIST]) {
                let response = self.send(service, method, &params).await?;
                if !response.status().is_success() {
                    return Err(format!("{method}: {}", response.status()).into());
                }
                response.into_body().collect().await?;
            }
        }
        self.services = services;
        Ok(self)
    }

    async fn send(
        &mut self,
        service: &Service,
        method: &'static str,
        params: &Value,
    ) -> Result<Response<Incoming>, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut request = Request::post(service.path.as_str())
            .header(HOST, self.host.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let version = if self.era == Era::Modern { MODERN } else { LATEST_LEGACY };
        request = request.header(headers::PROTOCOL_VERSION, HeaderValue::from_static(version));
        if self.era == Era::Modern {
            request = request.header(headers::METHOD, HeaderValue::from_static(method));
        }
        if let Some(session) = &service.session {
            request = request.header(headers::SESSION_ID, session.clone());
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

fn modern_params() -> Value {
    json!({"_meta": {
        (meta::PROTOCOL_VERSION): MODERN,
        (meta::CLIENT_INFO): {"name": "bare", "version": "1"},
        (meta::CLIENT_CAPABILITIES): {},
    }})
}
