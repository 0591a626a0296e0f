//! A real MCP server on 127.0.0.1, in the test's own process.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;

use mcpmon_core::service::ServiceSpec;
use mcpmon_mcp::server::{HttpOptions, HttpServer, Server, ServerSpec, Tool, ToolOutput};
use serde_json::json;
use tokio::net::TcpListener;

use crate::wait::within;

/// A [`Server`] over HTTP on a port of its own, which it keeps when it is stopped and started
/// again. Whatever a [`Server`] can be asked or told (counters, behaviour, tools) it can be too.
/// Dropping it stops it.
#[derive(Debug)]
pub struct FixtureServer {
    server: Server,
    options: HttpOptions,
    address: SocketAddr,
    url: String,
    running: Option<HttpServer>,
}

impl FixtureServer {
    /// Starts a server of both eras with two read-only tools, `echo` and `add`.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn start() -> Self {
        Self::serving(Server::new(Self::spec())).await
    }

    /// What [`FixtureServer::start`] serves.
    pub fn spec() -> ServerSpec {
        let echo = Tool::new("echo", "Gives back what it is given", |arguments| {
            Ok(ToolOutput::text(arguments.get("text").map_or_else(String::new, |text| {
                text.as_str().map_or_else(|| text.to_string(), str::to_owned)
            })))
        })
        .input_schema(json!({"type": "object", "properties": {"text": {"type": "string"}}}));
        let add = Tool::new("add", "Adds two numbers", |arguments| {
            let number = |key: &str| arguments.get(key).and_then(serde_json::Value::as_f64);
            Ok(match (number("a"), number("b")) {
                (Some(a), Some(b)) => ToolOutput::text((a + b).to_string()),
                _ => ToolOutput::error("`a` and `b` must be numbers"),
            })
        })
        .input_schema(json!({
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        }));
        ServerSpec::new("fixture", "1.0.0").tool(echo.read_only()).tool(add.read_only())
    }

    /// Starts this server, with JSON answers at `/mcp`.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn serving(server: Server) -> Self {
        Self::serving_with(server, HttpOptions::default()).await
    }

    /// Starts this server, speaking HTTP like this.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn serving_with(server: Server, options: HttpOptions) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let running = listen(any_port, &server, &options).await;
        Self {
            server,
            options,
            address: running.address(),
            url: running.url(),
            running: Some(running),
        }
    }

    /// Its endpoint, also while it is stopped.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address, also while it is stopped.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It as a service of this name.
    pub fn service(&self, name: &str) -> ServiceSpec {
        ServiceSpec::http(name, self.url.as_str())
    }

    /// The server itself; clones are the same server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Stops it as a killed process stops: nothing listens, every connection is closed.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Starts it again on the same port, as a new process would be: with no sessions.
    ///
    /// # Panics
    ///
    /// When another program took the port meanwhile.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.server.forget_sessions();
        self.running = Some(listen(self.address, &self.server, &self.options).await);
    }

    /// Waits until it was asked `count` requests of this method in all.
    ///
    /// # Panics
    ///
    /// When it is not in time (see [`within`]).
    pub async fn wait_for(&self, method: &str, count: u64) {
        let what = format!("{count} requests of `{method}`");
        within(&what, self.server.wait_for_requests(method, count)).await;
    }
}

impl Deref for FixtureServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

async fn listen(address: SocketAddr, server: &Server, options: &HttpOptions) -> HttpServer {
    let listener = TcpListener::bind(address).await.expect("a port on 127.0.0.1 can be had");
    HttpServer::start(listener, server.clone(), options.clone()).expect("a listener has an address")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn comes_back_on_the_port_it_had() {
        let mut fixture = FixtureServer::start().await;
        assert!(TcpStream::connect(fixture.address()).await.is_ok());
        fixture.stop().await;
        assert!(TcpStream::connect(fixture.address()).await.is_err());
        fixture.restart().await;
        assert!(TcpStream::connect(fixture.address()).await.is_ok());
        assert_eq!(fixture.requests(), 0);
    }
}
