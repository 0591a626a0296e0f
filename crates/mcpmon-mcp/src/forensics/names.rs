//! The name of what is missing, cut out of the line that complains about it.

/// Longest name that is told, in bytes.
const LONGEST: usize = 200;

/// Where in a line a name stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names {
    /// The first text in quotes.
    Quoted,
    /// The last text in quotes.
    LastQuoted,
    /// What follows this phrase (lower case), in quotes or not.
    After(&'static str),
    /// The word before this phrase (lower case).
    Before(&'static str),
    /// The word that starts so.
    Option(&'static str),
}

impl Names {
    /// The name, if the line has one there.
    pub(super) fn find(self, line: &str) -> Option<String> {
        // Lowering only ASCII keeps every offset where it was.
        let lower = line.to_ascii_lowercase();
        let name = match self {
            Self::Quoted => quoted(line)?.0,
            Self::LastQuoted => last_quoted(line)?,
            Self::After(phrase) => {
                let at = lower.find(phrase)? + phrase.len();
                first_name(&line[at..])?
            }
            Self::Before(phrase) => {
                let before = &line[..lower.find(phrase)?];
                before.split_whitespace().next_back().map(bare)?
            }
            Self::Option(start) => {
                let at = lower.find(start)?;
                line[at..].split_whitespace().next().map(bare)?
            }
        };
        (!name.is_empty() && name.len() <= LONGEST).then(|| name.to_owned())
    }
}

const QUOTES: [(char, char); 5] =
    [('\'', '\''), ('"', '"'), ('`', '`'), ('\u{2018}', '\u{2019}'), ('\u{201c}', '\u{201d}')];

fn closing(open: char) -> Option<char> {
    QUOTES.iter().find(|(opening, _)| *opening == open).map(|(_, closing)| *closing)
}

/// The first text in quotes, and what follows it.
fn quoted(line: &str) -> Option<(&str, &str)> {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        // An apostrophe inside a word quotes nothing.
        if let Some(close) = closing(c).filter(|_| !before.is_alphanumeric()) {
            let rest = &line[at + c.len_utf8()..];
            if let Some(end) = rest.find(close) {
                return Some((&rest[..end], &rest[end + close.len_utf8()..]));
            }
        }
        before = c;
    }
    None
}

fn last_quoted(mut line: &str) -> Option<&str> {
    let mut last = None;
    while let Some((name, rest)) = quoted(line) {
        (last, line) = (Some(name), rest);
    }
    last
}

/// The name a text starts with: in quotes, or a word.
fn first_name(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ':' | '(' | '='));
    let in_quotes = text.starts_with(|c| closing(c).is_some()).then(|| quoted(text)).flatten();
    match in_quotes {
        Some((name, _)) => Some(name),
        // Not in quotes, or in two kinds of them, as C libraries write it.
        None => text.split(|c: char| c.is_whitespace() || c == ',').next().map(bare),
    }
}

/// A word without the punctuation around it.
fn bare(word: &str) -> &str {
    let quote = |c: char| QUOTES.iter().any(|(open, close)| c == *open || c == *close);
    word.trim_matches(|c: char| quote(c) || matches!(c, ',' | ';' | ':' | '(' | ')'))
        .trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::Names::{After, Before, LastQuoted, Option as Flag, Quoted};

    #[test]
    fn names_are_found_quoted_or_not() {
        for (names, line, expected) in [
            (Quoted, "Cannot find package 'zod' imported from '/a'", Some("zod")),
            (Quoted, "it isn't there", None),
            (LastQuoted, "requires a different Python: 3.8 not in '>=3.10'", Some(">=3.10")),
            (After("no module named"), "No module named nope", Some("nope")),
            (After("no module named"), "No module named 'a.b'", Some("a.b")),
            (After("found for"), "No matching version found for x@99.99.99.", Some("x@99.99.99")),
            (After("libraries:"), "libraries: libfoo.so.1: cannot open", Some("libfoo.so.1")),
            (Before("was not found"), "Because nope was not found in", Some("nope")),
            (Before("was not found"), "was not found", None),
            (Flag("--allow-"), "run again with the --allow-env flag", Some("--allow-env")),
            (After("module"), "module \u{2018}n\u{f6}pe\u{2019} gone", Some("n\u{f6}pe")),
        ] {
            assert_eq!(names.find(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn an_absurd_name_is_none() {
        let line = format!("No module named '{}'", "x".repeat(5_000));
        assert_eq!(After("no module named").find(&line), None);
    }
}
