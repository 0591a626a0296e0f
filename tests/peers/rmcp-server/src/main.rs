//! A small server on the official Rust SDK, which speaks both eras: stdio, or streamable HTTP at
//! `/mcp` with `--http PORT` (0 takes a free one and prints it).

use std::error::Error;
use std::io::Write as _;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::transport::stdio;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt, schemars, tool, tool_handler, tool_router};
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct Numbers {
    a: i64,
    b: i64,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct Wait {
    seconds: f64,
}

#[derive(Debug, Clone)]
struct Tools;

#[tool_router]
impl Tools {
    #[tool(description = "Adds two whole numbers.", annotations(read_only_hint = true))]
    async fn add(&self, Parameters(Numbers { a, b }): Parameters<Numbers>) -> String {
        (a + b).to_string()
    }

    #[tool(description = "Answers after so many seconds.", annotations(read_only_hint = true))]
    async fn wait(&self, Parameters(Wait { seconds }): Parameters<Wait>) -> String {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        "waited".to_owned()
    }

    #[tool(description = "Always fails.", annotations(read_only_hint = true))]
    async fn fail(&self) -> Result<String, String> {
        Err("asked to".to_owned())
    }
}

#[tool_handler(name = "rmcp-server", version = "1.2.3")]
impl ServerHandler for Tools {}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            Tools.serve(stdio()).await?.waiting().await?;
        }
        ["--http", port] => {
            let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
            println!("listening {}", listener.local_addr()?.port());
            std::io::stdout().flush()?;
            tokio::select! {
                ended = serve(listener) => ended?,
                () = parent_gone() => {}
            }
        }
        _ => return Err("usage: rmcp-server [--http PORT]".into()),
    }
    Ok(())
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let service = TowerToHyperService::new(StreamableHttpService::new(
        || Ok(Tools),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    ));
    loop {
        let (connection, _) = listener.accept().await?;
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(connection), service.clone());
        // A client that goes away is no fault of ours.
        tokio::spawn(async { drop(connection.await) });
    }
}

/// A test that is killed cannot clean up behind itself.
async fn parent_gone() {
    let parent = parent_id();
    while parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
