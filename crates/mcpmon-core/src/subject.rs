//! What an alert is about.
//!
//! An alert needs one name for its subject: the state of a rule, the silences that cover the alert,
//! the labels a receiver groups by and the order of messages all depend on it. A dependency or a
//! handler may have the name of a service, so the kind is part of the subject and not a guess from
//! the name.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rule::Scope;
use crate::service::ServiceName;

/// What an alert is about: a service, one tool of a service, the machine, the monitor itself, a
/// dependency that is no service, or a handler.
///
/// In JSON `{ "kind": "dependency", "name": "tcp://db:5432" }`. `name` is null for the host and the
/// monitor; a tool has `service` beside its own `name`.
///
/// `Display` writes a short text for people; two subjects may share it. [`AlertKey`] writes text
/// that no two subjects share.
///
/// [`AlertKey`]: crate::alert::AlertKey
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// A service.
    Service(ServiceName),
    /// A tool of a service.
    Tool {
        /// The service that lists the tool.
        service: ServiceName,
        /// The tool's name. It comes from the server: escape it where it goes.
        tool: String,
    },
    /// The machine the monitor runs on.
    Host,
    /// The monitor itself.
    Monitor,
    /// Something services depend on that is no service, as the configuration writes it:
    /// `tcp://db:5432`.
    Dependency(String),
    /// A configured handler, by name.
    Handler(String),
}

/// Which kind of [`Subject`] an alert has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubjectKind {
    /// [`Subject::Service`].
    Service,
    /// [`Subject::Tool`].
    Tool,
    /// [`Subject::Host`].
    Host,
    /// [`Subject::Monitor`].
    Monitor,
    /// [`Subject::Dependency`].
    Dependency,
    /// [`Subject::Handler`].
    Handler,
}

impl SubjectKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Service, Self::Tool, Self::Host, Self::Monitor, Self::Dependency, Self::Handler];

    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Tool => "tool",
            Self::Host => "host",
            Self::Monitor => "monitor",
            Self::Dependency => "dependency",
            Self::Handler => "handler",
        }
    }
}

impl fmt::Display for SubjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Subject {
    /// A tool of a service.
    pub fn tool_of(service: impl Into<ServiceName>, tool: impl Into<String>) -> Self {
        Self::Tool { service: service.into(), tool: tool.into() }
    }

    /// Which kind it is.
    pub const fn kind(&self) -> SubjectKind {
        match self {
            Self::Service(_) => SubjectKind::Service,
            Self::Tool { .. } => SubjectKind::Tool,
            Self::Host => SubjectKind::Host,
            Self::Monitor => SubjectKind::Monitor,
            Self::Dependency(_) => SubjectKind::Dependency,
            Self::Handler(_) => SubjectKind::Handler,
        }
    }

    /// The scope of the rules that are evaluated for it. Dependencies and handlers have rules of
    /// the scope `monitor`, since the monitor's own knowledge decides them.
    pub const fn scope(&self) -> Scope {
        match self {
            Self::Service(_) => Scope::Service,
            Self::Tool { .. } => Scope::Tool,
            Self::Host => Scope::Host,
            Self::Monitor | Self::Dependency(_) | Self::Handler(_) => Scope::Monitor,
        }
    }

    /// The name within its kind: of the service, the tool, the dependency or the handler. `None`
    /// for the host and the monitor, of which there is one each.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Service(service) => Some(service.as_str()),
            Self::Tool { tool: name, .. } | Self::Dependency(name) | Self::Handler(name) => {
                Some(name)
            }
            Self::Host | Self::Monitor => None,
        }
    }

    /// The service: itself, or the one that lists the tool.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(service) | Self::Tool { service, .. } => Some(service),
            _ => None,
        }
    }

    /// The tool's name, for a tool.
    pub fn tool(&self) -> Option<&str> {
        match self {
            Self::Tool { tool, .. } => Some(tool),
            _ => None,
        }
    }

    /// The dependency as the configuration writes it, for a dependency.
    pub fn dependency(&self) -> Option<&str> {
        match self {
            Self::Dependency(dependency) => Some(dependency),
            _ => None,
        }
    }

    /// The handler's name, for a handler.
    pub fn handler(&self) -> Option<&str> {
        match self {
            Self::Handler(handler) => Some(handler),
            _ => None,
        }
    }
}

impl From<&ServiceName> for Subject {
    fn from(service: &ServiceName) -> Self {
        Self::Service(service.clone())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => f.pad(service.as_str()),
            Self::Tool { service, tool } => write!(f, "{service}/{tool}"),
            Self::Host => f.pad("host"),
            Self::Monitor => f.pad("monitor"),
            Self::Dependency(dependency) => write!(f, "dependency {dependency}"),
            Self::Handler(handler) => write!(f, "handler {handler}"),
        }
    }
}

/// The JSON of a subject.
#[derive(Serialize, Deserialize)]
struct SubjectJson<N> {
    kind: SubjectKind,
    name: Option<N>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<N>,
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let service = match self {
            Self::Tool { service, .. } => Some(service.as_str()),
            _ => None,
        };
        SubjectJson { kind: self.kind(), name: self.name(), service }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SubjectJson::<String> { kind, name, service } = SubjectJson::deserialize(deserializer)?;
        let missing = |field: &str| {
            D::Error::custom(format_args!("a subject of kind `{kind}` needs a `{field}`"))
        };
        let named = |name: Option<String>| name.ok_or_else(|| missing("name"));
        Ok(match kind {
            SubjectKind::Service => Self::Service(named(name)?.into()),
            SubjectKind::Tool => Self::Tool {
                service: service.ok_or_else(|| missing("service"))?.into(),
                tool: named(name)?,
            },
            SubjectKind::Host => Self::Host,
            SubjectKind::Monitor => Self::Monitor,
            SubjectKind::Dependency => Self::Dependency(named(name)?),
            SubjectKind::Handler => Self::Handler(named(name)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_has_its_json_names_and_scope() {
        let rows = [
            (
                Subject::Service("files".into()),
                json!({ "kind": "service", "name": "files" }),
                Some("files"),
                Scope::Service,
                "files",
            ),
            (
                Subject::tool_of("files", "read"),
                json!({ "kind": "tool", "name": "read", "service": "files" }),
                Some("files"),
                Scope::Tool,
                "files/read",
            ),
            (Subject::Host, json!({ "kind": "host", "name": null }), None, Scope::Host, "host"),
            (
                Subject::Monitor,
                json!({ "kind": "monitor", "name": null }),
                None,
                Scope::Monitor,
                "monitor",
            ),
            (
                Subject::Dependency("tcp://db:5432".to_owned()),
                json!({ "kind": "dependency", "name": "tcp://db:5432" }),
                None,
                Scope::Monitor,
                "dependency tcp://db:5432",
            ),
            (
                Subject::Handler("ops".to_owned()),
                json!({ "kind": "handler", "name": "ops" }),
                None,
                Scope::Monitor,
                "handler ops",
            ),
        ];
        let kinds: Vec<SubjectKind> = rows.iter().map(|(subject, ..)| subject.kind()).collect();
        assert_eq!(kinds, SubjectKind::ALL);
        for (subject, json, service, scope, text) in rows {
            assert_eq!(serde_json::to_value(&subject).unwrap(), json);
            assert_eq!(serde_json::from_value::<Subject>(json.clone()).unwrap(), subject);
            assert_eq!(json["kind"], subject.kind().as_str());
            assert_eq!(json["name"].as_str(), subject.name());
            assert_eq!(subject.service().map(ServiceName::as_str), service, "{subject:?}");
            assert_eq!((subject.scope(), subject.to_string().as_str()), (scope, text));
            let only = [
                (SubjectKind::Tool, subject.tool()),
                (SubjectKind::Dependency, subject.dependency()),
                (SubjectKind::Handler, subject.handler()),
            ];
            for (kind, name) in only {
                let expected = subject.name().filter(|_| subject.kind() == kind);
                assert_eq!(name, expected, "{subject:?} as {kind}");
            }
        }
    }

    #[test]
    fn a_subject_without_what_its_kind_needs_is_refused() {
        for (json, field) in [
            (json!({ "kind": "service", "name": null }), "name"),
            (json!({ "kind": "dependency" }), "name"),
            (json!({ "kind": "handler" }), "name"),
            (json!({ "kind": "tool", "name": "read" }), "service"),
            (json!({ "kind": "tool", "service": "files" }), "name"),
        ] {
            let error = serde_json::from_value::<Subject>(json.clone()).unwrap_err().to_string();
            assert!(error.contains(&format!("needs a `{field}`")), "{json}: {error}");
        }
        assert!(serde_json::from_value::<Subject>(json!({ "kind": "planet" })).is_err());
    }
}
