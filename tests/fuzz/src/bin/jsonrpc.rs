//! Lines and JSON-RPC messages: however the bytes are cut, they are the same messages, and what was
//! read can be written and read again.
#![no_main]

use std::pin::Pin;
use std::task::{Context, Poll};

use libfuzzer_sys::fuzz_target;
use mcpmon_mcp::jsonrpc::{self, Incoming, MAX_BATCH, Message};
use mcpmon_mcp::lines::{Line, LineReader};
use tokio::io::{AsyncRead, ReadBuf};

const CAP: usize = 200;

/// Gives its bytes a few at a time.
struct Trickle<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl AsyncRead for Trickle<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.most.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// `None` for a line that was too long.
fn lines(bytes: &[u8], most: usize) -> Vec<Option<Vec<u8>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut reader = LineReader::new(Trickle { bytes, most }, CAP);
        let mut found = Vec::new();
        while let Some(line) = reader.next().await.expect("memory does not fail") {
            found.push(match line {
                Line::Text(text) => {
                    assert!(!text.is_empty() && text.len() <= CAP);
                    Some(text.to_vec())
                }
                Line::TooLong => None,
            });
        }
        found
    })
}

/// What was read, written anew, is read as the same.
fn reread(message: &Message<'_>) {
    let (id, method, written) = match message {
        Message::Request(request) => (
            Some(request.id.clone()),
            Some(request.method.to_string()),
            jsonrpc::encode_request(&request.id, &request.method, request.params.as_ref()),
        ),
        Message::Notification(told) => {
            let method = told.method.to_string();
            let written = jsonrpc::encode_notification(&method, told.params.as_ref());
            (None, Some(method), written)
        }
        Message::Response(response) => match (&response.id, &response.payload) {
            (Some(id), Ok(result)) => (Some(id.clone()), None, jsonrpc::encode_result(id, result)),
            _ => return,
        },
    };
    let again = match jsonrpc::parse(&written).expect("what we write can be read") {
        Incoming::Single(message) => message,
        Incoming::Batch(_) => panic!("one message became a batch"),
    };
    let (id_again, method_again) = match again {
        Message::Request(request) => (Some(request.id), Some(request.method.into_owned())),
        Message::Notification(told) => (None, Some(told.method.into_owned())),
        Message::Response(response) => (response.id, None),
    };
    assert_eq!((id, method), (id_again, method_again));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let whole = lines(rest, usize::MAX);
    assert_eq!(whole, lines(rest, usize::from(*first % 23) + 1));
    for text in whole.into_iter().flatten().chain([rest.to_vec()]) {
        match jsonrpc::parse(&text) {
            Ok(incoming) => {
                let messages = incoming.into_messages();
                assert!(!messages.is_empty() && messages.len() <= MAX_BATCH);
                messages.iter().flatten().for_each(reread);
            }
            Err(error) => {
                let answer = error.to_rpc_error();
                assert!(answer.code < 0 && !answer.message.is_empty());
            }
        }
    }
});
