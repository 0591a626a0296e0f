//! One file, read as far as its own text allows: format, keys, types, limits.
//!
//! Reading goes on after an error by leaving the faulty part out, so that a person corrects a file
//! once and not once per mistake. Settings read that way are never used.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use mcpmon_core::Settings;

use super::de::{self, ErrorKind};
use super::parse::{self, Format};
use super::problem::{ConfigError, Problem, describe};
use super::tree::{self, Node, Position, Step};
use crate::paths::Paths;

/// Larger files are refused.
const LARGEST: u64 = 8 * 1024 * 1024;

/// No more mistakes than this are told at once.
const MOST_PROBLEMS: usize = 50;

/// A file's settings, and where each of them stands.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file; `None` where there is none and every setting has its default.
    pub path: Option<PathBuf>,
    /// What it says.
    pub settings: Settings,
    tree: Node,
    /// Files whose change is a change of this document: it, and those that would be read before it.
    followed: Vec<PathBuf>,
}

impl Document {
    /// The settings where no file is read.
    pub fn without_file() -> Self {
        Self {
            path: None,
            settings: Settings::default(),
            tree: Node::empty(),
            followed: Vec::new(),
        }
    }

    /// Reads the file that is named, or the one that is found, or none.
    ///
    /// # Errors
    ///
    /// As [`Document::read`].
    pub fn find(named: Option<&Path>, paths: &Paths) -> Result<Self, ConfigError> {
        if let Some(path) = named {
            return Self::read(path);
        }
        let mut document = match paths.found_config() {
            Some(path) => Self::read(path)?,
            None => Self::without_file(),
        };
        document.followed.clone_from(&paths.config_candidates);
        Ok(document)
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it: unreadable, broken, unknown keys, wrong values.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let (format, text) = read_file(path)?;
        Self::parse(path, &text, format)
    }

    /// As [`Document::find`], but goes on after mistakes, which are given beside what could be
    /// read.
    pub(crate) fn find_in_part(
        named: Option<&Path>,
        paths: &Paths,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        let Some(path) = named.or(paths.found_config()) else {
            return Ok((Self::find(None, paths)?, Vec::new()));
        };
        let (format, text) = read_file(path)?;
        Self::parse_in_part(path, &text, format)
    }

    pub(crate) fn parse(path: &Path, text: &str, format: Format) -> Result<Self, ConfigError> {
        let (document, problems) = Self::parse_in_part(path, text, format)?;
        if problems.is_empty() { Ok(document) } else { Err(ConfigError::new(problems)) }
    }

    /// What can be read of a file, to look for mistakes in it alone, and those found so far.
    fn parse_in_part(
        path: &Path,
        text: &str,
        format: Format,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        let mut tree = parse::parse(text, format)
            .map_err(|error| Problem::at(path, error.at, error.message))?;
        let mut problems: Vec<Problem> = tree
            .duplicates()
            .into_iter()
            .map(|(key, first, again)| {
                let key = tree::spell(&key);
                let message =
                    format!("`{key}` stands here again, after line {}; keep one", first.line);
                Problem::at(path, again, message)
            })
            .collect();
        let settings = read_settings(path, &mut tree, &mut problems);
        let followed = vec![path.to_owned()];
        Ok((Self { path: Some(path.to_owned()), settings, tree, followed }, problems))
    }

    /// Whether its rules, routes, windows and dependencies fit together.
    ///
    /// # Errors
    ///
    /// Everything that does not.
    pub fn checked(&self) -> Result<(), ConfigError> {
        let problems = super::checks::problems(self);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
    }

    /// A problem with the value at a path such as `rules[0].when`.
    pub(crate) fn problem(&self, path: &[Step], message: impl Into<String>) -> Problem {
        self.problem_at(self.tree.locate(path), message)
    }

    /// A problem with the key at the end of a path.
    pub(crate) fn key_problem(&self, path: &[Step], message: impl Into<String>) -> Problem {
        self.problem_at(self.tree.locate_key(path), message)
    }

    fn problem_at(&self, at: Position, message: impl Into<String>) -> Problem {
        match &self.path {
            Some(path) => Problem::at(path, at, message),
            None => Problem { path: None, at: None, message: message.into() },
        }
    }

    /// `FILE:LINE:COL` of a value, for people.
    pub(crate) fn origin(&self, path: &[Step]) -> String {
        match &self.path {
            Some(file) => format!("{}:{}", file.display(), self.tree.locate_key(path)),
            None => "the command line".to_owned(),
        }
    }

    /// Files whose change is a change of this document.
    pub fn followed(&self) -> &[PathBuf] {
        &self.followed
    }

    /// Where relative paths in the file begin.
    pub fn directory(&self) -> &Path {
        match self.path.as_deref().and_then(Path::parent) {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

fn read_file(path: &Path) -> Result<(Format, String), ConfigError> {
    let Some(format) = Format::of(path) else {
        let message = "the name must end in .toml, .yaml, .yml, .json or .jsonc";
        return Err(Problem::of_file(path, message).into());
    };
    Ok((format, read_text(path)?))
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let fail = |message: String| ConfigError::from(Problem::of_file(path, message));
    let unreadable = |error: std::io::Error| fail(format!("cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if read as u64 > LARGEST {
        return Err(fail(format!("is larger than {LARGEST} bytes; is it the right file?")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()])
            .into_owned();
        let at = tree::LineIndex::new(&good).position(good.len());
        ConfigError::from(Problem::at(path, at, "this is not UTF-8; save the file as UTF-8"))
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn read_settings(path: &Path, tree: &mut Node, problems: &mut Vec<Problem>) -> Settings {
    let mut taken_out: Vec<(Position, String)> = Vec::new();
    loop {
        let error = match de::read::<Settings>(tree) {
            Ok(settings) => return settings,
            Err(error) => error,
        };
        // A key that is missing because its value was wrong was told of as that.
        let is_told = match &error.kind {
            ErrorKind::MissingKey(key) => {
                let table = tree.locate(&error.path);
                taken_out.iter().any(|(at, gone)| *at == table && gone == key)
            }
            _ => false,
        };
        if !is_told {
            problems.push(describe(path, tree, &error));
        }
        if let Some((Step::Key(key), parents)) = error.path.split_last() {
            taken_out.push((tree.locate(parents), key.clone()));
        }
        if problems.len() >= MOST_PROBLEMS || !tree.remove(&error.path) {
            return Settings::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, format: Format) -> String {
        match Document::parse(Path::new("mcpmon"), text, format) {
            Ok(document) => panic!("was read: {:?}", document.settings),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_the_way_out() {
        let text = r#"
check_interval = "5s"
[monitoring]
check_intervall = "30s"
health_check_timeout = "soon"
health_check_retries = 0
enabled = "yes"
[monitorin]
[data_collection]
export_format = "xml"
[performance_monitoring]
cpu_threshold = 180
[services.files]
comand = "npx"
args = "x"
[[rules]]
when = "true"
[[routes]]
handlers = ["ops"]
levels = ["eror"]
"#;
        insta::assert_snapshot!(problems(text, Format::Toml), @r#"
        mcpmon:2:1: unknown key `check_interval`; it belongs in `[monitoring]`
        mcpmon:4:1: unknown key `check_intervall` in `monitoring`; did you mean `check_interval`?
        mcpmon:5:24: `monitoring.health_check_timeout`: `soon` is not a duration such as "30s", "5m", "1h30m" or a number of seconds
        mcpmon:6:24: `monitoring.health_check_retries`: this must be at least 1
        mcpmon:7:11: `monitoring.enabled`: expected true or false, found the text "yes"
        mcpmon:8:2: unknown key `monitorin`; did you mean `monitoring`?
        mcpmon:10:17: `xml` cannot be used for `data_collection.export_format`; there is `json`, `jsonl`, `csv`
        mcpmon:12:17: `performance_monitoring.cpu_threshold`: this must be above 0 and at most 100, but is 180
        mcpmon:14:1: unknown key `comand` in `services.files`; did you mean `command`?
        mcpmon:15:8: `services.files.args`: expected a list, found the text "x"
        mcpmon:16:1: `rules[0]` lacks the key `name`; add it
        mcpmon:20:11: `eror` cannot be used for `routes[0].levels[0]`; did you mean `error`?
        "#);
    }

    #[test]
    fn yaml_and_json_say_it_too() {
        let yaml = "monitoring:\n  check_intervall: 30s\n  enabled: 3\n";
        let json = "{ \"monitoring\": {\n  \"check_intervall\": 30,\n  \"enabled\": 3 } }";
        insta::assert_snapshot!(problems(yaml, Format::Yaml), @r#"
        mcpmon:2:3: unknown key `check_intervall` in `monitoring`; did you mean `check_interval`?
        mcpmon:3:12: `monitoring.enabled`: expected true or false, found the number 3
        "#);
        insta::assert_snapshot!(problems(json, Format::Json), @r#"
        mcpmon:2:3: unknown key `check_intervall` in `monitoring`; did you mean `check_interval`?
        mcpmon:3:14: `monitoring.enabled`: expected true or false, found the number 3
        "#);
    }

    #[test]
    fn a_key_that_stands_twice_is_told() {
        let yaml = "services:\n  a: {url: x}\n  a: {url: y}\n";
        insta::assert_snapshot!(problems(yaml, Format::Yaml), @"mcpmon:3:3: `services.a` stands here again, after line 2; keep one");
        let toml = "[services.a]\nurl = 'x'\n[services.a]\nurl = 'y'\n";
        insta::assert_snapshot!(problems(toml, Format::Toml), @"mcpmon:3:11: `a` stands here again; keep one");
    }

    #[test]
    fn an_empty_section_in_yaml_is_its_defaults() {
        let document = Document::parse(Path::new("m"), "monitoring:\n", Format::Yaml).unwrap();
        assert_eq!(document.settings, Settings::default());
    }

    #[test]
    fn a_pasted_client_block_is_read() {
        let json = r#"{ "mcpServers": { "x": { "command": "npx", "whatever": 1 } } }"#;
        let document = Document::parse(Path::new("m.json"), json, Format::Json).unwrap();
        assert!(document.settings.mcp_servers.contains_key("x"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_with_a_place(
            text in "[\\[\\]{}\"':,a-e0-9=&*!|>#/.\\\\ \n-]{0,120}",
            line in "(monitoring|services|rules|x):? ?[\\[{]?[a-c\"':=, -]{0,20}[\\]}]?",
        ) {
            let whole = format!("{line}\n{text}");
            for text in [&text, &whole] {
                for format in [Format::Toml, Format::Yaml, Format::Json] {
                    match Document::parse(Path::new("m"), text, format) {
                        Ok(_) => {}
                        Err(error) => {
                            let said = error.to_string();
                            proptest::prop_assert!(said.contains("m:"), "{}", said);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_whose_value_is_wrong_is_not_said_to_be_missing_too() {
        let text = "[services.a]\ncommand = 'a'\n[services.a.remediation]\naction = 'reboot'\n\
                    [[rules]]\nname = 5\n[[rules]]\nwhen = 'true'\n";
        let told = problems(text, Format::Toml);
        assert_eq!(told.lines().count(), 3, "{told}");
        assert!(told.contains("4:10: `reboot` cannot be used"), "{told}");
        assert!(told.contains("mcpmon:7:1: ") && told.contains("lacks the key `name`"), "{told}");
    }
}
