//! `bench`: the programs of `benches/`, with optimisation.
//!
//! A benchmark is a `[[bin]]` or a `[[bench]]` of that package; a bin whose name begins with
//! `helper-` (the fake fleet, say) is built for the others and not run by itself.

use anyhow::{Context as _, Result, bail};

use crate::step::{Step, timed};
use crate::workspace::{Depth, Metadata, Package};

const PACKAGE: &str = "mcpmon-benches";
/// The command that people run, which some benchmarks run too.
const COMMAND: &str = "mcpmon-cli";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Benchmark {
    name: String,
    /// `--bin` or `--bench`.
    flag: &'static str,
}

/// `cargo xtask bench [NAME] [-- arguments of the benchmark]`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (names, passed) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[][..]),
    };
    let metadata = Metadata::load(Depth::Members)?;
    let package = metadata
        .members()
        .into_iter()
        .find(|package| package.name == PACKAGE)
        .context("the workspace has no package `mcpmon-benches`")?;
    let chosen = choose(&benchmarks(package), names)?;

    Step::cargo(["build", "--release", "--locked", "-p", PACKAGE, "-p", COMMAND, "--bins"])?
        .run()?;
    for benchmark in chosen {
        let verb =
            if benchmark.flag == "--bin" { &["run", "--release"][..] } else { &["bench"][..] };
        let step = Step::cargo(verb)?
            .args(["--locked", "-p", PACKAGE, benchmark.flag, &benchmark.name, "--"])
            .args(passed);
        timed(&benchmark.name, &format!("cargo xtask bench {}", benchmark.name), || step.run())?;
    }
    Ok(())
}

fn benchmarks(package: &Package) -> Vec<Benchmark> {
    let mut found: Vec<_> = package
        .targets
        .iter()
        .filter_map(|target| {
            let flag = match target.kind.first().map(String::as_str) {
                Some("bin") if !target.name.starts_with("helper-") => "--bin",
                Some("bench") => "--bench",
                _ => return None,
            };
            Some(Benchmark { name: target.name.clone(), flag })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn choose(all: &[Benchmark], names: &[String]) -> Result<Vec<Benchmark>> {
    let known = || all.iter().map(|b| b.name.as_str()).collect::<Vec<_>>().join(", ");
    if all.is_empty() {
        bail!("`benches/Cargo.toml` has no `[[bin]]` and no `[[bench]]` to run");
    }
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    names
        .iter()
        .map(|name| {
            all.iter()
                .find(|benchmark| benchmark.name == *name)
                .cloned()
                .with_context(|| format!("no benchmark is called `{name}`; there are: {}", known()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Target, fixture::package};

    fn target(name: &str, kind: &str) -> Target {
        Target { name: name.to_owned(), kind: vec![kind.to_owned()] }
    }

    #[test]
    fn helpers_and_libraries_are_not_benchmarks() {
        let mut benches = package(PACKAGE, "0.1.0", None);
        benches.targets = vec![
            target("mcpmon_benches", "lib"),
            target("pipeline", "bin"),
            target("helper-fleet", "bin"),
            target("framing", "bench"),
        ];
        let found = benchmarks(&benches);
        let shown: Vec<_> = found.iter().map(|b| (b.name.as_str(), b.flag)).collect();
        assert_eq!(shown, [("framing", "--bench"), ("pipeline", "--bin")]);
        let error = choose(&found, &["pipelin".to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no benchmark is called `pipelin`; there are: framing, pipeline"
        );
    }
}
