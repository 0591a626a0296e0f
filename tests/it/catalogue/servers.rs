//! Servers that are wrong in one way each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_mcp::server::{Behaviour, Eras, Fault, HttpOptions, Server, ServerSpec};
use mcpmon_testkit::FixtureServer;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What `SSL_CERT_FILE` is set to: the authority of the certificates below.
pub(super) const AUTHORITY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/mcpmon-mcp/tests/client/certs/ca.pem");
const KEY: &[u8] = include_bytes!("../../../crates/mcpmon-mcp/tests/client/certs/server.key");
pub(super) const GOOD: &[u8] =
    include_bytes!("../../../crates/mcpmon-mcp/tests/client/certs/good.pem");
pub(super) const EXPIRED: &[u8] =
    include_bytes!("../../../crates/mcpmon-mcp/tests/client/certs/expired.pem");
pub(super) const OTHER_NAME: &[u8] =
    include_bytes!("../../../crates/mcpmon-mcp/tests/client/certs/other-name.pem");
pub(super) const SELF_SIGNED: &[u8] =
    include_bytes!("../../../crates/mcpmon-mcp/tests/client/certs/self-signed.pem");

/// A legacy server in shell. `$BEFORE` runs at its start, `$ON_PING` before a ping is answered and
/// `$AFTER_PING` after it; `$TOOLS` is the list.
pub(super) const SHELL: &str = r#"
eval "$BEFORE"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}; id=${id%\}}
  case "$line" in
    *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"ping"'*) eval "$ON_PING"; printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id"; eval "$AFTER_PING" ;;
    *'"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[%s]}}\n' "$id" "$TOOLS" ;;
  esac
done
eval "$AT_END"
"#;

/// The entry of a shell server with these hooks.
pub(super) fn shell(hooks: &[(&str, &str)]) -> Value {
    let env: serde_json::Map<String, Value> =
        hooks.iter().map(|(name, code)| ((*name).to_owned(), json!(code))).collect();
    // A configuration has variables of its own.
    json!({ "command": "sh", "args": ["-c", SHELL.replace("${", "$${")], "env": env })
}

/// The entry of a shell that prints these lines to standard error and ends so.
pub(super) fn dying(stderr: &str, status: i32) -> Value {
    let script = format!("cat >&2 <<'END'\n{stderr}\nEND\nexit {status}");
    json!({ "command": "sh", "args": ["-c", script] })
}

/// What a table's servers need to stay up.
#[derive(Default)]
pub(super) struct Kept {
    fixtures: Vec<FixtureServer>,
    /// Connections nobody takes, so that nobody else's is taken either.
    waiting: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
}

impl Kept {
    pub(super) async fn serving(&mut self, spec: ServerSpec, behaviour: Behaviour) -> String {
        let server = Server::new(spec).behaving(behaviour);
        let fixture = FixtureServer::serving_with(server, HttpOptions::default()).await;
        let url = fixture.url().to_owned();
        self.fixtures.push(fixture);
        url
    }

    /// A modern server that goes wrong with every request.
    pub(super) async fn failing(&mut self, fault: impl Into<Fault>) -> String {
        let spec = FixtureServer::spec().eras(Eras::Modern);
        self.serving(spec, Behaviour::failing(fault.into())).await
    }

    /// A legacy server that goes wrong with these methods.
    pub(super) async fn failing_at(
        &mut self,
        methods: &'static [&'static str],
        fault: impl Into<Fault>,
    ) -> String {
        let spec = FixtureServer::spec().eras(Eras::Legacy);
        self.serving(spec, Behaviour::failing(fault.into()).only_for(methods)).await
    }

    /// A port whose queue is full, so that nobody answers.
    pub(super) async fn full_port(&mut self) -> SocketAddr {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(500);
        while let Ok(taken) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            self.waiting.push(taken.unwrap());
            assert!(self.waiting.len() < 100, "the queue of a port does not fill up");
        }
        self.listeners.push(listener);
        address
    }
}

/// A peer that answers whatever comes first on a connection with these bytes and closes.
pub(super) async fn raw(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            // Read to the end, or closing would reset what was just written.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    url
}

const DISCOVERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{},"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"tls","version":"1"}}}}"#;

/// A modern server without tools behind this certificate; it answers each request with the same
/// discovery, under the request's id.
pub(super) async fn secure(pem: &'static [u8]) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pem).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            tokio::spawn(async move {
                let mut request = [0; 8_192];
                while let Ok(1..) = stream.read(&mut request).await {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let id = text
                        .split_once("\"id\":")
                        .map_or("1", |(_, rest)| rest.split([',', '}']).next().unwrap_or("1"));
                    let body = DISCOVERED.replacen("\"id\":1", &format!("\"id\":{id}"), 1);
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                    let _ = stream.flush().await;
                }
            });
        }
    });
    url
}

/// A client's settings that trust the authority of these certificates.
pub(super) fn trusting() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(AUTHORITY).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A bearer token that ends in so many seconds.
pub(super) fn token_ending_in(seconds: u64) -> String {
    use mcpmon_core::{Clock as _, SystemClock};
    let end = SystemClock.now().saturating_add(Duration::from_secs(seconds)).as_millis() / 1_000;
    let claims = format!("{{\"exp\":{end}}}");
    format!("Bearer e30.{}.c2ln", base64url(claims.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    out
}
