//! What a check costs the server it asks: requests and connections, counted.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should say where")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::observation::Question;
use mcpmon_core::probe::ProbeFactory as _;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::settings::Settings;
use mcpmon_mcp::server::{Eras, HttpOptions, HttpServer, Server, ServerSpec, Tool, ToolOutput};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const CHECKS: u64 = 5;

/// Passes bytes on to a server, and counts the connections.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut far = TcpStream::connect(to).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_check_is_two_requests_and_checks_in_a_row_share_one_connection() {
    for (eras, opening, proof) in
        [(Eras::Modern, None, "server/discover"), (Eras::Legacy, Some("initialize"), "ping")]
    {
        let tool = Tool::new("hello", "says hello", |_| Ok(ToolOutput::text("hello")));
        let server = Server::new(ServerSpec::new("fixture", "1.0.0").tool(tool).eras(eras));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = HttpServer::start(listener, server.clone(), HttpOptions::default()).unwrap();
        let (relay, connections) = relay(http.address()).await;
        let factory = McpProbeFactory::new(&Settings::default());
        let url = format!("http://{relay}/mcp");
        let mut probe = factory.probe(&Arc::new(ServiceSpec::http("web", url)));
        let mut asked = Vec::new();
        for _ in 0..=CHECKS {
            let deadline = Instant::now() + Duration::from_secs(20);
            let seen = probe.ask(Question::List, deadline.into_std()).await;
            assert_eq!(seen.failure(), None, "{eras:?}");
            asked.push(server.counts());
        }
        let (first, last) = (&asked[0], asked.last().unwrap());
        let mut expected: BTreeMap<String, u64> = first.clone();
        for method in [proof, "tools/list"] {
            *expected.entry(method.to_owned()).or_default() += CHECKS;
        }
        assert_eq!(*last, expected, "{eras:?}: nothing but the two requests");
        assert_eq!(opening.map(|method| last.get(method)), opening.map(|_| Some(&1)));
        assert_eq!(connections.load(Ordering::Relaxed), 1, "{eras:?}");
        probe.close().await;
        http.stop().await;
    }
}
