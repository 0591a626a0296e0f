//! Text from a server is hostile until it is escaped for where it goes.
//!
//! One function for each sink, and nothing else may write server text there: a terminal line, an
//! HTML page, a CSV cell, a mail header, a log field, a metrics label. What is stored is the text
//! as it came (redacted and capped), so that no sink's rules destroy what another needs.

use std::fmt::Write as _;

/// Longest message, name or excerpt kept from a server, in characters.
pub const MAX_TEXT: usize = 2_000;

/// Cuts `text` after `max` characters, marking the cut with `…`.
pub fn truncate(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(max.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}…", &text[..end])
        }
    }
}

/// Whether a character can move the cursor, hide text or turn its direction.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}' | '\u{180E}'
            | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if (c as u32) < 0x100 => {
            let _ = write!(out, "\\x{:02x}", c as u32);
        }
        c => {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        }
    }
}

/// One line for a terminal or a log: controls, escapes and bidirectional marks become visible.
pub fn for_terminal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) {
            push_visible(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON that is already written, its strings without a character that deceives a terminal it may
/// be shown on: each becomes JSON's own escape, so that readers get the same text.
///
/// JSON has such characters nowhere but in strings, except for white space, which stays.
pub fn for_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_deceptive(c) && !matches!(c, '\n' | '\r' | '\t') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Element text or a quoted attribute of an HTML page or mail part.
pub fn for_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if is_deceptive(c) => push_visible(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

/// A CSV cell that no spreadsheet takes for a formula (OWASP, "CSV Injection"); quoting is left to
/// the CSV writer. Numbers keep their sign.
pub fn for_csv(text: &str) -> String {
    let clean = for_terminal(text);
    let formula = matches!(text.chars().next(), Some('=' | '+' | '-' | '@' | '\t' | '\r'));
    if formula && clean.parse::<f64>().is_err() { format!("'{clean}") } else { clean }
}

/// The value of one mail or HTTP header: never a line break, capped at 200 characters.
pub fn for_header(text: &str) -> String {
    truncate(&for_terminal(text), 200)
}

/// The value of a label in the Prometheus text format, without its quotes.
pub fn for_label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in truncate(text, 200).chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

/// Text of a Slack message: the three characters that make mentions and links become entities.
///
/// Source: Slack, "Formatting text for app surfaces".
pub fn for_slack(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if is_deceptive(c) => push_visible(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

/// Text in Markdown, as Discord reads it: whatever formats, links or mentions is escaped.
pub fn for_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '~' | '|' | '[' | ']' | '(' | ')' | '<' | '>' | '#' | '@'
            | ':' | '-' => {
                out.push('\\');
                out.push(c);
            }
            c if is_deceptive(c) => push_visible(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

/// A name safe inside a file name: what is not in `[A-Za-z0-9._-]` becomes `_`, never empty, never
/// starting with a dot.
pub fn for_file_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .take(100)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: [&str; 8] = [
        "\x1b[31mred\x1b[0m",
        "\u{202E}txt.exe",
        "=cmd|' /C calc'!A0",
        "a\r\nBcc: everyone@example.com",
        "<script>alert(1)</script>",
        "\u{9b}2J",
        "zero\u{200B}width",
        "tag\u{E0041}",
    ];

    #[test]
    fn nothing_deceptive_reaches_a_line() {
        for text in CORPUS {
            for out in [for_terminal(text), for_header(text), for_csv(text)] {
                assert!(!out.chars().any(is_deceptive), "{text:?} became {out:?}");
            }
        }
    }

    #[test]
    fn json_reads_the_same_and_shows_nothing_deceptive() {
        for text in CORPUS {
            let out = for_json(&serde_json::Value::from(text).to_string());
            assert!(!out.chars().any(is_deceptive), "{text:?} became {out:?}");
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
        assert_eq!(for_json("{\n  \"a\": 1\n}"), "{\n  \"a\": 1\n}");
    }

    #[test]
    fn no_markup_reaches_html() {
        for text in CORPUS {
            let out = for_html(text);
            assert!(!out.contains(['<', '>', '"', '\'']), "{out}");
        }
    }

    #[test]
    fn no_mention_link_or_format_reaches_a_chat() {
        assert_eq!(for_slack("<!channel> a & b"), "&lt;!channel&gt; a &amp; b");
        assert_eq!(for_markdown("@here **x** [a](b)"), r"\@here \*\*x\*\* \[a\]\(b\)");
        for text in CORPUS {
            for out in [for_slack(text), for_markdown(text)] {
                assert!(!out.chars().any(is_deceptive), "{text:?} became {out:?}");
            }
        }
    }

    #[test]
    fn a_formula_is_text_and_a_negative_number_a_number() {
        assert_eq!(for_csv("=1+1"), "'=1+1");
        assert_eq!(for_csv("@SUM(A1)"), "'@SUM(A1)");
        assert_eq!(for_csv("-1.5"), "-1.5");
        assert_eq!(for_csv("-1+2"), "'-1+2");
    }

    #[test]
    fn labels_and_file_names_are_contained() {
        assert_eq!(for_label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
        assert_eq!(for_file_name("../../etc/passwd"), "_.._.._etc_passwd");
        assert_eq!(for_file_name(""), "_");
        assert_eq!(for_file_name("ok-1.2_b"), "ok-1.2_b");
    }

    #[test]
    fn truncation_counts_characters_and_shows_itself() {
        assert_eq!(truncate("héllo", 5), "héllo");
        assert_eq!(truncate("héllo!", 5), "héll…");
    }
}
