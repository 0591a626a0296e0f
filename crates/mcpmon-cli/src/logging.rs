//! What mcpmon says of its own work: events on standard error.

use mcpmon_core::settings::LogLevel;
use tracing_subscriber::EnvFilter;

/// Commands that answer a question say only what went wrong.
pub(crate) fn quiet() {
    Logging::start(LogLevel::Warn);
}

/// The level can be changed while the process runs.
pub(crate) struct Logging {
    set: Box<dyn Fn(EnvFilter) + Send + Sync>,
}

impl Logging {
    /// Begins to log at a level; `RUST_LOG` says it more finely. Other people's crates are heard
    /// only when something is wrong, or when everything is wanted.
    pub(crate) fn start(level: LogLevel) -> Self {
        let choice = anstream::AutoStream::choice(&std::io::stderr());
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level))
            .with_writer(std::io::stderr)
            .with_ansi(choice != anstream::ColorChoice::Never)
            .with_target(false)
            .with_filter_reloading();
        let handle = subscriber.reload_handle();
        // A program around this library may have its own subscriber, which then stays.
        let _ = subscriber.try_init();
        Self {
            set: Box::new(move |filter| {
                let _ = handle.reload(filter);
            }),
        }
    }

    /// Another level from now on.
    pub(crate) fn set(&self, level: LogLevel) {
        (self.set)(filter(level));
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(level)))
}

fn directives(level: LogLevel) -> String {
    match level {
        LogLevel::Trace | LogLevel::Error => level.as_str().to_owned(),
        level => format!("warn,mcpmon={}", level.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_another_filter_and_a_valid_one() {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        let all = [Trace, Debug, Info, Warn, Error].map(directives);
        for (index, directives) in all.iter().enumerate() {
            assert!(EnvFilter::try_new(directives).is_ok(), "{directives}");
            assert!(!all[..index].contains(directives), "{directives}");
        }
    }
}
