//! The crate map of `docs/architecture.md`, as a table that manifests are held against.
//!
//! Cargo would build almost any graph. The arrows stand here so that a new one is a decision,
//! made in this file and explained in the document, and not a line in a manifest.

use super::Complaints;
use crate::workspace::{Dependency, Package};

/// A crate and what it may use.
struct Place {
    name: &'static str,
    may_use: &'static [&'static str],
}

/// Every crate there is or will be, and its arrows.
const MAP: &[Place] = &[
    Place { name: "mcpmon-core", may_use: &[] },
    Place { name: "mcpmon-mcp", may_use: &["mcpmon-core"] },
    Place { name: "mcpmon-collect", may_use: &["mcpmon-core", "mcpmon-mcp"] },
    Place { name: "mcpmon-store", may_use: &["mcpmon-core"] },
    Place { name: "mcpmon-alert", may_use: &["mcpmon-core"] },
    Place { name: "mcpmon-engine", may_use: &["mcpmon-core", "mcpmon-alert"] },
    Place { name: "mcpmon-tap", may_use: &["mcpmon-core", "mcpmon-mcp"] },
    Place { name: "mcpmon-web", may_use: &["mcpmon-core"] },
    Place { name: "mcpmon-export", may_use: &["mcpmon-core"] },
    Place { name: "mcpmon-cli", may_use: PARTS },
    Place { name: TESTKIT, may_use: &["mcpmon-core", "mcpmon-mcp"] },
    Place { name: "mcpmon-tests", may_use: EVERYTHING },
    Place { name: BAD_DISK, may_use: &[] },
    Place { name: "mcpmon-benches", may_use: EVERYTHING },
    Place { name: "mcpmon-handler-pager", may_use: FOR_STRANGERS },
    Place { name: "mcpmon-library-example", may_use: &["mcpmon-core", "mcpmon-alert"] },
    Place { name: "xtask", may_use: &[] },
];

const TESTKIT: &str = "mcpmon-testkit";
const BAD_DISK: &str = "mcpmon-bad-disk";

/// What a binary is made of.
const PARTS: &[&str] = &[
    "mcpmon-core",
    "mcpmon-mcp",
    "mcpmon-collect",
    "mcpmon-store",
    "mcpmon-alert",
    "mcpmon-engine",
    "mcpmon-tap",
    "mcpmon-web",
    "mcpmon-export",
];

const EVERYTHING: &[&str] = &[
    "mcpmon-core",
    "mcpmon-mcp",
    "mcpmon-collect",
    "mcpmon-store",
    "mcpmon-alert",
    "mcpmon-engine",
    "mcpmon-tap",
    "mcpmon-web",
    "mcpmon-export",
    "mcpmon-cli",
    TESTKIT,
    BAD_DISK,
];

/// What the example of a crate by somebody else may use: a port and the command to put it into,
/// both published, and nothing that only this repository has.
const FOR_STRANGERS: &[&str] = &["mcpmon-core", "mcpmon-cli"];

/// A dependency that one crate fences off from the others.
struct Fence {
    dependency: &'static str,
    inside: &'static [&'static str],
    why: &'static str,
}

/// Tests may use what they like; these bind what users compile.
const FENCES: &[Fence] = &[
    Fence {
        dependency: "rusqlite",
        inside: &["mcpmon-store", BAD_DISK, "mcpmon-benches"],
        why: "only the store knows SQL, its benchmarks what bare SQL costs, its tests what is under",
    },
    Fence {
        dependency: "lettre",
        inside: &["mcpmon-alert"],
        why: "a user of the rules compiles no SMTP client",
    },
    Fence {
        dependency: "sysinfo",
        inside: &["mcpmon-collect"],
        why: "only probes look at the host",
    },
    Fence {
        dependency: "hyper",
        inside: &["mcpmon-mcp", "mcpmon-alert", "mcpmon-tap", "mcpmon-testkit", "mcpmon-benches"],
        why: "only what speaks on the network has an HTTP client",
    },
    Fence { dependency: "clap", inside: &["mcpmon-cli"], why: "only the command line parses one" },
    Fence {
        dependency: "anyhow",
        inside: &["mcpmon-cli", "mcpmon-benches", "xtask"],
        why: "a library's errors have types its callers can match",
    },
    Fence {
        dependency: "toml_edit",
        inside: &["mcpmon-cli"],
        why: "only the command line knows mcpmon's own config format",
    },
];

/// What the crate under all others may use: it does no I/O and picks no runtime.
const CORE_MAY_USE: &[&str] = &[
    "async-trait",
    "base64",
    "jiff",
    "schemars",
    "serde",
    "serde_json",
    "serde_path_to_error",
    "sha2",
    "thiserror",
    "unicode-normalization",
];

/// Holds every member of the workspace against the map.
pub(super) fn check(members: &[&Package]) -> Complaints {
    members.iter().flat_map(|member| check_member(member)).collect()
}

fn check_member(member: &Package) -> Complaints {
    let Some(place) = MAP.iter().find(|place| place.name == member.name) else {
        return vec![format!(
            "`{}` is not on the crate map; give it a place in docs/architecture.md and in \
             xtask/src/tidy/map.rs, or put its code where it belongs",
            member.name
        )];
    };
    member.dependencies.iter().filter_map(|dependency| complaint(place, dependency)).collect()
}

fn complaint(place: &Place, dependency: &Dependency) -> Option<String> {
    let is_ours = MAP.iter().any(|place| place.name == dependency.name)
        || dependency.name.starts_with("mcpmon-");
    if is_ours { forbidden_arrow(place, dependency) } else { broken_fence(place, dependency) }
}

fn forbidden_arrow(place: &Place, dependency: &Dependency) -> Option<String> {
    let name = place.name;
    let used = dependency.name.as_str();
    let for_tests = dependency.kind.as_deref() == Some("dev");
    if for_tests && used == TESTKIT {
        return None;
    }
    if !place.may_use.contains(&used) {
        let allowed = if place.may_use.is_empty() {
            "nothing of ours".to_owned()
        } else {
            format!("only {}", place.may_use.join(", "))
        };
        let when = if for_tests { " in its tests" } else { "" };
        return Some(format!(
            "`{name}` depends on `{used}`{when}, and the crate map allows it {allowed}"
        ));
    }
    if name == "mcpmon-engine"
        && used == "mcpmon-alert"
        && (dependency.uses_default_features || !dependency.features.is_empty())
    {
        return Some(
            "`mcpmon-engine` may use only the rules of `mcpmon-alert`: depend on it with \
             `default-features = false` and no features, or every user of the loop compiles the \
             handlers"
                .to_owned(),
        );
    }
    None
}

fn broken_fence(place: &Place, dependency: &Dependency) -> Option<String> {
    if dependency.kind.as_deref() == Some("dev") {
        return None;
    }
    let (name, used) = (place.name, dependency.name.as_str());
    if name == "mcpmon-core" && !CORE_MAY_USE.contains(&used) {
        return Some(format!(
            "`mcpmon-core` depends on `{used}`, and every handler crate would compile it; core \
             may use {}",
            CORE_MAY_USE.join(", ")
        ));
    }
    let fence = FENCES.iter().find(|fence| fence.dependency == used)?;
    (!fence.inside.contains(&name)).then(|| {
        format!(
            "`{name}` depends on `{used}`, which belongs to {}: {}",
            fence.inside.join(", "),
            fence.why
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::{dependency, package};

    #[track_caller]
    fn check_one(name: &str, dependencies: Vec<Dependency>, complaints: &[&str]) {
        let mut member = package(name, "0.1.0", None);
        member.dependencies = dependencies;
        assert_eq!(check(&[&member]), complaints);
    }

    #[test]
    fn the_store_may_not_see_the_probes() {
        check_one(
            "mcpmon-store",
            vec![dependency("mcpmon-core", None), dependency("mcpmon-collect", None)],
            &["`mcpmon-store` depends on `mcpmon-collect`, and the crate map allows it only \
               mcpmon-core"],
        );
    }

    #[test]
    fn a_build_script_is_held_to_the_map_too() {
        check_one(
            "mcpmon-core",
            vec![dependency("mcpmon-mcp", Some("build"))],
            &["`mcpmon-core` depends on `mcpmon-mcp`, and the crate map allows it nothing of ours"],
        );
    }

    #[test]
    fn tests_may_add_the_testkit_and_nothing_else() {
        check_one(
            "mcpmon-alert",
            vec![dependency(TESTKIT, Some("dev")), dependency("mcpmon-store", Some("dev"))],
            &["`mcpmon-alert` depends on `mcpmon-store` in its tests, and the crate map allows \
               it only mcpmon-core"],
        );
        check_one(
            "mcpmon-alert",
            vec![dependency(TESTKIT, None)],
            &["`mcpmon-alert` depends on `mcpmon-testkit`, and the crate map allows it only \
               mcpmon-core"],
        );
    }

    #[test]
    fn the_engine_takes_the_rules_without_the_handlers() {
        let rules_only =
            Dependency { uses_default_features: false, ..dependency("mcpmon-alert", None) };
        check_one("mcpmon-engine", vec![rules_only.clone()], &[]);
        for too_much in [
            dependency("mcpmon-alert", None),
            Dependency { features: vec!["email".to_owned()], ..rules_only },
        ] {
            let mut engine = package("mcpmon-engine", "0.1.0", None);
            engine.dependencies = vec![too_much];
            let complaints = check(&[&engine]);
            assert!(complaints[0].contains("default-features = false"), "{complaints:?}");
        }
    }

    #[test]
    fn a_strangers_handler_needs_core_and_the_command_line() {
        check_one(
            "mcpmon-handler-pager",
            vec![
                dependency("mcpmon-core", None),
                dependency("mcpmon-cli", None),
                dependency("mcpmon-alert", None),
                dependency(TESTKIT, Some("dev")),
            ],
            &["`mcpmon-handler-pager` depends on `mcpmon-alert`, and the crate map allows it \
               only mcpmon-core, mcpmon-cli"],
        );
    }

    #[test]
    fn a_crate_nobody_planned_is_named() {
        let complaints = check(&[&package("mcpmon-misc", "0.1.0", None)]);
        assert!(complaints[0].starts_with("`mcpmon-misc` is not on the crate map"));
    }

    #[test]
    fn heavy_dependencies_stay_behind_their_fence() {
        check_one(
            "mcpmon-cli",
            vec![dependency("rusqlite", None), dependency("lettre", Some("dev"))],
            &["`mcpmon-cli` depends on `rusqlite`, which belongs to mcpmon-store, \
               mcpmon-bad-disk, mcpmon-benches: only the store knows SQL, its benchmarks what bare \
               SQL costs, its tests what is under"],
        );
    }

    #[test]
    fn core_stays_small() {
        let mut core = package("mcpmon-core", "0.1.0", None);
        core.dependencies = vec![dependency("serde", None), dependency("tokio", None)];
        let complaints = check(&[&core]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("`tokio`"), "{complaints:?}");
    }
}
