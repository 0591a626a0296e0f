//! What every manifest of a member has to say, and that the lock file is kept.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::Complaints;
use crate::workspace::{Metadata, Package};

/// Crates with lints of their own: the workspace forbids `unsafe`, and what is forbidden cannot be
/// allowed in one place.
const OWN_LINTS: &[(&str, &str)] =
    &[("mcpmon-bad-disk", "a file system of SQLite is a table of C functions")];

/// What crates.io shows of a crate, and must not lack.
const SHOWN: &[&str] = &["description", "license", "repository", "readme"];

pub(super) fn check(metadata: &Metadata, root: &Path) -> Result<Complaints> {
    let mut complaints = Complaints::new();
    for member in metadata.members() {
        let path = &member.manifest_path;
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let manifest: Table = toml::from_str(&text)
            .with_context(|| format!("`{}` is no manifest", path.display()))?;
        complaints.extend(judge(member, &manifest));
    }
    if !is_kept(root, "Cargo.lock") {
        complaints.push(
            "`Cargo.lock` is not committed; a binary is built from the versions that were tested"
                .to_owned(),
        );
    }
    Ok(complaints)
}

fn judge(member: &Package, manifest: &Table) -> Complaints {
    let mut complaints = Complaints::new();
    let inherits = |table: Option<&Value>| {
        table.and_then(|table| table.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let has_own = OWN_LINTS.iter().any(|(name, _)| *name == member.name);
    if !has_own && !inherits(manifest.get("lints")) {
        complaints.push(format!(
            "`{}` does not take the lints of the workspace; add `[lints] workspace = true`",
            member.name
        ));
    }
    let package = manifest.get("package");
    if member.is_published() {
        for key in SHOWN {
            if package.and_then(|package| package.get(key)).is_none() {
                complaints.push(format!("`{}` has no `{key}` to show on crates.io", member.name));
            }
        }
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(kind).and_then(Value::as_table) else {
            continue;
        };
        for (name, dependency) in dependencies {
            if !inherits(Some(dependency)) {
                complaints.push(format!(
                    "`{}` gives `{name}` a version of its own; versions stand in the root \
                     manifest, so that there is one of each",
                    member.name
                ));
            }
        }
    }
    complaints
}

/// Whether git knows a file; where there is no git, as in a source archive, that it is there.
fn is_kept(root: &Path, file: &str) -> bool {
    let listed =
        Command::new("git").current_dir(root).args(["ls-files", "--error-unmatch", file]).output();
    match listed {
        Ok(output) if root.join(".git").exists() => output.status.success(),
        _ => root.join(file).is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::package;

    const TIDY: &str = r#"
        [package]
        description = "x"
        license.workspace = true
        repository.workspace = true
        readme = "README.md"
        [lints]
        workspace = true
        [dependencies]
        serde.workspace = true
        mcpmon-alert = { workspace = true, features = ["email"] }
    "#;

    #[track_caller]
    fn check(manifest: &str, complaints: &[&str]) {
        let manifest = toml::from_str(manifest).unwrap();
        assert_eq!(judge(&package("mcpmon-web", "0.1.0", None), &manifest), complaints);
    }

    #[test]
    fn a_tidy_manifest_is_left_alone() {
        check(TIDY, &[]);
    }

    #[test]
    fn a_crate_without_the_lints_is_named() {
        check(
            &TIDY
                .replace("workspace = true\n        [dep", "unsafe_code = \"allow\"\n        [dep"),
            &["`mcpmon-web` does not take the lints of the workspace; add `[lints] workspace = \
               true`"],
        );
    }

    #[test]
    fn a_version_of_its_own_is_named() {
        check(
            &TIDY.replace("serde.workspace = true", "serde = \"1\""),
            &["`mcpmon-web` gives `serde` a version of its own; versions stand in the root \
               manifest, so that there is one of each"],
        );
    }

    #[test]
    fn what_crates_io_shows_may_not_lack() {
        check(
            &TIDY.replace("description = \"x\"", ""),
            &["`mcpmon-web` has no `description` to show on crates.io"],
        );
    }
}
