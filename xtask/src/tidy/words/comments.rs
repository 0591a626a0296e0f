//! The comments of a Rust file, which a parser drops.
//!
//! A tokenizer that knows no more of Rust than is needed to see that a `//` in a literal begins
//! no comment: strings, raw strings, characters, lifetimes and nested block comments.

/// What one line of a file has of a comment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommentLine<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    /// With its `//` or `/*`, without the blanks around it.
    pub(super) text: &'a str,
}

/// Returns the comments of a file line by line: a block comment of three lines is three of them.
pub(super) fn list_comment_lines(text: &str) -> Vec<CommentLine<'_>> {
    let mut comments = Vec::new();
    let mut cursor = Cursor { text, at: 0 };
    let mut line = 1;
    let mut counted_to = 0;
    while let Some(token) = cursor.next_token() {
        if token.is_comment {
            line += count_newlines(&text[counted_to..token.start]);
            counted_to = token.start;
            let whole = &text[token.start..cursor.at];
            comments.extend(
                whole
                    .lines()
                    .enumerate()
                    .map(|(offset, text)| CommentLine { line: line + offset, text: text.trim() })
                    .filter(|comment| !comment.text.is_empty()),
            );
        }
    }
    comments
}

fn count_newlines(text: &str) -> usize {
    text.bytes().filter(|&byte| byte == b'\n').count()
}

/// A piece of the text that ends where the cursor is.
struct Token {
    start: usize,
    is_comment: bool,
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    /// Moves past the next literal, comment, identifier or single character.
    fn next_token(&mut self) -> Option<Token> {
        let start = self.at;
        let rest = &self.text[start..];
        let first = rest.chars().next()?;
        let is_comment = rest.starts_with("//") || rest.starts_with("/*");
        self.at += if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            measure_block_comment(rest)
        } else if first == '"' {
            measure_quoted(rest, b'"')
        } else if first == '\'' {
            measure_character(rest)
        } else if is_of_identifier(first) {
            let identifier = rest.find(|c| !is_of_identifier(c)).unwrap_or(rest.len());
            measure_raw_string(rest, identifier).unwrap_or(identifier)
        } else {
            first.len_utf8()
        };
        Some(Token { start, is_comment })
    }
}

fn is_of_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the bytes up to the end of a comment that may have others inside.
fn measure_block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Returns the bytes up to the quote that is not escaped and ends the literal `rest` begins with.
fn measure_quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Returns the bytes of `'x'` or `'\n'`, and of the quote alone where it begins a lifetime.
fn measure_character(rest: &str) -> usize {
    let mut characters = rest[1..].chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => measure_quoted(rest, b'\''),
        (Some(character), Some('\'')) => 2 + character.len_utf8(),
        _ => 1,
    }
}

/// Returns the bytes of the raw string that `rest` begins with, if its first `prefix` bytes are
/// the letters of one. `r#type` is none.
fn measure_raw_string(rest: &str, prefix: usize) -> Option<usize> {
    if !matches!(&rest[..prefix], "r" | "br" | "cr") {
        return None;
    }
    let after = &rest[prefix..];
    let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
    let inside = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &after[..hashes]);
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(prefix + hashes + 1 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, comments: &[(usize, &str)]) {
        let found: Vec<_> = list_comment_lines(text).iter().map(|c| (c.line, c.text)).collect();
        assert_eq!(found, comments, "in {text}");
    }

    #[test]
    fn line_comments_are_found_wherever_they_begin() {
        check("//! a\n\n/// b\nfn f() {} // c\n", &[(1, "//! a"), (3, "/// b"), (4, "// c")]);
        check("// no newline at the end", &[(1, "// no newline at the end")]);
    }

    #[test]
    fn block_comments_nest_and_count_line_by_line() {
        check(
            "/* a\n b /* c */\n\n d */ fn f() {} // e",
            &[(1, "/* a"), (2, "b /* c */"), (4, "d */"), (4, "// e")],
        );
        check("/* never closed\n", &[(1, "/* never closed")]);
    }

    #[test]
    fn a_literal_has_no_comments() {
        for literal in [
            r#""http://a""#,
            r#""\" // a""#,
            r#"b"// a""#,
            r#"r"\""#,
            r###"r#"" // a"#"###,
            r###"br##"/* "# // a"##"###,
            r#"'"'"#,
            r"'\''",
            r"b'\\'",
            "'é'",
        ] {
            check(&format!("f({literal}); // b"), &[(1, "// b")]);
        }
    }

    #[test]
    fn lifetimes_and_raw_identifiers_open_no_literal() {
        check("fn f<'a>(x: &'a str) -> &'a str { r#type } // b", &[(1, "// b")]);
        check("let bar = 1; 'r: loop { break 'r; } // b", &[(1, "// b")]);
        check("let x = '_'; let y = \"\u{fc}\"; // b", &[(1, "// b")]);
    }
}
