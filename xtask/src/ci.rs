//! `ci`: every check there is, cheapest first, one target folder and one profile for all.
//!
//! No step sets a flag that Cargo keeps artefacts apart by, so what one step compiled the next
//! one uses.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use crate::step::{Step, timed};
use crate::suite;
use crate::terminal::{Stopwatch, say};
use crate::tidy;
use crate::workspace::{self, Depth, Metadata, Package};

/// A part of CI that can be run alone.
struct Part {
    name: &'static str,
    run: fn() -> Result<()>,
}

const PARTS: &[Part] = &[
    Part { name: "format", run: format },
    Part { name: "tidy", run: || tidy::run(&[]) },
    Part { name: "clippy", run: clippy },
    Part { name: "docs", run: docs },
    Part { name: "alone", run: alone },
    Part { name: "package", run: package },
    Part { name: "test", run: suite::for_ci },
];

/// `cargo xtask ci [STEP…]`: all steps, or only these.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(unknown) = arguments.iter().find(|name| PARTS.iter().all(|p| p.name != **name)) {
        let known: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        bail!("no step is called `{unknown}`; there are: {}", known.join(", "));
    }
    let watch = Stopwatch::start();
    for part in PARTS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == part.name) {
            timed(part.name, &format!("cargo xtask ci {}", part.name), part.run)?;
        }
    }
    say(format_args!("\nci: ok, {}", watch.elapsed()));
    Ok(())
}

fn format() -> Result<()> {
    Step::cargo(["fmt", "--all", "--", "--check"])?.run()
}

fn clippy() -> Result<()> {
    Step::cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?
        .run()
}

fn docs() -> Result<()> {
    Step::cargo(["doc", "--workspace", "--no-deps", "--locked"])?
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// In a workspace build one member's features hide what another forgot to ask for, and what is
/// dead code without them.
fn alone() -> Result<()> {
    let metadata = Metadata::load(Depth::Members)?;
    for package in published(&metadata) {
        for features in feature_sets(package) {
            let step = Step::cargo(["clippy", "--locked", "-p", &package.name])?;
            features.added_to(step).args(["--", "-D", "warnings"]).run()?;
        }
    }
    Ok(())
}

/// Packs each crate as `cargo publish` would and builds it from what was packed.
/// Removes what an earlier run unpacked and built of these crates. Cargo keeps both by name and
/// version (the source under a registry of its own that is named with a dash) and takes a version
/// of a registry for unchangeable, so it would verify the old source, or none at all.
fn forget_packed(metadata: &Metadata) -> Result<()> {
    let packages = published(metadata);
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    let Some(registries) = home.map(|home| home.join("registry").join("src")) else {
        return Ok(());
    };
    let mut found = false;
    for registry in std::fs::read_dir(&registries).into_iter().flatten().flatten() {
        if !registry.file_name().to_string_lossy().starts_with('-') {
            continue;
        }
        for package in &packages {
            let unpacked = registry.path().join(format!("{}-{}", package.name, package.version));
            if unpacked.is_dir() {
                found = true;
                remove(&unpacked)?;
            }
        }
    }
    if found { forget_built(&packages, &metadata.target_directory) } else { Ok(()) }
}

/// Which artefacts are of the workspace and which of the packed crates cannot be told from outside.
fn forget_built(packages: &[&Package], target: &Path) -> Result<()> {
    let built = target.join("debug").join(".fingerprint");
    for entry in std::fs::read_dir(&built).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let package = name.to_string_lossy();
        let of = package.rsplit_once('-').map_or("", |(name, _)| name);
        if packages.iter().any(|package| package.name == of) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove `{}`", folder.display()))
}

fn package() -> Result<()> {
    let metadata = Metadata::load(Depth::Members)?;
    let names = published(&metadata).into_iter().flat_map(|package| ["-p", &package.name]);
    let path = workspace::root()?.join("Cargo.toml");
    let manifest = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let profile = profile_options(&toml::from_str(&manifest).context("no manifest")?);
    forget_packed(&metadata)?;
    Step::cargo(["package", "--locked", "--allow-dirty", "--quiet"])?
        .args(names)
        .args(profile.iter().flat_map(|option| ["--config", option]))
        .run()
}

/// A packed crate has left the root manifest behind, and its profile with it; given again, what
/// the tests compiled serves here too.
fn profile_options(manifest: &Table) -> Vec<String> {
    let mut options = Vec::new();
    if let Some(profile) = manifest.get("profile").and_then(|profiles| profiles.get("dev")) {
        flatten("profile.dev", profile, &mut options);
    }
    options
}

/// `--config` takes one dotted key and its value at a time.
fn flatten(key: &str, value: &Value, options: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let quoted = Value::from(name.as_str());
                flatten(&format!("{key}.{quoted}"), value, options);
            }
        }
        value => options.push(format!("{key}={value}")),
    }
}

fn published(metadata: &Metadata) -> Vec<&Package> {
    metadata.members().into_iter().filter(|package| package.is_published()).collect()
}

/// The features of one look at a crate alone.
#[derive(Debug, PartialEq, Eq)]
enum Features {
    /// As most people depend on it.
    Default,
    /// Without the default ones, but with these.
    Only(Vec<String>),
}

impl Features {
    fn added_to(&self, step: Step) -> Step {
        match self {
            Self::Default => step,
            Self::Only(features) if features.is_empty() => step.args(["--no-default-features"]),
            Self::Only(features) => {
                step.args(["--no-default-features", "--features", &features.join(",")])
            }
        }
    }
}

/// None, each by itself, and the default: enough to find a feature that leans on another.
fn feature_sets(package: &Package) -> Vec<Features> {
    let named: Vec<&String> = package.features.keys().filter(|name| *name != "default").collect();
    if named.is_empty() {
        return vec![Features::Default];
    }
    let mut sets = vec![Features::Only(Vec::new())];
    sets.extend(named.into_iter().map(|name| Features::Only(vec![name.clone()])));
    if package.features.contains_key("default") {
        sets.push(Features::Default);
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture;

    fn with_features(features: &[&str]) -> Package {
        let mut package = fixture::package("mcpmon-alert", "0.1.0", None);
        package.features = features.iter().map(|&f| (f.to_owned(), Vec::new())).collect();
        package
    }

    #[test]
    fn a_crate_without_features_is_checked_once() {
        assert_eq!(feature_sets(&with_features(&[])), [Features::Default]);
    }

    #[test]
    fn features_are_checked_apart_and_by_default() {
        let only = |names: &[&str]| Features::Only(names.iter().map(|&n| n.to_owned()).collect());
        assert_eq!(
            feature_sets(&with_features(&["console", "default", "email"])),
            [only(&[]), only(&["console"]), only(&["email"]), Features::Default]
        );
        assert_eq!(feature_sets(&with_features(&["schema"])), [only(&[]), only(&["schema"])]);
    }

    #[test]
    fn a_profile_becomes_one_option_for_each_key() {
        let manifest = r#"
            [profile.dev]
            debug = "line-tables-only"
            [profile.dev.package."*"]
            debug = false
            [profile.release]
            lto = "thin"
        "#;
        assert_eq!(
            profile_options(&toml::from_str(manifest).unwrap()),
            [
                r#"profile.dev."debug"="line-tables-only""#,
                r#"profile.dev."package"."*"."debug"=false"#,
            ]
        );
    }

    #[test]
    fn a_misspelt_step_is_an_error_before_anything_runs() {
        let error = run(&["clipy".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no step is called `clipy`; there are: format, tidy, clippy, docs, alone, package, test"
        );
    }
}
