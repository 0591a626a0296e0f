//! From a document to everything a command needs: services found, everything checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcpmon_alert::HandlerRegistry;
use mcpmon_collect::clients::{self, ClientKind, Discovery, FileOutcome, Search, SeenFile};
use mcpmon_collect::{EntryContext, EntryError, Environment, spec_from_entry};
use mcpmon_core::{Handler, ServiceName, ServiceSpec, Transport};

use super::document::Document;
use super::problem::{ConfigError, Problem, suggestion};
use super::secrets::{absolute, run_command};
use super::tree::{Position, Step};
use super::{checks, handlers, needs};
use crate::paths::Paths;

/// What a configuration is read in: the process's environment as a value, and the kinds of
/// handlers there are.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// mcpmon's own files.
    pub paths: Paths,
    /// Home, folder and variables.
    pub environment: Environment,
    /// Kinds of handlers.
    pub handlers: HandlerRegistry,
}

/// A configuration that is whole and valid, and the services it leads to.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the file says.
    pub document: Document,
    /// Every service, its own and those that were found.
    pub services: Vec<ServiceSpec>,
    /// Which of them nobody wrote for mcpmon and that would start a command, or send the user's
    /// variables to where a project's file says: to be used only after somebody agreed.
    pub needs_consent: BTreeSet<ServiceName>,
    /// What a person should be told although nothing stops.
    pub notes: Vec<String>,
    /// Files that were read or would be if they were there: a change of any is a new configuration.
    pub followed: Vec<PathBuf>,
    /// Where services were looked for besides the configuration.
    pub looked: Vec<PathBuf>,
}

impl Config {
    /// A configuration without a file and without services.
    pub fn empty() -> Self {
        Self {
            document: Document::without_file(),
            services: Vec::new(),
            needs_consent: BTreeSet::new(),
            notes: Vec::new(),
            followed: Vec::new(),
            looked: Vec::new(),
        }
    }

    /// Reads the named file, or the one that is found, or none, and everything it leads to. Where
    /// it names no services, those of every known client are found. Reads files; may block.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration.
    pub fn load(named: Option<&Path>, surroundings: &Surroundings) -> Result<Self, ConfigError> {
        Self::from_document(Document::find(named, &surroundings.paths)?, surroundings)
    }

    /// As [`Config::load`], and makes its handlers: everything that is wrong is told in one go, as
    /// far as one mistake does not hide another.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the configuration and its handlers.
    pub fn load_whole(
        named: Option<&Path>,
        surroundings: &Surroundings,
    ) -> Result<(Self, Vec<Arc<dyn Handler>>), ConfigError> {
        let (document, mut problems) = Document::find_in_part(named, &surroundings.paths)?;
        let vars = &surroundings.environment.vars;
        let handlers = handlers::build(&document, &surroundings.handlers, vars);
        // What was left out because it cannot be read would be missed by everything that names it.
        let config = match problems.is_empty() {
            true => Some(Self::from_document(document, surroundings)),
            false => None,
        };
        match (config, handlers) {
            (Some(Ok(config)), Ok(handlers)) => return Ok((config, handlers)),
            (config, handlers) => {
                let errors = [config.and_then(Result::err), handlers.err()];
                let found = errors.iter().flatten().flat_map(ConfigError::problems);
                problems.extend(found.cloned());
            }
        }
        Err(ConfigError::new(problems))
    }

    /// What a document leads to. Reads files; may block.
    ///
    /// # Errors
    ///
    /// Everything in the document that does not fit together.
    pub fn from_document(
        document: Document,
        surroundings: &Surroundings,
    ) -> Result<Self, ConfigError> {
        let mut problems = checks::problems(&document);
        let own = own_services(&document, surroundings, &mut problems);
        let clients = chosen_clients(&document, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigError::new(problems));
        }
        let followed = document.followed().to_vec();
        let mut config = Self { document, services: own, followed, ..Self::empty() };
        let imports = config.imports(surroundings);
        config.search(surroundings, |search| {
            imports.iter().for_each(|path| search.import(path, None));
        });
        let written = config.services.len();
        let found = config.search(surroundings, |search| search.clients(&clients));
        // Services that are kept keep their place, so what was found comes after them.
        config.needs_consent = config.services[written..]
            .iter()
            .filter(|service| needs_consent(service, &found.from_project))
            .map(|service| service.name.clone())
            .collect();
        let problems = needs::service_dependencies(&config.document, &config.services);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
    }

    /// Adds the services of files that were named by hand; one that cannot be read is an error.
    ///
    /// # Errors
    ///
    /// Every file that cannot be read.
    pub fn import(
        &mut self,
        files: &[PathBuf],
        surroundings: &Surroundings,
    ) -> Result<(), ConfigError> {
        let before = self.notes.len();
        let mut problems = Vec::new();
        let discovery = self.search(surroundings, |search| {
            files.iter().for_each(|path| search.import(path, None));
        });
        problems.extend(discovery.files.iter().filter_map(file_problem));
        self.notes.truncate(before);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::new(problems)) }
    }

    /// Adds one service more, under a name that is free.
    pub fn add(&mut self, mut service: ServiceSpec) {
        if self.services.iter().any(|known| known.same_server(&service)) {
            return;
        }
        let taken = |name: &str| self.services.iter().any(|known| known.name.as_str() == name);
        let wanted = service.name.to_string();
        let mut number = 1;
        while taken(service.name.as_str()) {
            number += 1;
            service.name = format!("{wanted} ({number})").into();
        }
        self.services.push(service);
    }

    /// Makes the handlers, or the console where the file names none. Reads secrets from where they
    /// are; may block.
    ///
    /// # Errors
    ///
    /// Every secret that cannot be read and every handler that cannot be made.
    pub fn handlers(
        &self,
        surroundings: &Surroundings,
    ) -> Result<Vec<Arc<dyn Handler>>, ConfigError> {
        handlers::build(&self.document, &surroundings.handlers, &surroundings.environment.vars)
    }

    fn imports(&self, surroundings: &Surroundings) -> Vec<PathBuf> {
        let directory = absolute(self.document.directory());
        let home = surroundings.environment.home.as_deref();
        let named = self.document.settings.discover.import.iter();
        named
            .map(|path| match (path.strip_prefix("~/"), home) {
                (Some(below), Some(home)) => home.join(below),
                _ => directory.join(path),
            })
            .collect()
    }

    /// Looks for more services, keeping those that are known, and notes what was passed over.
    fn search(
        &mut self,
        surroundings: &Surroundings,
        look: impl FnOnce(&mut Search<'_>),
    ) -> Discovery {
        let limits = self.document.settings.limits();
        let mut search = Search::new(&surroundings.environment, &limits);
        self.services.drain(..).for_each(|service| search.keep(service));
        look(&mut search);
        let mut discovery = search.finish();
        self.services = std::mem::take(&mut discovery.services);
        for file in &discovery.files {
            self.followed.push(file.path.clone());
            self.looked.push(file.path.clone());
            self.notes.extend(note(file));
        }
        discovery
    }
}

/// Whether using a discovered service does what somebody must have agreed to: a command runs as the
/// user, and a URL in the file of a project may be given the user's variables.
fn needs_consent(service: &ServiceSpec, from_project: &BTreeSet<ServiceName>) -> bool {
    let starts = matches!(service.transport, Transport::Stdio(_));
    starts || (from_project.contains(&service.name) && !service.secrets.is_empty())
}

/// Why a file was passed over, for people. A client's file that is not there is nothing to tell.
fn note(file: &SeenFile) -> Option<String> {
    match &file.outcome {
        FileOutcome::Broken(problem) => Some(format!("skipped {problem}")),
        FileOutcome::NotTrusted => Some(format!(
            "skipped `{}`: its client was not told to trust this project",
            file.path.display()
        )),
        FileOutcome::Absent if file.client.is_none() => {
            Some(format!("skipped `{}`: there is no such file", file.path.display()))
        }
        _ => None,
    }
}

/// Why a file that was named by hand cannot be used.
fn file_problem(file: &SeenFile) -> Option<Problem> {
    match &file.outcome {
        FileOutcome::Broken(problem) => Some(Problem {
            path: Some(problem.path.clone()),
            at: problem.position.map(|(line, column)| Position { line, column }),
            message: problem.message.clone(),
        }),
        FileOutcome::Absent => Some(Problem::of_file(&file.path, "there is no such file")),
        _ => None,
    }
}

fn own_services(
    document: &Document,
    surroundings: &Surroundings,
    problems: &mut Vec<Problem>,
) -> Vec<ServiceSpec> {
    let settings = &document.settings;
    let limits = settings.limits();
    let dir = absolute(document.directory());
    let vars = &surroundings.environment.vars;
    let mut services = Vec::new();
    for (name, entry) in &settings.services {
        let path: [Step; 2] = ["services".into(), name.as_str().into()];
        if let Err(message) = usable_name(name) {
            problems.push(document.key_problem(&path, message));
            continue;
        }
        let origin = document.origin(&path);
        let context = EntryContext { dir: &dir, vars, origin: &origin, run: &run_command };
        match spec_from_entry(name, entry, &limits, &context) {
            Ok(service) => services.push(read_from(document, service)),
            Err(error) => problems.push(entry_problem(document, name, &error)),
        }
    }
    let path: [Step; 1] = ["mcpServers".into()];
    let origin = document.origin(&path);
    let context = EntryContext { dir: &dir, vars, origin: &origin, run: &run_command };
    for service in clients::entries_from_json(&settings.mcp_servers, &limits, &context) {
        let path: [Step; 2] = ["mcpServers".into(), service.name.as_str().into()];
        if settings.services.contains_key(service.name.as_str()) {
            let message = format!("`services` has a `{}` too; names must be unique", service.name);
            problems.push(document.key_problem(&path, message));
        } else if let Err(message) = usable_name(service.name.as_str()) {
            problems.push(document.key_problem(&path, message));
        } else {
            services.push(read_from(document, service));
        }
    }
    services
}

/// The file alone: a line more above an entry must not make it another service.
fn read_from(document: &Document, service: ServiceSpec) -> ServiceSpec {
    let origin = document.path.as_deref().unwrap_or(Path::new("")).display().to_string();
    ServiceSpec { origin, ..service }
}

fn usable_name(name: &str) -> Result<(), &'static str> {
    const LONGEST: usize = 200;
    if name.trim().is_empty() {
        Err("a service needs a name")
    } else if name.chars().any(char::is_control) {
        Err("a service's name cannot hold control characters")
    } else if name.chars().count() > LONGEST {
        Err("a service's name can have 200 characters at most")
    } else {
        Ok(())
    }
}

/// Of an entry that contradicts itself, the second key is where a person looks.
fn entry_problem(document: &Document, name: &str, error: &EntryError) -> Problem {
    let entry = document.settings.services.get(name);
    let key = entry.and_then(|entry| match (&entry.command, &entry.url, entry.kind) {
        (Some(_), Some(_), _) => Some("url"),
        (_, _, Some(_)) => Some("type"),
        _ => None,
    });
    let mut at: Vec<Step> = vec!["services".into(), name.into()];
    at.extend(key.map(Step::from));
    document.key_problem(&at, error.to_string())
}

/// The clients whose files are read: those the file names, or all where it names no services.
fn chosen_clients(document: &Document, problems: &mut Vec<Problem>) -> Vec<ClientKind> {
    let settings = &document.settings;
    let mut clients = Vec::new();
    for (index, name) in settings.discover.clients.iter().enumerate() {
        match name.parse() {
            Ok(client) if !clients.contains(&client) => clients.push(client),
            Ok(_) => {}
            Err(_) => {
                let path: [Step; 3] = ["discover".into(), "clients".into(), index.into()];
                let advice = suggestion(name, ClientKind::ALL.map(ClientKind::as_str));
                let message = format!("there is no client `{name}`{advice}");
                problems.push(document.problem(&path, message));
            }
        }
    }
    let names_nothing = settings.services.is_empty()
        && settings.mcp_servers.is_empty()
        && settings.discover.clients.is_empty()
        && settings.discover.import.is_empty();
    if names_nothing { ClientKind::ALL.to_vec() } else { clients }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::Format;
    use mcpmon_collect::{Os, Variables};
    use mcpmon_core::FailureCode;

    struct Home {
        dir: tempfile::TempDir,
    }

    impl Home {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        }

        fn surroundings(&self) -> Surroundings {
            let home = self.dir.path().to_owned();
            Surroundings {
                paths: Paths {
                    config_candidates: vec![home.join("mcpmon.toml")],
                    state_dir: home.join("state"),
                },
                environment: Environment {
                    os: Os::Linux,
                    home: Some(home.clone()),
                    cwd: home,
                    vars: Variables::new([("SET", "hunter22")]),
                },
                handlers: HandlerRegistry::new(),
            }
        }

        fn load(&self) -> Result<Config, ConfigError> {
            Config::load(None, &self.surroundings())
        }
    }

    fn names(config: &Config) -> Vec<&str> {
        config.services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn without_a_configuration_every_client_is_looked_at() {
        let home = Home::new();
        home.file(".cursor/mcp.json", r#"{"mcpServers": {"files": {"command": "npx"}}}"#);
        let config = home.load().unwrap();
        assert_eq!(names(&config), ["files"]);
        assert!(config.needs_consent.contains("files"));
        assert!(config.looked.len() > 5, "{:?}", config.looked);
    }

    #[test]
    fn services_of_the_file_are_the_users_word_and_no_client_is_looked_at() {
        let home = Home::new();
        home.file(".cursor/mcp.json", r#"{"mcpServers": {"files": {"command": "npx"}}}"#);
        home.file("more.json", r#"{"mcpServers": {"more": {"url": "http://127.0.0.1/mcp"}}}"#);
        home.file(
            "mcpmon.toml",
            "[discover]\nimport = ['more.json', 'gone.json']\n[services.own]\ncommand = 'run'\n",
        );
        let config = home.load().unwrap();
        assert_eq!(names(&config), ["own", "more"]);
        assert!(config.needs_consent.is_empty());
        assert!(config.notes.iter().any(|note| note.contains("gone.json")), "{:?}", config.notes);
        assert!(config.followed.iter().any(|path| path.ends_with("more.json")));
        assert!(config.services[0].origin.ends_with("mcpmon.toml"));
    }

    #[test]
    fn a_line_more_above_an_entry_makes_no_other_service_of_it() {
        let home = Home::new();
        let text = "[services.a]\ncommand = 'x'\n[mcpServers.b]\ncommand = 'y'\n";
        home.file("mcpmon.toml", text);
        let before = home.load().unwrap().services;
        home.file("mcpmon.toml", &format!("# a comment\n\n{text}"));
        assert_eq!(home.load().unwrap().services, before);
    }

    #[test]
    fn only_the_clients_that_are_named_are_looked_at_and_one_server_is_one_service() {
        let home = Home::new();
        let entry = r#"{"mcpServers": {"files": {"command": "npx", "args": ["a"]}}}"#;
        home.file(".cursor/mcp.json", entry);
        home.file(".gemini/settings.json", r#"{"mcpServers": {"other": {"command": "uvx"}}}"#);
        home.file(
            "mcpmon.toml",
            "[discover]\nclients = ['cursor']\n[services.mine]\ncommand = 'npx'\nargs = ['a']\n",
        );
        let config = home.load().unwrap();
        assert_eq!(names(&config), ["mine"]);
        assert!(config.needs_consent.is_empty());
        home.file("mcpmon.toml", "[discover]\nclients = ['gemini-cli']\n");
        assert_eq!(names(&home.load().unwrap()), ["other"]);
    }

    #[test]
    fn a_project_gets_no_variable_of_the_users_without_consent() {
        let home = Home::new();
        home.file(
            ".mcp.json",
            r#"{"mcpServers": {"plain": {"type": "http", "url": "http://127.0.0.1/mcp"},
                "asks": {"type": "http", "url": "http://127.0.0.1/${SET}"}}}"#,
        );
        let config = home.load().unwrap();
        assert_eq!(config.services.len(), 2);
        assert_eq!(config.needs_consent, ["asks".into()].into());
    }

    #[test]
    fn an_unset_variable_makes_one_service_unknown_and_stops_nothing_else() {
        let home = Home::new();
        home.file(
            "mcpmon.toml",
            "[services.a]\nurl = 'http://127.0.0.1/${UNSET}'\n\
             [services.b]\nurl = 'http://127.0.0.1/${SET}'\n",
        );
        let config = home.load().unwrap();
        let invalid = config.services[0].invalid.as_ref().unwrap();
        assert_eq!(invalid.code, FailureCode::ConfigurationInvalid);
        assert!(config.services[1].invalid.is_none());
    }

    #[test]
    fn contradictions_are_told_with_their_place() {
        let text = r#"
[discover]
clients = ["cursor", "clade-code"]
[services.both]
command = "npx"
url = "http://127.0.0.1/mcp"
[services.neither]
[services.odd]
type = "stdio"
url = "http://127.0.0.1/mcp"
[services.""]
url = "http://127.0.0.1/mcp"
[services.twice]
url = "http://127.0.0.1/mcp"
[mcpServers.twice]
url = "http://127.0.0.1/mcp"
"#;
        let document = Document::parse(Path::new("m.toml"), text, Format::Toml).unwrap();
        let error = Config::from_document(document, &Home::new().surroundings()).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @r#"
        m.toml:3:22: there is no client `clade-code`; did you mean `claude-code`?
        m.toml:6:1: service `both`: it has both `command` and `url`; keep the one it is reached by
        m.toml:7:11: service `neither`: it has neither `command` nor `url`; give the one it is reached by
        m.toml:9:1: service `odd`: its `type` is reached by `command`, but it has `url`
        m.toml:11:11: a service needs a name
        m.toml:15:13: `services` has a `twice` too; names must be unique
        "#);
    }

    #[test]
    fn a_file_named_by_hand_must_be_readable() {
        let home = Home::new();
        let broken = home.file("broken.json", "{\n  \"mcpServers\": {,}\n}");
        let mut config = Config::empty();
        let error = config.import(&[broken, "gone.json".into()], &home.surroundings()).unwrap_err();
        assert_eq!(error.problems().len(), 2, "{error}");
        assert!(error.to_string().contains("broken.json:2:"), "{error}");
    }

    #[test]
    fn ad_hoc_services_of_one_name_are_told_apart() {
        let mut config = Config::empty();
        config.add(ServiceSpec::stdio("npx", "npx", ["a"]));
        config.add(ServiceSpec::stdio("npx", "npx", ["b"]));
        config.add(ServiceSpec::stdio("npx", "npx", ["b"]));
        assert_eq!(names(&config), ["npx", "npx (2)"]);
    }
}
