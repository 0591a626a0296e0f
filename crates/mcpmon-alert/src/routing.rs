//! Who is told: routes by level, rule and label. Without any route, everybody is told everything.

use std::fmt;

use mcpmon_core::alert::Alert;
use mcpmon_core::calendar::{CalendarError, Hours};
use mcpmon_core::settings::{HandlerSettings, RouteSettings, Settings};
use mcpmon_core::status::Level;
use mcpmon_core::subject::SubjectKind;
use mcpmon_core::time::Timestamp;

use crate::names::{did_you_mean, listed};
use crate::rules::{DELIVERY_FAILING, RuleSet};

/// A route in a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfigError {
    /// Which entry of `[[routes]]`, from 0.
    pub index: usize,
    /// Which key, with the position in it: `handlers[1]`.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl RouteConfigError {
    /// Where it stands in the settings: `routes[0].handlers[1]`.
    pub fn path(&self) -> String {
        format!("routes[{}].{}", self.index, self.key)
    }
}

impl fmt::Display for RouteConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path(), self.message)
    }
}

impl std::error::Error for RouteConfigError {}

/// The handlers of a configuration: what it says, or the console where it says nothing.
pub fn handlers_or_console(settings: &Settings) -> Vec<HandlerSettings> {
    if settings.handlers.is_empty() {
        vec![HandlerSettings::new("console", "console")]
    } else {
        settings.handlers.clone()
    }
}

/// Routes and the handlers there are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routing {
    routes: Vec<Route>,
    handlers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Route {
    settings: RouteSettings,
    hours: Option<Hours>,
}

impl Route {
    /// Hours that cannot be read were refused with the configuration; here they are no hours.
    fn new(settings: RouteSettings) -> Self {
        Self { hours: Hours::read(&settings).ok().flatten(), settings }
    }

    fn takes(&self, alert: &Alert, now: Timestamp) -> bool {
        matches(&self.settings, alert) && self.hours.as_ref().is_none_or(|hours| hours.contain(now))
    }

    fn leads_to(&self, handler: &str) -> bool {
        self.settings.handlers.iter().any(|name| name == handler)
    }
}

impl Routing {
    /// Everybody is told everything.
    pub fn to_all(handlers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { routes: Vec::new(), handlers: handlers.into_iter().map(Into::into).collect() }
    }

    /// These routes among these handlers, taken as they are; without routes, everybody is told
    /// everything.
    pub fn new(
        routes: Vec<RouteSettings>,
        handlers: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self { routes: routes.into_iter().map(Route::new).collect(), ..Self::to_all(handlers) }
    }

    /// The routes and handlers of a configuration.
    ///
    /// # Errors
    ///
    /// Every route that names a handler, a rule, a level or a kind of subject there is not, or no
    /// handler at all.
    pub fn from_settings(
        settings: &Settings,
        rules: &RuleSet,
    ) -> Result<Self, Vec<RouteConfigError>> {
        let handlers: Vec<String> =
            handlers_or_console(settings).into_iter().map(|handler| handler.name).collect();
        let known_rules = rules.known_names(settings);
        let kinds = SubjectKind::ALL.map(|kind| kind.as_str().to_owned()).to_vec();
        let levels = Level::ALL.map(|level| level.as_str().to_owned()).to_vec();
        let mut errors = Vec::new();
        for (index, route) in settings.routes.iter().enumerate() {
            let mut check = |key: &str, what: &str, named: &[String], known: &[String]| {
                for (position, name) in named.iter().enumerate() {
                    if !known.contains(name) {
                        errors.push(RouteConfigError {
                            index,
                            key: format!("{key}[{position}]"),
                            message: unknown(what, name, known),
                        });
                    }
                }
            };
            check("handlers", "handler", &route.handlers, &handlers);
            check("rules", "rule", &route.rules, &known_rules);
            for (name, what, known) in [
                ("subject_kind", "kind of subject", &kinds),
                ("level", "level", &levels),
                ("handler", "handler", &handlers),
                ("rule_name", "rule", &known_rules),
            ] {
                if let Some(value) = route.matchers.get(name).filter(|value| !known.contains(value))
                {
                    let (key, message) = (format!("match.{name}"), unknown(what, value, known));
                    errors.push(RouteConfigError { index, key, message });
                }
            }
            if let Err(error) = Hours::read(route) {
                let CalendarError { key, message } = error;
                errors.push(RouteConfigError { index, key: key.to_owned(), message });
            }
            if route.handlers.is_empty() {
                errors.push(RouteConfigError {
                    index,
                    key: "handlers".to_owned(),
                    message: "a route needs at least one handler".to_owned(),
                });
            }
        }
        if errors.is_empty() {
            Ok(Self::new(settings.routes.clone(), handlers))
        } else {
            Err(errors)
        }
    }

    /// Adds a handler; with routes, it is told only what they send it.
    pub fn add_handler(&mut self, name: impl Into<String>) {
        let name = name.into();
        if !self.handlers.contains(&name) {
            self.handlers.push(name);
        }
    }

    /// Takes a handler away; says whether there was one.
    pub fn remove_handler(&mut self, name: &str) -> bool {
        let before = self.handlers.len();
        self.handlers.retain(|handler| handler != name);
        self.handlers.len() != before
    }

    /// Whether there is such a handler.
    pub fn has_handler(&self, name: &str) -> bool {
        self.handlers.iter().any(|handler| handler == name)
    }

    /// Whether who is told depends on the hour.
    pub fn opens_by_hours(&self) -> bool {
        self.routes.iter().any(|route| route.hours.is_some())
    }

    /// Who is told of an alert when it fires: every handler of every route that takes it now, each
    /// once. Escalations are not among them.
    pub fn receivers<'r>(
        &'r self,
        alert: &'r Alert,
        now: Timestamp,
    ) -> impl Iterator<Item = &'r str> {
        self.others(alert).filter(move |handler| {
            self.routes.is_empty()
                || self.routes.iter().any(|route| {
                    route.settings.after.is_none()
                        && route.leads_to(handler)
                        && route.takes(alert, now)
                })
        })
    }

    /// Who is told of an alert that nobody has acknowledged by now.
    pub fn escalations<'r>(
        &'r self,
        alert: &'r Alert,
        now: Timestamp,
    ) -> impl Iterator<Item = &'r str> {
        let fires_for = now.since(alert.timestamp);
        self.others(alert).filter(move |handler| {
            self.routes.iter().any(|route| {
                route.settings.after.is_some_and(|after| after <= fires_for)
                    && route.leads_to(handler)
                    && route.takes(alert, now)
            })
        })
    }

    /// Every handler, but for the one the alert says does not get through.
    fn others<'r>(&'r self, alert: &'r Alert) -> impl Iterator<Item = &'r str> {
        let mute = alert.subject.handler().filter(|_| alert.rule_name == DELIVERY_FAILING);
        self.handlers
            .iter()
            .map(String::as_str)
            .filter(move |handler| mute.is_none_or(|mute| mute != *handler))
    }

    /// When the next escalation of an alert may be due.
    pub fn next_escalation(&self, alert: &Alert, now: Timestamp) -> Option<Timestamp> {
        let waits = self.routes.iter().filter(|route| matches(&route.settings, alert));
        let moments = waits.filter_map(|route| route.settings.after);
        moments.map(|after| alert.timestamp.saturating_add(after)).filter(|due| *due > now).min()
    }
}

fn matches(route: &RouteSettings, alert: &Alert) -> bool {
    (route.levels.is_empty() || route.levels.contains(&alert.level))
        && (route.rules.is_empty() || route.rules.contains(&alert.rule_name))
        && alert.as_matched().matches(&route.matchers)
}

fn unknown(what: &str, name: &str, known: &[String]) -> String {
    let hint = match did_you_mean(name, known.iter().map(String::as_str)) {
        hint if hint.is_empty() => {
            format!("; there are {}", listed(known.iter().map(String::as_str)))
        }
        hint => hint,
    };
    format!("there is no {what} `{name}`{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::Subject;
    use mcpmon_testkit::samples;

    fn read(json: serde_json::Value) -> Result<Routing, Vec<RouteConfigError>> {
        let settings: Settings = serde_json::from_value(json).unwrap();
        let rules = RuleSet::from_settings(&settings).unwrap();
        Routing::from_settings(&settings, &rules)
    }

    fn handlers() -> serde_json::Value {
        serde_json::json!([{ "name": "screen", "type": "console" }, { "name": "ops", "type": "email" }])
    }

    #[track_caller]
    fn check(routes: &serde_json::Value, level: Level, receivers: &[&str]) {
        let routing = read(serde_json::json!({ "handlers": handlers(), "routes": routes }));
        let mut alert = samples::alert("service_down", "files");
        alert.level = level;
        let routing = routing.unwrap();
        let found: Vec<&str> = routing.receivers(&alert, mcpmon_testkit::START).collect();
        assert_eq!(found, receivers);
    }

    #[test]
    fn an_alert_goes_where_a_route_sends_it() {
        let both = ["screen", "ops"];
        check(&serde_json::json!([]), Level::Info, &both);
        let by_level = serde_json::json!([
            { "handlers": ["screen"] },
            { "levels": ["error", "critical"], "handlers": ["ops", "screen"] },
        ]);
        check(&by_level, Level::Warning, &["screen"]);
        check(&by_level, Level::Critical, &both);
        let by_rule = serde_json::json!([{ "rules": ["slow_response"], "handlers": ["ops"] }]);
        check(&by_rule, Level::Error, &[]);
        let by_label =
            |team: &str| serde_json::json!([{ "match": { "team": team }, "handlers": ["ops"] }]);
        check(&by_label("platform"), Level::Error, &["ops"]);
        check(&by_label("web"), Level::Error, &[]);
    }

    #[test]
    fn a_route_chooses_by_the_kind_of_subject_and_by_name() {
        let kinds = |matchers: serde_json::Value| {
            let route = serde_json::json!({ "match": matchers, "handlers": ["ops"] });
            let routing = Routing::new(vec![serde_json::from_value(route).unwrap()], ["ops"]);
            let chosen = samples::subjects().into_iter().filter(|subject| {
                let alert = samples::alert_about("rule", subject.clone());
                routing.receivers(&alert, mcpmon_testkit::START).next().is_some()
            });
            chosen.map(|subject| subject.kind().as_str()).collect::<Vec<_>>()
        };
        for (matchers, expected) in [
            (serde_json::json!({ "service_name": "same" }), &["service", "tool"][..]),
            (serde_json::json!({ "tool_name": "same" }), &["tool"]),
            (serde_json::json!({ "dependency": "same" }), &["dependency"]),
            (serde_json::json!({ "handler": "same" }), &["handler"]),
            (serde_json::json!({ "subject_kind": "monitor" }), &["monitor"]),
            (serde_json::json!({ "subject_kind": "tool", "service_name": "same" }), &["tool"]),
            (serde_json::json!({ "subject_kind": "host", "service_name": "same" }), &[]),
            (serde_json::json!({ "team": "platform" }), &["service", "tool"]),
        ] {
            assert_eq!(kinds(matchers.clone()), expected, "{matchers}");
        }
    }

    #[test]
    fn a_matcher_with_a_value_there_never_is_is_a_mistake() {
        let errors = read(serde_json::json!({ "handlers": handlers(), "routes": [
            { "handlers": ["ops"], "match": { "subject_kind": "dependancy" } },
            { "handlers": ["ops"], "match": { "level": "eror" } },
            { "handlers": ["ops"], "match": { "handler": "opps", "team": "opps" } },
            { "handlers": ["ops"], "match": { "rule_name": "service_dwn" } },
        ]}))
        .unwrap_err();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "`routes[0].match.subject_kind`: there is no kind of subject `dependancy`; \
                 did you mean `dependency`?",
                "`routes[1].match.level`: there is no level `eror`; did you mean `error`?",
                "`routes[2].match.handler`: there is no handler `opps`; did you mean `ops`?",
                "`routes[3].match.rule_name`: there is no rule `service_dwn`; did you mean \
                 `service_down`?",
            ]
        );
    }

    #[test]
    fn who_does_not_get_through_is_not_told_so() {
        let routing = Routing::to_all(["screen", "ops"]);
        let handler = Subject::Handler("ops".to_owned());
        let alert = samples::alert_about(DELIVERY_FAILING, handler);
        let told: Vec<&str> = routing.receivers(&alert, mcpmon_testkit::START).collect();
        assert_eq!(told, ["screen"]);
        // A service that has the name of a handler keeps nothing from the handler.
        let of_a_service = samples::alert(DELIVERY_FAILING, "ops");
        assert_eq!(routing.receivers(&of_a_service, mcpmon_testkit::START).count(), 2);
    }

    #[test]
    fn a_route_to_nobody_is_a_mistake() {
        let errors = read(serde_json::json!({ "handlers": handlers(), "routes": [
            { "handlers": ["screen", "opps"] },
            { "handlers": ["nobody"], "rules": ["service_dwn"] },
            { "handlers": [] },
        ]}))
        .unwrap_err();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "`routes[0].handlers[1]`: there is no handler `opps`; did you mean `ops`?",
                "`routes[1].handlers[0]`: there is no handler `nobody`; there are `screen`, `ops`",
                "`routes[1].rules[0]`: there is no rule `service_dwn`; did you mean `service_down`?",
                "`routes[2].handlers`: a route needs at least one handler",
            ]
        );
    }

    #[test]
    fn without_handlers_there_is_the_console() {
        let routing = read(serde_json::json!({})).unwrap();
        assert!(routing.has_handler("console"));
        assert_eq!(handlers_or_console(&Settings::default())[0].kind, "console");
    }
}
