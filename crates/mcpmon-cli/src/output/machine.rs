//! JSON for programs.

use serde::Serialize;

/// One object, indented, with its line break. Non-ASCII text is kept as it is.
pub fn json_object(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value)
        .unwrap_or_else(|error| format!("{{ \"error\": \"{error}\" }}"));
    text.push('\n');
    text
}

/// One object on one line, with its line break.
pub fn json_line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value)
        .unwrap_or_else(|error| format!("{{ \"error\": \"{error}\" }}"));
    text.push('\n');
    text
}
