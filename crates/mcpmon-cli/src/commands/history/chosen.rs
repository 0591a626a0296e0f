//! Which services a history is of: named ones, or those the configuration gives a label.

use std::str::FromStr;

use mcpmon_core::ServiceName;
use mcpmon_core::store::Store;

use super::Args;
use crate::commands::archive::unknown_service;
use crate::config::Document;
use crate::exit::CliError;
use crate::output;
use crate::paths::Paths;

/// `team=platform`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    key: String,
    value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("`{text}` is not a label such as team=platform")),
        }
    }
}

/// The services, and what they are called together.
pub(super) struct Chosen {
    pub(super) services: Vec<ServiceName>,
    pub(super) title: String,
}

impl Chosen {
    /// Those that are asked for.
    ///
    /// # Errors
    ///
    /// A name the store does not know, or a label that no service it knows has.
    pub(super) async fn find(
        args: &Args,
        store: &dyn Store,
        paths: &Paths,
    ) -> Result<Self, CliError> {
        let stored = store.services().await?;
        let known: Vec<&str> = stored.iter().map(|stored| stored.facts.service.as_str()).collect();
        if args.label.is_empty() {
            if let Some(name) = args.names.iter().find(|name| !known.contains(&name.as_str())) {
                return Err(unknown_service(name, known.iter().copied()));
            }
            let mut services: Vec<_> =
                args.names.iter().map(|name| ServiceName::from(name.as_str())).collect();
            services.sort();
            services.dedup();
            let title = args.names.join(", ");
            return Ok(Self::of(services, title));
        }
        let document = Document::find(args.config.as_deref(), paths)?;
        let has_all = |labels: &std::collections::BTreeMap<String, String>| {
            args.label.iter().all(|label| labels.get(&label.key) == Some(&label.value))
        };
        let labelled = document.settings.services.iter().filter(|(_, own)| has_all(&own.labels));
        let services: Vec<_> = labelled
            .filter(|(name, _)| known.contains(&name.as_str()))
            .map(|(name, _)| ServiceName::from(name.as_str()))
            .collect();
        let labels: Vec<_> =
            args.label.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
        let labels = labels.join(", ");
        if services.is_empty() {
            let place = match &document.path {
                Some(path) => format!("`{}`", path.display()),
                None => "a configuration (there is none; name one with --config)".to_owned(),
            };
            let message = format!("no service with a history has {labels} in {place}");
            return Err(CliError::Usage(message));
        }
        Ok(Self::of(services, labels))
    }

    fn of(services: Vec<ServiceName>, title: String) -> Self {
        let title = match services.len() {
            1 => title,
            count => format!("{title} ({})", output::count(count, "service")),
        };
        Self { services, title }
    }
}
