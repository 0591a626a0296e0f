//! The promises of a handler, kept towards a real gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpmon_core::settings::HandlerSettings;
use mcpmon_core::{DeliveryError, Handler as _, NotificationKind, Receipt, Secret};
use mcpmon_handler_pager::Pager;
use mcpmon_testkit::{handler_conformance, handler_faults, handler_messages, samples};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

const TOKEN: &str = "hunter22";

/// A pager for the gateway at an address.
fn pager(gateway: SocketAddr) -> Pager {
    let settings = HandlerSettings::new("night", "pager")
        .with("gateway", gateway.to_string())
        .with("token", TOKEN);
    Pager::from_settings(&settings).expect("good settings")
}

/// A gateway that gives every page the same answer, and the pages it was given.
async fn gateway(answer: &'static str) -> (SocketAddr, Arc<Mutex<String>>) {
    let gateway = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = gateway.local_addr().expect("an address");
    let pages = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&pages);
    tokio::spawn(async move {
        while let Ok((stream, _)) = gateway.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut page = String::new();
                let _ = stream.read_line(&mut page).await;
                kept.lock().expect("nobody panicked with it").push_str(&page);
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (address, pages)
}

#[tokio::test]
async fn keeps_the_promises_of_a_handler() {
    let (address, pages) = gateway("ok 7\n").await;
    handler_conformance(&pager(address)).await;
    pages.lock().unwrap().clear();
    handler_messages(&pager(address), async || std::mem::take(&mut *pages.lock().unwrap())).await;
}

#[tokio::test]
async fn is_not_undone_by_a_gateway_that_misbehaves() {
    handler_faults(&Secret::new(TOKEN), |address| Box::new(pager(address))).await;
}

async fn told(answer: &'static str) -> Result<Receipt, DeliveryError> {
    let notification = samples::notification("key", NotificationKind::Firing);
    pager(gateway(answer).await.0).deliver(&notification).await
}

#[tokio::test]
async fn says_whether_trying_again_helps_and_when() {
    assert_eq!(told("ok 7\n").await.unwrap(), Receipt::with_id("7"));
    let busy = told("busy 30\n").await.unwrap_err();
    assert_eq!((busy.is_transient(), busy.retry_after()), (true, Some(Duration::from_secs(30))));
    assert!(told("").await.unwrap_err().is_transient(), "no answer is no refusal");
    assert!(!told("wrong token\n").await.unwrap_err().is_transient());
}
