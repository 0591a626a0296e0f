//! What a list of tools costs a model, in tokens.
//!
//! Each model cuts text its own way, and none of their tables belongs into a monitor, so this is an
//! estimate: a word is a token for each eight letters begun, two signs are one, and a character
//! beyond ASCII is one of its own. For the schemas and descriptions of real servers that is within
//! about a quarter of what the usual tokenizers count, and the same list always costs the same.

use mcpmon_core::failure::{Finding, FindingCode};
use serde_json::Value;

/// A list that costs more is worth a finding: a tenth of a context of 200,000 tokens, spent before
/// anything was asked.
pub const TOOL_LIST_BUDGET: u64 = 20_000;

/// The parts of a tool's definition that a model reads.
const READ: [&str; 3] = ["name", "description", "inputSchema"];

/// What one tool costs.
pub(super) fn of_tool(definition: &Value) -> u64 {
    let parts = READ.iter().filter_map(|key| definition.get(key));
    parts
        .map(|part| match part {
            Value::String(text) => of_text(text),
            part => of_text(&part.to_string()),
        })
        .sum()
}

/// What a text costs.
fn of_text(text: &str) -> u64 {
    let (mut tokens, mut word, mut signs) = (0, 0_u64, 0_u64);
    let mut flush = |word: &mut u64, signs: &mut u64| {
        tokens += std::mem::take(word).div_ceil(8) + std::mem::take(signs).div_ceil(2);
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            if signs > 0 {
                flush(&mut word, &mut signs);
            }
            word += 1;
        } else if !c.is_ascii() {
            flush(&mut word, &mut signs);
            // As much as two signs.
            signs = 2;
            flush(&mut word, &mut signs);
        } else {
            if word > 0 {
                flush(&mut word, &mut signs);
            }
            // A space goes with the word after it.
            signs += u64::from(!c.is_ascii_whitespace());
        }
    }
    flush(&mut word, &mut signs);
    tokens
}

/// The finding that a list costs more than [`TOOL_LIST_BUDGET`].
pub(super) fn finding(tokens: u64, tools: usize) -> Option<Finding> {
    (tokens > TOOL_LIST_BUDGET).then(|| {
        let text = format!(
            "the definitions of {tools} tools cost a model about {tokens} tokens, over {TOOL_LIST_BUDGET}"
        );
        Finding::new(FindingCode::LargeToolList, text)
            .with("tokens", tokens)
            .with("budget", TOOL_LIST_BUDGET)
            .with("tools", tools)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_costs_about_what_tokenizers_say() {
        for (text, tokens) in [
            ("", 0),
            ("hello", 1),
            ("Gives back what it is given", 6),
            ("internationalization", 3),
            (r#"{"type":"object"}"#, 6),
            ("\u{65e5}\u{672c}\u{8a9e}", 3),
        ] {
            assert_eq!(of_text(text), tokens, "{text}");
        }
    }

    #[test]
    fn only_what_a_model_reads_costs() {
        let tool = json!({"name": "echo", "description": "says it again"});
        let mut more = tool.clone();
        more["outputSchema"] = json!({"description": "x ".repeat(1_000)});
        assert_eq!(of_tool(&tool), of_tool(&more));
        more["inputSchema"] = json!({"type": "object"});
        assert!(of_tool(&more) > of_tool(&tool));
    }

    #[test]
    fn the_budget_is_a_limit() {
        assert_eq!(finding(TOOL_LIST_BUDGET, 9), None);
        assert_eq!(finding(TOOL_LIST_BUDGET + 1, 9).unwrap().evidence["tools"], 9);
    }
}
