//! The clients whose files are read: their names, where each keeps its files, how each writes them.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mcpmon_core::settings::TransportKind;

use crate::entry::expand::Syntax;
use crate::environment::{Environment, Os};

/// A client whose configuration names MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ClientKind {
    /// Claude Desktop.
    ClaudeDesktop,
    /// Claude Code.
    ClaudeCode,
    /// Cursor.
    Cursor,
    /// VS Code.
    VsCode,
    /// Windsurf.
    Windsurf,
    /// Zed.
    Zed,
    /// Codex CLI.
    Codex,
    /// Gemini CLI.
    GeminiCli,
}

/// The word is no client's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{word}` is not a client; known are {}",
    ClientKind::ALL.map(ClientKind::as_str).join(", ")
)]
pub struct UnknownClient {
    /// The word.
    pub word: String,
}

impl ClientKind {
    /// Every client, in the order their files are read: the first to name a server names it.
    pub const ALL: [Self; 8] = [
        Self::ClaudeDesktop,
        Self::ClaudeCode,
        Self::Cursor,
        Self::VsCode,
        Self::Windsurf,
        Self::Zed,
        Self::Codex,
        Self::GeminiCli,
    ];

    /// The name in settings: `discover.clients`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "claude-desktop",
            Self::ClaudeCode => "claude-code",
            Self::Cursor => "cursor",
            Self::VsCode => "vscode",
            Self::Windsurf => "windsurf",
            Self::Zed => "zed",
            Self::Codex => "codex",
            Self::GeminiCli => "gemini-cli",
        }
    }

    /// The name its makers write.
    pub const fn title(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "Claude Desktop",
            Self::ClaudeCode => "Claude Code",
            Self::Cursor => "Cursor",
            Self::VsCode => "VS Code",
            Self::Windsurf => "Windsurf",
            Self::Zed => "Zed",
            Self::Codex => "Codex",
            Self::GeminiCli => "Gemini CLI",
        }
    }

    pub(super) const fn dialect(self) -> Dialect {
        match self {
            Self::ClaudeDesktop | Self::Zed | Self::Codex => Dialect::new(Syntax::Literal),
            Self::ClaudeCode => Dialect::new(Syntax::ClaudeCode),
            Self::Cursor | Self::VsCode => Dialect::new(Syntax::Editor),
            Self::Windsurf => Dialect::new(Syntax::Windsurf),
            Self::GeminiCli => Dialect { syntax: Syntax::Gemini, bare_url: TransportKind::Sse },
        }
    }

    /// Where this client's files would be, the user's own before the current folder's.
    pub(super) fn places(self, environment: &Environment) -> Vec<Place> {
        let home = |below: &str| Some(environment.home.as_ref()?.join(below));
        let config = |below: &str| Some(environment.config_home()?.join(below));
        let app_data = |below: &str| Some(environment.app_data()?.join(below));
        let support = |below: &str| home(&format!("Library/Application Support/{below}"));
        // What follows the conventions of each system.
        let usual = |below: &str| match environment.os {
            Os::Linux => config(below),
            Os::MacOs => support(below),
            Os::Windows => app_data(below),
        };
        let (users, project) = match self {
            Self::ClaudeDesktop => (vec![usual("Claude/claude_desktop_config.json")], None),
            Self::ClaudeCode => (vec![home(".claude.json")], Some(".mcp.json")),
            Self::Cursor => (vec![home(".cursor/mcp.json")], Some(".cursor/mcp.json")),
            Self::VsCode => (vec![usual("Code/User/mcp.json")], Some(".vscode/mcp.json")),
            Self::Windsurf => {
                let plugin = home(".codeium/mcp_config.json");
                (vec![home(".codeium/windsurf/mcp_config.json"), plugin], None)
            }
            Self::Zed => {
                let settings = match environment.os {
                    Os::Windows => app_data("Zed/settings.json"),
                    Os::Linux | Os::MacOs => config("zed/settings.json"),
                };
                (vec![settings], Some(".zed/settings.json"))
            }
            Self::Codex => {
                let directory = environment.directory("CODEX_HOME").or_else(|| home(".codex"));
                (vec![directory.map(|codex| codex.join("config.toml"))], Some(".codex/config.toml"))
            }
            Self::GeminiCli => (vec![home(".gemini/settings.json")], Some(".gemini/settings.json")),
        };
        let users = users.into_iter().flatten().map(|path| Place { path, in_project: false });
        let project =
            project.map(|below| Place { path: environment.cwd.join(below), in_project: true });
        let mut places: Vec<Place> = users.chain(project).collect();
        // In the home directory the project's file is the user's.
        places.dedup_by(|later, earlier| later.path == earlier.path);
        places
    }

    /// The client whose file this is, by its name and the directory it lies in.
    pub(super) fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        match (parent.unwrap_or_default(), name) {
            (_, "claude_desktop_config.json") => Some(Self::ClaudeDesktop),
            (_, ".claude.json" | ".mcp.json") => Some(Self::ClaudeCode),
            (".cursor", "mcp.json") => Some(Self::Cursor),
            (".vscode" | "User", "mcp.json") => Some(Self::VsCode),
            ("windsurf" | ".codeium", "mcp_config.json") => Some(Self::Windsurf),
            ("zed" | ".zed" | "Zed", "settings.json") => Some(Self::Zed),
            (".codex", "config.toml") => Some(Self::Codex),
            (".gemini", "settings.json") => Some(Self::GeminiCli),
            _ => None,
        }
    }
}

impl fmt::Display for ClientKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ClientKind {
    type Err = UnknownClient;

    fn from_str(word: &str) -> Result<Self, UnknownClient> {
        let known = Self::ALL.into_iter().find(|client| client.as_str() == word);
        known.ok_or_else(|| UnknownClient { word: word.to_owned() })
    }
}

/// One file a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// It belongs to the current folder, not to the user.
    pub(super) in_project: bool,
}

/// The folder of the project a file belongs to, where its place says so; the user's home is none.
pub(super) fn project_of<'a>(path: &'a Path, home: Option<&Path>) -> Option<&'a Path> {
    folder_of(path).filter(|folder| Some(*folder) != home)
}

fn folder_of(path: &Path) -> Option<&Path> {
    const FOLDERS: [&str; 6] = [".cursor", ".vscode", ".zed", ".codex", ".gemini", ".roo"];
    let parent = path.parent()?;
    if path.file_name()? == ".mcp.json" {
        return Some(parent);
    }
    let folder = parent.file_name()?.to_str()?;
    FOLDERS.contains(&folder).then(|| parent.parent())?
}

/// In which ways one client's entries differ from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// What is filled in.
    pub(super) syntax: Syntax,
    /// What a `url` means where no type is given.
    pub(super) bare_url: TransportKind,
}

impl Dialect {
    pub(super) const fn new(syntax: Syntax) -> Self {
        Self { syntax, bare_url: TransportKind::Http }
    }

    /// Of a file no client of ours is known to write.
    pub(super) fn of_path(path: &Path) -> Self {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("cline_mcp_settings.json") => {
                Self { syntax: Syntax::Literal, bare_url: TransportKind::Sse }
            }
            _ if path.parent().and_then(Path::file_name) == Some(OsStr::new(".roo")) => {
                Self::new(Syntax::Editor)
            }
            _ => Self::new(Syntax::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Variables;

    fn paths(os: Os, cwd: &str, vars: &[(&str, &str)], client: ClientKind) -> Vec<String> {
        let environment = Environment {
            os,
            home: Some("/home/me".into()),
            cwd: cwd.into(),
            vars: Variables::new(vars.iter().copied()),
        };
        let places = client.places(&environment).into_iter();
        places.map(|place| place.path.to_str().unwrap().replace('\\', "/")).collect()
    }

    #[test]
    fn every_client_has_its_places_on_every_system() {
        use ClientKind::*;
        let mac = "/home/me/Library/Application Support";
        let win = "/home/me/AppData/Roaming";
        let cases = [
            (
                ClaudeDesktop,
                Os::Linux,
                vec!["/home/me/.config/Claude/claude_desktop_config.json".to_owned()],
            ),
            (ClaudeDesktop, Os::MacOs, vec![format!("{mac}/Claude/claude_desktop_config.json")]),
            (ClaudeDesktop, Os::Windows, vec![format!("{win}/Claude/claude_desktop_config.json")]),
            (ClaudeCode, Os::Linux, vec!["/home/me/.claude.json".into(), "/p/.mcp.json".into()]),
            (
                Cursor,
                Os::MacOs,
                vec!["/home/me/.cursor/mcp.json".into(), "/p/.cursor/mcp.json".into()],
            ),
            (
                VsCode,
                Os::Linux,
                vec!["/home/me/.config/Code/User/mcp.json".into(), "/p/.vscode/mcp.json".into()],
            ),
            (
                VsCode,
                Os::MacOs,
                vec![format!("{mac}/Code/User/mcp.json"), "/p/.vscode/mcp.json".into()],
            ),
            (
                VsCode,
                Os::Windows,
                vec![format!("{win}/Code/User/mcp.json"), "/p/.vscode/mcp.json".into()],
            ),
            (
                Windsurf,
                Os::Linux,
                vec![
                    "/home/me/.codeium/windsurf/mcp_config.json".into(),
                    "/home/me/.codeium/mcp_config.json".into(),
                ],
            ),
            (
                Zed,
                Os::Linux,
                vec!["/home/me/.config/zed/settings.json".into(), "/p/.zed/settings.json".into()],
            ),
            (
                Zed,
                Os::MacOs,
                vec!["/home/me/.config/zed/settings.json".into(), "/p/.zed/settings.json".into()],
            ),
            (
                Zed,
                Os::Windows,
                vec![format!("{win}/Zed/settings.json"), "/p/.zed/settings.json".into()],
            ),
            (
                Codex,
                Os::Linux,
                vec!["/home/me/.codex/config.toml".into(), "/p/.codex/config.toml".into()],
            ),
            (
                GeminiCli,
                Os::Linux,
                vec!["/home/me/.gemini/settings.json".into(), "/p/.gemini/settings.json".into()],
            ),
        ];
        for (client, os, expected) in cases {
            assert_eq!(paths(os, "/p", &[], client), expected, "{client} on {os:?}");
        }
    }

    #[test]
    fn variables_move_files_and_one_file_is_read_once() {
        use ClientKind::*;
        assert_eq!(
            paths(Os::Linux, "/p", &[("CODEX_HOME", "/codex")], Codex)[0],
            "/codex/config.toml"
        );
        assert_eq!(
            paths(Os::Linux, "/p", &[("XDG_CONFIG_HOME", "/conf")], VsCode)[0],
            "/conf/Code/User/mcp.json"
        );
        assert_eq!(
            paths(Os::Windows, "/p", &[("APPDATA", "/roam")], ClaudeDesktop)[0],
            "/roam/Claude/claude_desktop_config.json"
        );
        assert_eq!(paths(Os::Linux, "/home/me", &[], Cursor), ["/home/me/.cursor/mcp.json"]);
    }

    #[test]
    fn without_a_home_only_the_current_folder_is_looked_at() {
        let environment =
            Environment { os: Os::Linux, home: None, cwd: "/p".into(), vars: Variables::default() };
        for client in ClientKind::ALL {
            let places = client.places(&environment);
            assert!(places.iter().all(|place| place.in_project), "{client}: {places:?}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_place() {
        use ClientKind::*;
        for client in ClientKind::ALL {
            for path in paths(Os::Linux, "/p", &[], client) {
                assert_eq!(ClientKind::of_path(Path::new(&path)), Some(client), "{path}");
            }
        }
        assert_eq!(ClientKind::of_path(Path::new("mcp.json")), None);
        assert_eq!(ClientKind::of_path(Path::new("/")), None);
        assert_eq!(ClientKind::of_path(Path::new(".mcp.json")), Some(ClaudeCode));
        let sse = Dialect::of_path(Path::new("/x/cline_mcp_settings.json")).bare_url;
        assert_eq!(sse, TransportKind::Sse);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for client in ClientKind::ALL {
            assert_eq!(client.as_str().parse(), Ok(client));
        }
        let error = "vs-code".parse::<ClientKind>().unwrap_err().to_string();
        assert!(error.contains("`vs-code`") && error.contains("vscode"), "{error}");
    }

    #[test]
    fn a_file_of_a_project_knows_its_folder() {
        for (path, folder) in [
            ("/p/.mcp.json", Some("/p")),
            ("/p/.vscode/mcp.json", Some("/p")),
            ("/p/.codex/config.toml", Some("/p")),
            ("/p/mcp.json", None),
            ("/home/me/.cursor/mcp.json", None),
            ("/home/me/p/.cursor/mcp.json", Some("/home/me/p")),
            ("/", None),
        ] {
            let home = Some(Path::new("/home/me"));
            assert_eq!(project_of(Path::new(path), home), folder.map(Path::new), "{path}");
        }
    }
}
