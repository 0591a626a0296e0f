//! The servers from npm: one prefix, pinned by `package-lock.json`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::manifest::Peer;
use super::tool::{self, Stamp};
use super::{Place, all_failed};

const NAMES: &[&str] = &["everything", "everything-http", "filesystem", "memory"];
const LEAST_NODE: u32 = 20;

/// Installs the prefix and lists its peers; none of them fails the others' batches.
pub(super) fn install(place: &Place, force: bool) -> Vec<(String, Peer)> {
    match try_install(place, force) {
        Ok(peers) => peers,
        Err(error) => all_failed(NAMES, &error),
    }
}

fn try_install(place: &Place, force: bool) -> Result<Vec<(String, Peer)>> {
    let node = find_node()?;
    let package = tool::read(&place.from.join("package.json"))?;
    let lock = tool::read(&place.from.join("package-lock.json"))?;
    let folder = place.into.join("node");
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
            std::fs::write(folder.join(name), text)
                .with_context(|| format!("cannot write `{name}` into `{}`", folder.display()))?;
        }
        let npm = tool::find("NPM", &["npm"], "install Node.js with npm")?;
        tool::run(place, "npm", || npm_ci(&npm, place, &folder))?;
        stamp.seal()?;
    }
    Ok(peers(place, &folder, &node))
}

fn find_node() -> Result<PathBuf> {
    tool::find("NODE", &["node"], "install Node.js 20 or newer")
}

/// Install scripts stay off: none of the servers has one, and a dependency that grows one
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

fn peers(place: &Place, folder: &Path, node: &Path) -> Vec<(String, Peer)> {
    let announce = place.from.join("announce-port.mjs").display().to_string();
    let server = |package: &str, before: &[&str], after: &[&str]| {
        let package = folder.join("node_modules/@modelcontextprotocol").join(package);
        match entry(&package) {
            Ok((version, entry)) => {
                let words = before.iter().copied().chain([entry.as_str()]);
                let words = words.chain(after.iter().copied()).map(str::to_owned);
                Peer::command(&version, node, words.collect())
            }
            Err(error) => Peer::missing(&format!("{error:#}")),
        }
    };
    let http = server("server-everything", &["--import", &announce], &["streamableHttp"]);
    let all = [
        server("server-everything", &[], &["stdio"]),
        if http.ok { http.with_env("PORT", "0") } else { http },
        server("server-filesystem", &[], &[]),
        server("server-memory", &[], &[]),
    ];
    NAMES.iter().map(|&name| name.to_owned()).zip(all).collect()
}

/// Version and program of an installed package that has one program.
fn entry(package: &Path) -> Result<(String, String)> {
    let manifest = tool::read(&package.join("package.json"))?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest)
        .with_context(|| format!("`{}` has a broken package.json", package.display()))?;
    let version = manifest["version"].as_str().unwrap_or("unknown");
    let program = manifest["bin"]
        .as_object()
        .and_then(|programs| programs.values().next()?.as_str())
        .with_context(|| format!("`{}` names no program", package.display()))?;
    let entry = package.join(program);
    ensure!(entry.is_file(), "`{}` is not there; try `cargo xtask peers --force`", entry.display());
    Ok((version.to_owned(), entry.display().to_string()))
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
}
