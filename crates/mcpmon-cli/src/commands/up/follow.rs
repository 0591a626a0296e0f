//! Hears when a file that matters was written, made or removed.
//!
//! Editors replace files rather than write into them, so directories are watched and names
//! compared. A burst of events is one change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// After the first event of a burst, so long is waited for the rest.
const BURST: Duration = Duration::from_millis(300);

/// Follows files. Where the system cannot, nothing is ever heard and only SIGHUP reloads.
pub(super) struct Follower {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    files: Arc<Mutex<BTreeSet<PathBuf>>>,
    changes: mpsc::Receiver<()>,
    /// While a burst lasts: when it is taken for over.
    burst_ends: Option<Instant>,
}

impl Follower {
    /// Follows nothing yet.
    pub(super) fn new() -> Self {
        // One waiting change is as good as many.
        let (sender, changes) = mpsc::channel(1);
        let files = Arc::new(Mutex::new(BTreeSet::<PathBuf>::new()));
        let followed = Arc::clone(&files);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            let files = followed.lock().unwrap_or_else(PoisonError::into_inner);
            if is_change(event.kind) && event.paths.iter().any(|path| files.contains(path)) {
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "Files are not followed; use SIGHUP"))
            .ok();
        Self { watcher, directories: BTreeSet::new(), files, changes, burst_ends: None }
    }

    /// Follows these files from now on, and no others.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let files: BTreeSet<PathBuf> = files.iter().filter_map(|path| resolved(path)).collect();
        let directories: BTreeSet<PathBuf> =
            files.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        for gone in self.directories.difference(&directories) {
            let _ = watcher.unwatch(gone);
        }
        for new in directories.difference(&self.directories) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!(directory = %new.display(), %error, "Directory is not followed");
            }
        }
        self.directories = directories;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// The next change, once its burst is over. Cancel-safe: a burst that has begun is remembered.
    pub(super) async fn changed(&mut self) {
        let burst_ends = match self.burst_ends {
            Some(burst_ends) => burst_ends,
            None => {
                if self.changes.recv().await.is_none() {
                    return std::future::pending().await;
                }
                *self.burst_ends.insert(Instant::now() + BURST)
            }
        };
        tokio::time::sleep_until(burst_ends).await;
        self.burst_ends = None;
        let _ = self.changes.try_recv();
    }
}

/// The path as the system reports it. A directory that is not there cannot be followed.
fn resolved(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let directory = path.parent()?.canonicalize().ok()?;
    Some(directory.join(path.file_name()?))
}

fn is_change(kind: EventKind) -> bool {
    matches!(kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_testkit::within;

    #[tokio::test]
    async fn a_followed_file_is_heard_when_written_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mcpmon.toml");
        let mut follower = Follower::new();
        follower.follow(&[file.clone(), dir.path().join("nowhere/at/all.toml")]);
        std::fs::write(&file, "a").unwrap();
        within("the file made", follower.changed()).await;
        let other = dir.path().join("other");
        std::fs::write(&other, "b").unwrap();
        std::fs::rename(&other, &file).unwrap();
        within("the file replaced", follower.changed()).await;
        std::fs::remove_file(&file).unwrap();
        within("the file removed", follower.changed()).await;
    }

    #[tokio::test]
    async fn a_change_is_not_lost_when_something_else_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mcpmon.toml");
        let mut follower = Follower::new();
        follower.follow(std::slice::from_ref(&file));
        std::fs::write(&file, "a").unwrap();
        let impatient =
            async { while tokio::time::timeout(BURST / 10, follower.changed()).await.is_err() {} };
        within("the change, however often it is asked for", impatient).await;
    }
}
