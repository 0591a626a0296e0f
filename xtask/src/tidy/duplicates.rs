//! Crates that are built in two versions: time to compile, bytes, and types that do not fit.
//!
//! Today's are in `xtask/duplicates.toml`, each with the reason it cannot go. A new one is
//! wrong, and so is one that is gone but still listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Complaints;
use crate::workspace::Package;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    #[serde(default)]
    duplicate: Vec<Duplicate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Duplicate {
    #[serde(rename = "crate")]
    name: String,
    /// Compatible versions by their leading numbers: `1`, `0.4`, `0.0.3`.
    series: BTreeSet<String>,
    reason: String,
}

pub(super) fn check(packages: &[&Package], root: &Path) -> Result<Complaints> {
    let path = root.join("xtask/duplicates.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let known: Known = toml::from_str(&text)
        .with_context(|| format!("`{}` is not what it should be", path.display()))?;
    Ok(judge(packages, &known))
}

fn judge(packages: &[&Package], known: &Known) -> Complaints {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        found.entry(&package.name).or_default().insert(series(&package.version));
    }
    found.retain(|_, series| series.len() > 1);

    let mut complaints = Complaints::new();
    for (name, series) in &found {
        let listed = known.duplicate.iter().find(|duplicate| duplicate.name == *name);
        if listed.is_none_or(|duplicate| duplicate.series != *series) {
            let versions = series.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
            complaints.push(format!(
                "`{name}` is built as {versions}; bring them together (`cargo tree -i {name}`), \
                 or say in xtask/duplicates.toml why that cannot be"
            ));
        }
    }
    for duplicate in &known.duplicate {
        if !found.contains_key(duplicate.name.as_str()) {
            complaints.push(format!(
                "`{}` is no longer built twice; remove it from xtask/duplicates.toml",
                duplicate.name
            ));
        }
        if duplicate.reason.trim().is_empty() {
            complaints.push(format!("the duplicate `{}` has no reason", duplicate.name));
        }
    }
    complaints
}

/// The part of a version that Cargo holds compatible: up to the first number that is not zero.
fn series(version: &str) -> String {
    let numbers: Vec<&str> = version.split(['.', '-', '+']).take(3).collect();
    let end = numbers.iter().position(|number| *number != "0").map_or(numbers.len(), |at| at + 1);
    numbers[..end].join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::package;

    fn known(name: &str, series: &[&str]) -> Known {
        Known {
            duplicate: vec![Duplicate {
                name: name.to_owned(),
                series: series.iter().map(|&s| s.to_owned()).collect(),
                reason: "two users".to_owned(),
            }],
        }
    }

    #[test]
    fn a_series_ends_with_the_first_number_that_counts() {
        assert_eq!(series("1.2.3"), "1");
        assert_eq!(series("0.4.3"), "0.4");
        assert_eq!(series("0.0.7"), "0.0.7");
        assert_eq!(series("2.0.0-rc.1+build"), "2");
    }

    #[test]
    fn a_new_duplicate_is_wrong_and_a_listed_one_is_not() {
        let (old, new) = (package("syn", "2.0.1", None), package("syn", "3.1.0", None));
        assert_eq!(
            judge(&[&old, &new], &Known::default()),
            ["`syn` is built as 2 and 3; bring them together (`cargo tree -i syn`), or say in \
              xtask/duplicates.toml why that cannot be"]
        );
        assert!(judge(&[&old, &new], &known("syn", &["2", "3"])).is_empty());
        assert_eq!(judge(&[&old, &new], &known("syn", &["1", "3"])).len(), 1);
    }

    #[test]
    fn a_listed_one_that_is_gone_is_wrong() {
        let one = package("syn", "3.1.0", None);
        assert_eq!(
            judge(&[&one], &known("syn", &["2", "3"])),
            ["`syn` is no longer built twice; remove it from xtask/duplicates.toml"]
        );
    }
}
