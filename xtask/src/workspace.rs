//! Where the workspace is, and what Cargo knows about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The folder of the root manifest: the parent of the one Cargo runs this package from.
///
/// # Errors
///
/// If the program is run neither by Cargo nor from within the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    if let Some(manifest) = std::env::var_os("CARGO_MANIFEST_DIR") {
        return Ok(Path::new(&manifest).parent().context("xtask has no parent folder")?.to_owned());
    }
    let here = std::env::current_dir().context("the current folder cannot be read")?;
    here.ancestors()
        .find(|folder| folder.join("xtask/Cargo.toml").is_file())
        .map(Path::to_owned)
        .context("run this as `cargo xtask` from within the workspace")
}

/// The Cargo that runs us, so that a chore uses the same toolchain.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(program)
}

/// `cargo metadata`, reduced to what the chores read.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: BTreeSet<String>,
    pub(crate) target_directory: PathBuf,
    pub(crate) resolve: Option<Resolve>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
    #[serde(default)]
    pub(crate) dependencies: Vec<Dependency>,
    #[serde(default)]
    pub(crate) features: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    /// `None` means any registry, an empty list none.
    pub(crate) publish: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
    pub(crate) uses_default_features: bool,
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) dependencies: Vec<String>,
}

/// How much of the graph to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The members alone; needs neither network nor a lock file.
    Members,
    /// Everything the members need on Linux with all their features on.
    Everything,
}

impl Metadata {
    /// Asks Cargo about this workspace.
    ///
    /// # Errors
    ///
    /// As [`Metadata::load_of`].
    pub(crate) fn load(depth: Depth) -> Result<Self> {
        Self::load_of(&root()?, depth)
    }

    /// Asks Cargo about the workspace of this folder.
    ///
    /// # Errors
    ///
    /// If Cargo fails (a broken manifest, a lock file that is out of date) or answers in a shape
    /// this code does not know.
    pub(crate) fn load_of(folder: &Path, depth: Depth) -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1"]).current_dir(folder);
        match depth {
            Depth::Members => command.arg("--no-deps"),
            Depth::Everything => command.args([
                "--locked",
                "--all-features",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ]),
        };
        let output = command.output().context("`cargo metadata` could not be started")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("`cargo metadata` in an unknown shape")
    }

    /// The packages of this workspace, by name.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members: Vec<_> =
            self.packages.iter().filter(|p| self.workspace_members.contains(&p.id)).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Every package a member needs, members left out, by name and version.
    pub(crate) fn foreign(&self) -> Vec<&Package> {
        let reached = self.reached();
        let mut foreign: Vec<_> = self
            .packages
            .iter()
            .filter(|p| reached.contains(p.id.as_str()) && !self.workspace_members.contains(&p.id))
            .collect();
        foreign.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        foreign
    }

    /// Cargo lists some packages that no edge of the filtered graph leads to; a walk does not.
    fn reached(&self) -> BTreeSet<&str> {
        let Some(resolve) = &self.resolve else {
            return BTreeSet::new();
        };
        let edges: BTreeMap<&str, &[String]> = resolve
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node.dependencies.as_slice()))
            .collect();
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = self.workspace_members.iter().map(String::as_str).collect();
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                open.extend(edges.get(id).copied().unwrap_or_default().iter().map(String::as_str));
            }
        }
        reached
    }
}

impl Package {
    /// Whether `cargo publish` would take it.
    pub(crate) fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Metadata made up for tests.

    use super::*;

    pub(crate) fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        Package {
            id: format!("{name} {version}"),
            name: name.to_owned(),
            version: version.to_owned(),
            license: license.map(str::to_owned),
            manifest_path: PathBuf::from(format!("crates/{name}/Cargo.toml")),
            dependencies: Vec::new(),
            features: BTreeMap::new(),
            targets: Vec::new(),
            publish: None,
        }
    }

    pub(crate) fn dependency(name: &str, kind: Option<&str>) -> Dependency {
        Dependency {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            uses_default_features: true,
            features: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::package;
    use super::*;

    #[test]
    fn only_packages_that_an_edge_leads_to_are_foreign() {
        let metadata = Metadata {
            packages: vec![
                package("ours", "0.1.0", None),
                package("used", "1.0.0", None),
                package("for-windows", "1.0.0", None),
            ],
            workspace_members: ["ours 0.1.0".to_owned()].into(),
            target_directory: PathBuf::from("target"),
            resolve: Some(Resolve {
                nodes: vec![Node {
                    id: "ours 0.1.0".to_owned(),
                    dependencies: vec!["used 1.0.0".to_owned()],
                }],
            }),
        };
        let names: Vec<_> = metadata.foreign().iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["used"]);
    }
}
