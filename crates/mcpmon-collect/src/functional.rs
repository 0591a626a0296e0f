//! Whether a tool's result is what the configuration expects: a pure judgement.
//!
//! Calling is the session's affair and asking the probe's; here a result and an expectation become
//! nothing or one failure that says which expectation failed and what was seen instead.

mod schema;

use std::time::Duration;

use mcpmon_core::failure::{Failure, FailureCode, Phase};
use mcpmon_core::service::FunctionalCheck;
use mcpmon_core::text::{MAX_TEXT, truncate};
use mcpmon_mcp::error::excerpt;
use mcpmon_mcp::{CallError, Called, ListedTool};
use serde_json::Value;

use self::schema::Breach;

/// A structured result over this many bytes is not taken apart: as a tree it takes many times that.
const LARGEST_STRUCTURED: usize = 4 << 20;
/// Longest text of a server inside a sentence, in characters.
const SHOWN: usize = 200;

/// Why a tool is not called, if it is not: it is not there, or it might change something.
pub(crate) fn refusal(check: &FunctionalCheck, tool: Option<&ListedTool>) -> Option<Failure> {
    let name = &check.tool;
    let failure =
        |code, text: String| Failure::new(code, Phase::Call, text).with("tool", name.as_str());
    let Some(tool) = tool else {
        let text = format!("the configured tool `{name}` is not among the listed ones");
        return Some(failure(FailureCode::CapabilityMissing, text));
    };
    if tool.needs_task {
        let text = format!("`{name}` can be run as a task only, which mcpmon does not do");
        let refused = failure(FailureCode::FunctionalRefused, text);
        return Some(refused.advising("check another tool of this service"));
    }
    if !(tool.read_only || check.allow_side_effects) {
        let text = format!("`{name}` is not annotated `readOnlyHint: true`, so it is not called");
        return Some(failure(FailureCode::FunctionalRefused, text));
    }
    None
}

/// The failure a call without a result is.
pub(crate) fn no_result(check: &FunctionalCheck, error: CallError, waited: Duration) -> Failure {
    let name = &check.tool;
    let mut failure = *error.failure;
    match failure.code {
        FailureCode::RpcError => {
            failure.code = FailureCode::FunctionalError;
            failure.message = format!("calling `{name}`: {}", failure.message);
        }
        FailureCode::ResponseTimeout => {
            failure.code = FailureCode::FunctionalTimeout;
            let span = waited.as_secs_f64();
            failure.message = format!("no result of `{name}` within {span:.1} s");
        }
        FailureCode::InputRequired => {
            failure.message = format!("`{name}` wants input from a user before it goes on");
        }
        // The connection, the process, the credentials: their own codes say it best.
        _ => return failure.with("tool", name.as_str()),
    }
    failure.next_step = failure.code.next_step().to_owned();
    let arguments = Value::Object(check.arguments.clone()).to_string();
    failure.with("tool", name.as_str()).with("arguments", excerpt(arguments.as_bytes()))
}

/// What is wrong with a result, if anything is; `show` takes secrets out of the server's text
/// before any of it is cut. Takes time in proportion to the result, and to the budget of
/// [`schema`]: too long for a thread that others wait for.
pub(crate) fn judge(
    check: &FunctionalCheck,
    tool: &ListedTool,
    called: &Called,
    show: &dyn Fn(&str) -> String,
) -> Option<Failure> {
    let name = &check.tool;
    let expect = &check.expect;
    let show = |text: &str| truncate(&show(&truncate(text, MAX_TEXT)), SHOWN);
    if called.is_task {
        let text = format!("`{name}` gave a task to wait for, and no result");
        return Some(mismatch(check, called, "result", text));
    }
    match (expect.is_error, called.is_error) {
        (None | Some(false), true) => {
            let said = called.texts.iter().find(|text| !text.trim().is_empty());
            let said = said.map_or("nothing more".to_owned(), |text| show(text));
            let text = format!("`{name}` says that it failed: {said}");
            let failure = Failure::new(FailureCode::FunctionalToolError, Phase::Call, text);
            return Some(with_call(failure, check, called));
        }
        (Some(true), false) => {
            let text = format!("`{name}` worked, though `is_error = true` is expected");
            return Some(mismatch(check, called, "is_error", text));
        }
        _ => {}
    }
    if let Some(wanted) = &expect.contains
        && !called.texts.iter().any(|text| text.contains(wanted.as_str()))
    {
        let text = format!("no text of `{name}` contains `{}`", truncate(wanted, 100));
        return Some(mismatch(check, called, "contains", text));
    }
    if let Some(failure) = structured(check, tool, called, &show) {
        return Some(failure);
    }
    expect.within.filter(|within| called.latency > *within).map(|within| {
        let text = format!(
            "`{name}` took {:.3} s, over `within` of {}",
            called.latency.as_secs_f64(),
            mcpmon_core::duration::format(within)
        );
        mismatch(check, called, "within", text)
    })
}

fn structured(
    check: &FunctionalCheck,
    tool: &ListedTool,
    called: &Called,
    show: &dyn Fn(&str) -> String,
) -> Option<Failure> {
    let expect = &check.expect;
    let matches_schema = expect.output_schema == Some(true);
    if expect.pointers.is_empty() && !matches_schema {
        return None;
    }
    let name = &check.tool;
    let expectation = if matches_schema { "output_schema" } else { "pointers" };
    let Some(raw) = &called.structured else {
        let text = format!("`{name}` gave no `structuredContent`");
        return Some(mismatch(check, called, expectation, text));
    };
    if raw.get().len() > LARGEST_STRUCTURED {
        let text = format!("the `structuredContent` of `{name}` is too large to be judged");
        return Some(unjudged(check, called, expectation, text));
    }
    let Ok(value) = serde_json::from_str::<Value>(raw.get()) else {
        let text = format!("the `structuredContent` of `{name}` is nested too deep to be judged");
        return Some(unjudged(check, called, expectation, text));
    };
    for (pointer, wanted) in &expect.pointers {
        let seen = value.pointer(pointer);
        if !seen.is_some_and(|seen| same(seen, wanted)) {
            let shown = seen.map_or("nothing".to_owned(), |seen| show(&seen.to_string()));
            let text = format!("`{name}` has {shown} at `{pointer}`, not {wanted}");
            return Some(
                mismatch(check, called, "pointers", text).with("pointer", pointer.as_str()),
            );
        }
    }
    matches_schema.then(|| fits_schema(check, tool, called, &value, show)).flatten()
}

fn fits_schema(
    check: &FunctionalCheck,
    tool: &ListedTool,
    called: &Called,
    value: &Value,
    show: &dyn Fn(&str) -> String,
) -> Option<Failure> {
    let name = &check.tool;
    let Some(schema) = &tool.output_schema else {
        let text = format!("`{name}` is listed without an `outputSchema`");
        return Some(mismatch(check, called, "output_schema", text));
    };
    match schema::check(schema, value) {
        Ok(()) => None,
        Err(Breach::Mismatch { at, reason }) => {
            let (at, reason) = (show(&at), show(&reason));
            let place = if at.is_empty() { "as a whole".to_owned() } else { format!("at `{at}`") };
            let text =
                format!("the result of `{name}` breaks its `outputSchema` {place}: {reason}");
            Some(mismatch(check, called, "output_schema", text).with("pointer", at))
        }
        Err(Breach::Unjudged(reason)) => {
            let text =
                format!("the `outputSchema` of `{name}` cannot be judged: {}", show(&reason));
            Some(unjudged(check, called, "output_schema", text))
        }
    }
}

/// Numbers by value: what is written `1` may come back as `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn mismatch(check: &FunctionalCheck, called: &Called, which: &str, text: String) -> Failure {
    let failure = Failure::new(FailureCode::FunctionalMismatch, Phase::Call, text);
    with_call(failure, check, called).with("expectation", which)
}

/// The call was made, but whether its result is right is beyond us: unknown, and not down.
fn unjudged(check: &FunctionalCheck, called: &Called, which: &str, text: String) -> Failure {
    let failure = Failure::new(FailureCode::FunctionalRefused, Phase::Call, text);
    with_call(failure, check, called)
        .with("expectation", which)
        .advising(format!("leave `{which}` out of this check's `expect`"))
}

fn with_call(failure: Failure, check: &FunctionalCheck, called: &Called) -> Failure {
    failure
        .with("tool", check.tool.as_str())
        .with("excerpt", excerpt(called.result.get().as_bytes()))
        .with("call_ms", called.latency.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use mcpmon_core::observation::ListedItem;
    use serde_json::json;

    use super::*;

    fn tool(definition: &Value) -> ListedTool {
        ListedTool::read(&ListedItem {
            name: "t".into(),
            definition: definition.into(),
            digest: None,
        })
    }

    fn as_it_is(text: &str) -> String {
        text.to_owned()
    }

    fn configured(toml: Value) -> FunctionalCheck {
        let mut check = json!({"tool": "t"});
        check["expect"] = toml;
        serde_json::from_value(check).unwrap()
    }

    fn called(texts: &[&str], structured: Option<&Value>, is_error: bool) -> Called {
        let raw = |value: &Value| serde_json::value::to_raw_value(value).unwrap();
        Called {
            latency: Duration::from_millis(80),
            is_error,
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
            structured: structured.map(raw),
            is_task: false,
            result: raw(&json!({"content": texts})),
        }
    }

    /// The failure's code and the expectation it names.
    #[track_caller]
    fn check(expect: &Value, called: &Called, expected: Option<(&str, &str)>) {
        let tool = tool(&json!({"outputSchema": {"type": "object", "required": ["n"]}}));
        let failure = judge(&configured(expect.clone()), &tool, called, &as_it_is);
        let seen = failure.as_ref().map(|failure| {
            let which = failure.evidence.get("expectation").and_then(Value::as_str);
            (failure.code.as_str(), which.unwrap_or(""))
        });
        assert_eq!(seen, expected, "{expect}: {failure:?}");
    }

    #[test]
    fn each_expectation_is_held_against_the_result() {
        let fine = called(&["hello world"], Some(&json!({"n": 1.0, "a": [{"b": "c"}]})), false);
        let failed = called(&["no such file"], None, true);
        let mismatch = |which| Some(("functional_mismatch", which));
        for (expect, result, expected) in [
            (json!({}), &fine, None),
            (json!({}), &failed, Some(("functional_tool_error", ""))),
            (json!({"is_error": false}), &failed, Some(("functional_tool_error", ""))),
            (json!({"is_error": true}), &failed, None),
            (json!({"is_error": true, "contains": "no such"}), &failed, None),
            (json!({"is_error": true}), &fine, mismatch("is_error")),
            (json!({"contains": "lo wo"}), &fine, None),
            (json!({"contains": "Hello"}), &fine, mismatch("contains")),
            (json!({"pointers": {"/n": 1, "/a/0/b": "c"}}), &fine, None),
            (json!({"pointers": {"": {"n": 1, "a": [{"b": "c"}]}}}), &fine, None),
            (json!({"pointers": {"/n": 2}}), &fine, mismatch("pointers")),
            (json!({"pointers": {"/gone": null}}), &fine, mismatch("pointers")),
            (json!({"output_schema": true}), &fine, None),
            (
                json!({"output_schema": true}),
                &called(&["x"], None, false),
                mismatch("output_schema"),
            ),
            (
                json!({"output_schema": true}),
                &called(&[], Some(&json!({"m": 1})), false),
                mismatch("output_schema"),
            ),
            (json!({"output_schema": false}), &called(&["x"], None, false), None),
            (json!({"within": "100ms"}), &fine, None),
            (json!({"within": "50ms"}), &fine, mismatch("within")),
        ] {
            check(&expect, result, expected);
        }
    }

    #[test]
    fn the_first_expectation_that_fails_is_told_with_what_was_seen() {
        let seen = called(&["four"], Some(&json!({"n": 4})), false);
        let failure = judge(
            &configured(json!({"contains": "five", "pointers": {"/n": 5}})),
            &tool(&json!({})),
            &seen,
            &as_it_is,
        )
        .unwrap();
        assert_eq!(failure.evidence["expectation"], "contains");
        assert!(failure.evidence["excerpt"].as_str().unwrap().contains("four"));
        let pointers = configured(json!({"pointers": {"/n": 5}}));
        let failure = judge(&pointers, &tool(&json!({})), &seen, &as_it_is).unwrap();
        assert!(failure.message.contains("has 4 at `/n`, not 5"), "{failure}");
    }

    #[test]
    fn a_schema_beyond_us_makes_the_service_unknown_and_not_down() {
        let tool = tool(&json!({"outputSchema": {"$ref": "https://elsewhere.example/s.json"}}));
        let expect = configured(json!({"output_schema": true}));
        let failure =
            judge(&expect, &tool, &called(&[], Some(&json!({})), false), &as_it_is).unwrap();
        assert_eq!(failure.code, FailureCode::FunctionalRefused);
        assert_eq!(failure.code.status(), mcpmon_core::Status::Unknown);
    }

    #[test]
    fn only_tools_that_say_they_change_nothing_are_called_unasked() {
        let plain = configured(json!({}));
        let mut allowed = plain.clone();
        allowed.allow_side_effects = true;
        let read_only = tool(&json!({"annotations": {"readOnlyHint": true}}));
        let writes = tool(&json!({"annotations": {"readOnlyHint": false}}));
        let code = |check: &FunctionalCheck, tool: Option<&ListedTool>| {
            refusal(check, tool).map(|failure| failure.code.as_str())
        };
        assert_eq!(code(&plain, Some(&read_only)), None);
        assert_eq!(code(&plain, Some(&writes)), Some("functional_refused"));
        assert_eq!(code(&plain, Some(&tool(&json!({})))), Some("functional_refused"));
        assert_eq!(code(&allowed, Some(&writes)), None);
        assert_eq!(code(&allowed, None), Some("capability_missing"));
        let task = tool(&json!({"execution": {"taskSupport": "required"}}));
        assert_eq!(code(&allowed, Some(&task)), Some("functional_refused"));
    }
}
