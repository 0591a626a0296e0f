//! What package runners, interpreters and loaders print when they give up, and what it means.
//!
//! Data, the most specific first: where several fit, order settles what wins. A clue is a set of
//! phrases that stand together on one line; where the line names the missing thing, the clue says
//! where in the line that stands.

use mcpmon_core::failure::FailureCode;

use super::names::Names;

/// Phrases that give a cause away.
#[derive(Debug)]
pub(super) struct Clue {
    /// In lower case; all of them are in the line.
    pub(super) phrases: &'static [&'static str],
    pub(super) code: FailureCode,
    /// Under which name the thing is kept as evidence, and where it stands.
    pub(super) names: Option<(&'static str, Names)>,
    /// What to do, where more is known than the code says.
    pub(super) advice: Option<&'static str>,
}

const fn clue(phrases: &'static [&'static str], code: FailureCode) -> Clue {
    Clue { phrases, code, names: None, advice: None }
}

impl Clue {
    const fn naming(self, key: &'static str, names: Names) -> Self {
        Self { names: Some((key, names)), ..self }
    }

    const fn advising(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

const fn package(phrases: &'static [&'static str], names: Names) -> Clue {
    clue(phrases, FailureCode::PackageNotFound).naming("package", names)
}

const fn module(phrases: &'static [&'static str], names: Names) -> Clue {
    clue(phrases, FailureCode::MissingModule).naming("module", names)
}

const fn runtime(phrases: &'static [&'static str]) -> Clue {
    clue(phrases, FailureCode::RuntimeUnsupported)
}

use Names::{After, Before, Quoted};

pub(super) const CLUES: &[Clue] = &[
    // npm, npx, pnpm, yarn.
    package(&["npm", "could not be found or you do not have permission"], Quoted),
    package(&["npm", "is not in this registry"], Quoted),
    package(&["no matching version found for"], After("found for")),
    package(&["npm", "404 not found"], After("registry.npmjs.org/")),
    clue(&["npm", "code e404"], FailureCode::PackageNotFound),
    clue(&["npm", "code etarget"], FailureCode::PackageNotFound),
    package(&["registry.npmjs.org", "- 404"], After("registry.npmjs.org/")),
    clue(&["npm", "could not determine executable to run"], FailureCode::PackageNotFound).advising(
        "the package has no program of that name; name one with `npx -p PACKAGE PROGRAM`",
    ),
    clue(&["npx canceled due to missing packages"], FailureCode::UsageError)
        .advising("put `-y` first in `args`, so that npx does not ask before it installs"),
    clue(&["npm", "code e401"], FailureCode::MissingCredential)
        .advising("log the user mcpmon runs as in to the package registry (`npm login`, .npmrc)"),
    clue(&["npm", "code eneedauth"], FailureCode::MissingCredential)
        .advising("log the user mcpmon runs as in to the package registry (`npm login`, .npmrc)"),
    // uv, uvx, pip, pipx.
    package(&["was not found in the package registry"], Before("was not found")),
    package(&["was not found in the provided package locations"], Before("was not found")),
    package(&["because there is no version of"], After("no version of")),
    package(&["because there are no versions of"], After("no versions of")),
    package(&["no matching distribution found for"], After("found for")),
    package(&["could not find a version that satisfies the requirement"], After("requirement")),
    package(&["an executable named", "is not provided by package"], After("by package")).advising(
        "the package has no program of that name; say which with `--from PACKAGE PROGRAM`",
    ),
    package(&["package `", "does not provide any executables"], Quoted),
    package(&["no apps associated with package"], After("with package")),
    // Containers.
    package(&["pull access denied for"], After("denied for")),
    package(&["manifest for", "not found"], After("manifest for")),
    clue(&["manifest unknown"], FailureCode::PackageNotFound),
    package(&["initializing source docker://"], After("docker://")),
    package(&["no such image"], After("no such image")),
    package(&["unable to find image", "locally"], Quoted),
    // Bun, Deno, Go, Cargo, RubyGems.
    package(&["no version matching", "found for specifier"], After("for specifier")),
    package(&["failed to resolve", "error:"], Before("failed to resolve")),
    package(&["could not find npm package"], After("npm package")),
    package(&["npm package", "does not exist"], Quoted),
    package(&["jsr package not found"], After("not found")),
    package(&["go: module", "not found"], After("go: module")),
    package(&["go: ", "unknown revision"], After("go: ")),
    package(&["could not find `", "in registry"], Quoted),
    package(&["could not find a valid gem"], After("valid gem")),
    // Runtimes that are too old, too new, or for another machine.
    runtime(&["npm", "code ebadengine"]),
    runtime(&["npm", "ebadplatform"]),
    runtime(&["unsupported platform"]),
    runtime(&["unsupported engine"]),
    runtime(&["the engine \"node\" is incompatible with this module"]),
    runtime(&["requires node"]),
    runtime(&["node.js version", "required"]),
    runtime(&["node", "or higher is required"]),
    runtime(&["node.js", "is not supported"]),
    runtime(&["unsupported node"]),
    runtime(&["node_module_version"]),
    runtime(&["err_dlopen_failed"]),
    runtime(&["invalid elf header"]),
    runtime(&["no such built-in module: node:"]).naming("module", After("built-in module:")),
    runtime(&["cannot find module 'node:"]).naming("module", Quoted),
    runtime(&["the requested module 'node:", "does not provide an export"])
        .naming("module", Quoted),
    runtime(&["referenceerror: fetch is not defined"]),
    runtime(&["referenceerror: file is not defined"]),
    runtime(&["referenceerror: crypto is not defined"]),
    runtime(&["referenceerror: readablestream is not defined"]),
    runtime(&["referenceerror: headers is not defined"]),
    runtime(&["referenceerror: structuredclone is not defined"]),
    // What Node.js 12 and 14 say of syntax that came later.
    runtime(&["syntaxerror: unexpected token '?'"]),
    runtime(&["syntaxerror: unexpected token '.'"]),
    runtime(&["syntaxerror: unexpected token '??='"]),
    runtime(&["syntaxerror: unexpected token '||='"]),
    runtime(&["requires a different python"]).naming("required", Names::LastQuoted),
    runtime(&["python", "or higher is required"]),
    runtime(&["python", "or newer is required"]),
    runtime(&["requires python"]).naming("required", After("requires python")),
    runtime(&["requires-python"]),
    runtime(&["current python version", "does not satisfy"])
        .naming("required", After("not satisfy")),
    runtime(&["incompatible with the project", "python requirement"]),
    runtime(&["no interpreter found for python"]).naming("required", After("found for python")),
    runtime(&["missing parentheses in call to 'print'"]),
    runtime(&["unsupported operand type(s) for |: 'type'"]),
    runtime(&["unsupported operand type(s) for |: '_genericalias'"]),
    runtime(&["module 'asyncio' has no attribute"]),
    // Parts of Python's own library that came or went with a version.
    runtime(&["no module named 'tomllib'"]).naming("module", Quoted),
    runtime(&["no module named 'distutils"]).naming("module", Quoted),
    runtime(&["no module named 'imp'"]).naming("module", Quoted),
    runtime(&["no module named 'asyncore'"]).naming("module", Quoted),
    runtime(&["no module named 'zoneinfo'"]).naming("module", Quoted),
    runtime(&["cannot import name", "from 'typing'"]).naming("module", Names::LastQuoted),
    runtime(&["cannot import name", "from 'collections'"]).naming("module", Names::LastQuoted),
    runtime(&["unsupportedclassversionerror"])
        .naming("class", After("unsupportedclassversionerror")),
    runtime(&["class file has wrong version"]),
    runtime(&["version `glibc", "not found"]).naming("required", After("version")),
    runtime(&["exec format error"]),
    runtime(&["cannot execute binary file"]),
    runtime(&["bad cpu type in executable"]),
    runtime(&["no matching manifest for"]).naming("platform", After("manifest for")),
    runtime(&["you must install or update .net"]),
    // Modules, packages, files and libraries that are not there.
    module(&["cannot find module"], After("find module")),
    module(&["cannot find package"], After("find package")),
    module(&["err_module_not_found"], Quoted),
    module(&["err_package_path_not_exported"], Quoted),
    module(&["err_unsupported_dir_import"], Quoted),
    module(&["does not provide an export named"], Quoted),
    module(&["no module named"], After("no module named")),
    module(&["importerror: cannot import name"], After(" from ")),
    module(&["modulenotfounderror"], Quoted),
    module(&["importerror:", "cannot open shared object file"], After("importerror:")),
    clue(&["importerror:"], FailureCode::MissingModule),
    module(&["can't open file", "no such file"], After("open file")),
    module(&["error while loading shared libraries"], After("libraries:")),
    module(&["library not loaded"], After("not loaded:")),
    module(&["cannot load such file"], After("such file --")),
    module(&["could not find gem"], After("find gem")),
    module(&["could not find or load main class"], After("main class")),
    module(&["unable to access jarfile"], After("jarfile")),
    module(&["noclassdeffounderror"], After("noclassdeffounderror")),
    module(&["classnotfoundexception"], After("classnotfoundexception")),
    module(&["could not load file or assembly"], After("or assembly")),
    module(&["can't locate", "in @inc"], After("locate")),
    module(&["no required module provides package"], After("provides package")),
    module(&["failed opening required"], After("required")),
    module(&["error: module not found"], After("not found")),
    // Deno names the permission it wants.
    clue(&["run again with the --allow-"], FailureCode::UsageError)
        .naming("option", Names::Option("--allow-"))
        .advising("add the permission the message names to `args`, before the script"),
];

/// Ends that are for none of the reasons above, but for a reason that is known all the same.
pub(super) const HINTS: &[(&[&str], &str)] = &[
    (
        &["cannot connect to the docker daemon"],
        "start Docker, or give the user mcpmon runs as access to its socket",
    ),
    (
        &["permission denied", "docker"],
        "give the user mcpmon runs as access to Docker's socket (the group `docker`)",
    ),
    (&["no such container"], "start the container first, or use `docker run` in place of `exec`"),
    (&["npm", "eai_again"], "restore the way to the package registry, or install the server"),
    (&["npm", "enotfound"], "restore the way to the package registry, or install the server"),
    (&["failed to fetch: `http"], "restore the way to the package registry, or install the server"),
    (&["eaddrinuse"], "another process has the port; end that one, or give this one another port"),
    (&["address already in use"], "another process has the port; end that one, or choose another"),
    (&["enospc"], "make room on the disk the server writes to"),
    (&["no space left on device"], "make room on the disk the server writes to"),
    (
        &["javascript heap out of memory"],
        "give Node.js more memory (NODE_OPTIONS), or find the leak",
    ),
    (&["outofmemoryerror"], "give the JVM more memory (-Xmx), or find the leak"),
    (&["use import statement outside a module"], "name the file .mjs, or set \"type\": \"module\""),
];

/// Openings of a line, in lower case, that come with usage text.
pub(super) const USAGE_STARTS: &[&str] = &["usage:", "usage ", "error: usage", "try '"];

/// Phrases that come with usage text.
pub(super) const USAGE_PHRASES: &[&str] = &[
    "the following arguments are required",
    "the following required arguments were not provided",
    "the following required argument was not provided",
    "unrecognized arguments",
    "unrecognized option",
    "unexpected argument",
    "unknown option",
    "unknown command",
    "unknown argument",
    "unknown flag",
    "flag provided but not defined",
    "bad option:",
    "missing required argument",
    "missing argument",
    "missing command",
    "missing option",
    "required option",
    "not enough non-option arguments",
    "requires a subcommand",
    "requires at least",
    "requires exactly",
    "accepts 1 arg",
    "invalid choice:",
    "no such option",
    "no such command",
    "too few arguments",
    "expected one argument",
];
