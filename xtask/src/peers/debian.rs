//! Prometheus Alertmanager as Debian packages it: fetched by `apt-get download` and unpacked by
//! `dpkg-deb`, so that it needs no root and nothing is installed.
//!
//! apt keeps its lists and what it fetched under `target/peers/cache/apt`; of the machine it reads
//! only which sources and keys it trusts. The version is what Debian's stable release has, since
//! Debian's mirrors keep no other. Where there is no apt, `ALERTMANAGER` can name the program.
//!
//! Debian's build reads its message templates from `/usr/share`, where nothing was installed. In the
//! unpacked copy that path is made a relative one of the same length, so that it finds them below
//! its working directory, [`ROOT`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::manifest::Peer;
use super::tool::{self, Stamp};
use super::{Place, all_failed};

const NAME: &str = "alertmanager";
const PACKAGE: &str = "prometheus-alertmanager";
const VARIABLE: &str = "ALERTMANAGER";
/// Where the package is unpacked, in the batch's folder.
const ROOT: &str = "root";
const TEMPLATES: &[u8] = b"/usr/share/prometheus/alertmanager";
const TEMPLATES_HERE: &[u8] = b"usr/share/prometheus/alertmanager/";

/// Fetches and unpacks it; a failure stays within this batch.
pub(super) fn install(place: &Place, force: bool) -> Vec<(String, Peer)> {
    let found = match std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        Some(_) => own(),
        None => try_install(place, force),
    };
    match found {
        Ok(peer) => vec![(NAME.to_owned(), peer)],
        Err(error) => all_failed(&[NAME], &error),
    }
}

/// The one that is named.
fn own() -> Result<Peer> {
    let program = tool::find(VARIABLE, &[PACKAGE], "install it")?;
    // `alertmanager, version 0.25.0 (branch: …)`
    let line = tool::first_line(Command::new(&program).arg("--version"))?;
    let version = line.split_whitespace().nth(2).unwrap_or("unknown");
    Ok(Peer::command(version, &program, Vec::new()))
}

fn try_install(place: &Place, force: bool) -> Result<Peer> {
    let folder = place.into.join(NAME);
    let root = folder.join(ROOT);
    let program = root.join("usr/bin").join(PACKAGE);
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let stamp = Stamp::new(&folder, &[&release, &String::from_utf8_lossy(TEMPLATES_HERE)]);
    let archive = folder.join(PACKAGE).with_extension("deb");
    let dpkg = tool::find("DPKG_DEB", &["dpkg-deb"], "it comes with Debian")
        .with_context(|| format!("set {VARIABLE} to the program of Prometheus Alertmanager"))?;
    if force || !stamp.holds() || !program.is_file() {
        let apt = tool::find("APT_GET", &["apt-get"], "it comes with Debian")
            .with_context(|| format!("set {VARIABLE} to the program of Prometheus Alertmanager"))?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        stamp.break_seal()?;
        fetch(place, &apt, &archive)?;
        tool::run(place, "dpkg-deb", || {
            let mut command = Command::new(&dpkg);
            command.arg("-x").arg(&archive).arg(&root);
            command
        })?;
        ensure!(program.is_file(), "the package has no `{}`", program.display());
        look_for_templates_here(&program)?;
        stamp.seal()?;
    }
    let version = tool::first_line(Command::new(&dpkg).arg("-f").arg(&archive).arg("Version"))?;
    Ok(Peer::command(&version, &program, Vec::new()))
}

fn look_for_templates_here(program: &Path) -> Result<()> {
    let trouble = || format!("cannot change `{}`", program.display());
    let mut bytes = std::fs::read(program).with_context(trouble)?;
    relocate(&mut bytes);
    std::fs::write(program, bytes).with_context(trouble)
}

/// Makes the folder of templates a relative one. The same words begin the folder of the web page,
/// which goes on with a slash and is left alone.
fn relocate(bytes: &mut [u8]) {
    let length = TEMPLATES.len();
    let places: Vec<usize> = bytes
        .windows(length + 1)
        .enumerate()
        .filter(|(_, found)| found.starts_with(TEMPLATES) && found[length] != b'/')
        .map(|(at, _)| at)
        .collect();
    for at in places {
        bytes[at..at + length].copy_from_slice(TEMPLATES_HERE);
    }
}

/// Leaves the package at `archive`.
fn fetch(place: &Place, apt: &Path, archive: &Path) -> Result<()> {
    let state = place.into.join("cache/apt");
    let fetched = state.join("fetched");
    for folder in ["lists/partial", "archives/partial", "fetched"] {
        let folder = state.join(folder);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    for file in packages(&fetched) {
        std::fs::remove_file(&file)
            .with_context(|| format!("cannot remove `{}`", file.display()))?;
    }
    for words in [&["update"][..], &["download", PACKAGE]] {
        tool::run(place, "apt", || {
            let mut command = Command::new(apt);
            command.args(words).args(private(&state)).current_dir(&fetched);
            command
        })?;
    }
    let file = packages(&fetched).pop().context("apt-get left no package")?;
    std::fs::rename(&file, archive)
        .with_context(|| format!("cannot move `{}` to its place", file.display()))
}

/// What keeps apt's hands off the machine: it runs as whoever calls it, in folders of its own.
fn private(state: &Path) -> [String; 6] {
    let state = state.display();
    [
        format!("-oDir::State::lists={state}/lists"),
        format!("-oDir::Cache={state}"),
        "-oDir::State::status=/var/lib/dpkg/status".to_owned(),
        "-oDebug::NoLocking=1".to_owned(),
        "-oAPT::Sandbox::User=".to_owned(),
        // Hooks of the machine's own would act on the machine.
        "-oAPT::Update::Post-Invoke-Success=".to_owned(),
    ]
}

fn packages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_of_templates_becomes_a_relative_one() {
        let mut bytes =
            b"a/usr/share/prometheus/alertmanager3/usr/share/prometheus/alertmanager/ui".to_vec();
        relocate(&mut bytes);
        let expected = b"ausr/share/prometheus/alertmanager/3/usr/share/prometheus/alertmanager/ui";
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected));
        assert_eq!(TEMPLATES.len(), TEMPLATES_HERE.len());
    }
}
