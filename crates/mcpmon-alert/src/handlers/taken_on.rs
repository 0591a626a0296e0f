//! What every handler says of an acknowledgement, the console too, which needs no other words.

use mcpmon_core::alert::Alert;
use mcpmon_core::text::truncate;

/// That somebody took it on, who, and what they say.
pub(super) fn acknowledged(alert: &Alert) -> String {
    let Some(taken_on) = alert.acknowledgements.last() else {
        return "acknowledged".to_owned();
    };
    let mut text = "acknowledged".to_owned();
    if !taken_on.by.is_empty() {
        text.push_str(&format!(" by {}", truncate(&taken_on.by, 100)));
    }
    if !taken_on.comment.is_empty() {
        text.push_str(&format!(" ({})", truncate(&taken_on.comment, 200)));
    }
    text
}
