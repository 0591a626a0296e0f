//! mcpmon's own configuration: found, read, checked, whole before anything is opened.
//!
//! Nothing else knows this format. A [`Document`] is what one file says; [`Config`] adds what the
//! settings lead to (services, rules, handlers) and everything a reader of the file should be told.

mod checks;
mod de;
mod document;
mod handlers;
mod load;
mod needs;
mod parse;
mod problem;
mod repairs;
mod secrets;
mod tree;

pub use document::Document;
pub use load::{Config, Surroundings};
pub use problem::{ConfigError, Problem};
pub use tree::Position;

pub(crate) use problem::{near, suggestion};
