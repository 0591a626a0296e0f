//! What a command line says about a process: an MCP server, something that starts one, a client.
//!
//! Only names are judged, and a wrong guess may end in somebody's process being ended, so the
//! rules are narrow: a word `mcp` in the name of a package, module, script, image or program that
//! is *run*, never in a file that is merely read or in a directory on the way.

/// Words of a name that say MCP.
const TELLING: [&str; 4] = ["mcp", "fastmcp", "mcpserver", "modelcontextprotocol"];
/// Words of a name that say it is the other side, or a tool for developers.
const NOT_A_SERVER: [&str; 7] =
    ["inspector", "client", "conformance", "proxy-client", "test", "tests", "mcpmon"];
/// What our own guardian is called in the process table, and the first argument it is started
/// with, by whatever program.
const GUARDIAN: (&str, &str) = ("mcp-guardian", "__guardian");
/// Programs that fetch and run a package, with the words that may come before it.
const RUNNERS: [(&str, &[&str]); 10] = [
    ("npx", &[]),
    ("npm", &["exec", "x"]),
    ("pnpm", &["dlx", "exec"]),
    ("yarn", &["dlx"]),
    ("bunx", &[]),
    ("uvx", &[]),
    ("uv", &["tool", "run", "uvx"]),
    ("pipx", &["run"]),
    ("docker", &["run", "container"]),
    ("podman", &["run", "container"]),
];
/// Options of those programs whose value follows as an argument of its own.
const TAKES_VALUE: [&str; 24] = [
    "-p",
    "--package",
    "-c",
    "--call",
    "--from",
    "--with",
    "--python",
    "--index-url",
    "-e",
    "--env",
    "-v",
    "--volume",
    "--mount",
    "--name",
    "--network",
    "-w",
    "--workdir",
    "-u",
    "--user",
    "--env-file",
    "--directory",
    "--project",
    "-l",
    "--label",
];
/// Programs that run a script.
const INTERPRETERS: [&str; 9] =
    ["node", "nodejs", "bun", "deno", "python", "pypy", "ruby", "java", "dotnet"];
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "ash", "fish"];
/// Programs that take up processes whose parent is gone, by name.
const REAPERS: [&str; 11] = [
    "systemd",
    "init",
    "launchd",
    "tini",
    "dumb-init",
    "docker-init",
    "catatonit",
    "s6-svscan",
    "runit",
    "openrc-init",
    "upstart",
];
/// Clients, by the first word of their program's name.
const CLIENTS: [(&str, &str); 17] = [
    ("claude", "Claude"),
    ("cursor", "Cursor"),
    ("code", "VS Code"),
    ("codium", "VS Code"),
    ("vscodium", "VS Code"),
    ("windsurf", "Windsurf"),
    ("zed", "Zed"),
    ("codex", "Codex"),
    ("gemini", "Gemini"),
    ("copilot", "Copilot"),
    ("goose", "Goose"),
    ("goosed", "Goose"),
    ("opencode", "opencode"),
    ("lmstudio", "LM Studio"),
    ("lm", "LM Studio"),
    ("mcpmon", "mcpmon"),
    ("continue", "Continue"),
];

/// The last part of a path, without what Windows adds.
pub(super) fn base(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    name.strip_suffix(".exe").or_else(|| name.strip_suffix(".cmd")).unwrap_or(name)
}

/// `python3.12` is `python`.
fn kind(program: &str) -> &str {
    base(program).trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}

/// The arguments as they were given: some runners write their command line over as one text.
pub(super) fn words(args: &[String]) -> Vec<&str> {
    match args {
        [title] if title.contains(' ') => title.split_whitespace().collect(),
        args => args.iter().map(String::as_str).collect(),
    }
}

/// What a command line makes of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It runs something whose name says MCP.
    Server,
    /// It fetches and runs a package whose name says MCP.
    Runner,
    /// It runs a line for somebody else (`sh -c`).
    Shell,
    Other,
}

/// Whether a process is the guardian of a monitor: the parent of the servers that one starts, and
/// no server itself.
pub(super) fn is_guardian(words: &[&str]) -> bool {
    let (name, argument) = GUARDIAN;
    match words {
        [program, rest @ ..] => base(program) == name || rest.first() == Some(&argument),
        [] => false,
    }
}

pub(super) fn recognise(words: &[&str]) -> Kind {
    if is_guardian(words) {
        return Kind::Other;
    }
    let Some((program, rest)) = words.split_first() else { return Kind::Other };
    let program = kind(program);
    // `node /usr/bin/npx …` is npx.
    if INTERPRETERS.contains(&program)
        && let Some((script, after)) = script_of(program, rest)
    {
        let name = kind(script);
        if RUNNERS.iter().any(|(runner, _)| *runner == name) {
            return runner(name, after);
        }
        return if tells(&package_of(script)) { Kind::Server } else { Kind::Other };
    }
    if SHELLS.contains(&program) {
        let mut options = rest.iter().take_while(|word| word.starts_with('-'));
        if options.any(|option| option.ends_with('c')) {
            return Kind::Shell;
        }
        let script = rest.iter().find(|word| !word.starts_with('-'));
        return if script.is_some_and(|script| tells(base(script))) {
            Kind::Server
        } else {
            Kind::Other
        };
    }
    if RUNNERS.iter().any(|(runner, _)| *runner == program) {
        return runner(program, rest);
    }
    if tells(program) { Kind::Server } else { Kind::Other }
}

fn runner(program: &str, rest: &[&str]) -> Kind {
    let skipped =
        RUNNERS.iter().find(|(name, _)| *name == program).map_or(&[][..], |(_, skipped)| *skipped);
    let mut words = rest.iter().peekable();
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix('-') {
            // Of `npx -p PACKAGE` and `uvx --from PACKAGE` the package counts too.
            if ["-p", "--package", "--from"].contains(word)
                && words.peek().is_some_and(|package| tells(package))
            {
                return Kind::Runner;
            }
            if !option.contains('=') && TAKES_VALUE.contains(word) {
                words.next();
            }
        } else if !skipped.contains(word) {
            return if tells(word) { Kind::Runner } else { Kind::Other };
        }
    }
    Kind::Other
}

/// The script or module an interpreter runs, and the arguments after it.
fn script_of<'a, 'w>(program: &str, rest: &'a [&'w str]) -> Option<(&'w str, &'a [&'w str])> {
    let mut at = 0;
    while let Some(word) = rest.get(at) {
        match *word {
            "-m" | "-jar" => return Some((rest.get(at + 1)?, rest.get(at + 2..)?)),
            // A text, not a file.
            "-c" | "-e" | "--eval" | "-p" | "--print" | "-" => return None,
            "-r" | "--require" | "--import" | "--loader" | "-W" | "-X" | "-cp" | "-classpath" => {
                at += 2;
            }
            "run" if matches!(program, "deno" | "bun" | "dotnet") => at += 1,
            option if option.starts_with('-') => at += 1,
            script => return Some((script, rest.get(at + 1..)?)),
        }
    }
    None
}

/// The part of a script's path that names it: its package below `node_modules`, its own name, and
/// never the directories of whoever keeps it.
fn package_of(script: &str) -> String {
    let path = script.replace('\\', "/");
    let name = base(&path).to_owned();
    let below = path.rsplit_once("node_modules/").map(|(_, below)| below);
    match below {
        Some(below) if !below.starts_with('.') => {
            let parts: Vec<&str> = below.split('/').collect();
            let package = if below.starts_with('@') { 2 } else { 1 };
            parts.iter().take(package).copied().collect::<Vec<_>>().join("/")
        }
        _ => name,
    }
}

/// Whether a name says MCP, and not that it is something else.
fn tells(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    let mut found = false;
    for word in words.by_ref() {
        if NOT_A_SERVER.contains(&word) {
            return false;
        }
        found |= TELLING.contains(&word);
    }
    found
}

/// The client a process is, by its name or its script's.
pub(super) fn client(name: &str, words: &[&str]) -> Option<&'static str> {
    let by_name = |name: &str| {
        let name = base(name).to_ascii_lowercase();
        // Nothing that only works on a client's behalf, such as `claude-mcp-server`.
        if tells(&name) {
            return None;
        }
        let first =
            name.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty())?;
        CLIENTS.iter().find(|(word, _)| *word == first).map(|(_, client)| *client)
    };
    let program = words.first().copied().unwrap_or(name);
    if INTERPRETERS.contains(&kind(program)) {
        // An interpreter may rename itself to what it runs.
        let (script, _) = script_of(kind(program), words.get(1..)?)?;
        return by_name(script).or_else(|| by_name(&package_of(script).replace('@', "")));
    }
    by_name(program).or_else(|| by_name(name))
}

/// Whether a process takes up those whose parent is gone.
pub(super) fn is_reaper(name: &str) -> bool {
    REAPERS.contains(&base(name))
}

/// Whether this is the command line of `command` with `args`, perhaps behind an interpreter, and
/// nothing more.
pub(super) fn is_command_line(words: &[&str], command: &str, args: &[String]) -> bool {
    let Some(head) = words.len().checked_sub(args.len()) else { return false };
    let (head, tail) = words.split_at(head);
    let same_args = tail.iter().zip(args).all(|(word, arg)| word == arg);
    let command = base(command);
    match head {
        [program] => same_args && base(program) == command,
        [interpreter, program] => {
            let interpreter = kind(interpreter);
            let runs = INTERPRETERS.contains(&interpreter) || SHELLS.contains(&interpreter);
            same_args && base(program) == command && runs
        }
        // `npx` becomes `npm exec`, and leaves its own options out.
        _ => false,
    }
}

/// Whether a runner that wrote its command line over was this one: `npm exec PACKAGE …` for
/// `npx -y PACKAGE …`.
pub(super) fn is_rewritten(words: &[&str], command: &str, args: &[String]) -> bool {
    let [program, verb, rest @ ..] = words else { return false };
    let given: Vec<&str> =
        args.iter().map(String::as_str).filter(|arg| !matches!(*arg, "-y" | "--yes")).collect();
    base(command) == "npx" && base(program) == "npm" && *verb == "exec" && rest == given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_run_under_a_telling_name_is_a_server() {
        for (line, expected) in [
            ("mcp-server-time --local-timezone UTC", Kind::Server),
            ("/usr/local/bin/github-mcp-server stdio", Kind::Server),
            ("npx -y @modelcontextprotocol/server-filesystem .", Kind::Runner),
            ("node /usr/bin/npx -y @acme/mcp", Kind::Runner),
            ("npm exec @modelcontextprotocol/server-memory", Kind::Runner),
            ("npx -p @acme/mcp serve", Kind::Runner),
            ("uvx mcp-server-git --repository .", Kind::Runner),
            ("uv tool uvx --python 3.12 mcp-server-git", Kind::Runner),
            ("docker run -i --rm -e TOKEN ghcr.io/github/github-mcp-server", Kind::Runner),
            ("node /h/.npm/_npx/ab/node_modules/.bin/mcp-server-everything", Kind::Server),
            (
                "node /x/node_modules/@modelcontextprotocol/server-everything/dist/index.js",
                Kind::Server,
            ),
            ("python3.12 -m mcp_server_time", Kind::Server),
            ("/opt/venv/bin/python -u /opt/venv/bin/fastmcp run x.py", Kind::Server),
            ("sh -c mcp-server-everything", Kind::Shell),
            ("bash", Kind::Other),
            ("/bin/sh -e /opt/bin/mcp-server-demo", Kind::Server),
            ("sh /home/me/mcp/build.sh", Kind::Other),
            ("vim mcp.json", Kind::Other),
            ("tail -f /var/log/mcp-server.log", Kind::Other),
            ("node /home/me/mcp/build.js", Kind::Other),
            ("python -m pytest tests/test_mcp.py", Kind::Other),
            ("python -c import_mcp", Kind::Other),
            ("npx @modelcontextprotocol/inspector", Kind::Other),
            ("npx eslint mcp", Kind::Other),
            ("docker run -v /srv/mcp:/x --name mcp postgres", Kind::Other),
            ("npm run mcp", Kind::Other),
            ("mcpmon up", Kind::Other),
            ("mcpmon demo-server --stdio", Kind::Other),
            ("mcp-guardian __guardian 16156", Kind::Other),
            ("/opt/mcp-monitor __guardian 16156", Kind::Other),
            ("", Kind::Other),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(recognise(&words), expected, "{line}");
        }
    }

    #[test]
    fn clients_are_known_by_the_program_they_are() {
        for (name, line, expected) in [
            ("claude", "claude", Some("Claude")),
            ("node", "node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js", Some("Claude")),
            ("claude", "node /usr/local/bin/claude --resume", Some("Claude")),
            ("Cursor Helper", "/Applications/Cursor.app/Cursor Helper", Some("Cursor")),
            ("code", "/usr/share/code/code --type=utility", Some("VS Code")),
            ("mcpmon", "/usr/bin/mcpmon up", Some("mcpmon")),
            ("bash", "bash", None),
            ("claude-mcp-server", "claude-mcp-server", None),
        ] {
            let words: Vec<&str> = match name {
                "Cursor Helper" => vec![line],
                _ => line.split_whitespace().collect(),
            };
            assert_eq!(client(name, &words), expected, "{line}");
        }
    }

    #[test]
    fn a_configured_command_is_known_again_behind_its_interpreter() {
        let args = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (line, command, given, same) in [
            ("/usr/bin/server --a b", "server", "--a b", true),
            ("python3 /opt/bin/server --a b", "server", "--a b", true),
            ("server --a", "server", "--a b", false),
            ("server --a b c", "server", "--a b", false),
            ("sudo server --a b", "server", "--a b", false),
            ("node x.js", "node", "x.js", true),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(is_command_line(&words, command, &args(given)), same, "{line}");
        }
        let words = ["npm", "exec", "@acme/mcp", "--port", "1"];
        assert!(is_rewritten(&words, "npx", &args("-y @acme/mcp --port 1")));
        assert!(!is_rewritten(&words, "npx", &args("-y @acme/mcp")));
    }
}
