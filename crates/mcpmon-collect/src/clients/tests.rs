use super::*;
use crate::environment::{Os, Variables};
use mcpmon_core::service::{HttpSpec, StdioSpec};
use mcpmon_core::{FailureCode, Transport};
use proptest::prelude::*;

fn environment(vars: &[(&str, &str)]) -> Environment {
    Environment {
        os: Os::Linux,
        home: Some("/home/me".into()),
        cwd: "/src/web".into(),
        vars: Variables::new(vars.iter().copied()),
    }
}

/// A service on one line: `name: command args… A=env @cwd`, `name: http url H=header`, then
/// `paused` and why it is invalid.
fn line(spec: &ServiceSpec) -> String {
    let mut out = format!("{}:", spec.name);
    let mut word = |word: &str| {
        out.push(' ');
        out.push_str(word);
    };
    match &spec.transport {
        Transport::Stdio(StdioSpec { command, args, env, cwd }) => {
            word(command);
            args.iter().for_each(|arg| word(arg));
            env.iter().for_each(|(name, value)| word(&format!("{name}={}", value.expose())));
            if let Some(cwd) = cwd {
                word(&format!("@{}", cwd.display()));
            }
        }
        Transport::Http(HttpSpec { url, headers }) | Transport::Sse(HttpSpec { url, headers }) => {
            word(spec.transport.as_str());
            word(url);
            headers.iter().for_each(|(name, value)| word(&format!("{name}={}", value.expose())));
        }
    }
    if !spec.enabled {
        word("paused");
    }
    if let Some(failure) = &spec.invalid {
        assert_eq!(failure.code, FailureCode::ConfigurationInvalid);
        let what = failure.evidence.get("variable").unwrap_or(&failure.evidence["key"]);
        word(&format!("INVALID({})", what.as_str().unwrap()));
    }
    out
}

fn lines(services: &[ServiceSpec]) -> Vec<String> {
    services.iter().map(line).collect()
}

#[track_caller]
fn check(client: ClientKind, path: &str, text: &str, expected: &[&str]) {
    let environment = environment(&[("TOKEN", "t0ken"), ("PORT", "8080"), ("HOST", "h.example")]);
    let limits = ServiceLimits::default();
    let mut search = Search::new(&environment, &limits);
    let path_of = Path::new(path);
    let outcome = search.take_clients(client, path_of, text.as_bytes(), search.owner(path_of));
    let mut services = search.finish().services;
    // Services come in the file's order; these tables are by name.
    services.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(lines(&services), expected);
    assert!(matches!(outcome, FileOutcome::Found(_)), "{outcome:?}");
    for spec in services {
        assert!(
            spec.origin.contains(path) && spec.origin.contains(client.title()),
            "{}",
            spec.origin
        );
    }
}

#[test]
fn claude_desktop_fills_nothing_in() {
    check(
        ClientKind::ClaudeDesktop,
        "/home/me/.config/Claude/claude_desktop_config.json",
        r#"{
            "globalShortcut": "Ctrl+Space",
            "mcpServers": {
                "filesystem": {
                    "command": "npx",
                    "args": ["-y", "@modelcontextprotocol/server-filesystem", "/home/me/Desktop"]
                },
                "github": {
                    "command": "docker",
                    "args": ["run", "-i", "--rm", "-e", "GITHUB_TOKEN", "ghcr.io/github/github-mcp-server"],
                    "env": { "GITHUB_TOKEN": "${TOKEN}", "LEVEL": 3, "GONE": null }
                },
                "broken": { "args": ["x"] },
                "worse": "npx -y thing"
            }
        }"#,
        &[
            "broken:  x INVALID()",
            "filesystem: npx -y @modelcontextprotocol/server-filesystem /home/me/Desktop",
            "github: docker run -i --rm -e GITHUB_TOKEN ghcr.io/github/github-mcp-server \
             GITHUB_TOKEN=${TOKEN} LEVEL=3",
            "worse:  INVALID()",
        ],
    );
}

#[test]
fn claude_code_has_types_defaults_and_projects() {
    check(
        ClientKind::ClaudeCode,
        "/src/web/.mcp.json",
        r#"{
            "mcpServers": {
                "api": { "type": "http", "url": "${BASE:-https://api.example}/mcp",
                         "headers": { "Authorization": "Bearer ${TOKEN}" } },
                "events": { "type": "sse", "url": "https://h.example/sse" },
                "db": { "command": "${HOME_OF_DB}/bin/db", "args": ["--port", "${PORT}", "$PORT"], "env": {} },
                "stream": { "type": "streamable-http", "url": "http://localhost:${PORT}/mcp" },
                "socket": { "type": "ws", "url": "wss://h.example/" },
                "both": { "command": "x", "url": "http://localhost/" },
                "typed": { "type": "stdio", "command": "x", "url": "http://localhost/" },
                "lost": { "type": "http", "command": "x" }
            }
        }"#,
        &[
            "api: http https://api.example/mcp Authorization=Bearer t0ken",
            "both: x INVALID()",
            "db: ${HOME_OF_DB}/bin/db --port 8080 $PORT INVALID(HOME_OF_DB)",
            "events: sse https://h.example/sse",
            "lost: x INVALID(type)",
            "socket: http wss://h.example/ INVALID(type)",
            "stream: http http://localhost:8080/mcp",
            "typed: x",
        ],
    );
}

#[test]
fn cursor_fills_in_its_own_words() {
    check(
        ClientKind::Cursor,
        "/home/me/.cursor/mcp.json",
        r#"{
            "mcpServers": {
                "local": { "command": "${userHome}/bin/server", "args": ["${workspaceFolder}", "${/}"],
                           "env": { "KEY": "${env:TOKEN}", "LITERAL": "${TOKEN}" } },
                "remote": { "url": "https://${env:HOST}/mcp", "headers": { "X-Key": "${env:MISSING}" },
                            "auth": { "CLIENT_ID": "x" } },
                "off": { "url": "https://h.example/off", "disabled": true }
            }
        }"#,
        &[
            "local: /home/me/bin/server /src/web / KEY=t0ken LITERAL=${TOKEN}",
            "off: http https://h.example/off paused",
            "remote: http https://h.example/mcp X-Key=${env:MISSING} INVALID(MISSING)",
        ],
    );
}

#[test]
fn vs_code_has_another_top_key_comments_and_inputs() {
    check(
        ClientKind::VsCode,
        "/src/api/.vscode/mcp.json",
        r#"{
            // what we are asked for
            "inputs": [{ "type": "promptString", "id": "key", "password": true }],
            "servers": {
                "perplexity": { "type": "stdio", "command": "npx", "args": ["-y", "server"],
                                "env": { "API_KEY": "${input:key}" } },
                "github": { "type": "http", "url": "https://api.githubcopilot.com/mcp/", },
                "here": { "command": "${workspaceFolder}/run", "cwd": "sub", "sandbox": {}, "dev": { "watch": "*" } },
                "socket": { "type": "http", "url": "unix:///run/mcp.sock" }, // not ours to reach
            },
        }"#,
        &[
            "github: http https://api.githubcopilot.com/mcp/",
            "here: /src/api/run @/src/api/sub",
            "perplexity: npx -y server API_KEY=${input:key} @/src/api INVALID(env.API_KEY)",
            "socket: http unix:///run/mcp.sock INVALID(url)",
        ],
    );
}

#[test]
fn windsurf_has_its_own_word_for_a_url_and_reads_files() {
    check(
        ClientKind::Windsurf,
        "/home/me/.codeium/windsurf/mcp_config.json",
        r#"{
            "mcpServers": {
                "figma": { "serverUrl": "https://h.example/mcp", "headers": { "API_KEY": "Bearer ${env:TOKEN}" } },
                "plain": { "url": "https://h.example/b", "disabled": false },
                "file": { "command": "x", "env": { "K": "${file:/no/such/file}" }, "disabled": true }
            }
        }"#,
        &[
            "figma: http https://h.example/mcp API_KEY=Bearer t0ken",
            "file: x K=${file:/no/such/file} paused INVALID(env.K)",
            "plain: http https://h.example/b",
        ],
    );
}

#[test]
fn zed_has_another_top_key_and_extensions_that_only_it_can_start() {
    check(
        ClientKind::Zed,
        "/home/me/.config/zed/settings.json",
        r#"// Zed settings
        {
            "theme": "One Dark",
            "context_servers": {
                "local": { "source": "custom", "command": "node", "args": ["a.js"], "env": { "A": "${TOKEN}" } },
                "old": { "command": { "path": "node", "args": ["b.js"], "env": { "B": "1" } }, "settings": {} },
                "remote": { "url": "https://h.example/mcp", "headers": { "A": "b" }, "enabled": false },
                "extension": { "source": "extension", "settings": { "key": "x" } },
            },
        }"#,
        &[
            "extension:  INVALID()",
            "local: node a.js A=${TOKEN}",
            "old: node b.js B=1",
            "remote: http https://h.example/mcp A=b paused",
        ],
    );
}

#[test]
fn codex_names_variables_instead_of_filling_them_in() {
    check(
        ClientKind::Codex,
        "/home/me/.codex/config.toml",
        r#"
            model = "o"
            [projects."/src/web"]
            trust_level = "trusted"

            [mcp_servers.context7]
            command = "npx"
            args = ["-y", "@upstash/context7-mcp"]
            env_vars = ["TOKEN", "NOT_SET", { name = "PORT" }]
            startup_timeout_sec = 20
            [mcp_servers.context7.env]
            LITERAL = "${TOKEN}"

            [mcp_servers.figma]
            url = "https://h.example/mcp"
            bearer_token_env_var = "TOKEN"
            http_headers = { "X-Region" = "us-east-1" }
            env_http_headers = { "X-Port" = "PORT" }
            enabled_tools = ["a"]

            [mcp_servers.no_token]
            url = "https://h.example/other"
            bearer_token_env_var = "MISSING"
            enabled = false

            [mcp_servers.there]
            command = "./run"
            cwd = "/srv/there"
        "#,
        &[
            "context7: npx -y @upstash/context7-mcp LITERAL=${TOKEN} PORT=8080 TOKEN=t0ken",
            "figma: http https://h.example/mcp Authorization=Bearer t0ken X-Port=8080 X-Region=us-east-1",
            "no_token: http https://h.example/other paused INVALID(MISSING)",
            "there: ./run @/srv/there",
        ],
    );
}

#[test]
fn gemini_means_sse_by_url() {
    check(
        ClientKind::GeminiCli,
        "/home/me/.gemini/settings.json",
        r#"{
            "mcp": { "excluded": [] },
            "mcpServers": {
                "events": { "url": "http://h.example/sse", "timeout": 5000 },
                "stream": { "httpUrl": "http://$HOST/mcp", "headers": { "A": "Bearer ${TOKEN}" } },
                "typed": { "url": "http://h.example/mcp", "type": "http" },
                "local": { "command": "python", "args": ["-m", "server", "$5"], "cwd": "./server",
                           "env": { "K": "$MISSING" }, "trust": true, "includeTools": ["a"] }
            }
        }"#,
        &[
            "events: sse http://h.example/sse",
            "local: python -m server $5 K=$MISSING @/src/web/./server INVALID(MISSING)",
            "stream: http http://h.example/mcp A=Bearer t0ken",
            "typed: http http://h.example/mcp",
        ],
    );
}

#[track_caller]
fn check_unknown(path: &str, text: &str, expected: &[&str]) {
    let environment = environment(&[("TOKEN", "t0ken")]);
    let limits = ServiceLimits::default();
    let mut search = Search::new(&environment, &limits);
    let outcome = search.take_unknown(Path::new(path), text.as_bytes());
    assert_eq!(lines(&search.finish().services), expected, "{outcome:?}");
}

#[test]
fn a_file_of_no_known_client_is_told_by_its_top_key() {
    check_unknown(
        "/x/servers.json",
        r#"{ "mcpServers": { "a": { "command": "x", "env": { "A": "${TOKEN}", "B": "${env:TOKEN}" } } } }"#,
        &["a: x A=t0ken B=t0ken"],
    );
    check_unknown(
        "/x/list.json",
        r#"[{ "name": "a", "url": "http://h/mcp", "transport": "streamable-http" },
            { "name": "b", "command": "x", "workingDir": "/srv" }]"#,
        &["a: http http://h/mcp", "b: x @/srv"],
    );
    check_unknown(
        "/x/one.json",
        r#"{ "name": "a", "url": "http://h/mcp" }"#,
        &["a: http http://h/mcp"],
    );
    check_unknown(
        "/x/opencode.json",
        r#"{ "mcp": { "a": { "type": "local", "command": ["bun", "x", "y"], "environment": { "K": "{env:TOKEN}" } },
                      "b": { "type": "remote", "url": "http://h/{env:TOKEN}", "enabled": false } } }"#,
        &["a: bun x y K=t0ken", "b: http http://h/t0ken paused"],
    );
    check_unknown(
        "/x/a.json",
        r#"{ "servers": { "a": { "command": "${env:TOKEN}" } } }"#,
        &["a: t0ken"],
    );
    check_unknown("/x/a.toml", "[mcp_servers.a]\ncommand = '${TOKEN}'\n", &["a: ${TOKEN}"]);
    check_unknown("/x/a.toml", "[mcpServers.a]\ncommand = '${TOKEN}'\n", &["a: t0ken"]);
    check_unknown(
        "/x/cline_mcp_settings.json",
        r#"{ "mcpServers": { "a": { "url": "http://h/sse" }, "b": { "url": "http://h/", "type": "streamableHttp" } } }"#,
        &["a: sse http://h/sse", "b: http http://h/"],
    );
}

#[test]
fn a_file_that_names_no_servers_says_what_was_looked_for() {
    for text in ["{}", "", "7", r#"{ "mcpServers": 7 }"#, r#"[{ "command": "x" }]"#] {
        let environment = environment(&[]);
        let limits = ServiceLimits::default();
        let mut search = Search::new(&environment, &limits);
        let outcome = search.take_unknown(Path::new("/x/a.json"), text.as_bytes());
        let FileOutcome::Broken(problem) = outcome else {
            panic!("{text}: {outcome:?}");
        };
        assert!(problem.message.contains("name"), "{problem}");
    }
}

#[test]
fn a_block_in_our_own_file_is_read_as_a_clients() {
    let vars = Variables::new([("TOKEN", "t0ken")]);
    let context = EntryContext {
        dir: Path::new("/etc/mcpmon"),
        vars: &vars,
        origin: "/etc/mcpmon/mcpmon.toml",
        run: &|_| Err("not here".to_owned()),
    };
    let block = serde_json::json!({
        "a": { "command": "x", "args": ["${TOKEN}"], "cwd": "sub", "someKeyOfAClient": true },
        "b": { "url": "http://h/${NOPE}" },
    });
    let services =
        entries_from_json(block.as_object().unwrap(), &ServiceLimits::default(), &context);
    assert_eq!(
        lines(&services),
        ["a: x t0ken @/etc/mcpmon/sub", "b: http http://h/${NOPE} INVALID(NOPE)"]
    );
    assert_eq!(services[0].origin, "/etc/mcpmon/mcpmon.toml");
}

#[test]
fn hostile_names_and_shapes_stay_text() {
    let long = "n".repeat(100_000);
    let text = serde_json::json!({ "mcpServers": {
        "": { "command": "x" },
        "\u{1b}[2J\u{202e}": { "command": "y", "args": [[1], { "a": 2 }] },
        long: { "command": "z", "env": "A=1" },
        "../../etc/passwd": { "command": 7, "enabled": "no" },
    } });
    let environment = environment(&[]);
    let limits = ServiceLimits::default();
    let mut search = Search::new(&environment, &limits);
    let text = text.to_string();
    let path = Path::new("/x/mcp.json");
    search.take_clients(ClientKind::Cursor, path, text.as_bytes(), search.owner(path));
    let services = search.finish().services;
    assert_eq!(services.len(), 4);
    assert!(services.iter().all(|spec| spec.name.as_str().chars().count() <= 200));
    let line_of =
        |part: &str| lines(&services).into_iter().find(|line| line.contains(part)).unwrap();
    assert_eq!(line_of("unnamed"), "unnamed: x");
    assert!(line_of(" y").ends_with("INVALID(args)"));
    assert!(line_of(" z").ends_with("INVALID(env)"));
    assert_eq!(line_of("passwd"), "../../etc/passwd: 7");
}

/// A home and a current folder with these files, looked through by all clients.
struct Machine {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        for folder in ["home", "work"] {
            std::fs::create_dir(root.join(folder)).unwrap();
        }
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text.replace("ROOT", root.to_str().unwrap())).unwrap();
        }
        let environment = Environment {
            os: Os::Linux,
            home: Some(root.join("home")),
            cwd: root.join("work"),
            vars: Variables::default(),
        };
        Self { dir, environment }
    }

    fn discover(&self, clients: &[ClientKind]) -> Discovery {
        discover(&self.environment, clients, &ServiceLimits::default())
    }

    fn all(&self) -> Discovery {
        self.discover(&ClientKind::ALL)
    }

    fn outcome<'a>(&self, discovery: &'a Discovery, path: &str) -> &'a FileOutcome {
        let path = self.environment.cwd.parent().unwrap().join(path);
        let found = discovery.files.iter().find(|file| file.path == path);
        &found.unwrap_or_else(|| panic!("{}", path.display())).outcome
    }
}

#[test]
fn an_empty_machine_has_no_services_and_every_place_is_named() {
    let machine = Machine::new(&[]);
    let discovery = machine.all();
    assert_eq!(discovery.services, []);
    assert!(discovery.files.len() >= 14);
    assert!(discovery.files.iter().all(|file| file.outcome == FileOutcome::Absent));
    assert_eq!(discovery.problems().count(), 0);
}

#[test]
fn the_same_server_in_two_files_is_one_service_and_a_name_never_means_two() {
    let machine = Machine::new(&[
        (
            "home/.config/Claude/claude_desktop_config.json",
            r#"{ "mcpServers": { "fs": { "command": "fs-server" }, "gh": { "url": "http://gh/" } } }"#,
        ),
        (
            "home/.cursor/mcp.json",
            r#"{ "mcpServers": { "files": { "command": "fs-server" }, "gh": { "url": "http://other/" } } }"#,
        ),
        (
            "work/.vscode/mcp.json",
            r#"{ "servers": { "gh": { "url": "http://gh/" }, "ours": { "command": "./x" } } }"#,
        ),
    ]);
    let discovery = machine.all();
    assert_eq!(
        lines(&discovery.services),
        ["fs: fs-server", "gh: http http://gh/", "gh (cursor): http http://other/", "ours: ./x"]
    );
    let origin = &discovery.services[0].origin;
    assert!(origin.contains("Claude Desktop") && origin.ends_with("as `files`"), "{origin}");
    assert!(discovery.services[1].origin.contains("VS Code"));
    assert_eq!(discovery.from_project, BTreeSet::from(["ours".into()]));
    assert_eq!(machine.all(), discovery, "the same files give the same services");
}

#[test]
fn claude_codes_projects_are_read_while_their_folders_are_there() {
    let machine = Machine::new(&[
        (
            "home/.claude.json",
            r#"{ "numStartups": 5, "mcpServers": { "mine": { "command": "a" } },
                "projects": {
                    "ROOT/work": { "history": [{ "display": "x" }], "mcpServers": { "here": { "command": "b" } } },
                    "ROOT/other": { "mcpServers": { "there": { "command": "b" } } },
                    "ROOT/deleted": { "mcpServers": { "gone": { "command": "c" } } },
                    "ROOT/empty": { "mcpServers": {}, "allowedTools": [] } } }"#,
        ),
        ("other/file", ""),
        ("work/.mcp.json", r#"{ "mcpServers": { "shared": { "command": "d" } } }"#),
    ]);
    let discovery = machine.discover(&[ClientKind::ClaudeCode]);
    let other = machine.environment.cwd.with_file_name("other");
    assert_eq!(
        lines(&discovery.services),
        [
            "mine: a".to_owned(),
            format!("there: b @{}", other.display()),
            "here: b".into(),
            "shared: d".into()
        ]
    );
    assert_eq!(machine.outcome(&discovery, "home/.claude.json"), &FileOutcome::Found(3));
    assert!(discovery.services[1].origin.contains("project "), "{}", discovery.services[1].origin);
    assert_eq!(discovery.from_project, BTreeSet::from(["shared".into()]));
}

#[test]
fn codex_reads_a_projects_file_only_if_the_user_trusts_it() {
    let project = ("work/.codex/config.toml", "[mcp_servers.ours]\ncommand = \"x\"\n");
    let machine = Machine::new(&[project]);
    let discovery = machine.all();
    assert_eq!(machine.outcome(&discovery, "work/.codex/config.toml"), &FileOutcome::NotTrusted);
    assert_eq!(discovery.services, []);

    let trust = "[projects.\"ROOT/work\"]\ntrust_level = \"trusted\"\n";
    let machine = Machine::new(&[project, ("home/.codex/config.toml", trust)]);
    assert_eq!(lines(&machine.all().services), ["ours: x"]);
}

#[test]
fn a_broken_file_is_named_with_its_place_and_the_others_are_read() {
    let machine = Machine::new(&[
        (
            "home/.cursor/mcp.json",
            "{\n  \"mcpServers\": {\n    \"a\": { \"command\": \"x\" }\n    \"b\": {}\n  }\n}",
        ),
        ("home/.codex/config.toml", "[mcp_servers.a]\ncommand = \n"),
        ("work/.vscode/mcp.json", "{ \"servers\": [1] }"),
        ("work/.mcp.json", r#"{ "mcpServers": { "good": { "command": "x" } } }"#),
        ("home/.gemini/settings.json", ""),
    ]);
    std::fs::create_dir_all(machine.dir.path().join("home/.claude.json")).unwrap();
    let discovery = machine.all();
    assert_eq!(lines(&discovery.services), ["good: x"]);
    assert_eq!(machine.outcome(&discovery, "home/.gemini/settings.json"), &FileOutcome::Found(0));
    let problems: Vec<String> = discovery.problems().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 4, "{problems:?}");
    for (path, part) in [
        (".cursor/mcp.json` line 3, column ", "expected comma"),
        (".codex/config.toml` line 2, column ", ""),
        (".vscode/mcp.json` line 1, column ", "`name`"),
        (".claude.json`: ", "not a regular file"),
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(path) && problem.contains(part)),
            "{path} is not in {problems:?}"
        );
    }
}

#[test]
fn a_file_over_its_cap_is_not_read() {
    let padding = " ".repeat(4 << 20);
    let machine = Machine::new(&[
        ("home/.cursor/mcp.json", &format!("{padding}{{ \"mcpServers\": {{}} }}")),
        (
            "home/.claude.json",
            &format!("{padding}{{ \"mcpServers\": {{ \"a\": {{ \"command\": \"x\" }} }} }}"),
        ),
    ]);
    let discovery = machine.all();
    let problems: Vec<String> = discovery.problems().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("larger than 4 MB"), "{problems:?}");
    assert_eq!(lines(&discovery.services), ["a: x"], "a long history is no reason to see nothing");
}

#[test]
fn an_environment_file_is_read_and_a_missing_one_spoils_only_its_service() {
    let machine = Machine::new(&[
        (
            "work/.vscode/mcp.json",
            r#"{ "servers": {
                "a": { "command": "x", "envFile": "${workspaceFolder}/.env", "env": { "B": "over" } },
                "b": { "command": "x", "envFile": "no.env" },
                "c": { "command": "x" } } }"#,
        ),
        ("work/.env", "A=1\nB=2\n"),
    ]);
    assert_eq!(
        lines(&machine.all().services),
        ["a: x A=1 B=over", "b: x INVALID(envFile)", "c: x"]
    );
}

#[test]
fn one_named_file_is_read_whosever_it_is_or_refused_with_a_reason() {
    let machine = Machine::new(&[
        ("other/.vscode/mcp.json", r#"{ "servers": { "a": { "command": "./x" } } }"#),
        ("work/mcp.json", r#"{ "mcpServers": { "b": { "command": "y" } } }"#),
        ("work/.cursor/mcp.json", r#"{ "servers": { "c": { "command": "z" } } }"#),
        ("work/nothing.json", "{}"),
    ]);
    let limits = ServiceLimits::default();
    let read =
        |path: &str, client| read_file(Path::new(path), client, &machine.environment, &limits);
    let root = machine.environment.cwd.parent().unwrap();
    let other = root.join("other/.vscode/mcp.json");
    let services = read(other.to_str().unwrap(), None).unwrap();
    assert_eq!(lines(&services), [format!("a: ./x @{}", root.join("other").display())]);
    assert_eq!(lines(&read("mcp.json", None).unwrap()), ["b: y"]);
    assert_eq!(lines(&read("mcp.json", Some(ClientKind::Cursor)).unwrap()), ["b: y"]);
    assert_eq!(lines(&read(".cursor/mcp.json", None).unwrap()), ["c: z"], "another client's key");
    assert!(read("no.json", None).unwrap_err().message.contains("no such file"));
    assert!(read("nothing.json", None).unwrap_err().message.contains("names no servers"));
}

#[test]
fn our_own_services_keep_their_names_before_what_is_found() {
    let machine = Machine::new(&[(
        "home/.cursor/mcp.json",
        r#"{ "mcpServers": { "fs": { "command": "theirs" }, "same": { "command": "ours" } } }"#,
    )]);
    let limits = ServiceLimits::default();
    let mut search = Search::new(&machine.environment, &limits);
    search.keep(ServiceSpec::stdio("fs", "ours", [""; 0]));
    search.clients(&[ClientKind::Cursor]);
    search.import(Path::new("missing.json"), None);
    let discovery = search.finish();
    assert_eq!(lines(&discovery.services), ["fs: ours", "fs (cursor): theirs"]);
    assert_eq!(machine.outcome(&discovery, "work/missing.json"), &FileOutcome::Absent);
}

proptest! {
    #[test]
    fn any_bytes_in_any_file_make_services_or_a_reason(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        entry in "[\\[\\]{}\":,a-c0-9$ ]{0,60}",
        key in "command|args|env|url|headers|type|envFile|cwd|env_vars|httpUrl|enabled|source",
    ) {
        let environment = environment(&[("a", "b")]);
        let limits = ServiceLimits::default();
        let shaped = format!(
            "{{\"mcpServers\":{{\"x\":{{\"{key}\":{entry}}}}},\"servers\":{{\"x\":{{\"{key}\":\"{}\"}}}}}}",
            entry.replace('"', "")
        );
        for bytes in [bytes.as_slice(), entry.as_bytes(), shaped.as_bytes()] {
            let mut search = Search::new(&environment, &limits);
            for client in ClientKind::ALL {
                let path = Path::new("/x/a.json");
                search.take_clients(client, path, bytes, search.owner(path));
            }
            search.take_unknown(Path::new("/x/a.json"), bytes);
            search.take_unknown(Path::new("/x/a.toml"), bytes);
            let discovery = search.finish();
            let names: BTreeSet<_> = discovery.services.iter().map(|spec| &spec.name).collect();
            prop_assert_eq!(names.len(), discovery.services.len());
        }
    }
}
