//! Whether anything answers at a URL: one request, and nothing of the answer but its status.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::Phases;
use mcpmon_core::service::HttpSpec;
use tokio::time::{Instant, timeout_at};

use super::dial::dial;
use super::{Endpoint, HttpClient, answer};
use crate::error::CallError;

impl HttpClient {
    /// Sends one GET to `url`, on a connection of its own, and gives the status of the answer. No
    /// redirect is followed, the body is left unread, and the connection is closed. Not for MCP
    /// endpoints, where a GET opens a session.
    ///
    /// # Errors
    ///
    /// Why nothing answered: one of the codes for reaching a service, or `response_timeout`.
    pub async fn status_of(
        &self,
        url: &str,
        connection_timeout: Duration,
        deadline: Instant,
    ) -> Result<u16, CallError> {
        let spec = HttpSpec { url: url.to_owned(), ..HttpSpec::default() };
        let endpoint = Endpoint::parse(&spec)?;
        let limit = deadline.min(Instant::now() + connection_timeout);
        let mut phases = Phases::default();
        let connection = dial(&endpoint.origin, &self.tls, &mut phases, limit).await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = endpoint.target.clone();
        *request.headers_mut() = endpoint.headers.clone();
        let agent = HeaderValue::from_static(concat!("mcpmon/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        match timeout_at(deadline, connection.send(request)).await {
            Ok(Ok(response)) => Ok(response.status().as_u16()),
            Ok(Err(error)) => Err(answer::cut_error(&error, &endpoint.origin)),
            Err(_) => {
                let text = format!("`{}` took the request and gave no answer", endpoint.origin);
                Err(CallError::new(FailureCode::ResponseTimeout, Phase::Request, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn ask(url: &str, within: Duration) -> Result<u16, FailureCode> {
        let client = HttpClient::new();
        let asked = client.status_of(url, LONG, Instant::now() + within);
        asked.await.map_err(|error| error.code())
    }

    #[tokio::test]
    async fn an_answer_is_its_status_and_no_redirect_is_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/health?x=1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            // A body without an end, which nobody waits for.
            let answer = "HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\n\
                          content-length: 99999999\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        assert_eq!(ask(&url, LONG).await, Ok(307));
        let head = server.await.unwrap();
        assert!(head.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{head}");
    }

    #[tokio::test]
    async fn silence_and_absence_have_their_codes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let short = Duration::from_millis(200);
        assert_eq!(ask(&url, short).await, Err(FailureCode::ResponseTimeout));
        drop(listener);
        assert_eq!(ask(&url, LONG).await, Err(FailureCode::ConnectionRefused));
        let barred = "http://169.254.169.254/latest/meta-data";
        assert_eq!(ask(barred, LONG).await, Err(FailureCode::ConfigurationInvalid));
    }
}
