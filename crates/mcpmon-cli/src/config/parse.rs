//! Text in one of three formats to one tree.

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::tree::{Entry, LineIndex, Node, Position, Value};

/// Deeper nesting than this is refused: no setting needs it, and readers recurse.
const DEEPEST: usize = 64;

/// More values than this are refused; YAML's aliases could otherwise fill any memory.
const MOST_NODES: usize = 200_000;

/// Which language a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Toml,
    Yaml,
    /// JSON, with comments and trailing commas allowed.
    Json,
}

impl Format {
    /// By extension; TOML where there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let Some(extension) = path.extension() else {
            return Some(Self::Toml);
        };
        match extension.to_string_lossy().to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" | "jsonc" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The text breaks the rules of its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl SyntaxError {
    fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    fn too_deep(at: Position) -> Self {
        Self::new(at, format!("nested more than {DEEPEST} levels deep"))
    }
}

/// Parses a whole file.
pub(crate) fn parse(text: &str, format: Format) -> Result<Node, SyntaxError> {
    match format {
        Format::Toml => toml(text),
        Format::Yaml => yaml(text),
        Format::Json => json(text),
    }
}

fn toml(text: &str) -> Result<Node, SyntaxError> {
    let lines = LineIndex::new(text);
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let message = match (error.message(), text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("`{key}` stands here again; keep one"),
            (message, _) => message.replace('\n', "; "),
        };
        SyntaxError::new(lines.position(span.start), message)
    })?;
    let at = Position::START;
    toml_table(table.get_ref(), at, &lines, 0)
}

fn toml_table(
    table: &toml::de::DeTable<'_>,
    at: Position,
    lines: &LineIndex<'_>,
    depth: usize,
) -> Result<Node, SyntaxError> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let start = lines.position(value.span().start);
        entries.push(Entry {
            key: key.get_ref().to_string(),
            at: lines.position(key.span().start),
            node: toml_value(value.get_ref(), start, lines, depth + 1)?,
        });
    }
    Ok(Node::new(at, Value::Table(entries)))
}

fn toml_value(
    value: &toml::de::DeValue<'_>,
    at: Position,
    lines: &LineIndex<'_>,
    depth: usize,
) -> Result<Node, SyntaxError> {
    use toml::de::DeValue;
    if depth > DEEPEST {
        return Err(SyntaxError::too_deep(at));
    }
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| SyntaxError::new(at, format!("`{number}` is too large a number")))?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map(Value::Float)
            .map_err(|_| SyntaxError::new(at, format!("`{number}` is not a number")))?,
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(moment) => Value::Text(moment.to_string()),
        DeValue::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for item in items.iter() {
                let start = lines.position(item.span().start);
                list.push(toml_value(item.get_ref(), start, lines, depth + 1)?);
            }
            Value::List(list)
        }
        DeValue::Table(table) => return toml_table(table, at, lines, depth),
    };
    Ok(Node::new(at, value))
}

fn json(text: &str) -> Result<Node, SyntaxError> {
    let lines = LineIndex::new(text);
    let options = jsonc_parser::ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed =
        jsonc_parser::parse_to_ast(text, &Default::default(), &options).map_err(|error| {
            SyntaxError::new(lines.position(error.range().start), error.kind().to_string())
        })?;
    match &parsed.value {
        Some(value) => json_value(value, &lines, 0),
        None => Ok(Node::empty()),
    }
}

fn json_value(
    value: &jsonc_parser::ast::Value<'_>,
    lines: &LineIndex<'_>,
    depth: usize,
) -> Result<Node, SyntaxError> {
    use jsonc_parser::ast::Value as Json;
    use jsonc_parser::common::Ranged as _;
    let at = lines.position(value.start());
    if depth > DEEPEST {
        return Err(SyntaxError::too_deep(at));
    }
    let value = match value {
        Json::NullKeyword(_) => Value::Null,
        Json::BooleanLit(literal) => Value::Bool(literal.value),
        Json::StringLit(literal) => Value::Text(literal.value.to_string()),
        Json::NumberLit(literal) => number(literal.value).ok_or_else(|| {
            SyntaxError::new(at, format!("`{}` is not a number that can be used", literal.value))
        })?,
        Json::Array(array) => Value::List(
            array
                .elements
                .iter()
                .map(|item| json_value(item, lines, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Json::Object(object) => {
            let entry = |property: &jsonc_parser::ast::ObjectProp<'_>| {
                Ok(Entry {
                    key: property.name.as_str().to_owned(),
                    at: lines.position(property.name.start()),
                    node: json_value(&property.value, lines, depth + 1)?,
                })
            };
            Value::Table(object.properties.iter().map(entry).collect::<Result<_, _>>()?)
        }
    };
    Ok(Node::new(at, value))
}

fn number(text: &str) -> Option<Value> {
    if let Ok(whole) = text.parse() {
        return Some(Value::Integer(whole));
    }
    text.parse().ok().filter(|float: &f64| float.is_finite()).map(Value::Float)
}

fn yaml(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = YamlReader {
        parser: Parser::new_from_str(text),
        anchors: std::collections::HashMap::new(),
        nodes: 0,
    };
    let mut document = None;
    loop {
        let (event, at) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if document.is_some() => {
                return Err(SyntaxError::new(at, "a second document; give one per file"));
            }
            event => document = Some(reader.node(event, at, 0)?),
        }
    }
    Ok(document.filter(|node| node.value != Value::Null).unwrap_or_else(Node::empty))
}

struct YamlReader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: std::collections::HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> YamlReader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Position), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, position(&span.start))),
            Some(Err(error)) => Err(SyntaxError::new(position(error.marker()), error.info())),
            None => Ok((Event::StreamEnd, Position::START)),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Position, depth: usize) -> Result<Node, SyntaxError> {
        if depth > DEEPEST {
            return Err(SyntaxError::too_deep(at));
        }
        self.count(1, at)?;
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let Some(mut node) = self.anchors.get(&anchor).cloned() else {
                    return Err(SyntaxError::new(at, "an alias inside its own anchor"));
                };
                self.count(size(&node), at)?;
                node.at = at;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = if plain { scalar(&text) } else { Value::Text(text.into_owned()) };
                (anchor, value)
            }
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(depth)?),
            _ => return Err(SyntaxError::new(at, "a value is missing here")),
        };
        let node = Node::new(at, value);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(items));
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            let (event, at) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Table(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(SyntaxError::new(at, "a key must be plain text")),
            };
            let (event, value_at) = self.next()?;
            entries.push(Entry { key, at, node: self.node(event, value_at, depth + 1)? });
        }
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MOST_NODES {
            return Err(SyntaxError::new(at, format!("more than {MOST_NODES} values")));
        }
        Ok(())
    }
}

fn position(marker: &saphyr_parser::Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Table(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
        _ => 0,
    }
}

/// A plain scalar by YAML's core schema, without its octal numbers (`010` is ten to everyone).
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let numeric = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if numeric && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c)) {
        number(text).unwrap_or_else(|| Value::Text(text.to_owned()))
    } else {
        Value::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::read_path;

    #[track_caller]
    fn at(text: &str, format: Format, path: &str, line: usize, column: usize) {
        let node = parse(text, format).unwrap();
        let path = read_path(path);
        assert!(node.get(&path).is_some(), "{path:?} is not in {node:?}");
        assert_eq!(node.locate(&path), Position { line, column });
    }

    #[test]
    fn every_format_knows_where_a_value_stands() {
        at("[a]\nb = 'x'\n", Format::Toml, "a.b", 2, 5);
        at("a.b = 'x'\n", Format::Toml, "a.b", 1, 7);
        at("[[r]]\nn=1\n[[r]]\nn=2\n", Format::Toml, "r[1].n", 4, 3);
        at("a:\n  b: x\n", Format::Yaml, "a.b", 2, 6);
        at("r:\n  - n: 1\n  - n: 2\n", Format::Yaml, "r[1].n", 3, 8);
        at("{\n  // c\n  \"a\": { \"b\": 1, },\n}", Format::Json, "a.b", 3, 15);
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let toml = "[a]\nn = 1\nf = 1.5\nt = true\ns = '7'\nl = [1, 'x']\n";
        let yaml = "a:\n  n: 1\n  f: 1.5\n  t: true\n  s: '7'\n  l: [1, x]\n";
        let json = r#"{"a": {"n": 1, "f": 1.5, "t": true, "s": "7", "l": [1, "x"]}}"#;
        let read = |text, format| -> serde_json::Value {
            let node = parse(text, format).unwrap();
            super::super::de::read(&node).unwrap()
        };
        let expected: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read(toml, Format::Toml), expected);
        assert_eq!(read(yaml, Format::Yaml), expected);
        assert_eq!(read(json, Format::Json), expected);
    }

    #[track_caller]
    fn fails(text: &str, format: Format, line: usize, word: &str) {
        let error = parse(text, format).unwrap_err();
        assert_eq!(error.at.line, line, "{error:?}");
        assert!(error.message.contains(word), "{error:?}");
    }

    #[test]
    fn broken_text_says_where() {
        fails("a = 1\nb = \n", Format::Toml, 2, "");
        fails("a = 1\na = 2\n", Format::Toml, 2, "again");
        fails("a: 1\nb: [1\n", Format::Yaml, 3, "");
        fails("a: &x [*x]\n", Format::Yaml, 1, "alias");
        fails("{\n \"a\": }", Format::Json, 2, "");
        fails("a: 1\n---\nb: 2\n", Format::Yaml, 3, "second document");
    }

    #[test]
    fn aliases_cannot_grow_without_bound() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = level - 1;
            let list = vec![format!("*a{before}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        fails(&text, Format::Yaml, 6, "values");
    }

    #[test]
    fn an_empty_file_is_an_empty_table() {
        for (text, format) in [("", Format::Toml), ("# x\n", Format::Yaml), ("// x", Format::Json)]
        {
            assert_eq!(parse(text, format).unwrap().value, Value::Table(vec![]));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let text = format!("a = {}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(&text, Format::Toml).is_err());
        let text = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(parse(&text, Format::Yaml).is_err());
        assert!(parse(&text, Format::Json).is_err());
    }
}
