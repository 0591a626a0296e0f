//! Those who deliver: closures of a program, and by feature the console, mail, a program of one's
//! own, and whoever takes HTTP. Each does one delivery and knows nothing of retry, silence or cooldown; none has anything a handler of
//! another crate could not have.

mod closure;
#[cfg(feature = "command")]
pub(crate) mod command;
#[cfg(feature = "console")]
pub(crate) mod console;
#[cfg(feature = "email")]
pub(crate) mod email;
#[cfg(feature = "http")]
pub(crate) mod http;
mod registry;
#[cfg(any(feature = "command", feature = "console", feature = "email", feature = "http"))]
mod taken_on;
#[cfg(any(feature = "command", feature = "email", feature = "http"))]
mod wording;

pub use closure::{FnHandler, IntoDelivery, handler_fn};
pub use registry::{BuildErrors, HandlerFactory, HandlerRegistry};
