//! Which licences the code we build on may have.
//!
//! What everyone may take stands in [`ACCEPTED`]; what is right for certain crates only stands in
//! `xtask/licences.toml`, with its reason. An exception nobody needs any more is wrong too, so
//! the list only shrinks.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Complaints;
use super::spdx::Expression;
use crate::workspace::Package;

/// Licences that ask for no more than their text in what is shipped. MPL-2.0 asks for changes to
/// its own files besides, and we change none.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unlicense",
    "Zlib",
];

/// Crates that may not come in by any way, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls on ring, and a system library would be needed to build"),
    ("openssl-sys", "TLS is rustls on ring, and a system library would be needed to build"),
    ("native-tls", "TLS is rustls on ring"),
    ("aws-lc-rs", "ring is the one provider; this one wants CMake"),
    ("aws-lc-sys", "ring is the one provider; this one wants CMake"),
    ("evalexpr", "it is AGPL; conditions are CEL"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// One licence that is right for these crates only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    licence: String,
    reason: String,
    crates: BTreeSet<String>,
}

pub(super) fn check(packages: &[&Package], root: &Path) -> Result<Complaints> {
    let path = root.join("xtask/licences.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let exceptions = toml::from_str(&text)
        .with_context(|| format!("`{}` is not what it should be", path.display()))?;
    Ok(judge(packages, &exceptions))
}

fn judge(packages: &[&Package], exceptions: &Exceptions) -> Complaints {
    let mut complaints = Complaints::new();
    let mut needed = BTreeSet::new();
    for package in packages {
        if let Some((_, why)) = BANNED.iter().find(|(name, _)| *name == package.name) {
            complaints.push(format!("`{}` may not be used: {why}", package.name));
        }
        match verdict(package, exceptions) {
            Verdict::Fine => {}
            Verdict::ByException(licence) => {
                needed.insert((licence, package.name.as_str()));
            }
            Verdict::Wrong(complaint) => complaints.push(complaint),
        }
    }
    for exception in &exceptions.exception {
        if exception.reason.trim().is_empty() {
            complaints.push(format!("the exception for {} gives no reason", exception.licence));
        }
        for name in &exception.crates {
            if !needed.contains(&(exception.licence.as_str(), name.as_str())) {
                complaints.push(format!(
                    "`{name}` needs its exception for {} no longer; remove it from \
                     xtask/licences.toml",
                    exception.licence
                ));
            }
        }
    }
    complaints
}

enum Verdict<'a> {
    Fine,
    ByException(&'a str),
    Wrong(String),
}

fn verdict<'a>(package: &Package, exceptions: &'a Exceptions) -> Verdict<'a> {
    let name = format!("`{} {}`", package.name, package.version);
    let Some(licence) = &package.license else {
        return Verdict::Wrong(format!("{name} names no licence; read its files and decide"));
    };
    let expression = match Expression::parse(licence) {
        Ok(expression) => expression,
        Err(error) => return Verdict::Wrong(format!("{name}: `{licence}` is no licence: {error}")),
    };
    let accepted = |licence: &str| ACCEPTED.contains(&licence);
    if expression.is_met_by(&accepted) {
        return Verdict::Fine;
    }
    let excepted = exceptions
        .exception
        .iter()
        .filter(|exception| exception.crates.contains(&package.name))
        .find(|e| expression.is_met_by(&|licence| accepted(licence) || licence == e.licence));
    match excepted {
        Some(exception) => Verdict::ByException(&exception.licence),
        None => Verdict::Wrong(format!(
            "{name} is under `{licence}`, which is not accepted; replace it, or give an \
             exception with its reason in xtask/licences.toml"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::package;

    fn unicode_for(crates: &[&str]) -> Exceptions {
        Exceptions {
            exception: vec![Exception {
                licence: "Unicode-3.0".to_owned(),
                reason: "tables".to_owned(),
                crates: crates.iter().map(|&name| name.to_owned()).collect(),
            }],
        }
    }

    #[test]
    fn a_licence_outside_the_list_is_named_with_its_crate() {
        let agpl = package("evil", "1.0.0", Some("AGPL-3.0-only"));
        assert_eq!(
            judge(&[&agpl], &Exceptions::default()),
            ["`evil 1.0.0` is under `AGPL-3.0-only`, which is not accepted; replace it, or give \
              an exception with its reason in xtask/licences.toml"]
        );
    }

    #[test]
    fn an_exception_holds_for_its_crates_alone() {
        let tables = package("tables", "1.0.0", Some("(MIT OR Apache-2.0) AND Unicode-3.0"));
        let other = package("other", "1.0.0", Some("Unicode-3.0"));
        assert!(judge(&[&tables], &unicode_for(&["tables"])).is_empty());
        assert_eq!(judge(&[&tables, &other], &unicode_for(&["tables"])).len(), 1);
    }

    #[test]
    fn an_exception_nobody_needs_is_wrong() {
        let free = package("tables", "2.0.0", Some("MIT"));
        let complaints = judge(&[&free], &unicode_for(&["tables"]));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("no longer"), "{complaints:?}");
    }

    #[test]
    fn a_banned_crate_and_one_without_a_licence_are_named() {
        let banned = package("openssl", "0.10.0", Some("Apache-2.0"));
        let silent = package("silent", "0.1.0", None);
        let complaints = judge(&[&banned, &silent], &Exceptions::default());
        assert!(complaints[0].starts_with("`openssl` may not be used"));
        assert!(complaints[1].contains("names no licence"));
    }
}
