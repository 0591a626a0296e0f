//! Rust code of the documents, compiled and run as documentation tests.

/// `docs/from-mcpstore.md`.
#[doc = include_str!("../docs/from-mcpstore.md")]
pub struct FromMcpstore;
