//! Those who deliver: closures of a program, and by feature the console and mail. Each does one
//! delivery and knows nothing of retry, silence or cooldown; none has anything a handler of
//! another crate could not have.

mod closure;
#[cfg(feature = "console")]
pub(crate) mod console;
#[cfg(feature = "email")]
pub(crate) mod email;
mod registry;

pub use closure::{FnHandler, IntoDelivery, handler_fn};
pub use registry::{BuildErrors, HandlerFactory, HandlerRegistry};
