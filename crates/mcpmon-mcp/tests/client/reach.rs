//! Reaching, or not reaching, something at an address.

use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_mcp::SessionOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{assert_code, listener, open, open_by, options, within};

/// A peer that answers whatever comes first with these bytes and closes.
async fn peer(answer: &'static [u8]) -> String {
    let listener = listener().await;
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            // Read to the end, or closing would reset what was just written.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    url
}

#[tokio::test]
async fn nothing_listening_is_a_refused_connection() {
    let listener = listener().await;
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let error = assert_code(open(&url).await, FailureCode::ConnectionRefused);
    assert_eq!(error.failure.phase, Phase::Connect);
}

#[tokio::test]
async fn a_name_that_does_not_exist_does_not_resolve() {
    let error = assert_code(open("http://no-such-host.invalid/mcp").await, FailureCode::DnsFailed);
    assert_eq!(error.failure.phase, Phase::Dns);
}

#[tokio::test]
async fn link_local_addresses_are_never_asked() {
    let error =
        assert_code(open("http://169.254.169.254/").await, FailureCode::ConfigurationInvalid);
    assert!(error.failure.message.contains("link-local"));
}

#[tokio::test]
async fn what_speaks_no_http_is_not_mcp() {
    let url = peer(b"SSH-2.0-OpenSSH_9.6\r\n").await;
    assert_code(open(&url).await, FailureCode::NotMcp);
}

#[tokio::test]
async fn a_connection_closed_without_a_word_is_a_reset() {
    let url = peer(b"").await;
    assert_code(open(&url).await, FailureCode::ConnectionReset);
}

#[tokio::test]
async fn a_body_cut_off_is_truncated() {
    let url = peer(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"json",
    )
    .await;
    assert_code(open(&url).await, FailureCode::TruncatedResponse);
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let head: &'static [u8] = Box::leak(
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000)).into_bytes().into(),
    );
    assert_code(open(&peer(head).await).await, FailureCode::TooLarge);
}

#[tokio::test]
async fn a_peer_that_takes_the_connection_and_says_nothing_times_out_in_the_handshake() {
    let listener = listener().await;
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let opened = open_by(&url, None, options(), within(300)).await;
    assert_code(opened, FailureCode::HandshakeTimeout);
    held.abort();
}

#[tokio::test]
async fn a_tls_handshake_nobody_answers_ends_with_the_connection_timeout() {
    let listener = listener().await;
    let url = format!("https://{}/mcp", listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let options = SessionOptions { connection_timeout: Duration::from_millis(200), ..options() };
    let opened = open_by(&url, None, options, within(10_000)).await;
    let error = assert_code(opened, FailureCode::TlsFailed);
    assert_eq!(error.failure.phase, Phase::Tls);
    held.abort();
}
