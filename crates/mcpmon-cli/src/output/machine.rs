//! JSON for programs.

use mcpmon_core::text::for_json;
use serde::Serialize;

/// One object, indented, with its line break. Text is kept as it is but for
/// characters that could deceive a terminal, which are escaped.
pub fn json_object(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value)
        .unwrap_or_else(|error| format!("{{ \"error\": \"{error}\" }}"));
    text.push('\n');
    for_json(&text)
}

/// One object on one line, with its line break.
pub fn json_line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value)
        .unwrap_or_else(|error| format!("{{ \"error\": \"{error}\" }}"));
    text.push('\n');
    for_json(&text)
}
