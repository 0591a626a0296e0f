use FailureCode as F;

use super::*;

/// What a process left behind, and what is read from it: the code, and the named thing as
/// `key=name`.
#[track_caller]
fn check(exit: Exit, stderr: &str, code: F, subject: &str) {
    let stderr: Vec<String> = stderr.lines().map(str::to_owned).collect();
    let remains = Remains { exit, stderr: &stderr, stdout: &[], answered: false };
    let found = diagnose(&remains);
    assert_eq!(found.code, code, "{exit:?} {stderr:#?} gave {found:#?}");
    let named = found.subject.as_ref().map(|(key, name)| format!("{key}={name}"));
    assert_eq!(named.unwrap_or_default(), subject, "{stderr:#?} gave {found:#?}");
    assert!(!found.message.is_empty() && !found.message.contains('\n'));
}

#[test]
fn package_runners_name_what_they_did_not_find() {
    for (stderr, subject) in [
        (
            "npm warn Unknown user config \"nodedir\".\nnpm error code E404\nnpm error 404 Not Found - GET https://registry.npmjs.org/nope\nnpm error 404\nnpm error 404  The requested resource 'nope@*' could not be found or you do not have permission to access it.",
            "package=nope@*",
        ),
        (
            "npm ERR! code E404\nnpm ERR! 404  'nope@latest' is not in this registry.",
            "package=nope@latest",
        ),
        (
            "npm error code ETARGET\nnpm error notarget No matching version found for cowsay@99.99.99.",
            "package=cowsay@99.99.99",
        ),
        ("npm error code E404", ""),
        ("npm error could not determine executable to run", ""),
        (
            "error: No solution found when resolving tool dependencies\n  cause: Because nope-pkg was not found in the package registry and you require nope-pkg, we can conclude that your requirements are unsatisfiable.",
            "package=nope-pkg",
        ),
        (
            "  \u{d7} No solution found when resolving tool dependencies:\n  \u{2570}\u{2500}\u{25b6} Because there is no version of cowsay==99 and you require cowsay==99, we can conclude",
            "package=cowsay==99",
        ),
        (
            "Installed 1 package in 2ms\nAn executable named `nopeexe` is not provided by package `cowsay`.\nThe following executables are available:\n- cowsay",
            "package=cowsay",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement nope==9 (from versions: none)\nERROR: No matching distribution found for nope==9",
            "package=nope==9",
        ),
        (
            "Unable to find image 'nope/srv:latest' locally\ndocker: Error response from daemon: pull access denied for nope/srv, repository does not exist or may require 'docker login'.",
            "package=nope/srv",
        ),
        (
            "docker: Error response from daemon: manifest for mcp/x:9 not found: manifest unknown: manifest unknown.",
            "package=mcp/x:9",
        ),
        ("error: GET https://registry.npmjs.org/nope - 404", "package=nope"),
        (
            "error: No version matching \"99\" found for specifier \"cowsay\" (but package exists)",
            "package=cowsay",
        ),
        ("error: npm package 'nope' does not exist.", "package=nope"),
        ("go: module example.com/x@latest not found", "package=example.com/x@latest"),
    ] {
        check(Exit::Code(1), stderr, F::PackageNotFound, subject);
    }
}

#[test]
fn interpreters_name_the_module_they_miss() {
    for (stderr, subject) in [
        (
            "node:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module './gone'\nRequire stack:\n- /srv/b.js\n    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15) {\n  code: 'MODULE_NOT_FOUND',",
            "module=./gone",
        ),
        (
            "node:internal/modules/esm/resolve:873\n  throw new ERR_MODULE_NOT_FOUND(packageName, fileURLToPath(base), null);\n        ^\n\nError [ERR_MODULE_NOT_FOUND]: Cannot find package 'zod' imported from /srv/a.mjs",
            "module=zod",
        ),
        (
            "import {nope} from 'zod'\n        ^^^^\nSyntaxError: The requested module 'zod' does not provide an export named 'nope'",
            "module=zod",
        ),
        (
            "Error [ERR_PACKAGE_PATH_NOT_EXPORTED]: Package subpath './sse' is not defined by \"exports\" in /srv/package.json",
            "module=./sse",
        ),
        (
            "Traceback (most recent call last):\n  File \"/srv/x.py\", line 1, in <module>\nModuleNotFoundError: No module named 'mcp.server'",
            "module=mcp.server",
        ),
        ("/usr/bin/python3: No module named nope", "module=nope"),
        (
            "ImportError: cannot import name 'FastMCP' from 'mcp' (/venv/lib/mcp/__init__.py)",
            "module=mcp",
        ),
        (
            "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
            "module=libGL.so.1",
        ),
        (
            "/usr/bin/python3: can't open file '/srv/server.py': [Errno 2] No such file or directory",
            "module=/srv/server.py",
        ),
        (
            "./srv: error while loading shared libraries: libfoo.so.1: cannot open shared object file",
            "module=libfoo.so.1",
        ),
        ("Error: Unable to access jarfile /srv/mcp.jar", "module=/srv/mcp.jar"),
        (
            "Error: Could not find or load main class Nope\nCaused by: java.lang.ClassNotFoundException: Nope",
            "module=Nope",
        ),
        (
            "Exception in thread \"main\" java.lang.NoClassDefFoundError: io/mcp/Server\n\tat R.main(R.java:1)\nCaused by: java.lang.ClassNotFoundException: io.mcp.Server",
            "module=io/mcp/Server",
        ),
        ("error: Module not found \"file:///srv/main.ts\".", "module=file:///srv/main.ts"),
        ("error: Cannot find module \"zod\" from \"/srv/index.ts\"", "module=zod"),
        (
            "Can't locate Nope.pm in @INC (you may need to install the Nope module)",
            "module=Nope.pm",
        ),
        (
            "<internal:/usr/lib/ruby/kernel.rb>:38:in `require': cannot load such file -- mcp (LoadError)",
            "module=mcp",
        ),
    ] {
        check(Exit::Code(1), stderr, F::MissingModule, subject);
    }
}

#[test]
fn a_runtime_of_the_wrong_age_is_told_from_a_broken_server() {
    for (stderr, subject) in [
        ("npm error code EBADENGINE\nnpm error engine Unsupported engine", ""),
        ("npm error code EBADPLATFORM\nnpm error notsup Unsupported platform for x@1", ""),
        ("This server requires Node.js 20 or newer", ""),
        ("/srv/i.js:3\nconst a = b?.c;\n            ^\n\nSyntaxError: Unexpected token '.'", ""),
        ("ReferenceError: fetch is not defined\n    at main (/srv/i.js:1:1)", ""),
        (
            "Error [ERR_UNKNOWN_BUILTIN_MODULE]: No such built-in module: node:sqlite",
            "module=node:sqlite",
        ),
        (
            "SyntaxError: The requested module 'node:util' does not provide an export named 'parseArgs'",
            "module=node:util",
        ),
        (
            "was compiled against a different Node.js version using\nNODE_MODULE_VERSION 115. This version of Node.js requires\nNODE_MODULE_VERSION 127.",
            "",
        ),
        (
            "ERROR: Package 'x' requires a different Python: 3.8.1 not in '>=3.10'",
            "required=>=3.10",
        ),
        (
            "error: No interpreter found for Python 3.55 in managed installations or search path",
            "required=3.55",
        ),
        (
            "  cause: Because the current Python version (3.9.18) does not satisfy Python>=3.10 and x==1 depends on Python>=3.10, we can conclude",
            "required=Python>=3.10",
        ),
        ("ModuleNotFoundError: No module named 'tomllib'", "module=tomllib"),
        (
            "ImportError: cannot import name 'Self' from 'typing' (/usr/lib/python3.9/typing.py)",
            "module=typing",
        ),
        ("TypeError: unsupported operand type(s) for |: 'type' and 'NoneType'", ""),
        (
            "    print \"x\"\nSyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?",
            "",
        ),
        (
            "Error: LinkageError occurred while loading main class R\n\tjava.lang.UnsupportedClassVersionError: R has been compiled by a more recent version of the Java Runtime (class file version 70.0)",
            "class=R",
        ),
        (
            "./srv: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./srv)",
            "required=GLIBC_2.38",
        ),
        ("exec /srv/mcp: exec format error", ""),
        (
            "docker: Error response from daemon: no matching manifest for linux/arm64/v8 in the manifest list entries.",
            "platform=linux/arm64/v8",
        ),
    ] {
        check(Exit::Code(1), stderr, F::RuntimeUnsupported, subject);
    }
}

#[test]
fn a_key_that_is_wanted_is_named() {
    for (stderr, subject) in [
        (
            "Error: GITHUB_PERSONAL_ACCESS_TOKEN environment variable is not set",
            "variable=GITHUB_PERSONAL_ACCESS_TOKEN",
        ),
        (
            "Traceback (most recent call last):\n  File \"<frozen os>\", line 679, in __getitem__\nKeyError: 'OPENAI_API_KEY'",
            "variable=OPENAI_API_KEY",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for AppSettings\napi_token\n  Field required [type=missing, input_value={}, input_type=dict]",
            "variable=API_TOKEN",
        ),
        ("Missing required API key", ""),
        ("npm error code E401\nnpm error Incorrect or missing password.", ""),
        (
            "thread 'main' (9169) panicked at src/main.rs:9:41:\nGITLAB_TOKEN must be set: NotPresent",
            "variable=GITLAB_TOKEN",
        ),
        ("[WARN] BRAVE_API_KEY is not set, exiting", "variable=BRAVE_API_KEY"),
    ] {
        check(Exit::Code(1), stderr, F::MissingCredential, subject);
    }
}

#[test]
fn usage_text_means_that_arguments_are_wrong() {
    for (stderr, subject) in [
        ("error: the following required arguments were not provided:\n  --api-key <KEY>", ""),
        ("Usage: mcp-server-filesystem [allowed-directory] [additional-directories...]", ""),
        (
            "usage: server [-h] --repo REPO\nserver: error: the following arguments are required: --repo",
            "",
        ),
        ("node: bad option: --badopt", ""),
        ("flag provided but not defined: -stdoi\nUsage of srv:", ""),
        ("npm error npx canceled due to missing packages and no YES option: [\"x@1\"]", ""),
        (
            "error: Uncaught (in promise) NotCapable: Requires net access to \"example.com:443\", run again with the --allow-net flag",
            "option=--allow-net",
        ),
    ] {
        check(Exit::Code(2), stderr, F::UsageError, subject);
    }
}

#[test]
fn what_no_phrase_fits_has_exited_at_start() {
    for stderr in [
        "",
        "TypeError: x is not a function\n    at Object.<anonymous> (/srv/c.js:1:30)",
        "thread 'main' (9) panicked at src/main.rs:1:40:\ncalled `Option::unwrap()` on a `None` value",
        "panic: runtime error: index out of range [3] with length 3\n\ngoroutine 1 [running]:\nmain.main()",
        "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "Error response from daemon: No such container: mcp",
        "/srv/e.js:2\n\nSyntaxError: Unexpected end of input",
        "Error: listen EADDRINUSE: address already in use 127.0.0.1:3000",
    ] {
        check(Exit::Code(1), stderr, F::ExitedAtStart, "");
    }
}

/// Words that look like a cause and are none: the real one is another line, or none is known.
#[test]
fn warnings_and_ordinary_talk_are_no_cause() {
    let crash = "\nTypeError: x is not a function";
    for stderr in [
        "npm warn EBADENGINE Unsupported engine {",
        "npm warn deprecated inflight@1.0.6: This module is not supported",
        "(node:12) ExperimentalWarning: CommonJS module requires node 22",
        "warning: Cannot find module 'bufferutil', falling back",
        "[WARN] no API key configured, anonymous limits apply; SENTRY_DSN not set",
        "2026-11-22 10:00:00 INFO optional OPENAI_API_KEY not set",
        "{\"level\":\"info\",\"msg\":\"usage: 12 MB\"}",
        "DeprecationWarning: No module named 'x' will be an error",
        "hint: run with --help; unknown option names are ignored",
    ] {
        check(Exit::Code(1), &format!("{stderr}{crash}"), F::ExitedAtStart, "");
    }
}

#[test]
fn the_exit_status_speaks_where_words_do_not() {
    check(Exit::Code(0), "", F::ExitedAtStart, "");
    check(Exit::Code(127), "sh: 1: nope: not found", F::CommandNotFound, "command=nope");
    check(Exit::Code(127), "bash: nope: command not found", F::CommandNotFound, "command=nope");
    check(
        Exit::Code(127),
        "env: \u{2018}nope\u{2019}: No such file or directory",
        F::CommandNotFound,
        "command=nope",
    );
    check(
        Exit::Code(2),
        "error: Failed to inspect Python interpreter\n         pyenv: python3.9: command not found",
        F::CommandNotFound,
        "command=python3.9",
    );
    check(Exit::Code(127), "", F::CommandNotFound, "");
    check(Exit::Code(126), "sh: 1: /srv/x: Permission denied", F::CommandNotExecutable, "");
    check(Exit::Code(137), "", F::KilledBySignal, "");
    check(Exit::Signal(9), "ModuleNotFoundError: x", F::KilledBySignal, "");
    check(Exit::Unknown, "", F::ExitedAtStart, "");
}

fn lines(text: &[&str]) -> Vec<String> {
    text.iter().map(|line| (*line).to_owned()).collect()
}

fn of_stderr(stderr: &[&str]) -> Diagnosis {
    let stderr = lines(stderr);
    diagnose(&Remains { exit: Exit::Code(1), stderr: &stderr, stdout: &[], answered: false })
}

#[test]
fn a_process_that_had_answered_has_exited_whatever_it_printed() {
    let stderr = lines(&["Usage: x", "ModuleNotFoundError: No module named 'x'"]);
    let remains = Remains { exit: Exit::Code(3), stderr: &stderr, stdout: &[], answered: true };
    let found = diagnose(&remains);
    assert_eq!(found.code, F::Exited);
    assert!(found.message.contains("status 3"));
}

#[test]
fn usage_on_standard_output_counts_too() {
    let stdout = lines(&["Usage: tool <command>"]);
    let remains = Remains { exit: Exit::Code(2), stderr: &[], stdout: &stdout, answered: false };
    assert_eq!(diagnose(&remains).code, F::UsageError);
}

#[test]
fn the_error_is_quoted_rather_than_the_trace() {
    let quoted = |stderr: &[&str], end: &str| {
        let message = of_stderr(stderr).message;
        assert!(message.ends_with(end), "{message}");
    };
    quoted(&["ValueError: bad thing", "    at frame", "Node.js v22"], "ValueError: bad thing");
    quoted(
        &[
            "thread 'main' panicked at src/main.rs:1:2:",
            "no luck",
            "stack backtrace:",
            "core::panicking",
        ],
        "no luck",
    );
    quoted(
        &["panic: no luck", "", "goroutine 1 [running]:", "panic({0x1, 0x2})"],
        "panic: no luck",
    );
}

#[test]
fn the_next_step_names_the_thing() {
    for (stderr, words) in [
        ("ModuleNotFoundError: No module named 'mcp'", "`mcp`"),
        ("KeyError: 'OPENAI_API_KEY'", "`OPENAI_API_KEY`"),
        ("Cannot connect to the Docker daemon at unix:///x", "Docker"),
        ("npx canceled due to missing packages and no YES option", "`-y`"),
    ] {
        let advice = of_stderr(&[stderr]).advice.unwrap_or_default();
        assert!(advice.contains(words), "{stderr}: {advice}");
    }
}
