//! A small MCP client and server that show everything a monitor must see: timings, raw shapes,
//! causes.
//!
//! An SDK's client hides what a prober lives from: raw bodies, ids with their type, phase timings,
//! HTTP status codes, late answers. So this crate keeps its own wire code and little more. From
//! the wire up: [`jsonrpc`], [`lines`] and [`sse`] frame messages; [`pipe`] and [`http`] carry
//! them; [`inbox`] finds the answers among them; [`child`] owns a server's process group, under a [`guardian`]; [`protocol`] has the revisions' words;
//! [`opening`] decides, as a pure function, which way a conversation is opened; [`session`] is
//! the conversation, whatever carries it.

pub mod child;
pub mod error;
pub mod expiry;
pub mod forensics;
pub mod guardian;
pub mod http;
pub mod inbox;
pub mod jsonrpc;
pub mod lines;
pub mod lists;
pub mod opening;
pub mod pipe;
pub mod protocol;
pub mod server;
pub mod session;
pub mod sse;

pub use error::CallError;
pub use guardian::Guardian;
pub use session::{Called, Endings, ListedTool, Memory, Session, SessionOptions};
