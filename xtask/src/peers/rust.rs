//! The server on the Rust SDK: built from source, in a workspace and a target folder of its own,
//! so that who builds or tests mcpmon's crates never compiles the SDK.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::manifest::Peer;
use super::tool::{self, Stamp};
use super::{Place, all_failed};
use crate::workspace;

const NAME: &str = "rmcp";
const PACKAGE: &str = "rmcp-server";

/// Builds the server; a failure stays within this batch.
pub(super) fn install(place: &Place, force: bool) -> Vec<(String, Peer)> {
    match try_install(place, force) {
        Ok(peer) => vec![(NAME.to_owned(), peer)],
        Err(error) => all_failed(&[NAME], &error),
    }
}

fn try_install(place: &Place, force: bool) -> Result<Peer> {
    let from = place.from.join(PACKAGE);
    let manifest = tool::read(&from.join("Cargo.toml"))?;
    let lock = tool::read(&from.join("Cargo.lock"))?;
    let source = tool::read(&from.join("src/main.rs"))?;
    let folder = place.into.join(NAME);
    let compiler = tool::first_line(workspace::cargo().arg("--version"))?;
    let stamp = Stamp::new(&folder, &[&compiler, &manifest, &lock, &source]);
    let program = folder.join("debug").join(PACKAGE);
    if force || !stamp.holds() || !program.is_file() {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        stamp.break_seal()?;
        tool::run(place, NAME, || {
            let mut command = workspace::cargo();
            command.args(["build", "--locked", "--target-dir"]).arg(&folder).current_dir(&from);
            // What Cargo tells the chore about the chore's own package is none of the build's.
            without_ours(command)
        })?;
        ensure!(program.is_file(), "the build left no `{}`", program.display());
        stamp.seal()?;
    }
    let version = pinned(&lock).context("the lock file names no rmcp")?;
    Ok(Peer::command(version, &program, Vec::new()))
}

fn without_ours(mut command: Command) -> Command {
    for variable in ["CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"] {
        command.env_remove(variable);
    }
    command
}

/// The version of the SDK that the lock file has.
fn pinned(lock: &str) -> Option<&str> {
    let (_, after) = lock.split_once("name = \"rmcp\"\nversion = \"")?;
    after.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = "name = \"rmcp-macros\"\nversion = \"1.0.0\"\n\n\
                    name = \"rmcp\"\nversion = \"3.11.0\"\n";
        assert_eq!(pinned(lock), Some("3.11.0"));
        let lock = crate::workspace::root().unwrap().join("tests/peers/rmcp-server/Cargo.lock");
        assert!(pinned(&tool::read(&lock).unwrap()).is_some_and(|version| !version.is_empty()));
    }
}
