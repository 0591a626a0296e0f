//! Certificates that are right, and each way they are wrong.
//!
//! The files under `certs` were made once: an authority whose key is gone, and certificates it
//! gave the one key that is there.

use std::sync::Arc;

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::Phases;
use mcpmon_mcp::http::HttpClient;
use mcpmon_mcp::{CallError, Memory, Session};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::{assert_code, at, listener, options, soon};

const AUTHORITY: &[u8] = include_bytes!("certs/ca.pem");
const GOOD: &[u8] = include_bytes!("certs/good.pem");
const EXPIRED: &[u8] = include_bytes!("certs/expired.pem");
const OTHER_NAME: &[u8] = include_bytes!("certs/other-name.pem");
const SELF_SIGNED: &[u8] = include_bytes!("certs/self-signed.pem");
const KEY: &[u8] = include_bytes!("certs/server.key");

const DISCOVERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{},"resultType":"complete","ttlMs":0,"cacheScope":"private"}}"#;

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

/// A server with this certificate that answers every connection's request with a discovery.
async fn serve(pem: &[u8]) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate(pem)], PrivateKeyDer::from_pem_slice(KEY).unwrap())
        .unwrap();
    let listener = listener().await;
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4_096]).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                DISCOVERED.len()
            );
            let _ = stream.write_all((head + DISCOVERED).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}

async fn open(url: &str, phases: &mut Phases) -> Result<Session, CallError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(AUTHORITY)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(HttpClient::with_tls(Arc::new(config)));
    Session::open_http(
        &client,
        &at(url),
        &Arc::new(options()),
        &mut Memory::default(),
        phases,
        soon(),
    )
    .await
}

#[tokio::test]
async fn name_socket_and_handshake_are_timed_apart() {
    let mut phases = Phases::default();
    open(&serve(GOOD).await, &mut phases).await.unwrap();
    let times = [phases.dns_ms, phases.connect_ms, phases.tls_ms, phases.handshake_ms];
    assert!(times.iter().all(|time| time.is_some_and(|millis| millis > 0.0)), "{phases:?}");
}

#[tokio::test]
async fn each_wrong_certificate_has_its_code() {
    for (pem, code) in [
        (EXPIRED, FailureCode::TlsCertificateExpired),
        (OTHER_NAME, FailureCode::TlsNameMismatch),
        (SELF_SIGNED, FailureCode::TlsCertificateUntrusted),
    ] {
        let mut phases = Phases::default();
        let error = assert_code(open(&serve(pem).await, &mut phases).await, code);
        assert_eq!(error.failure.phase, Phase::Tls);
        assert!(phases.connect_ms.is_some() && phases.tls_ms.is_none());
    }
}

#[tokio::test]
async fn a_plain_server_behind_an_https_url_is_named() {
    let listener = listener().await;
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 4_096]).await;
        }
    });
    let error = assert_code(open(&url, &mut Phases::default()).await, FailureCode::TlsFailed);
    assert!(error.failure.message.contains("does not speak TLS"), "{error}");
}
