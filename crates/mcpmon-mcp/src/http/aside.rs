//! What is sent beside a request that is under way: our answer to what the server asks in between,
//! and the GET that takes its event stream up again (2025-11-25).
//!
//! Each has a connection of its own and none of the pool's: the request holds a place already, and
//! those who all hold one and wait for a second would wait for each other.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use mcpmon_core::failure::FailureCode;
use mcpmon_core::observation::Phases;
use tokio::time::Instant;

use super::answer::{collect_some, cut_error};
use super::connection::AnswerBody;
use super::dial::dial;
use super::status::{self, Content};
use super::{HttpChannel, Post};
use crate::error::CallError;
use crate::protocol::{headers, methods};

impl HttpChannel {
    async fn aside(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, CallError> {
        let origin = &self.endpoint.origin;
        let limit = deadline.min(Instant::now() + self.connection_timeout);
        let connection = dial(origin, &self.client.tls, &mut Phases::default(), limit).await?;
        connection.send(request).await.map_err(|error| cut_error(&error, origin))
    }

    /// Posts our answer to what the server asked while it prepares one to `post`. What becomes of
    /// it is the server's loss.
    pub(super) async fn answer_server(&self, answer: Vec<u8>, post: &Post<'_>, deadline: Instant) {
        let reply = Post {
            method: methods::ANSWER,
            body: answer.into(),
            modern: false,
            name: None,
            ..post.clone()
        };
        if let Ok(request) = self.request(&reply) {
            let _ = self.aside(request, deadline).await;
        }
    }

    /// The stream that goes on after `last_event`.
    ///
    /// # Errors
    ///
    /// `stream_ended` where the server does not go on with it, with its status beside it.
    pub(super) async fn resume(
        &mut self,
        post: &Post<'_>,
        last_event: &str,
        deadline: Instant,
    ) -> Result<AnswerBody, CallError> {
        let Ok(last_event) = HeaderValue::from_str(last_event) else {
            let reason = "its last event has an id no header can carry";
            return Err(not_resumed(post, reason));
        };
        let asked = Post { body: Bytes::new(), modern: false, name: None, ..post.clone() };
        let build = || {
            let mut request = self.request(&asked)?;
            *request.method_mut() = Method::GET;
            let map = request.headers_mut();
            map.remove(CONTENT_TYPE);
            map.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
            map.insert(HeaderName::from_static(headers::LAST_EVENT_ID), last_event.clone());
            Ok::<_, CallError>(request)
        };
        let (head, mut body) = self.aside(build()?, deadline).await?.into_parts();
        if head.status.is_success() && status::content(&head.headers) == Content::EventStream {
            return Ok(body);
        }
        let (text, _) = collect_some(&mut body).await;
        let reason = format!("taking it up again was answered with HTTP {}", head.status.as_u16());
        let mut error = not_resumed(post, &reason).with_excerpt(&text);
        error.status = Some(head.status.as_u16());
        Err(error)
    }
}

fn not_resumed(post: &Post<'_>, reason: &str) -> CallError {
    let message =
        format!("the event stream ended without an answer to `{}`, and {reason}", post.method);
    CallError::new(FailureCode::StreamEnded, post.phase, message)
}
