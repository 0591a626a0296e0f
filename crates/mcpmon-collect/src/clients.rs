//! Finds MCP servers in the configuration files of their clients.
//!
//! Reading never starts anything and never changes a file. What a client would pass to its server
//! is what the service here has; an entry that cannot be used becomes a service that says why, and
//! a file that cannot be read is named and passed over. The work is done by functions of a file's
//! bytes and an [`Environment`]; only [`Search`] opens files.

mod document;
mod fields;
mod kind;
mod roster;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use mcpmon_core::service::ServiceLimits;
use mcpmon_core::settings::TransportKind;
use mcpmon_core::{ServiceName, ServiceSpec};
use serde_json::{Map, Value};

use crate::entry::expand::{Surroundings, Syntax};
use crate::entry::{EntryContext, Unread, read_bytes, read_capped};
use crate::environment::Environment;
use document::{Broken, ClaudeCodeFile, CodexFile, Entries, Format};
use fields::Reading;
pub use kind::{ClientKind, UnknownClient};
use kind::{Dialect, Place, project_of};
use roster::{Roster, Tag};

/// Largest file that is read.
const LARGEST_FILE: u64 = 4 << 20;

/// Claude Code keeps the history of all projects in the file that names servers, and of that only
/// the servers are kept in memory.
const LARGEST_CLAUDE_CODE_FILE: u64 = 64 << 20;

/// A file that could not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// Line and column, counted from 1, where the text is wrong.
    pub position: Option<(usize, usize)>,
    /// What is wrong, a lowercase fragment.
    pub message: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.path.display())?;
        if let Some((line, column)) = self.position {
            write!(f, " line {line}, column {column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for FileProblem {}

/// What became of a file that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileOutcome {
    /// It names so many servers.
    Found(usize),
    /// It is not there. It may come, so it is worth following.
    Absent,
    /// It belongs to a project the user has not told its client to trust.
    NotTrusted,
    /// It was passed over.
    Broken(FileProblem),
}

/// A file that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Where.
    pub path: PathBuf,
    /// Whose; `None` for an imported file that is no client's own.
    pub client: Option<ClientKind>,
    /// What became of it.
    pub outcome: FileOutcome,
}

/// What was found, and where it was looked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Discovery {
    /// Each server once, every name once: those kept first, then in the order of the files.
    pub services: Vec<ServiceSpec>,
    /// The services that only files of the current folder name: whoever wrote the folder chose
    /// what they run and to whom they send the user's variables, so ask before contacting them.
    pub from_project: BTreeSet<ServiceName>,
    /// Every file looked for, those that are not there too.
    pub files: Vec<SeenFile>,
}

impl Discovery {
    /// The files that were passed over, and why.
    pub fn problems(&self) -> impl Iterator<Item = &FileProblem> {
        self.files.iter().filter_map(|file| match &file.outcome {
            FileOutcome::Broken(problem) => Some(problem),
            _ => None,
        })
    }
}

/// Looks for the servers of these clients. Reads files; may block.
pub fn discover(
    environment: &Environment,
    clients: &[ClientKind],
    limits: &ServiceLimits,
) -> Discovery {
    let mut search = Search::new(environment, limits);
    search.clients(clients);
    search.finish()
}

/// The services one file names: any client's file, whose format is told from `client`, else from
/// its path and top key. Reads that file and those its entries name; may block.
///
/// # Errors
///
/// When the file is missing, too large, not text, broken, or names servers in no known way.
pub fn read_file(
    path: &Path,
    client: Option<ClientKind>,
    environment: &Environment,
    limits: &ServiceLimits,
) -> Result<Vec<ServiceSpec>, FileProblem> {
    let mut search = Search::new(environment, limits);
    search.import(path, client);
    let discovery = search.finish();
    match discovery.files.into_iter().next().map(|file| file.outcome) {
        Some(FileOutcome::Broken(problem)) => Err(problem),
        Some(FileOutcome::Absent) => Err(FileProblem {
            path: path.to_owned(),
            position: None,
            message: "there is no such file".to_owned(),
        }),
        _ => Ok(discovery.services),
    }
}

/// The services of an `mcpServers` block inside our own configuration. Reads the files its entries
/// name; may block.
pub fn entries_from_json(
    map: &Map<String, Value>,
    limits: &ServiceLimits,
    context: &EntryContext<'_>,
) -> Vec<ServiceSpec> {
    let around = Surroundings {
        vars: context.vars,
        home: None,
        folder: context.dir,
        read: &read_capped,
        filled_in: Cell::new(0),
    };
    let reading = Reading {
        dialect: Dialect::new(Syntax::Unknown),
        limits,
        around: &around,
        file: context.origin,
        origin: context.origin,
        cwd: None,
    };
    map.iter().map(|(name, entry)| reading.service(name, entry)).collect()
}

/// Gathers services from several places into one list without doubles.
#[derive(Debug)]
pub struct Search<'a> {
    environment: &'a Environment,
    limits: &'a ServiceLimits,
    roster: Roster,
    files: Vec<SeenFile>,
}

impl<'a> Search<'a> {
    /// A search that has found nothing yet.
    pub fn new(environment: &'a Environment, limits: &'a ServiceLimits) -> Self {
        Self { environment, limits, roster: Roster::default(), files: Vec::new() }
    }

    /// Puts a service of our own configuration on the list. It keeps its name, and what is found
    /// later for the same server adds only its origin. Keep all before anything is looked for.
    pub fn keep(&mut self, spec: ServiceSpec) {
        self.roster.keep(spec);
    }

    /// Looks into the files of these clients. Reads files; may block.
    pub fn clients(&mut self, clients: &[ClientKind]) {
        for client in clients {
            // Which projects Codex may read the files of stands in the user's own file.
            let mut trusted = *client != ClientKind::Codex;
            for place in client.places(self.environment) {
                let outcome = self.look(*client, &place, &mut trusted);
                self.note(place.path, Some(*client), outcome);
            }
        }
    }

    /// Looks into one file, in any client's format: that of `client`, else the one its path and
    /// top key tell. Reads files; may block.
    pub fn import(&mut self, path: &Path, client: Option<ClientKind>) {
        let path = self.environment.cwd.join(path);
        let client = client.or_else(|| ClientKind::of_path(&path));
        let outcome = match (client, self.read(&path, client)) {
            (_, Err(outcome)) => outcome,
            (Some(client), Ok(bytes)) => {
                match self.take_clients(client, &path, &bytes, self.owner(&path)) {
                    // Named by hand, so it is meant to name servers, be it under another client's key.
                    FileOutcome::Found(0) => self.take_unknown(&path, &bytes),
                    outcome => outcome,
                }
            }
            (None, Ok(bytes)) => self.take_unknown(&path, &bytes),
        };
        self.note(path, client, outcome);
    }

    /// What was found.
    pub fn finish(self) -> Discovery {
        let (services, from_project) = self.roster.finish();
        Discovery { services, from_project, files: self.files }
    }

    fn note(&mut self, path: PathBuf, client: Option<ClientKind>, outcome: FileOutcome) {
        self.files.push(SeenFile { path, client, outcome });
    }

    fn look(&mut self, client: ClientKind, place: &Place, trusted: &mut bool) -> FileOutcome {
        let bytes = match self.read(&place.path, Some(client)) {
            Ok(bytes) => bytes,
            Err(outcome) => return outcome,
        };
        if client == ClientKind::Codex && !place.in_project {
            let file = document::parse::<CodexFile>(&bytes, Format::Toml);
            *trusted = file.is_ok_and(|file| file.trusts(&self.environment.cwd));
        }
        if place.in_project && !*trusted {
            return FileOutcome::NotTrusted;
        }
        let folder = place.in_project.then_some(self.environment.cwd.as_path());
        self.take_clients(
            client,
            &place.path,
            &bytes,
            Owner { folder, in_project: place.in_project },
        )
    }

    fn read(&self, path: &Path, client: Option<ClientKind>) -> Result<Vec<u8>, FileOutcome> {
        let largest = match client {
            Some(ClientKind::ClaudeCode) => LARGEST_CLAUDE_CODE_FILE,
            _ => LARGEST_FILE,
        };
        read_bytes(path, largest).map_err(|unread| match unread {
            Unread::Absent => FileOutcome::Absent,
            Unread::Because(message) => broken(path, None, message),
        })
    }

    /// Whose a file is that was named by hand.
    fn owner<'p>(&self, path: &'p Path) -> Owner<'p> {
        Owner { folder: project_of(path, self.environment.home.as_deref()), in_project: false }
    }

    /// Takes the services of a known client's file.
    fn take_clients(
        &mut self,
        client: ClientKind,
        path: &Path,
        bytes: &[u8],
        owner: Owner<'_>,
    ) -> FileOutcome {
        let groups = match groups(client, bytes, Format::of(path)) {
            Ok(groups) => groups,
            Err(Broken { position, message }) => return broken(path, position, message),
        };
        let mut count = 0;
        for group in groups {
            // Clients remember projects long after they are gone.
            if group.project.as_deref().is_some_and(|project| !project.is_dir()) {
                continue;
            }
            count += group.entries.0.len();
            let source = Source {
                dialect: client.dialect(),
                title: client.title(),
                tag: client.as_str(),
                path,
                project: group.project.as_deref(),
                owner,
            };
            self.take(&source, &group.entries);
        }
        FileOutcome::Found(count)
    }

    /// Takes the services of a file that no client of ours is known to write.
    fn take_unknown(&mut self, path: &Path, bytes: &[u8]) -> FileOutcome {
        let format = Format::of(path);
        let read = document::parse_any::<Value>(bytes, format)
            .and_then(|value| guess(value, Dialect::of_path(path)));
        let (dialect, entries) = match read {
            Ok(read) => read,
            Err(Broken { position, message }) => return broken(path, position, message),
        };
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("imported");
        let source =
            Source { dialect, title: "", tag: stem, path, project: None, owner: self.owner(path) };
        self.take(&source, &entries);
        FileOutcome::Found(entries.0.len())
    }

    fn take(&mut self, source: &Source<'_>, entries: &Entries) {
        let folder = source.project.or(source.owner.folder);
        let folder = folder.unwrap_or(&self.environment.cwd);
        let around = Surroundings {
            vars: &self.environment.vars,
            home: self.environment.home.as_deref(),
            folder,
            read: &read_capped,
            filled_in: Cell::new(0),
        };
        let (file, origin) = source.labels();
        let reading = Reading {
            dialect: source.dialect,
            limits: self.limits,
            around: &around,
            file: &file,
            origin: &origin,
            cwd: (folder != self.environment.cwd).then_some(folder),
        };
        let project = folder.file_name().and_then(|name| name.to_str());
        let tag = Tag {
            source: source.tag,
            project: source.project.and(project),
            in_project: source.owner.in_project,
        };
        for (name, entry) in &entries.0 {
            self.roster.add(reading.service(name, entry), tag);
        }
    }
}

/// One part of one file, all of whose entries are read alike.
struct Source<'a> {
    dialect: Dialect,
    title: &'a str,
    tag: &'a str,
    path: &'a Path,
    project: Option<&'a Path>,
    owner: Owner<'a>,
}

/// Whose a file is.
#[derive(Debug, Clone, Copy)]
struct Owner<'a> {
    /// The folder of the project it belongs to; the user's own file belongs to none.
    folder: Option<&'a Path>,
    /// It was found in the current folder, nobody named it.
    in_project: bool,
}

impl Source<'_> {
    /// The file as messages name it, and the origin with its client.
    fn labels(&self) -> (String, String) {
        let mut file = self.path.display().to_string();
        if let Some(project) = self.project {
            file = format!("{file}, project {}", project.display());
        }
        let origin = match self.title {
            "" => file.clone(),
            title => format!("{title} ({file})"),
        };
        (file, origin)
    }
}

fn broken(path: &Path, position: Option<(usize, usize)>, message: String) -> FileOutcome {
    FileOutcome::Broken(FileProblem { path: path.to_owned(), position, message })
}

/// Entries that belong to the user, or to one project the client remembers.
struct Group {
    project: Option<PathBuf>,
    entries: Entries,
}

/// The entries of a client's file.
fn groups(client: ClientKind, bytes: &[u8], format: Format) -> Result<Vec<Group>, Broken> {
    use document::{ContextServersFile, McpServersFile, ServersFile, parse};
    let of_user = |entries: Option<Entries>| {
        let group = entries.map(|entries| Group { project: None, entries });
        Vec::from_iter(group)
    };
    Ok(match client {
        ClientKind::ClaudeCode => {
            let file = parse::<ClaudeCodeFile>(bytes, format)?;
            let projects = file.projects.unwrap_or_default().into_iter();
            let projects = projects.filter_map(|(folder, project)| {
                let entries = project.servers.filter(|entries| !entries.0.is_empty())?;
                Some(Group { project: Some(folder.into()), entries })
            });
            of_user(file.servers).into_iter().chain(projects).collect()
        }
        ClientKind::VsCode => of_user(parse::<ServersFile>(bytes, format)?.servers),
        ClientKind::Zed => of_user(parse::<ContextServersFile>(bytes, format)?.servers),
        ClientKind::Codex => of_user(parse::<CodexFile>(bytes, format)?.servers),
        ClientKind::ClaudeDesktop
        | ClientKind::Cursor
        | ClientKind::Windsurf
        | ClientKind::GeminiCli => of_user(parse::<McpServersFile>(bytes, format)?.servers),
    })
}

/// Tells a file's format from its top key, and gives its entries.
fn guess(value: Value, unknown: Dialect) -> Result<(Dialect, Entries), Broken> {
    let top = |key: &str| value.get(key).filter(|value| value.is_object() || value.is_array());
    let (dialect, entries) = if value.is_array() {
        (unknown, value)
    } else if let Some(entries) = top("mcpServers") {
        (unknown, entries.clone())
    } else if let Some(entries) = top("servers") {
        (ClientKind::VsCode.dialect(), entries.clone())
    } else if let Some(entries) = top("context_servers") {
        (ClientKind::Zed.dialect(), entries.clone())
    } else if let Some(entries) = top("mcp_servers") {
        (ClientKind::Codex.dialect(), entries.clone())
    } else if let Some(entries) = top("mcp") {
        let opencode = Dialect { syntax: Syntax::OpenCode, bare_url: TransportKind::Http };
        (opencode, entries.clone())
    } else if value.get("name").is_some() {
        (unknown, Value::Array(vec![value]))
    } else {
        return Err(Broken {
            position: None,
            message: "it names no servers: none of `mcpServers`, `servers`, `context_servers`, \
                      `mcp_servers` or `mcp` is a table in it"
                .to_owned(),
        });
    };
    let entries = serde_json::from_value(entries)
        .map_err(|error| Broken { position: None, message: error.to_string() })?;
    Ok((dialect, entries))
}

#[cfg(test)]
mod tests;
