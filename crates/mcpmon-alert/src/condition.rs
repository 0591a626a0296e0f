//! Conditions: CEL over the names of [`crate::variables`]. The only module that knows the `cel`
//! crate.
//!
//! A condition is read once and tried on a sample, so that a misspelt name, an unknown status or a
//! comparison of text with a number is an error in the configuration and not an alert that never
//! fires. Conditions of plain parts are evaluated here, without allocating; what is more is left
//! to the library, which borrows the snapshot through a resolver in an inner scope of one shared
//! context: a context of its own would cost a hundred times the evaluation.

mod plain;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelBool, CelDouble, CelInt, CelNull, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, ExecutionError, Program, Value};
use mcpmon_core::failure::FailureCode;
use mcpmon_core::rule::{Scope, Verdict};
use mcpmon_core::status::Status;

use self::plain::Plain;
use crate::names::did_you_mean;
use crate::variables::{Sample, Variable, Variables, names};

/// Longest condition that is read, in bytes: nobody writes more by hand, and a parser that
/// recurses must not be fed without end.
const LONGEST: usize = 4_096;

/// Type names CEL has, which stand where a variable could.
const TYPES: [&str; 9] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// A place inside a value of the configuration, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The line within the value.
    pub line: usize,
    /// The column within that line, in characters.
    pub column: usize,
}

impl Location {
    /// The place of the character at `offset` (a byte) of `source`.
    pub(crate) fn of(source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A condition or a message cannot be used as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong, and what to write instead.
    pub message: String,
    /// Where, if that is known.
    pub location: Option<Location>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>, location: Option<Location>) -> Self {
        Self { message: message.into(), location }
    }
}

/// A condition, read and checked.
#[derive(Debug)]
pub struct Condition {
    source: String,
    program: Program,
    plain: Option<Plain>,
}

impl Condition {
    /// Reads a condition over the names of `scope`.
    ///
    /// # Errors
    ///
    /// Bad syntax, a name the scope does not have, a status that does not exist, or an expression
    /// that is neither true nor false.
    pub fn compile(source: &str, scope: Scope) -> Result<Self, ExpressionError> {
        if source.trim().is_empty() {
            return Err(ExpressionError::new("the condition is empty", None));
        }
        if source.len() > LONGEST {
            let message = format!("the condition is longer than {LONGEST} bytes");
            return Err(ExpressionError::new(message, None));
        }
        let program = Program::compile(source).map_err(|errors| syntax_error(source, &errors))?;
        let plain = Plain::read(program.expression(), scope);
        let condition = Self { source: source.to_owned(), program, plain };
        condition.check_names(scope)?;
        condition.check_words()?;
        condition.try_on_sample(scope)?;
        Ok(condition)
    }

    /// The condition as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it holds. A name without a value makes the verdict `no_data`, unless the rest
    /// decides without it; so does `null`, and a label the service does not have.
    ///
    /// # Errors
    ///
    /// When the expression itself fails, with the reason.
    pub(crate) fn evaluate(&self, variables: &Variables<'_>) -> Result<Verdict, String> {
        match self.plain(variables) {
            Some(verdict) => Ok(verdict),
            None => self.by_library(variables),
        }
    }

    /// The verdict, where the condition is plain enough.
    fn plain(&self, variables: &Variables<'_>) -> Option<Verdict> {
        self.plain.as_ref().and_then(|plain| plain.evaluate(variables))
    }

    #[cfg(test)]
    fn is_plain(&self) -> bool {
        self.plain.is_some()
    }

    fn by_library(&self, variables: &Variables<'_>) -> Result<Verdict, String> {
        let resolver = Resolver { variables, missing: AtomicBool::new(false) };
        let mut context = shared().new_inner_scope();
        context.set_variable_resolver(&resolver);
        match Value::resolve_val(self.program.expression(), &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(holds) if *holds.inner() => Ok(Verdict::Firing),
                Some(_) => Ok(Verdict::Ok),
                None if value.downcast_ref::<CelNull>().is_some() => Ok(Verdict::NoData),
                None => Err(format!(
                    "the condition gives {}, not true or false",
                    value.get_type().name()
                )),
            },
            Err(_) if resolver.missing.load(Ordering::Relaxed) => Ok(Verdict::NoData),
            Err(ExecutionError::NoSuchKey(_)) => Ok(Verdict::NoData),
            Err(error) => Err(describe(&error)),
        }
    }

    /// Whether it looks at one of these names.
    pub(crate) fn looks_at_any(&self, wanted: &[&str]) -> bool {
        self.program.references().variables().into_iter().any(|name| wanted.contains(&name))
    }

    /// The names it looks at that have no value now.
    pub(crate) fn without_value(
        &self,
        scope: Scope,
        variables: &Variables<'_>,
    ) -> Vec<&'static str> {
        let used = self.program.references();
        let used = used.variables();
        let known = names(scope).iter().copied().filter(|name| used.contains(name));
        known.filter(|name| variables.get(name).is_none()).collect()
    }

    fn check_names(&self, scope: Scope) -> Result<(), ExpressionError> {
        let known = names(scope);
        let mut bound = HashSet::new();
        walk(self.program.expression(), &mut |node| {
            if let Expr::Comprehension(inner) = &node.expr {
                bound.insert(inner.iter_var.as_str());
                bound.insert(inner.accu_var.as_str());
                bound.extend(inner.iter_var2.as_deref());
            }
        });
        let references = self.program.references();
        let mut unknown: Vec<&str> = references
            .variables()
            .into_iter()
            .filter(|name| !known.contains(name) && !bound.contains(name) && !TYPES.contains(name))
            .collect();
        unknown.sort_unstable();
        let Some(name) = unknown.first() else {
            return Ok(());
        };
        let hint = did_you_mean(name, known.iter().copied());
        let elsewhere = [Scope::Service, Scope::Tool, Scope::Host]
            .into_iter()
            .find(|other| hint.is_empty() && *other != scope && names(*other).contains(name))
            .map(|other| format!("; it belongs to rules of scope `{other}`"))
            .unwrap_or_default();
        Err(ExpressionError::new(
            format!("a rule of scope `{scope}` has no name `{name}`{hint}{elsewhere}"),
            self.location_of(name),
        ))
    }

    /// Compares of a name from a closed list with a word that is not on it: they would never hold.
    fn check_words(&self) -> Result<(), ExpressionError> {
        let mut error = None;
        walk(self.program.expression(), &mut |node| {
            let Expr::Call(call) = &node.expr else { return };
            let [left, right] = call.args.as_slice() else {
                return;
            };
            let (name, words) = match (call.func_name.as_str(), &left.expr, &right.expr) {
                (operators::EQUALS | operators::NOT_EQUALS, Expr::Ident(name), _) => {
                    (name, strings(right))
                }
                (operators::EQUALS | operators::NOT_EQUALS, _, Expr::Ident(name)) => {
                    (name, strings(left))
                }
                (operators::IN, Expr::Ident(name), _) => (name, strings(right)),
                _ => return,
            };
            let known: Vec<&str> = match name.as_str() {
                "status" => Status::WORST_FIRST.iter().map(|s| s.as_str()).collect(),
                "failure_code" => {
                    FailureCode::ALL.iter().map(|code| code.as_str()).chain([""]).collect()
                }
                "error_rate_source" => vec!["calls", "checks"],
                _ => return,
            };
            if let Some(word) = words.into_iter().find(|word| !known.contains(word)) {
                let hint = match did_you_mean(word, known.iter().copied()) {
                    hint if hint.is_empty() && known.len() <= 8 => {
                        format!("; it is one of {}", crate::names::listed(known))
                    }
                    hint => hint,
                };
                let message = format!("`{name}` is never `{word}`{hint}");
                error.get_or_insert(ExpressionError::new(message, self.location_of(word)));
            }
        });
        error.map_or(Ok(()), Err)
    }

    /// Evaluates every part that the operators `&&`, `||`, `!` and `?:` could hide from a single
    /// evaluation of the whole.
    fn try_on_sample(&self, scope: Scope) -> Result<(), ExpressionError> {
        let sample = Sample::new();
        let context = sample.context(scope);
        let variables = Variables { context: &context, window: Duration::from_secs(300) };
        let resolver = Resolver { variables: &variables, missing: AtomicBool::new(false) };
        let mut scope = shared().new_inner_scope();
        scope.set_variable_resolver(&resolver);
        self.try_part(self.program.expression(), &scope, true)
    }

    fn try_part(
        &self,
        node: &IdedExpr,
        context: &Context<'_, '_>,
        decides: bool,
    ) -> Result<(), ExpressionError> {
        if let Expr::Call(call) = &node.expr {
            match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, args) => {
                    return args.iter().try_for_each(|arg| self.try_part(arg, context, true));
                }
                (operators::CONDITIONAL, [test, yes, no]) => {
                    self.try_part(test, context, true)?;
                    self.try_part(yes, context, decides)?;
                    return self.try_part(no, context, decides);
                }
                _ => {}
            }
        }
        let at = || {
            let (start, _) = self.program.source_info().offset_for(node.id)?;
            let start = usize::try_from(start).ok()?;
            let byte = self.source.char_indices().nth(start).map(|(at, _)| at)?;
            Some(Location::of(&self.source, byte))
        };
        match Value::resolve_val(node, context) {
            Ok(value)
                if decides
                    && value.downcast_ref::<CelBool>().is_none()
                    && value.downcast_ref::<CelNull>().is_none() =>
            {
                let message = format!(
                    "a condition must be true or false, but this is {}",
                    value.get_type().name()
                );
                Err(ExpressionError::new(message, at()))
            }
            Err(
                error @ (ExecutionError::NoSuchOverload(_)
                | ExecutionError::ValuesNotComparable(..)
                | ExecutionError::UnsupportedBinaryOperator(..)
                | ExecutionError::UnsupportedIndex(..)
                | ExecutionError::UnexpectedType { .. }
                | ExecutionError::UndeclaredReference(_)),
            ) => {
                let function = match &error {
                    ExecutionError::UndeclaredReference(name) => self.location_of(name),
                    _ => None,
                };
                Err(ExpressionError::new(describe(&error), function.or_else(at)))
            }
            // What depends on the values themselves (a missing label, a division by zero) shows
            // itself when they are real.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Where a word stands in the source, as a whole word.
    fn location_of(&self, word: &str) -> Option<Location> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        self.source
            .match_indices(word)
            .find(|(at, _)| {
                !self.source[..*at].ends_with(is_word)
                    && !self.source[at + word.len()..].starts_with(is_word)
            })
            .map(|(at, _)| Location::of(&self.source, at))
    }
}

/// The standard functions of CEL, built once: an immutable table.
fn shared<'v>() -> &'static Context<'static, 'v> {
    static SHARED: LazyLock<Context<'static, 'static>> = LazyLock::new(Context::default);
    &SHARED
}

/// Answers the names an evaluation asks for, and notes whether one had no value.
struct Resolver<'a> {
    variables: &'a Variables<'a>,
    missing: AtomicBool,
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let Some(variable) = self.variables.get(name) else {
            if self.variables.knows(name) {
                self.missing.store(true, Ordering::Relaxed);
            }
            return None;
        };
        Some(match variable {
            Variable::Bool(value) => CowVal::owned(CelBool::from(value)),
            Variable::Int(value) => CowVal::owned(CelInt::from(value)),
            Variable::Number(value) => CowVal::owned(CelDouble::from(value)),
            Variable::Text(text) => CowVal::owned(CelString::from(text)),
            Variable::Time(at) => CowVal::owned(CelDouble::from(at.as_millis() as f64 / 1_000.0)),
            Variable::Findings(findings) => {
                let codes: Vec<String> =
                    findings.iter().map(|finding| finding.code.as_str().to_owned()).collect();
                CowVal::Owned(Value::from(codes).try_into().ok()?)
            }
            Variable::Labels(labels) => {
                let map: std::collections::HashMap<String, String> =
                    labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                CowVal::Owned(Value::from(map).try_into().ok()?)
            }
        })
    }
}

fn walk<'e>(node: &'e IdedExpr, visit: &mut impl FnMut(&'e IdedExpr)) {
    visit(node);
    match &node.expr {
        Expr::Call(call) => {
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                walk(part, visit);
            }
        }
        Expr::Comprehension(inner) => {
            for part in [
                &inner.iter_range,
                &inner.accu_init,
                &inner.loop_cond,
                &inner.loop_step,
                &inner.result,
            ] {
                walk(part, visit);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|part| walk(part, visit)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => {
                walk(&entry.key, visit);
                walk(&entry.value, visit);
            }
            EntryExpr::StructField(field) => walk(&field.value, visit),
        }),
        Expr::Select(select) => walk(&select.operand, visit),
        Expr::Struct(fields) => fields.entries.iter().for_each(|entry| {
            if let EntryExpr::StructField(field) = &entry.expr {
                walk(&field.value, visit);
            }
        }),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// A text literal, or those of a list of them.
fn strings(node: &IdedExpr) -> Vec<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => vec![text.inner()],
        Expr::List(list) => list.elements.iter().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

fn syntax_error(source: &str, errors: &cel::ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else {
        return ExpressionError::new("the condition cannot be read", None);
    };
    let place = |at: isize| usize::try_from(at).ok().filter(|at| *at > 0);
    let location = match (place(first.pos.0), place(first.pos.1)) {
        (Some(line), Some(column)) => Some(Location { line, column }),
        _ => Some(Location::of(source, source.len())),
    };
    let message = first.msg.trim_start_matches("Syntax error: ");
    // The parser lists every token it knows; only what stands in the way helps.
    let message = message.split(" expecting {").next().unwrap_or(message);
    let message = if message.contains("<EOF>") {
        "bad syntax: the condition ends too early".to_owned()
    } else {
        format!("bad syntax: {message}")
    };
    ExpressionError::new(message, location)
}

/// The library's errors in words a rule's author knows: operators as they are written, and no
/// debug print of values.
fn describe(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => {
            let operator = overload.function().trim_matches(['_', '@']);
            let types = overload.argument_types().join(" and ");
            format!("`{operator}` does not work on {types}{}", number_hint(types.as_str()))
        }
        ExecutionError::ValuesNotComparable(a, b)
        | ExecutionError::UnsupportedBinaryOperator(_, a, b) => {
            let types = format!("{} and {}", a.type_of(), b.type_of());
            format!("{types} cannot be compared or combined{}", number_hint(&types))
        }
        ExecutionError::UndeclaredReference(name) => format!("there is no function `{name}`"),
        other => mcpmon_core::text::truncate(&other.to_string(), 200),
    }
}

fn number_hint(types: &str) -> &'static str {
    if (types.contains("double") || types.contains("float")) && types.contains("int") {
        "; arithmetic wants both sides alike: write 100.0 for 100, or double(x)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use mcpmon_core::metrics::ServiceMetrics;
    use mcpmon_core::rule::{RuleContext, RuleInput};
    use mcpmon_core::time::Timestamp;
    use proptest::prelude::*;

    /// A service with an error rate of 0.2, no response time, and the label `team = web`.
    #[track_caller]
    fn check(source: &str, expected: Result<Verdict, &str>) {
        let mut metrics = ServiceMetrics::unknown("files".into());
        metrics.error_rate = 0.2;
        let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
        let context = RuleContext {
            labels: &labels,
            ..RuleContext::new(RuleInput::Service(&metrics), Timestamp::from_millis(1_000))
        };
        let variables = Variables { context: &context, window: Duration::from_secs(300) };
        let condition = Condition::compile(source, Scope::Service)
            .unwrap_or_else(|error| panic!("{source}: {error}"));
        match (condition.evaluate(&variables), expected) {
            (Ok(verdict), Ok(expected)) => assert_eq!(verdict, expected, "{source}"),
            (Err(error), Err(word)) => assert!(error.contains(word), "{source}: {error}"),
            (got, expected) => panic!("{source}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn says_whether_it_holds() {
        check("error_rate > 0.1 && status != \"running\"", Ok(Verdict::Firing));
        check("error_rate > 0.5", Ok(Verdict::Ok));
        check("service_name.startsWith('fi')", Ok(Verdict::Firing));
        check("window == 300.0 && now == 1 && !firing", Ok(Verdict::Firing));
        check("failure_code == \"\"", Ok(Verdict::Firing));
    }

    #[test]
    fn what_has_no_value_is_no_data_unless_the_rest_decides() {
        check("avg_response_time > 1", Ok(Verdict::NoData));
        check("!(avg_response_time > 1)", Ok(Verdict::NoData));
        check("avg_response_time > 1 || error_rate > 0.1", Ok(Verdict::Firing));
        check("avg_response_time > 1 && error_rate > 0.5", Ok(Verdict::Ok));
        check("consecutive_failures >= max_consecutive_failures", Ok(Verdict::NoData));
        check("status == \"unknown\" ? null : true", Ok(Verdict::NoData));
    }

    #[test]
    fn labels_are_a_map_and_a_missing_one_is_no_data() {
        check("labels.team == \"web\"", Ok(Verdict::Firing));
        check("labels[\"team\"] == \"web\"", Ok(Verdict::Firing));
        check("\"team\" in labels", Ok(Verdict::Firing));
        check("has(labels.tier)", Ok(Verdict::Ok));
        check("labels.exists(name, name == 'team')", Ok(Verdict::Firing));
        check("labels.tier == \"1\"", Ok(Verdict::NoData));
    }

    #[test]
    fn a_condition_that_fails_on_real_values_is_an_error_of_the_rule() {
        check("1 / restarts > 0", Err("zero"));
    }

    #[track_caller]
    fn reject(source: &str, scope: Scope, word: &str, location: Option<(usize, usize)>) {
        let error = Condition::compile(source, scope).expect_err(source);
        assert!(error.message.contains(word), "{source}: {error}");
        let found = error.location.map(|at| (at.line, at.column));
        assert_eq!(found, location, "{source}: {error}");
    }

    #[test]
    fn what_cannot_work_is_told_when_it_is_read() {
        let service = Scope::Service;
        reject("eror_rate > 0.1", service, "mean `error_rate`", Some((1, 1)));
        reject("true &&\n  statuss == 'x'", service, "mean `status`", Some((2, 3)));
        reject("error_rate >", service, "ends too early", Some((1, 13)));
        reject("a b", service, "bad syntax", Some((1, 3)));
        reject("", service, "empty", None);
        reject("status == \"up\"", service, "never `up`; it is one of", Some((1, 12)));
        reject("status in ['runing']", service, "mean `running`", Some((1, 13)));
        reject("failure_code == 'dns_fail'", service, "mean `dns_failed`", Some((1, 18)));
        reject("service_name > 3", service, "string and int", Some((1, 14)));
        reject("firing && (service_name > 3)", service, "string and int", Some((1, 25)));
        reject("error_rate", service, "true or false", Some((1, 1)));
        reject("error_rate * 100 > 5", service, "write 100.0", Some((1, 18)));
        reject("fooo(1) > 2", service, "no function `fooo`", Some((1, 1)));
        reject("status == 'error'", Scope::Host, "scope `service`", Some((1, 1)));
        reject(&"1 + ".repeat(2_000), service, "longer than", None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z0-9_ ()<>=&|!?:.,'\"\\\\\\[\\]{}+*/%é\n-]{0,40}") {
            let _ = Condition::compile(&text, Scope::Service);
        }
    }
}
