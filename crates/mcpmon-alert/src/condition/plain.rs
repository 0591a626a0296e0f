//! The plain part of CEL, evaluated without allocating: names, comparisons, arithmetic, `&&`, `||`,
//! `!`, `?:`, `in`, labels. It is all that most conditions are made of, and rules run for every
//! service after every check.
//!
//! What is here says exactly what the library would say, which a test holds it to; whatever it does
//! not know (a function, a macro, types that do not fit, a division by zero) it leaves to the
//! library, whole.

use std::cmp::Ordering;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use crate::variables::{Variable, Variables, names};
use mcpmon_core::rule::{Scope, Verdict};

/// A condition of plain parts alone.
#[derive(Debug)]
pub(super) struct Plain(Node);

#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(Box<str>),
    Name(&'static str),
    Label(Box<str>),
    HasLabel(Box<str>),
    Not(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Operation, Box<[Node; 2]>),
    InTexts(Box<Node>, Box<[Box<str>]>),
    InFindings(Box<str>),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Debug, Clone, Copy)]
enum Seen<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(&'a str),
}

/// Why there is no value.
#[derive(Debug, Clone, Copy)]
enum Without {
    /// A name or label has none now.
    Value,
    /// Not plain after all: the library decides.
    Word,
}

impl Plain {
    /// The condition, if all of it is plain.
    pub(super) fn read(expression: &IdedExpr, scope: Scope) -> Option<Self> {
        read(expression, names(scope)).map(Self)
    }

    /// Whether it holds; `None` where the library has to be asked.
    pub(super) fn evaluate(&self, variables: &Variables<'_>) -> Option<Verdict> {
        match see(&self.0, variables) {
            Ok(Seen::Bool(true)) => Some(Verdict::Firing),
            Ok(Seen::Bool(false)) => Some(Verdict::Ok),
            Ok(Seen::Null) | Err(Without::Value) => Some(Verdict::NoData),
            Ok(_) | Err(Without::Word) => None,
        }
    }
}

fn read(node: &IdedExpr, known: &'static [&'static str]) -> Option<Node> {
    Some(match &node.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(value) => Node::Bool(*value.inner()),
            LiteralValue::Int(value) => Node::Int(*value.inner()),
            LiteralValue::Double(value) => Node::Number(*value.inner()),
            LiteralValue::String(text) => Node::Text(text.inner().into()),
            LiteralValue::Null => Node::Null,
            _ => return None,
        },
        Expr::Ident(name) => Node::Name(known.iter().find(|known| *known == name)?),
        Expr::Select(select) => {
            let label = label_of(&select.operand, &select.field, known)?;
            if select.test { Node::HasLabel(label) } else { Node::Label(label) }
        }
        Expr::Call(call) if call.target.is_none() => {
            return read_call(&call.func_name, &call.args, known);
        }
        _ => return None,
    })
}

fn read_call(operator: &str, args: &[IdedExpr], known: &'static [&'static str]) -> Option<Node> {
    let part = |node: &IdedExpr| read(node, known);
    match args {
        [inner] if operator == operators::LOGICAL_NOT => Some(Node::Not(Box::new(part(inner)?))),
        [test, yes, no] if operator == operators::CONDITIONAL => {
            Some(Node::If(Box::new([part(test)?, part(yes)?, part(no)?])))
        }
        [left, right] if operator == operators::IN => read_in(left, right, known),
        [left, right] if operator == operators::INDEX => {
            let Expr::Literal(LiteralValue::String(label)) = &right.expr else { return None };
            Some(Node::Label(label_of(left, label.inner(), known)?))
        }
        [left, right] => {
            let both = Box::new([part(left)?, part(right)?]);
            Some(match operator {
                operators::LOGICAL_AND => Node::And(both),
                operators::LOGICAL_OR => Node::Or(both),
                operators::EQUALS => Node::Compare(Comparison::Equal, both),
                operators::NOT_EQUALS => Node::Compare(Comparison::NotEqual, both),
                operators::LESS => Node::Compare(Comparison::Less, both),
                operators::LESS_EQUALS => Node::Compare(Comparison::LessOrEqual, both),
                operators::GREATER => Node::Compare(Comparison::Greater, both),
                operators::GREATER_EQUALS => Node::Compare(Comparison::GreaterOrEqual, both),
                operators::ADD => Node::Arithmetic(Operation::Add, both),
                operators::SUBSTRACT => Node::Arithmetic(Operation::Subtract, both),
                operators::MULTIPLY => Node::Arithmetic(Operation::Multiply, both),
                operators::DIVIDE => Node::Arithmetic(Operation::Divide, both),
                _ => return None,
            })
        }
        _ => None,
    }
}

fn read_in(left: &IdedExpr, right: &IdedExpr, known: &'static [&'static str]) -> Option<Node> {
    match (&left.expr, &right.expr) {
        (Expr::Literal(LiteralValue::String(code)), Expr::Ident(name)) => match name.as_str() {
            "findings" if known.contains(&"findings") => {
                Some(Node::InFindings(code.inner().into()))
            }
            "labels" if known.contains(&"labels") => Some(Node::HasLabel(code.inner().into())),
            _ => None,
        },
        (_, Expr::List(list)) => {
            let texts = list.elements.iter().map(|element| match &element.expr {
                Expr::Literal(LiteralValue::String(text)) => Some(Box::from(text.inner())),
                _ => None,
            });
            let texts: Option<Vec<Box<str>>> = texts.collect();
            Some(Node::InTexts(Box::new(read(left, known)?), texts?.into()))
        }
        _ => None,
    }
}

fn label_of(operand: &IdedExpr, label: &str, known: &[&str]) -> Option<Box<str>> {
    let is_labels = matches!(&operand.expr, Expr::Ident(name) if name == "labels");
    (is_labels && known.contains(&"labels")).then(|| label.into())
}

fn see<'a>(node: &'a Node, variables: &Variables<'a>) -> Result<Seen<'a>, Without> {
    Ok(match node {
        Node::Null => Seen::Null,
        Node::Bool(value) => Seen::Bool(*value),
        Node::Int(value) => Seen::Int(*value),
        Node::Number(value) => Seen::Number(*value),
        Node::Text(text) => Seen::Text(text),
        Node::Name(name) => return named(name, variables),
        Node::Label(label) => match variables.label(label) {
            Some(value) => Seen::Text(value),
            None => return Err(Without::Value),
        },
        Node::HasLabel(label) => Seen::Bool(variables.label(label).is_some()),
        Node::Not(inner) => Seen::Bool(!truth(see(inner, variables)?)?),
        Node::And(both) => Seen::Bool(decide(both, false, variables)?),
        Node::Or(both) => Seen::Bool(decide(both, true, variables)?),
        Node::If(parts) => {
            let [test, yes, no] = &**parts;
            let chosen = if truth(see(test, variables)?)? { yes } else { no };
            return see(chosen, variables);
        }
        Node::Compare(comparison, both) => {
            let [left, right] = &**both;
            Seen::Bool(compare(*comparison, see(left, variables)?, see(right, variables)?)?)
        }
        Node::Arithmetic(operation, both) => {
            let [left, right] = &**both;
            return compute(*operation, see(left, variables)?, see(right, variables)?);
        }
        Node::InTexts(left, texts) => match see(left, variables)? {
            Seen::Text(text) => Seen::Bool(texts.iter().any(|known| **known == *text)),
            _ => return Err(Without::Word),
        },
        Node::InFindings(code) => match variables.get("findings") {
            Some(Variable::Findings(findings)) => {
                Seen::Bool(findings.iter().any(|finding| finding.code.as_str() == &**code))
            }
            _ => return Err(Without::Word),
        },
    })
}

fn named<'a>(name: &str, variables: &Variables<'a>) -> Result<Seen<'a>, Without> {
    match variables.get(name) {
        None => Err(Without::Value),
        Some(Variable::Bool(value)) => Ok(Seen::Bool(value)),
        Some(Variable::Int(value)) => Ok(Seen::Int(value)),
        Some(Variable::Number(value)) => Ok(Seen::Number(value)),
        Some(Variable::Text(text)) => Ok(Seen::Text(text)),
        Some(Variable::Time(at)) => Ok(Seen::Number(at.as_millis() as f64 / 1_000.0)),
        Some(Variable::Labels(_) | Variable::Findings(_)) => Err(Without::Word),
    }
}

fn truth(seen: Seen<'_>) -> Result<bool, Without> {
    match seen {
        Seen::Bool(value) => Ok(value),
        _ => Err(Without::Word),
    }
}

/// `&&` and `||`: one side can decide alone, even where the other has no value.
fn decide<'a>(
    both: &'a [Node; 2],
    decisive: bool,
    variables: &Variables<'a>,
) -> Result<bool, Without> {
    let [left, right] = both;
    let left = match see(left, variables) {
        Ok(seen) => Some(truth(seen)?),
        Err(Without::Value) => None,
        Err(Without::Word) => return Err(Without::Word),
    };
    if left == Some(decisive) {
        return Ok(decisive);
    }
    let right = truth(see(right, variables)?)?;
    if left.is_none() && right != decisive { Err(Without::Value) } else { Ok(right) }
}

fn compare(comparison: Comparison, left: Seen<'_>, right: Seen<'_>) -> Result<bool, Without> {
    let order = match (left, right) {
        (Seen::Int(a), Seen::Int(b)) => Some(a.cmp(&b)),
        (Seen::Number(a), Seen::Number(b)) => a.partial_cmp(&b),
        (Seen::Int(a), Seen::Number(b)) => (a as f64).partial_cmp(&b),
        (Seen::Number(a), Seen::Int(b)) => a.partial_cmp(&(b as f64)),
        (Seen::Text(a), Seen::Text(b)) => Some(a.cmp(b)),
        (Seen::Bool(a), Seen::Bool(b)) if is_equality(comparison) => Some(a.cmp(&b)),
        _ => None,
    };
    let order = order.ok_or(Without::Word)?;
    Ok(match comparison {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::NotEqual => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
    })
}

fn is_equality(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Equal | Comparison::NotEqual)
}

/// Both sides alike, as CEL wants them; whole numbers are not divided here.
fn compute<'a>(operation: Operation, left: Seen<'a>, right: Seen<'a>) -> Result<Seen<'a>, Without> {
    match (left, right) {
        (Seen::Number(a), Seen::Number(b)) => Ok(Seen::Number(match operation {
            Operation::Add => a + b,
            Operation::Subtract => a - b,
            Operation::Multiply => a * b,
            Operation::Divide => a / b,
        })),
        (Seen::Int(a), Seen::Int(b)) => match operation {
            Operation::Add => a.checked_add(b),
            Operation::Subtract => a.checked_sub(b),
            Operation::Multiply => a.checked_mul(b),
            Operation::Divide => None,
        }
        .map(Seen::Int)
        .ok_or(Without::Word),
        _ => Err(Without::Word),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use mcpmon_core::failure::{Finding, FindingCode};
    use mcpmon_core::metrics::ServiceMetrics;
    use mcpmon_core::rule::{RuleContext, RuleInput};
    use mcpmon_core::settings::Settings;
    use mcpmon_core::time::Timestamp;
    use mcpmon_core::{Level, Rule as _};
    use mcpmon_testkit::samples;
    use proptest::prelude::*;

    use crate::RuleSet;
    use crate::condition::Condition;
    use crate::variables::Variables;
    use mcpmon_core::rule::{Scope, Verdict};

    /// Conditions of every shape, whether they make sense or not.
    fn condition() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            Just("error_rate"),
            Just("avg_response_time"),
            Just("restarts"),
            Just("total_checks"),
            Just("cpu_percent"),
            Just("uptime"),
            Just("now"),
            Just("0"),
            Just("2"),
            Just("0.2"),
            Just("1.0"),
        ];
        let text = prop_oneof![
            Just("service_name"),
            Just("last_error"),
            Just("labels.team"),
            Just("labels['tier']"),
            Just("'web'"),
            Just("failure_code"),
        ];
        let sum = (number.clone(), "[-+*/]", number.clone())
            .prop_map(|(a, operator, b)| format!("({a} {operator} {b})"));
        let number = prop_oneof![3 => number.prop_map(str::to_owned), 1 => sum];
        let order = "(<|<=|>|>=|==|!=)";
        let leaf = prop_oneof![
            4 => (number.clone(), order, number).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            2 => (text.clone(), order, text).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            1 => Just("has(labels.tier)".to_owned()),
            1 => Just("'team' in labels".to_owned()),
            1 => Just("'tools_changed' in findings".to_owned()),
            1 => Just("service_name in ['files', 'a']".to_owned()),
            1 => Just("last_error in ['files', 'a']".to_owned()),
            1 => Just("firing".to_owned()),
            1 => Just("true".to_owned()),
            1 => Just("null".to_owned()),
            1 => Just("service_name.startsWith('f')".to_owned()),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
                inner.clone().prop_map(|a| format!("!({a})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            ]
        })
    }

    fn metrics() -> impl Strategy<Value = ServiceMetrics> {
        let share = || prop_oneof![Just(0.0), Just(0.2), Just(1.0), 0.0..2.0_f64];
        let maybe = || proptest::option::of(share());
        (share(), maybe(), 0..4_u64, maybe(), proptest::option::of("(a|files|web)")).prop_map(
            |(error_rate, avg_response_time, count, cpu_percent, last_error)| ServiceMetrics {
                error_rate,
                avg_response_time,
                restarts: count,
                total_checks: count,
                cpu_percent,
                last_error,
                ..ServiceMetrics::unknown("files".into())
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn the_plain_way_says_what_the_library_says(
            source in condition(),
            metrics in metrics(),
            team in proptest::option::of("(web|db)"),
            found in any::<bool>(),
            firing in any::<bool>(),
        ) {
            let Ok(condition) = Condition::compile(&source, Scope::Service) else { return Ok(()) };
            let labels: BTreeMap<String, String> =
                team.into_iter().map(|team| ("team".to_owned(), team)).collect();
            let findings = [Finding::new(FindingCode::ToolsChanged, "")];
            let context = RuleContext {
                labels: &labels,
                findings: if found { &findings } else { &[] },
                firing,
                ..RuleContext::new(RuleInput::Service(&metrics), Timestamp::from_millis(1_000))
            };
            let variables = Variables { context: &context, window: Duration::from_secs(300) };
            if let Some(verdict) = condition.plain(&variables) {
                prop_assert_eq!(Ok(verdict), condition.by_library(&variables), "{}", source);
            }
        }
    }

    /// What is asked after every check must never need the library.
    #[test]
    fn every_built_in_condition_is_plain() {
        let rules = RuleSet::from_settings(&Settings::default()).unwrap();
        for rule in rules.rules() {
            let condition = Condition::compile(rule.when(), rule.scope()).unwrap();
            assert!(condition.is_plain(), "{}", rule.name());
        }
        assert!(rules.rules().iter().any(|rule| rule.base_level() == Level::Error));
    }

    #[test]
    fn an_ordinary_condition_is_decided_and_a_function_is_not() {
        let metrics = samples::service_metrics("files");
        let context = RuleContext::new(RuleInput::Service(&metrics), Timestamp::default());
        let variables = Variables { context: &context, window: Duration::from_secs(300) };
        let plain = |source| Condition::compile(source, Scope::Service).unwrap().plain(&variables);
        assert_eq!(plain("error_rate > 0.1 && status != 'running'"), Some(Verdict::Ok));
        assert_eq!(plain("status == 'running'"), Some(Verdict::Firing));
        assert_eq!(plain("labels.team == 'web'"), Some(Verdict::NoData));
        assert_eq!(plain("service_name.startsWith('f')"), None);
        assert_eq!(plain("labels.exists(name, name == 'team')"), None);
    }
}
