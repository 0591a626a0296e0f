//! All rules of a configuration: the built-in ones, changed by name, and the user's own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use mcpmon_core::rule::{Rule, Scope};
use mcpmon_core::settings::{RuleSettings, Settings};

use super::built_in::{self, BuiltIn};
use super::condition_rule::ConditionRule;
use crate::condition::{ExpressionError, Location};
use crate::names::did_you_mean;

/// A rule in a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleConfigError {
    /// Which entry of `[[rules]]`, from 0; `None` for a built-in rule nobody changed.
    pub index: Option<usize>,
    /// The rule's name.
    pub rule: String,
    /// Which of its keys.
    pub key: &'static str,
    /// Where inside that key's value, if that is known.
    pub location: Option<Location>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl RuleConfigError {
    /// Where it stands in the settings: `rules[2].when`.
    pub fn path(&self) -> String {
        match self.index {
            Some(index) => format!("rules[{index}].{}", self.key),
            None => format!("rules.{}.{}", self.rule, self.key),
        }
    }
}

impl fmt::Display for RuleConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, key, message, .. } = self;
        write!(f, "rule `{rule}`: `{key}`: {message}")?;
        match self.location {
            Some(location) => write!(f, " (at {location} of `{key}`)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleConfigError {}

/// Every rule that is switched on, built-in ones first.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Vec<Arc<ConditionRule>>,
}

impl RuleSet {
    /// Reads every rule of the settings. An entry with the name of a built-in rule changes only
    /// the keys it has; `enabled = false` switches a rule off.
    ///
    /// # Errors
    ///
    /// Every rule that cannot be used, with the keys at fault.
    pub fn from_settings(settings: &Settings) -> Result<Self, Vec<RuleConfigError>> {
        let mut reader = Reader::default();
        let mut changes = reader.changes_by_name(&settings.rules);
        for built_in in built_in::rules(settings) {
            let change = changes.remove(built_in.settings.name.as_str());
            reader.read_built_in(built_in, change);
        }
        for (index, rule) in settings.rules.iter().enumerate() {
            // What is left belongs to no built-in rule, unless these settings leave that out.
            if changes.remove(rule.name.as_str()).is_some()
                && !built_in::NAMES.contains(&rule.name.as_str())
            {
                reader.read_own(index, rule);
            }
        }
        for (index, rule) in settings.rules.iter().enumerate() {
            reader.read_remediation(index, rule);
        }
        if reader.errors.is_empty() {
            Ok(Self { rules: reader.rules })
        } else {
            reader.errors.sort_by_key(|error| error.index);
            Err(reader.errors)
        }
    }

    /// The rules, as what they are.
    pub fn rules(&self) -> &[Arc<ConditionRule>] {
        &self.rules
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name())
    }

    /// Whether any rule looks at this scope, so that nobody measures what nobody judges.
    pub fn looks_at(&self, scope: Scope) -> bool {
        self.rules.iter().any(|rule| rule.scope() == scope)
    }

    /// Names a route may mention: of every rule that is on or could be.
    pub fn known_names(&self, settings: &Settings) -> Vec<String> {
        let mut names: Vec<String> = built_in::NAMES.map(str::to_owned).to_vec();
        names.extend(settings.rules.iter().map(|rule| rule.name.clone()));
        names.extend(self.names().map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl IntoIterator for RuleSet {
    type Item = Arc<dyn Rule>;
    type IntoIter = std::iter::Map<
        std::vec::IntoIter<Arc<ConditionRule>>,
        fn(Arc<ConditionRule>) -> Arc<dyn Rule>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.rules.into_iter().map(|rule| rule as Arc<dyn Rule>)
    }
}

#[derive(Default)]
struct Reader {
    rules: Vec<Arc<ConditionRule>>,
    errors: Vec<RuleConfigError>,
}

impl Reader {
    fn changes_by_name<'s>(
        &mut self,
        rules: &'s [RuleSettings],
    ) -> HashMap<&'s str, (usize, &'s RuleSettings)> {
        let mut by_name = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            if let Some((first, _)) = by_name.get(rule.name.as_str()) {
                let message = format!("`rules[{first}]` has this name already");
                self.fail(Some(index), rule, "name", ExpressionError::new(message, None));
            } else {
                by_name.insert(rule.name.as_str(), (index, rule));
            }
        }
        by_name
    }

    fn read_built_in(&mut self, built_in: BuiltIn, change: Option<(usize, &RuleSettings)>) {
        let BuiltIn { mut settings, mut worse, mut guard } = built_in;
        let scope = settings.scope.unwrap_or_default();
        let index = change.map(|(index, _)| index);
        if let Some((_, change)) = change {
            if change.scope.is_some_and(|changed| changed != scope) {
                let message =
                    format!("the built-in rule looks at scope `{scope}`; give yours another name");
                self.fail(index, change, "scope", ExpressionError::new(message, None));
                return;
            }
            // Who names a level means that level.
            if change.level.is_some() {
                worse = None;
            }
            // What decides without the condition belongs to our condition.
            if change.when.is_some() {
                guard = None;
            }
            overlay(&mut settings, change);
        }
        let worse = worse.as_ref().map(|(condition, level)| (condition.as_str(), *level));
        let rule = ConditionRule::read(&settings, worse, true).map(|rule| rule.guarded(guard));
        self.keep(index, &settings, rule);
    }

    fn read_own(&mut self, index: usize, settings: &RuleSettings) {
        if settings.when.is_none() {
            let hint = did_you_mean(&settings.name, built_in::NAMES);
            let message = format!(
                "a rule that is not built in needs a condition, as in `when = \"error_rate > 0.1\"`{hint}"
            );
            self.fail(Some(index), settings, "when", ExpressionError::new(message, None));
            return;
        }
        self.keep(Some(index), settings, ConditionRule::new(settings));
    }

    /// What a rule asks for must be something that can be done about a service.
    fn read_remediation(&mut self, index: usize, settings: &RuleSettings) {
        let Some(remediation) = &settings.remediation else { return };
        let read = self.rules.iter().find(|rule| rule.name() == settings.name);
        let scope = read.map_or(settings.scope.unwrap_or_default(), |rule| rule.scope());
        let (key, message) = if !matches!(scope, Scope::Service | Scope::Tool) {
            let message = format!("only services are repaired, and this rule looks at `{scope}`");
            ("remediation", message)
        } else if built_in::OF_SLOWNESS.contains(&settings.name.as_str()) {
            (
                "remediation",
                "nothing is repaired for being slow; ask for it in a rule about what is down"
                    .to_owned(),
            )
        } else if let Some((key, message)) = remediation.problem() {
            let key = match key {
                "command" => "remediation.command",
                "unit" => "remediation.unit",
                "user" => "remediation.user",
                "container" => "remediation.container",
                _ => "remediation",
            };
            (key, message)
        } else {
            return;
        };
        self.fail(Some(index), settings, key, ExpressionError::new(message, None));
    }

    /// A rule that is switched off must still be right: it may be switched on by a reload.
    fn keep(
        &mut self,
        index: Option<usize>,
        settings: &RuleSettings,
        rule: Result<ConditionRule, Vec<(&'static str, ExpressionError)>>,
    ) {
        match rule {
            Ok(rule) if settings.enabled != Some(false) => self.rules.push(Arc::new(rule)),
            Ok(_) => {}
            Err(errors) => {
                for (key, error) in errors {
                    self.fail(index, settings, key, error);
                }
            }
        }
    }

    fn fail(
        &mut self,
        index: Option<usize>,
        settings: &RuleSettings,
        key: &'static str,
        error: ExpressionError,
    ) {
        self.errors.push(RuleConfigError {
            index,
            rule: settings.name.clone(),
            key,
            location: error.location,
            message: error.message,
        });
    }
}

/// Puts the keys a user wrote over those of a built-in rule.
fn overlay(base: &mut RuleSettings, change: &RuleSettings) {
    fn put<T: Clone>(base: &mut Option<T>, change: &Option<T>) {
        if change.is_some() {
            base.clone_from(change);
        }
    }
    put(&mut base.enabled, &change.enabled);
    put(&mut base.when, &change.when);
    put(&mut base.window, &change.window);
    put(&mut base.level, &change.level);
    put(&mut base.hold, &change.hold);
    put(&mut base.keep_firing, &change.keep_firing);
    put(&mut base.cooldown, &change.cooldown);
    put(&mut base.message, &change.message);
    put(&mut base.remediation, &change.remediation);
    if !change.labels.is_empty() {
        base.labels.clone_from(&change.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use mcpmon_core::metrics::{ServiceMetrics, SystemMetrics};
    use mcpmon_core::rule::{RuleContext, RuleInput, Verdict};
    use mcpmon_core::service::ServiceLimits;
    use mcpmon_core::status::{Level, Status};
    use mcpmon_core::time::Timestamp;
    use mcpmon_testkit::samples;

    fn settings(json: serde_json::Value) -> Settings {
        serde_json::from_value(json).unwrap()
    }

    fn read(json: serde_json::Value) -> RuleSet {
        RuleSet::from_settings(&settings(json)).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn rule<'s>(set: &'s RuleSet, name: &str) -> &'s ConditionRule {
        let found = set.rules().iter().find(|rule| rule.name() == name);
        found.unwrap_or_else(|| panic!("no rule {name}"))
    }

    /// What a built-in rule says of a service that differs from a good one in `change`.
    #[track_caller]
    fn judge(name: &str, firing: bool, change: impl FnOnce(&mut ServiceMetrics)) -> Verdict {
        let set = read(serde_json::json!({}));
        let mut metrics = samples::service_metrics("files");
        change(&mut metrics);
        let limits = ServiceLimits::default();
        let context = RuleContext {
            limits: Some(&limits),
            firing,
            ..RuleContext::new(RuleInput::Service(&metrics), Timestamp::default())
        };
        let rule = rule(&set, name);
        let message = rule.message(&context).unwrap();
        assert!(message.contains("files"), "{message}");
        rule.evaluate(&context).unwrap()
    }

    #[test]
    fn down_is_stopped_or_wrong_often_enough_and_nothing_else() {
        let after = |status, failures, firing| {
            judge("service_down", firing, |m| {
                m.status = status;
                m.consecutive_failures = failures;
            })
        };
        for status in [Status::Stopped, Status::Error] {
            assert_eq!(after(status, 2, false), Verdict::Ok);
            assert_eq!(after(status, 3, false), Verdict::Firing);
            assert_eq!(after(status, 0, true), Verdict::Firing);
        }
        for status in [Status::Running, Status::Degraded, Status::AuthRequired] {
            assert_eq!(after(status, 9, true), Verdict::Ok, "{status}");
        }
        for status in [Status::Unknown, Status::Starting, Status::Paused] {
            assert_eq!(after(status, 9, true), Verdict::NoData, "{status}");
        }
    }

    #[test]
    fn missing_credentials_are_their_own_alert() {
        let at = |status| judge("auth_required", false, |m| m.status = status);
        assert_eq!(at(Status::AuthRequired), Verdict::Firing);
        assert_eq!(at(Status::Running), Verdict::Ok);
        assert_eq!(at(Status::Starting), Verdict::NoData);
    }

    #[test]
    fn an_error_rate_needs_samples_and_an_outage_is_not_told_twice() {
        let rate = |rate, samples, uptime, status, firing| {
            judge("high_error_rate", firing, |m| {
                m.error_rate = rate;
                m.error_rate_samples = samples;
                m.uptime = uptime;
                m.status = status;
            })
        };
        let running = Status::Running;
        assert_eq!(rate(0.2, 5, 900.0, running, false), Verdict::Firing);
        assert_eq!(rate(0.1, 5, 900.0, running, false), Verdict::Ok);
        assert_eq!(rate(0.9, 4, 900.0, running, false), Verdict::NoData);
        // Back from an outage the window is still full of.
        assert_eq!(rate(0.5, 9, 30.0, running, false), Verdict::Ok);
        assert_eq!(rate(1.0, 9, 0.0, Status::Stopped, false), Verdict::NoData);
        // What fires already ends when the rate does, not when the service restarts.
        assert_eq!(rate(0.5, 9, 30.0, running, true), Verdict::Firing);
    }

    #[test]
    fn slow_is_an_average_over_the_threshold_with_slack_to_end() {
        let takes =
            |seconds, firing| judge("slow_response", firing, |m| m.avg_response_time = seconds);
        assert_eq!(takes(Some(1.01), false), Verdict::Firing);
        assert_eq!(takes(Some(0.99), false), Verdict::Ok);
        assert_eq!(takes(Some(0.99), true), Verdict::Firing);
        assert_eq!(takes(Some(0.79), true), Verdict::Ok);
        assert_eq!(takes(None, false), Verdict::NoData);
        let few = judge("slow_response", false, |m| {
            m.avg_response_time = Some(9.0);
            (m.total_checks, m.failed_checks) = (4, 2);
        });
        assert_eq!(few, Verdict::NoData);
    }

    /// One host rule at a value, and how bad it is.
    fn host(set: &RuleSet, name: &str, percent: f64, firing: bool) -> (Verdict, Level) {
        let metrics = SystemMetrics {
            cpu_percent: percent,
            memory_percent: percent,
            disk_percent: Some(percent),
            ..SystemMetrics::default()
        };
        let context = RuleContext {
            firing,
            ..RuleContext::new(RuleInput::Host(&metrics), Timestamp::default())
        };
        let rule = rule(set, name);
        rule.message(&context).unwrap();
        (rule.evaluate(&context).unwrap(), rule.level(&context))
    }

    #[test]
    fn host_rules_follow_their_thresholds() {
        let set = read(serde_json::json!({}));
        for (name, limit, end) in
            [("high_cpu", 80.0, 75.0), ("high_memory", 85.0, 83.0), ("disk_full", 90.0, 89.0)]
        {
            assert_eq!(host(&set, name, limit, false).0, Verdict::Ok, "{name}");
            assert_eq!(host(&set, name, limit + 0.1, false).0, Verdict::Firing, "{name}");
            assert_eq!(host(&set, name, end + 0.1, true).0, Verdict::Firing, "{name}");
            assert_eq!(host(&set, name, end, true).0, Verdict::Ok, "{name}");
        }
        assert_eq!(host(&set, "disk_full", 94.9, true).1, Level::Warning);
        assert_eq!(host(&set, "disk_full", 95.0, true).1, Level::Critical);
        let own = serde_json::json!({ "performance_monitoring": { "cpu_threshold": 20 } });
        assert_eq!(host(&read(own), "high_cpu", 21.0, false).0, Verdict::Firing);
    }

    #[test]
    fn without_performance_monitoring_there_is_no_host_rule() {
        let set = read(serde_json::json!({ "monitoring": { "performance_monitoring": false } }));
        assert!(!set.looks_at(Scope::Host));
        assert!(set.looks_at(Scope::Service));
        // A change to a rule that is left out is no new rule.
        read(serde_json::json!({
            "performance_monitoring": { "enabled": false },
            "rules": [{ "name": "high_cpu", "hold": "5m" }],
        }));
    }

    #[test]
    fn an_entry_changes_only_what_it_says() {
        let set = read(serde_json::json!({ "rules": [
            { "name": "service_down", "cooldown": "1h", "match": { "team": "web" } },
            { "name": "disk_full", "level": "error" },
            { "name": "slow_response", "enabled": false },
            { "name": "busy", "when": "throughput > 10.0", "level": "info", "window": "1h" },
        ]}));
        let down = rule(&set, "service_down");
        assert_eq!(down.policy().cooldown, Some(Duration::from_secs(3_600)));
        assert_eq!(down.base_level(), Level::Error);
        assert!(down.when().contains("consecutive_failures") && down.is_built_in());
        assert!(!down.applies_to(&std::collections::BTreeMap::new()));
        assert_eq!(host(&set, "disk_full", 99.0, false).1, Level::Error);
        assert!(set.names().all(|name| name != "slow_response"));
        let busy = rule(&set, "busy");
        assert!(!busy.is_built_in());
        assert_eq!(busy.policy().window, Duration::from_secs(3_600));
        assert_eq!(set.names().count(), built_in::NAMES.len());
    }

    #[test]
    fn every_built_in_rule_can_be_tuned_and_switched_off() {
        let all = read(serde_json::json!({}));
        for known in all.rules() {
            let name = known.name();
            let off = read(serde_json::json!({ "rules": [{ "name": name, "enabled": false }] }));
            let left: Vec<&str> = off.names().collect();
            assert_eq!(left.len() + 1, all.names().count(), "{name}");
            assert!(!left.contains(&name));
            let tuned = read(serde_json::json!({ "rules": [{
                "name": name, "level": "critical", "hold": "7m", "keep_firing": "8m",
                "cooldown": "9m", "message": "tuned",
            }]}));
            let tuned = rule(&tuned, name);
            let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
            let policy = tuned.policy();
            assert_eq!((policy.hold, policy.keep_firing), (minutes(7), minutes(8)), "{name}");
            assert_eq!(policy.cooldown, Some(minutes(9)));
            assert_eq!((tuned.base_level(), tuned.worse()), (Level::Critical, None));
            assert_eq!((tuned.template(), tuned.when()), (Some("tuned"), known.when()));
        }
    }

    /// Line and column inside a value.
    type Place = (usize, usize);

    #[track_caller]
    fn reject(rules: &serde_json::Value, expected: &[(&str, &str, Option<Place>)]) {
        let settings = settings(serde_json::json!({ "rules": rules }));
        let errors = RuleSet::from_settings(&settings).expect_err("refused");
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), expected.len(), "{found:?}");
        for (error, (path, word, location)) in errors.iter().zip(expected) {
            assert_eq!(error.path(), *path, "{error}");
            assert!(error.to_string().contains(word), "{error}");
            let at = error.location.map(|at| (at.line, at.column));
            assert_eq!(at, *location, "{error}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let good = "error_rate > 0.1";
        reject(
            &serde_json::json!([
                { "name": "a", "when": "eror_rate > 0.1" },
                { "name": "b", "when": good, "message": "{service_name} fails" },
                { "name": "c", "when": "error_rate > 0.1", "scope": "host" },
            ]),
            &[
                ("rules[0].when", "`error_rate`", Some((1, 1))),
                ("rules[1].message", "{{ service_name }}", Some((1, 1))),
                ("rules[2].when", "scope `service`", Some((1, 1))),
            ],
        );
        reject(
            &serde_json::json!([{ "name": "servce_down", "level": "info" }]),
            &[("rules[0].when", "mean `service_down`", None)],
        );
        reject(
            &serde_json::json!([{ "name": "a", "when": good }, { "name": "a", "when": good }]),
            &[("rules[1].name", "`rules[0]`", None)],
        );
        reject(
            &serde_json::json!([{ "name": "service_down", "scope": "host" }]),
            &[("rules[0].scope", "another name", None)],
        );
        reject(
            &serde_json::json!([
                { "name": "", "when": good, "window": "25h" },
                { "name": "m", "scope": "monitor", "when": good },
                { "name": "h", "scope": "host", "when": "load_1m > 9", "match": { "a": "b" } },
                { "name": "t", "scope": "tool", "when": "total_calls > 9", "window": "2h" },
                { "name": "high_cpu", "window": "5m" },
            ]),
            &[
                ("rules[0].name", "needs a name", None),
                ("rules[0].window", "a day", None),
                ("rules[1].scope", "`host`", None),
                ("rules[2].match", "no labels", None),
                ("rules[3].window", "an hour", None),
                ("rules[4].window", "as it is now", None),
            ],
        );
        reject(
            &serde_json::json!([{ "name": "service_down", "when": "status = 'error'" }]),
            &[("rules[0].when", "bad syntax", Some((1, 8)))],
        );
        reject(
            &serde_json::json!([
                { "name": "slow_response", "remediation": { "action": "restart" } },
                { "name": "disk_full", "remediation": { "action": "restart" } },
                { "name": "service_down", "remediation": { "action": "docker" } },
            ]),
            &[
                ("rules[0].remediation", "being slow", None),
                ("rules[1].remediation", "only services", None),
                ("rules[2].remediation.container", "needs `container`", None),
            ],
        );
        // A rule that is switched off may be switched on by a reload.
        reject(
            &serde_json::json!([{ "name": "a", "when": "nonsense", "enabled": false }]),
            &[("rules[0].when", "nonsense", Some((1, 1)))],
        );
    }
}
