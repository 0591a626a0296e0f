//! The text of a client's file as named entries, or where and why it is broken.
//!
//! JSON is read with comments and trailing commas, which most clients allow; what else is wrong in
//! it is an error, because the client would not read it either. Of a file only the part that names
//! servers is kept: a client's settings hold much that is none of our business.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use jsonc_parser::ParseOptions;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, comments and trailing commas allowed.
    Json,
    /// TOML.
    Toml,
}

impl Format {
    /// The format a path's extension says: TOML, else JSON.
    pub(super) fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::Toml,
            _ => Self::Json,
        }
    }
}

/// What is wrong with a file's text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// Line and column, counted from 1, in characters.
    pub(super) position: Option<(usize, usize)>,
    /// What is wrong, a lowercase fragment.
    pub(super) message: String,
}

/// Named entries in the order of the file; a map by name, or a list whose items have a `name`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Entries(pub(super) Vec<(String, Value)>);

/// The parts of Claude Code's `~/.claude.json` and `.mcp.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClaudeCodeFile {
    #[serde(rename = "mcpServers")]
    pub(super) servers: Option<Entries>,
    /// By the folder of the project.
    pub(super) projects: Option<BTreeMap<String, ClaudeCodeProject>>,
}

/// What `~/.claude.json` keeps of one project.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClaudeCodeProject {
    #[serde(rename = "mcpServers")]
    pub(super) servers: Option<Entries>,
}

/// The parts of Codex's `config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CodexFile {
    #[serde(rename = "mcp_servers")]
    pub(super) servers: Option<Entries>,
    /// By the folder of the project.
    projects: Option<Value>,
}

impl CodexFile {
    /// Whether the user trusts the project in this folder, so that Codex reads its own file.
    pub(super) fn trusts(&self, folder: &Path) -> bool {
        let project = self.projects.as_ref().zip(folder.to_str());
        let level = project.and_then(|(projects, folder)| projects.get(folder)?.get("trust_level"));
        level.and_then(Value::as_str) == Some("trusted")
    }
}

macro_rules! one_key {
    ($($(#[$doc:meta])* $name:ident = $key:literal;)+) => { $(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            #[serde(rename = $key)]
            pub(super) servers: Option<Entries>,
        }
    )+ };
}

one_key! {
    /// Most clients.
    McpServersFile = "mcpServers";
    /// VS Code.
    ServersFile = "servers";
    /// Zed.
    ContextServersFile = "context_servers";
}

/// Reads the table `T` from the bytes of a file; an empty file is an empty table.
pub(super) fn parse<T: DeserializeOwned + Default>(
    bytes: &[u8],
    format: Format,
) -> Result<T, Broken> {
    parse_any::<Table<T>>(bytes, format).map(|table| table.0)
}

/// Reads a file that may be a list at its top.
pub(super) fn parse_any<T: DeserializeOwned + Default>(
    bytes: &[u8],
    format: Format,
) -> Result<T, Broken> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let readable = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        Broken {
            position: Some(position(&readable, readable.len())),
            message: "this is not UTF-8 text".to_owned(),
        }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    match format {
        Format::Json => parse_json(text),
        Format::Toml => parse_toml(text),
    }
}

fn parse_json<T: DeserializeOwned>(text: &str) -> Result<T, Broken> {
    let options = ParseOptions {
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
    jsonc_parser::parse_to_serde_value(text, &options).map_err(|error| Broken {
        position: Some((error.line_display(), error.column_display())),
        message: lowercase_first(&error.kind().to_string()),
    })
}

fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, Broken> {
    toml::from_str(text).map_err(|error| Broken {
        position: error.span().map(|span| position(text, span.start)),
        message: lowercase_first(&error.message().replace('\n', ", ")),
    })
}

/// Line and column, counted from 1, of the byte at `offset`.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

fn lowercase_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("servers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        // As in the clients' own readers, the last of two entries with one name counts.
        let mut entries = Map::new();
        while let Some((name, entry)) = map.next_entry::<String, Value>()? {
            entries.insert(name, entry);
        }
        Ok(Entries(entries.into_iter().collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element::<Value>()? {
            match entry.get("name").and_then(Value::as_str) {
                Some(name) => entries.push((name.to_owned(), entry)),
                None => return Err(de::Error::custom("each server of a list needs a `name`")),
            }
        }
        Ok(Entries(entries))
    }
}

/// A table and nothing else: a derived reader would take a list for one, field by field.
#[derive(Default)]
struct Table<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        deserializer.deserialize_any(TableVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_broken(text: &str, format: Format, position: (usize, usize), part: &str) {
        let broken = parse::<McpServersFile>(text.as_bytes(), format).unwrap_err();
        assert_eq!(broken.position, Some(position), "{broken:?}");
        assert!(broken.message.contains(part), "{broken:?}");
    }

    fn names(text: &str) -> Vec<String> {
        let file: McpServersFile = parse(text.as_bytes(), Format::Json).unwrap();
        let entries = file.servers.unwrap_or_default().0;
        entries.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn json_may_have_comments_trailing_commas_and_a_mark_at_its_start() {
        let text = "\u{feff}// mine\n{ /* all */ \"mcpServers\": { \"a\": { \"command\": \"x\", }, }, \"x\": [1], }";
        assert_eq!(names(text), ["a"]);
        assert_eq!(names(r#"{ "mcpServers": [ { "name": "a" }, { "name": "b" } ] }"#), ["a", "b"]);
        for nothing in ["", " \n", "{}", r#"{ "mcpServers": null }"#, r#"{ "mcpServers": {} }"#] {
            assert_eq!(names(nothing), [""; 0], "{nothing:?}");
        }
        assert_eq!(names(r#"{ "mcpServers": { "a": 1, "a": 2 } }"#), ["a"]);
    }

    #[test]
    fn what_is_broken_has_a_line_and_a_column() {
        use Format::{Json, Toml};
        check_broken(
            "{\n  \"mcpServers\": {\n    \"a\": { \"command\" \"x\" }\n  }\n}",
            Json,
            (3, 22),
            "colon",
        );
        check_broken("{ \"mcpServers\": { \"a\": {} \"b\": {} } }", Json, (1, 26), "comma");
        check_broken("{ \"mcpServers\": {", Json, (1, 18), "unterminated");
        check_broken("{ mcpServers: {} }", Json, (1, 3), "");
        check_broken("{ 'mcpServers': {} }", Json, (1, 3), "single");
        check_broken("{}\n{}", Json, (2, 1), "more than one");
        check_broken("{\n \"mcpServers\": \"x\" }", Json, (2, 16), "servers by name");
        check_broken("[]", Json, (1, 1), "expected a table");
        check_broken("a = 1\n[mcpServers.a\n", Toml, (2, 14), "");
        check_broken("a = 1\nmcpServers = 7\n", Toml, (2, 14), "servers by name");
    }

    #[test]
    fn bytes_that_are_no_text_are_placed_too() {
        let broken = parse::<McpServersFile>(b"{\n \"a\xff\": 1}", Format::Json).unwrap_err();
        assert_eq!((broken.position, broken.message.contains("UTF-8")), (Some((2, 4)), true));
        let utf16: Vec<u8> = "{ }".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(parse::<McpServersFile>(&utf16, Format::Json).is_err());
    }

    #[test]
    fn trust_of_a_project_is_read_from_codexs_own_file() {
        let text = "[projects.\"/src\"]\ntrust_level = \"trusted\"\n[projects.\"/other\"]\ntrust_level = \"untrusted\"\n";
        let file: CodexFile = parse(text.as_bytes(), Format::Toml).unwrap();
        assert!(file.trusts(Path::new("/src")));
        assert!(!file.trusts(Path::new("/other")) && !file.trusts(Path::new("/x")));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let text = format!(
                "{{\"mcpServers\":{{\"a\":{}1{}}}}}",
                open.repeat(100_000),
                close.repeat(100_000)
            );
            assert!(parse::<McpServersFile>(text.as_bytes(), Format::Json).is_err());
            assert!(parse_any::<Value>(text.as_bytes(), Format::Json).is_err());
        }
        let text = format!("mcpServers = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse::<McpServersFile>(text.as_bytes(), Format::Toml).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            text in "[\\[\\]{}\":,a-c0-9/*\\\\ \n=.'-]{0,120}",
        ) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                for format in [Format::Json, Format::Toml] {
                    let _ = parse::<McpServersFile>(bytes, format);
                    let _ = parse::<ClaudeCodeFile>(bytes, format);
                    let _ = parse::<CodexFile>(bytes, format);
                    let _ = parse_any::<Value>(bytes, format);
                    let _ = parse_any::<Entries>(bytes, format);
                }
            }
        }
    }
}
