//! Files of `NAME=value` lines (`envFile`, `env_file`), as editors and containers read them.

/// Reads the lines that set a variable; comments, empty lines and what sets nothing are passed
/// over, as the programs do that made this format.
pub(crate) fn parse(text: &str) -> Vec<(String, String)> {
    text.trim_start_matches('\u{feff}').lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let is_name = !name.is_empty() && !name.starts_with('#') && !name.contains(char::is_whitespace);
    is_name.then(|| (name.to_owned(), unquoted(value.trim())))
}

/// A quoted value as it is (in double quotes with its escapes), a bare one up to a comment.
fn unquoted(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'')
        && let Some(end) = inner.find('\'')
    {
        return inner[..end].to_owned();
    }
    if let Some(inner) = value.strip_prefix('"')
        && let Some(text) = double_quoted(inner)
    {
        return text;
    }
    let comment = value.find(" #").unwrap_or(value.len());
    value[..comment].trim_end().to_owned()
}

fn double_quoted(inner: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                other => out.push(other),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_set_variables_as_people_write_them() {
        let text = "\u{feff}# a comment\nA=1\n\nexport B = two words # why\r\nC='#x'y\nD=\"a\\n\\\"b\\\"\"\n\
                    =no\nno\nE=\nF=\"open\nG=a#b\nbad name=1\n#H=1\nURL=postgres://u:p@h/d?x=1";
        let got = parse(text);
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "#x"),
            ("D", "a\n\"b\""),
            ("E", ""),
            ("F", "\"open"),
            ("G", "a#b"),
            ("URL", "postgres://u:p@h/d?x=1"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(got, expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            for (name, _) in parse(&text) {
                proptest::prop_assert!(!name.is_empty());
            }
        }
    }
}
