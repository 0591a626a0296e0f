//! `dist`: the archive to ship: the binary, its man pages and completions, licences and README.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::expect_no_arguments;
use crate::step::{Step, timed};
use crate::terminal::say;
use crate::workspace::{self, Depth, Metadata};

const SHELLS: &[&str] = &["bash", "zsh", "fish"];
const PAPERS: &[&str] = &["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// `cargo xtask dist`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    expect_no_arguments("dist", arguments)?;
    let metadata = Metadata::load(Depth::Members)?;
    let cli = metadata
        .members()
        .into_iter()
        .find(|package| package.name == "mcpmon-cli")
        .context("the workspace has no package `mcpmon-cli`")?;
    timed("build", "cargo build --profile dist -p mcpmon-cli", || {
        Step::cargo(["build", "--profile", "dist", "--locked", "-p", "mcpmon-cli"])?.run()
    })?;

    let root = workspace::root()?;
    let folder = root.join("target/dist");
    let name = format!("mcpmon-{}-{}", cli.version, host()?);
    let staged = folder.join(&name);
    if staged.exists() {
        std::fs::remove_dir_all(&staged)
            .with_context(|| format!("cannot empty `{}`", staged.display()))?;
    }
    fill(&staged, &root, &metadata.target_directory.join("dist/mcpmon"))?;
    let archive = pack(&folder, &name)?;
    say(format_args!("{}", archive.display()));
    Ok(())
}

fn fill(staged: &Path, root: &Path, binary: &Path) -> Result<()> {
    let completions = staged.join("completions");
    std::fs::create_dir_all(&completions)
        .with_context(|| format!("cannot create `{}`", completions.display()))?;
    copy(binary, &staged.join("mcpmon"))?;
    for paper in PAPERS {
        copy(&root.join(paper), &staged.join(paper))?;
    }
    for shell in SHELLS {
        write(
            &completions.join(format!("mcpmon.{shell}")),
            &output(binary, &["completions", shell])?,
        )?;
    }
    let pages = staged.join("man").display().to_string();
    output(binary, &["man", "--dir", &pages])?;
    ensure!(Path::new(&pages).join("mcpmon.1").is_file(), "`mcpmon man --dir` wrote no `mcpmon.1`");
    Ok(())
}

/// `tar` and a checksum, by the tools every Unix has.
fn pack(folder: &Path, name: &str) -> Result<PathBuf> {
    let file = format!("{name}.tar.gz");
    let status = Command::new("tar")
        .current_dir(folder)
        .args(["-czf", &file, name])
        .status()
        .context("`tar` could not be started")?;
    ensure!(status.success(), "`tar` failed ({status})");
    let sum = sha256(folder, &file)?;
    write(&folder.join(format!("{file}.sha256")), sum.as_bytes())?;
    Ok(folder.join(file))
}

fn sha256(folder: &Path, file: &str) -> Result<String> {
    for (program, arguments) in [("sha256sum", &[][..]), ("shasum", &["-a", "256"][..])] {
        let output = Command::new(program).current_dir(folder).args(arguments).arg(file).output();
        if let Ok(output) = output
            && output.status.success()
        {
            return String::from_utf8(output.stdout).context("a checksum that is not text");
        }
    }
    bail!("neither `sha256sum` nor `shasum` works here, so the archive has no checksum");
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("`rustc` is not there")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no host")
}

fn output(binary: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(binary)
        .args(arguments)
        .output()
        .with_context(|| format!("`{}` could not be started", binary.display()))?;
    ensure!(
        output.status.success(),
        "`mcpmon {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .with_context(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))?;
    Ok(())
}

fn write(path: &Path, data: &[u8]) -> Result<()> {
    std::fs::write(path, data).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_was_staged_and_its_checksum_fits() {
        let folder = std::env::temp_dir().join(format!("xtask-dist-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("mcpmon-1/completions")).unwrap();
        std::fs::write(folder.join("mcpmon-1/completions/mcpmon.bash"), "complete").unwrap();

        let archive = pack(&folder, "mcpmon-1").unwrap();

        let listed = Command::new("tar").arg("-tzf").arg(&archive).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("mcpmon-1/completions/mcpmon.bash"), "{listed}");
        let sum = std::fs::read_to_string(folder.join("mcpmon-1.tar.gz.sha256")).unwrap();
        assert_eq!(sum, sha256(&folder, "mcpmon-1.tar.gz").unwrap());
        assert!(sum.trim_end().ends_with("mcpmon-1.tar.gz"), "{sum}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
