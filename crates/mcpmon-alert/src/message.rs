//! Messages: minijinja templates over the names of [`crate::variables`]. The only module that
//! knows the `minijinja` crate.
//!
//! A message is rendered only when an alert is told, which is seldom, so nothing compiled is kept:
//! the source is checked once, by rendering a sample, and parsed again when it is needed. What
//! comes out is text from servers as it came; each sink escapes it.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use mcpmon_core::rule::{RuleContext, RuleInput, Scope};
use mcpmon_core::text::{MAX_TEXT, truncate};
use mcpmon_core::{duration, metrics::ServiceMetrics};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use crate::condition::{ExpressionError, Location};
use crate::names::{did_you_mean, listed, nearest};
use crate::variables::{Sample, Variable, Variables, names};

/// What stands where a value is missing.
const MISSING: &str = "n/a";
const FILTERS: [&str; 4] = ["percent", "fixed", "seconds", "bytes"];
/// Longest message that is read, in bytes.
const LONGEST: usize = 8_192;
/// Steps one rendering may take: no message loops for long.
const FUEL: u64 = 20_000;

/// A message, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    source: String,
}

impl Message {
    /// Reads a message over the names of `scope`.
    ///
    /// # Errors
    ///
    /// Bad syntax, a name the scope does not have, a filter that does not exist or does not fit,
    /// or a name in single braces.
    pub fn compile(source: &str, scope: Scope) -> Result<Self, ExpressionError> {
        if source.len() > LONGEST {
            let message = format!("the message is longer than {LONGEST} bytes");
            return Err(ExpressionError::new(message, None));
        }
        let template =
            environment().template_from_str(source).map_err(|error| explain(source, &error))?;
        let known = names(scope);
        check_single_braces(source, known)?;
        let mut unknown: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        unknown.sort_unstable();
        if let Some(name) = unknown.first() {
            let hint = did_you_mean(name, known.iter().copied());
            return Err(ExpressionError::new(
                format!("a rule of scope `{scope}` has no name `{name}`{hint}"),
                location_of(source, name),
            ));
        }
        let message = Self { source: source.to_owned() };
        let sample = Sample::new();
        let context = sample.context(scope);
        let variables = Variables { context: &context, window: Duration::from_secs(300) };
        message.try_render(&variables).map_err(|error| explain(source, &error))?;
        Ok(message)
    }

    /// The message as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The message for these values, cut after [`MAX_TEXT`] characters.
    ///
    /// # Errors
    ///
    /// When the template itself fails, with the reason.
    pub(crate) fn render(&self, variables: &Variables<'_>) -> Result<String, String> {
        self.try_render(variables)
            .map(|text| truncate(&text, MAX_TEXT))
            .map_err(|error| explain(&self.source, &error).message)
    }

    fn try_render(&self, variables: &Variables<'_>) -> Result<String, Error> {
        let template = environment().template_from_str(&self.source)?;
        let values: BTreeMap<String, Value> = template
            .undeclared_variables(false)
            .into_iter()
            .map(|name| {
                let value = variables.get(&name).map_or(Value::from(()), to_value);
                (name, value)
            })
            .collect();
        template.render(Value::from(values))
    }
}

/// What is said by a rule that says nothing of its own: whom it is about, and the rule.
pub(crate) fn default_message(rule: &str, context: &RuleContext<'_>) -> String {
    let text = match context.input {
        RuleInput::Service(ServiceMetrics { service_name, .. }) => {
            format!("{service_name}: {rule}")
        }
        RuleInput::Tool(tool) => format!("{}/{}: {rule}", tool.service_name, tool.tool_name),
        RuleInput::Monitor(fact) if fact.subject.name().is_some() => {
            format!("{}: {rule}", fact.subject)
        }
        _ => rule.to_owned(),
    };
    truncate(&text, MAX_TEXT)
}

/// The body of a web hook, written by the operator over the notification itself. Unlike a message
/// it is as long as it has to be, and has the filter `json`.
#[cfg(feature = "http")]
#[derive(Debug, Clone)]
pub(crate) struct BodyTemplate {
    source: String,
}

#[cfg(feature = "http")]
impl BodyTemplate {
    /// Longest source, in bytes.
    const LONGEST: usize = 64 * 1024;
    /// Steps one rendering may take: a digest has hundreds of alerts.
    const FUEL: u64 = 2_000_000;

    /// Reads a template, and tries it with `sample`.
    pub(crate) fn compile(source: &str, sample: &serde_json::Value) -> Result<Self, String> {
        if source.len() > Self::LONGEST {
            return Err(format!("it is longer than {} bytes", Self::LONGEST));
        }
        let known: Vec<&str> =
            sample.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let names = environment()
            .template_from_str(source)
            .map_err(|error| explain(source, &error).to_string())?
            .undeclared_variables(false);
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            let hint = match did_you_mean(unknown, known.iter().copied()) {
                hint if hint.is_empty() => format!("; there are {}", listed(known)),
                hint => hint,
            };
            return Err(format!("there is no name `{unknown}`{hint}"));
        }
        let template = Self { source: source.to_owned() };
        template.render(sample)?;
        Ok(template)
    }

    /// The body for these values.
    pub(crate) fn render(&self, values: &serde_json::Value) -> Result<String, String> {
        let mut environment = environment().clone();
        environment.set_fuel(Some(Self::FUEL));
        // Not every alert has a failure or a tool: what is missing is empty, not an error at night.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.add_filter("json", |value: &Value| {
            serde_json::to_string(value)
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
        });
        environment
            .template_from_str(&self.source)
            .and_then(|template| template.render(Value::from(minijinja::value::Serde(values))))
            .map_err(|error| explain(&self.source, &error).to_string())
    }
}

fn to_value(variable: Variable<'_>) -> Value {
    match variable {
        Variable::Bool(value) => Value::from(value),
        Variable::Int(value) => Value::from(value),
        Variable::Number(value) => Value::from(value),
        Variable::Text(text) => Value::from(text),
        Variable::Time(at) => Value::from(at.to_string()),
        Variable::Findings(findings) => {
            findings.iter().map(|finding| Value::from(finding.code.as_str())).collect()
        }
        Variable::Labels(labels) => {
            labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
        }
    }
}

/// The filters and limits of every message, built once: an immutable table.
fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut environment = Environment::new();
        // No functions: a message formats values, it does not compute.
        let globals: Vec<String> = environment.globals().map(|(n, _)| n.to_owned()).collect();
        for name in globals {
            environment.remove_global(&name);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(format_value);
        environment.add_filter("percent", percent);
        environment.add_filter("fixed", fixed);
        environment.add_filter("seconds", seconds);
        environment.add_filter("bytes", bytes);
        environment
    });
    &ENVIRONMENT
}

fn format_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.is_none() {
        return out.write_str(MISSING).map_err(Error::from);
    }
    minijinja::escape_formatter(out, state, value)
}

/// The number a filter is given; `Ok(None)` where there is no value now.
fn number(value: &Value) -> Result<Option<f64>, Error> {
    if value.is_none() {
        return Ok(None);
    }
    if !value.is_number() {
        let message = format!("this filter wants a number, not {}", value.kind());
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    f64::try_from(value.clone()).map(Some)
}

fn formatted(value: &Value, format: impl Fn(f64) -> String) -> Result<String, Error> {
    Ok(number(value)?.map_or_else(|| MISSING.to_owned(), format))
}

fn digits(digits: Option<usize>, usual: usize) -> usize {
    digits.unwrap_or(usual).min(9)
}

fn percent(value: &Value, places: Option<usize>) -> Result<String, Error> {
    let places = digits(places, 1);
    formatted(value, |share| format!("{:.places$}%", share * 100.0))
}

fn fixed(value: &Value, places: Option<usize>) -> Result<String, Error> {
    let places = digits(places, 2);
    formatted(value, |number| format!("{number:.places$}"))
}

fn seconds(value: &Value) -> Result<String, Error> {
    formatted(value, readable_seconds)
}

fn bytes(value: &Value) -> Result<String, Error> {
    formatted(value, readable_bytes)
}

/// `250ms`, `1.5s`, `1h30m`.
pub(crate) fn readable_seconds(seconds: f64) -> String {
    if seconds < 0.0 || !seconds.is_finite() {
        return format!("{seconds}s");
    }
    if seconds > 0.0 && seconds < 1.0 {
        return format!("{:.0}ms", seconds * 1_000.0);
    }
    if seconds < 60.0 {
        let text = format!("{seconds:.2}");
        return format!("{}s", text.trim_end_matches('0').trim_end_matches('.'));
    }
    duration::format(Duration::from_secs(seconds.round() as u64))
}

/// `512 B`, `1.2 MB`: powers of ten, as disks are sold and networks are measured.
fn readable_bytes(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut scaled = bytes;
    let mut unit = 0;
    while scaled.abs() >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    if unit == 0 { format!("{scaled:.0} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

/// Finds `{service_name}` and `{error_rate:.2%}`, which people bring from Python: as they are they
/// would be told word for word.
fn check_single_braces(source: &str, known: &[&str]) -> Result<(), ExpressionError> {
    let mut rest = 0;
    while let Some(open) = source[rest..].find('{').map(|at| at + rest) {
        let inside = &source[open + 1..];
        if let Some(closing) = [('{', "}}"), ('%', "%}"), ('#', "#}")]
            .into_iter()
            .find(|(start, _)| inside.starts_with(*start))
        {
            rest = match inside.find(closing.1) {
                Some(end) => open + 1 + end + closing.1.len(),
                None => source.len(),
            };
            continue;
        }
        rest = open + 1;
        let Some(close) = inside.find(['{', '}']) else {
            continue;
        };
        if !inside[close..].starts_with('}') {
            continue;
        }
        let (name, format) = match inside[..close].split_once(':') {
            Some((name, format)) => (name.trim(), format),
            None => (inside[..close].trim(), ""),
        };
        let Some(name) = nearest(name, known.iter().copied()).filter(|_| !name.is_empty()) else {
            continue;
        };
        let written = &source[open..open + close + 2];
        let message =
            format!("`{written}` is not filled in; write `{{{{ {name}{} }}}}`", filter_for(format));
        return Err(ExpressionError::new(message, Some(Location::of(source, open))));
    }
    Ok(())
}

/// The filter that does what a Python format says: `.2%` is `percent(2)`, `.1f` is `fixed(1)`.
fn filter_for(format: &str) -> String {
    let filter = match format.chars().last() {
        Some('%') => "percent",
        Some('f') => "fixed",
        _ => return String::new(),
    };
    let places: String = format.chars().filter(char::is_ascii_digit).collect();
    format!(" | {filter}({places})")
}

fn location_of(source: &str, word: &str) -> Option<Location> {
    source.find(word).map(|at| Location::of(source, at))
}

fn explain(source: &str, error: &Error) -> ExpressionError {
    let detail = error.detail().unwrap_or_default();
    let location = error.line().map(|line| Location { line, column: 1 });
    match error.kind() {
        ErrorKind::UnknownFilter => {
            let name = detail.split_whitespace().nth(1).unwrap_or_default();
            let message = match did_you_mean(name, FILTERS) {
                hint if hint.is_empty() => {
                    format!("{detail}; there are {}, and those of Jinja", listed(FILTERS))
                }
                hint => format!("there is no filter `{name}`{hint}"),
            };
            ExpressionError::new(message, location_of(source, name).or(location))
        }
        ErrorKind::OutOfFuel => ExpressionError::new("the message takes too many steps", location),
        kind if detail.is_empty() => ExpressionError::new(kind.to_string(), location),
        kind => ExpressionError::new(format!("{kind}: {detail}"), location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::rule::MonitorFact;
    use mcpmon_core::subject::Subject;
    use mcpmon_core::time::Timestamp;
    use proptest::prelude::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let mut metrics = ServiceMetrics::unknown("files".into());
        metrics.error_rate = 0.1234;
        metrics.memory_bytes = Some(1_234_567);
        metrics.uptime = 5_400.0;
        metrics.last_check_time = Some(Timestamp::from_millis(0));
        let context = RuleContext::new(RuleInput::Service(&metrics), Timestamp::from_millis(0));
        let variables = Variables { context: &context, window: Duration::from_secs(300) };
        let message = Message::compile(source, Scope::Service)
            .unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(message.render(&variables).unwrap(), expected, "{source}");
    }

    #[test]
    fn a_rule_without_words_names_what_it_is_about() {
        for (subject, expected) in [
            (Subject::Monitor, "r"),
            (Subject::Dependency("tcp://db:1".to_owned()), "dependency tcp://db:1: r"),
            (Subject::Handler("ops".to_owned()), "handler ops: r"),
        ] {
            let fact = MonitorFact::new(subject);
            let context = RuleContext::new(RuleInput::Monitor(&fact), Timestamp::default());
            assert_eq!(default_message("r", &context), expected);
        }
    }

    #[test]
    fn names_are_filled_in_and_filters_format_them() {
        check("{{ service_name }} is {{ status }}", "files is unknown");
        check("{{ error_rate | percent(2) }} {{ error_rate | percent }}", "12.34% 12.3%");
        check("{{ error_rate | fixed(1) }}", "0.1");
        check("{{ uptime | seconds }} {{ window | seconds }}", "1h30m 5m");
        check("{{ memory_bytes | bytes }}", "1.2 MB");
        check("{{ last_check_time }}", "1970-01-01T00:00:00.000Z");
        check("a {literal} brace", "a {literal} brace");
    }

    #[test]
    fn a_missing_value_is_said_to_be_missing() {
        check("{{ avg_response_time | fixed(2) }}s", "n/as");
        check("{{ last_error }}", "n/a");
        check("down{% if last_error %}: {{ last_error }}{% endif %}", "down");
    }

    #[test]
    fn text_of_a_server_is_never_a_template() {
        let mut metrics = ServiceMetrics::unknown("{{ 1 + 1 }}<b>".into());
        metrics.last_error = Some("{% raw %}".to_owned());
        let context = RuleContext::new(RuleInput::Service(&metrics), Timestamp::default());
        let variables = Variables { context: &context, window: Duration::ZERO };
        let message = Message::compile("{{ service_name }} {{ last_error }}", Scope::Service);
        assert_eq!(message.unwrap().render(&variables).unwrap(), "{{ 1 + 1 }}<b> {% raw %}");
    }

    #[test]
    fn a_message_is_capped() {
        let mut metrics = ServiceMetrics::unknown("s".into());
        metrics.last_error = Some("x".repeat(10_000));
        let context = RuleContext::new(RuleInput::Service(&metrics), Timestamp::default());
        let variables = Variables { context: &context, window: Duration::ZERO };
        let message = Message::compile("{{ last_error }}", Scope::Service).unwrap();
        let text = message.render(&variables).unwrap();
        assert_eq!(text.chars().count(), MAX_TEXT);
    }

    #[track_caller]
    fn reject(source: &str, word: &str, location: Option<(usize, usize)>) {
        let error = Message::compile(source, Scope::Service).expect_err(source);
        assert!(error.message.contains(word), "{source}: {error}");
        let found = error.location.map(|at| (at.line, at.column));
        assert_eq!(found, location, "{source}: {error}");
    }

    #[test]
    fn what_cannot_work_is_told_when_it_is_read() {
        reject("{{ servce_name }}", "mean `service_name`", Some((1, 4)));
        reject("{service_name} is down", "`{{ service_name }}`", Some((1, 1)));
        reject("rate {error_rate:.2%}", "`{{ error_rate | percent(2) }}`", Some((1, 6)));
        reject("{avg_response_time:.2f}s", "| fixed(2) }}", Some((1, 1)));
        reject("{{ error_rate | percnt(2) }}", "mean `percent`", Some((1, 17)));
        reject("{{ service_name | percent }}", "wants a number", Some((1, 1)));
        reject("{{ service_name", "syntax error", Some((1, 1)));
        reject("{{ range(9) }}", "no name `range`", Some((1, 4)));
        reject(&"x".repeat(9_000), "longer than", None);
    }

    #[test]
    fn sizes_and_spans_read_well() {
        for (bytes, text) in
            [(0.0, "0 B"), (999.0, "999 B"), (999_999.0, "1.0 MB"), (2.5e12, "2.5 TB")]
        {
            assert_eq!(readable_bytes(bytes), text);
        }
        for (seconds, text) in [(0.0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (90.0, "1m30s")] {
            assert_eq!(readable_seconds(seconds), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z_ {}%#|().0-9:é\n]{0,60}") {
            let _ = Message::compile(&text, Scope::Service);
        }
    }
}
