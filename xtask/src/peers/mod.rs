//! `peers`: installs the real programs the integration tests talk to.
//!
//! Everything lands in `target/peers`, caches included; nothing is installed globally and an
//! empty home is enough. The peers come in batches, one per npm prefix or Python environment,
//! since the SDK versions exclude each other, one that Cargo builds and one that Debian packages. A
//! batch that fails takes only its own peers with it. Each leaves a stamp of all it was made from, so a second run does nothing, and a run that
//! was cut short goes on where it stopped.

mod debian;
mod manifest;
mod node;
mod python;
mod rust;
mod tool;

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::manifest::{Manifest, Peer};
use crate::terminal::{Stopwatch, say};
use crate::workspace;

/// `cargo xtask peers [--force]`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => install(false),
        [force] if force == "--force" => install(true),
        [other, ..] => bail!("`cargo xtask peers` knows no argument `{other}`, only `--force`"),
    }
}

/// The folders a batch works with.
#[derive(Debug, Clone)]
struct Place {
    /// The manifests and scripts, in the repository.
    from: PathBuf,
    /// `target/peers`.
    into: PathBuf,
}

/// Installs what is missing or out of date and writes `peers.json`.
///
/// # Errors
///
/// If a peer is not there in the end; all of them are tried before.
pub(crate) fn install(force: bool) -> Result<()> {
    let root = workspace::root()?;
    let place = Place { from: root.join("tests/peers"), into: root.join("target/peers") };
    std::fs::create_dir_all(place.into.join("logs"))
        .with_context(|| format!("cannot create `{}`", place.into.display()))?;
    // Two runs at once would install over each other.
    let lock = File::create(place.into.join("lock")).context("cannot create the lock file")?;
    lock.lock().context("cannot lock target/peers")?;

    let watch = Stopwatch::start();
    let manifest = install_batches(&place, force);
    manifest.write(&place.into.join("peers.json"))?;
    for (name, peer) in &manifest.peers {
        say(format_args!("    {name}: {peer}"));
    }
    let missing: Vec<_> =
        manifest.peers.iter().filter(|(_, peer)| !peer.ok).map(|(name, _)| name.as_str()).collect();
    if !missing.is_empty() {
        bail!(
            "{} of {} peers could not be installed: {} (the reasons are above)",
            missing.len(),
            manifest.peers.len(),
            missing.join(", ")
        );
    }
    say(format_args!("    peers: all {} are there, {}", manifest.peers.len(), watch.elapsed()));
    Ok(())
}

/// The batches run beside each other: most of their time is spent waiting for a registry.
fn install_batches(place: &Place, force: bool) -> Manifest {
    let mut manifest = Manifest::default();
    std::thread::scope(|scope| {
        let rust = scope.spawn(|| rust::install(place, force));
        let node = node::BATCHES.iter().map(|batch| scope.spawn(|| batch.install(place, force)));
        let debian = scope.spawn(|| debian::install(place, force));
        let mut batches: Vec<_> = [rust, debian].into_iter().chain(node).collect();
        let python = python::BATCHES.iter();
        batches.extend(python.map(|batch| scope.spawn(|| batch.install(place, force))));
        for batch in batches {
            // A panic in one batch is a bug in it and must still leave the others usable.
            if let Ok(peers) = batch.join() {
                manifest.peers.extend(peers);
            }
        }
    });
    manifest
}

/// All peers of a batch that failed, for the same reason.
fn all_failed(names: &[&str], reason: &anyhow::Error) -> Vec<(String, Peer)> {
    let reason = format!("{reason:#}");
    names.iter().map(|&name| (name.to_owned(), Peer::missing(&reason))).collect()
}
