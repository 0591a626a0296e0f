//! The event streams of HTTP+SSE, and the answers kept for clients that come back for them.

use std::collections::HashMap;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Server;
use super::dispatch::Stage;
use super::http::event;
use super::sessions::Sessions;
use crate::jsonrpc;
use crate::protocol::methods;

/// Most answers kept for clients that may never come back.
const MOST_KEPT: usize = 1_000;

/// What is open towards clients beside the sessions of streamable HTTP.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Their ids, and where each conversation stands.
    stages: Sessions,
    open: HashMap<String, mpsc::UnboundedSender<Bytes>>,
    kept: HashMap<String, Vec<u8>>,
    last_kept: u64,
}

impl Streams {
    /// A stream's stage, and the way to write to it.
    pub(super) fn get(&self, id: &str) -> Option<(Stage, mpsc::UnboundedSender<Bytes>)> {
        Some((self.stages.get(id)?, self.open.get(id)?.clone()))
    }

    /// The conversation of a stream stands here now.
    pub(super) fn moved(&mut self, id: &str, stage: Stage) {
        self.stages.set(id, stage);
    }

    /// Ends a stream.
    pub(super) fn close(&mut self, id: &str) {
        self.stages.close(id);
        self.open.remove(id);
    }

    pub(super) fn clear(&mut self) {
        self.stages.clear();
        self.open.clear();
    }

    /// Tells every client that the list of tools is another now.
    pub(super) fn tell_change(&self) {
        let told = jsonrpc::encode_notification(methods::TOOLS_CHANGED, None::<&()>);
        for (id, stream) in &self.open {
            if matches!(self.stages.get(id), Some(Stage::Legacy(_))) {
                // A stream that just ended is not there to be told.
                let _ = stream.send(event(&told).into());
            }
        }
    }

    /// Keeps events for whoever asks for what comes after the id that is given.
    pub(super) fn keep(&mut self, events: Vec<u8>) -> String {
        if self.kept.len() >= MOST_KEPT {
            self.kept.clear();
        }
        self.last_kept += 1;
        let id = self.last_kept.to_string();
        self.kept.insert(id.clone(), events);
        id
    }

    /// What was kept after an event; it is given once.
    pub(super) fn take_kept(&mut self, id: &str) -> Option<Vec<u8>> {
        self.kept.remove(id)
    }
}

/// The reading end of a stream. Dropped, the stream is over and counted no more.
#[derive(Debug)]
pub(super) struct Incoming {
    server: Server,
    id: String,
    events: mpsc::UnboundedReceiver<Bytes>,
}

impl Incoming {
    /// Opens a stream of a server's.
    pub(super) fn open(server: &Server) -> Self {
        let (stream, events) = mpsc::unbounded_channel();
        let mut streams = server.lock_streams();
        let id = streams.stages.open(Stage::Fresh);
        streams.open.insert(id.clone(), stream);
        drop(streams);
        server.0.counts.send_modify(|counts| counts.streams += 1);
        Self { server: server.clone(), id, events }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.events.poll_recv(context)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.server.lock_streams().close(&self.id);
        self.server.0.counts.send_modify(|counts| counts.streams -= 1);
    }
}
