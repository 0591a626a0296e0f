//! The promises of a handler, kept towards a real gateway.

use std::time::Duration;

use mcpmon_core::settings::HandlerSettings;
use mcpmon_core::{DeliveryError, Handler as _, NotificationKind, Receipt};
use mcpmon_handler_pager::Pager;
use mcpmon_testkit::{handler_conformance, samples};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// A pager on a gateway that gives every page the same answer.
async fn pager(answer: &'static str) -> Pager {
    let gateway = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let settings = HandlerSettings::new("night", "pager")
        .with("gateway", gateway.local_addr().expect("an address").to_string())
        .with("token", "hunter22");
    tokio::spawn(async move {
        while let Ok((stream, _)) = gateway.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let _ = stream.read_line(&mut String::new()).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    Pager::from_settings(&settings).expect("good settings")
}

#[tokio::test]
async fn keeps_the_promises_of_a_handler() {
    handler_conformance(&pager("ok 7\n").await).await;
}

async fn told(answer: &'static str) -> Result<Receipt, DeliveryError> {
    let notification = samples::notification("key", NotificationKind::Firing);
    pager(answer).await.deliver(&notification).await
}

#[tokio::test]
async fn says_whether_trying_again_helps_and_when() {
    assert_eq!(told("ok 7\n").await.unwrap(), Receipt::with_id("7"));
    let busy = told("busy 30\n").await.unwrap_err();
    assert_eq!((busy.is_transient(), busy.retry_after()), (true, Some(Duration::from_secs(30))));
    assert!(told("").await.unwrap_err().is_transient(), "no answer is no refusal");
    assert!(!told("wrong token\n").await.unwrap_err().is_transient());
}
