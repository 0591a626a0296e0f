//! Prose for a terminal: lines broken between words, with what stands before them.

use unicode_width::UnicodeWidthStr as _;

/// Prose is hard to read on lines longer than this, however wide the terminal.
const WIDEST: usize = 100;
/// Where even this does not fit, lines run over rather than become a column of syllables.
const NARROWEST: usize = 24;

/// What stands before the first line of a paragraph, and before its others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Indent<'a> {
    pub(crate) first: &'a str,
    pub(crate) rest: &'a str,
}

impl<'a> Indent<'a> {
    /// The same before every line.
    pub(crate) const fn all(indent: &'a str) -> Self {
        Self { first: indent, rest: indent }
    }
}

/// One paragraph, broken to `width` columns; in a pipe (`None`) it stays one line. The text is
/// written as it is: what came from a server has to be escaped before.
pub(crate) fn wrap(text: &str, width: Option<usize>, indent: Indent<'_>) -> String {
    let room = width.map_or(usize::MAX, |width| width.min(WIDEST));
    let mut out = indent.first.to_owned();
    let (mut used, mut fresh) = (indent.first.width(), true);
    for word in text.split_whitespace() {
        let needed = word.width() + usize::from(!fresh);
        if !fresh && used + needed > room.max(indent.rest.width() + NARROWEST) {
            out.push('\n');
            out.push_str(indent.rest);
            (used, fresh) = (indent.rest.width(), true);
        }
        if !fresh {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += word.width();
        fresh = false;
    }
    out.push('\n');
    out
}

/// Parts of one line with `separator` between them; where they do not fit, the rest goes on the
/// next line. A part is never broken.
pub(crate) fn join(parts: &[String], separator: &str, width: Option<usize>) -> String {
    let room = width.unwrap_or(usize::MAX);
    let mut out = String::new();
    let mut used = 0_usize;
    for part in parts {
        let needed = separator.width() + part.width();
        if used > 0 && used.saturating_add(needed) > room {
            out.push('\n');
            used = 0;
        }
        if used > 0 {
            out.push_str(separator);
            used += separator.width();
        }
        out.push_str(part);
        used += part.width();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "the quick brown fox jumps over the lazy dog and runs on";

    #[test]
    fn lines_break_between_words_and_hang_under_their_first() {
        let indent = Indent { first: "- ", rest: "  " };
        let text = wrap(TEXT, Some(30), indent);
        assert_eq!(
            text,
            "- the quick brown fox jumps\n  over the lazy dog and runs on\n"
                .replace("  over the lazy dog and runs on", "  over the lazy dog and runs\n  on")
        );
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
    }

    #[test]
    fn parts_that_do_not_fit_go_on_the_next_line() {
        let parts = ["4 services", "2 running", "6 tools"].map(str::to_owned);
        assert_eq!(join(&parts, " - ", None), "4 services - 2 running - 6 tools");
        assert_eq!(join(&parts, " - ", Some(24)), "4 services - 2 running\n6 tools");
        assert_eq!(join(&parts, " - ", Some(3)), "4 services\n2 running\n6 tools");
    }

    #[test]
    fn a_pipe_gets_one_line_and_a_wide_terminal_no_endless_one() {
        assert_eq!(wrap(TEXT, None, Indent::all("")), format!("{TEXT}\n"));
        let long = TEXT.repeat(9);
        assert!(wrap(&long, Some(400), Indent::all("  ")).lines().all(|l| l.width() <= WIDEST));
    }

    #[test]
    fn a_word_longer_than_the_line_stays_whole() {
        let text = wrap(
            "see https://example.com/a/very/long/path/that/goes/on there",
            Some(24),
            Indent::all(""),
        );
        assert!(text.contains("https://example.com/a/very/long/path/that/goes/on"));
    }
}
