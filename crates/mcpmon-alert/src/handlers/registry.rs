//! From the settings of a handler to the handler: one factory for each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mcpmon_core::alert::Handler;
use mcpmon_core::settings::{HandlerSettings, SettingsError};

use crate::names::{did_you_mean, listed};

/// Makes a handler of one kind; reads the kind's own keys with [`HandlerSettings::parse`].
pub type HandlerFactory =
    dyn Fn(&HandlerSettings) -> Result<Box<dyn Handler>, SettingsError> + Send + Sync;

/// Handlers that cannot be made: the position of each in the list, and why.
pub type BuildErrors = Vec<(usize, SettingsError)>;

/// The kinds of handlers there are. What can be configured is what is registered here.
#[derive(Clone, Default)]
pub struct HandlerRegistry {
    factories: BTreeMap<String, Arc<HandlerFactory>>,
}

impl HandlerRegistry {
    /// The kinds this crate was built with that need nothing from the program: all but the
    /// console, which needs a writer and is registered with one, see
    /// [`ConsoleHandler::factory`](crate::ConsoleHandler::factory).
    pub fn new() -> Self {
        #[cfg_attr(
            not(any(feature = "command", feature = "email", feature = "http")),
            expect(unused_mut, reason = "nothing to add")
        )]
        let mut registry = Self::default();
        #[cfg(feature = "command")]
        registry.register("command", |settings| {
            Ok(Box::new(crate::CommandHandler::from_settings(settings)?))
        });
        #[cfg(feature = "email")]
        registry.register("email", |settings| {
            Ok(Box::new(crate::EmailHandler::from_settings(settings)?))
        });
        #[cfg(feature = "http")]
        super::http::register(&mut registry);
        registry
    }

    /// Adds a kind, or replaces the one of its name.
    pub fn register(
        &mut self,
        kind: impl Into<String>,
        factory: impl Fn(&HandlerSettings) -> Result<Box<dyn Handler>, SettingsError>
        + Send
        + Sync
        + 'static,
    ) {
        self.factories.insert(kind.into(), Arc::new(factory));
    }

    /// The kinds there are, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// Makes one handler.
    ///
    /// # Errors
    ///
    /// When there is no such kind, or its factory refuses the settings.
    pub fn build(&self, settings: &HandlerSettings) -> Result<Box<dyn Handler>, SettingsError> {
        if settings.name.trim().is_empty() {
            return Err(settings.error("`name`: a handler needs a name"));
        }
        match self.factories.get(&settings.kind) {
            Some(factory) => factory(settings),
            None => {
                let hint = match did_you_mean(&settings.kind, self.kinds()) {
                    hint if hint.is_empty() => format!("; there are {}", listed(self.kinds())),
                    hint => hint,
                };
                let message = format!("`type`: there is no type `{}`{hint}", settings.kind);
                Err(settings.error(message))
            }
        }
    }

    /// Makes every handler of a configuration.
    ///
    /// # Errors
    ///
    /// Every handler that cannot be made, with its position, and those whose name is taken.
    pub fn build_all(&self, all: &[HandlerSettings]) -> Result<Vec<Arc<dyn Handler>>, BuildErrors> {
        let mut names = BTreeSet::new();
        let mut handlers = Vec::new();
        let mut errors = Vec::new();
        for (index, settings) in all.iter().enumerate() {
            if !names.insert(settings.name.as_str()) {
                let message = "`name`: another handler has this name";
                errors.push((index, settings.error(message)));
                continue;
            }
            match self.build(settings) {
                Ok(handler) => handlers.push(Arc::from(handler)),
                Err(error) => errors.push((index, error)),
            }
        }
        if errors.is_empty() { Ok(handlers) } else { Err(errors) }
    }
}

impl fmt::Debug for HandlerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_testkit::RecordingHandler;

    fn registry() -> HandlerRegistry {
        let mut registry = HandlerRegistry::new();
        registry.register("pager", |settings: &HandlerSettings| {
            let handler: Box<dyn Handler> = Box::new(RecordingHandler::new(&settings.name));
            Ok(handler)
        });
        registry
    }

    #[test]
    fn a_kind_of_another_crate_is_a_kind_like_ours() {
        let handler = registry().build(&HandlerSettings::new("night", "pager"));
        assert_eq!(handler.unwrap().name(), "night");
    }

    #[test]
    fn every_handler_that_cannot_be_made_is_told() {
        let all = [
            HandlerSettings::new("a", "pager"),
            HandlerSettings::new("a", "pager"),
            HandlerSettings::new("b", "pagr"),
            HandlerSettings::new("", "pager"),
            HandlerSettings::new("c", "carrier pigeon"),
        ];
        let errors = registry().build_all(&all).err().unwrap();
        let told: Vec<(usize, String)> =
            errors.into_iter().map(|(index, error)| (index, error.to_string())).collect();
        for (found, (index, word)) in told.iter().zip([
            (1, "another handler"),
            (2, "did you mean `pager`"),
            (3, "needs a name"),
            (4, "there are"),
        ]) {
            assert_eq!(found.0, index);
            assert!(found.1.contains(word), "{found:?}");
        }
        assert_eq!(told.len(), 4);
    }
}
