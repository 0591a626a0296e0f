//! File systems, measured as `df` does: the used share is of what an ordinary user could have.

use std::collections::BTreeSet;

use mcpmon_core::metrics::DiskMetrics;
use mcpmon_core::settings::Disks;

use super::percent;

/// Measures the file systems asked for, each once, and says which paths could not be measured.
pub(super) fn measure(disks: &Disks) -> (Vec<DiskMetrics>, Vec<(String, String)>) {
    let paths = match disks {
        Disks::All => platform::every_real_mount(),
        Disks::Paths(paths) => paths.clone(),
    };
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for path in paths {
        match platform::file_system(&path) {
            Ok((id, disk)) => {
                if seen.insert(id) {
                    found.push(disk);
                }
            }
            Err(error) => failed.push((path, error)),
        }
    }
    (found, failed)
}

/// Space of a file system, in bytes.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    /// Free, the part kept for root included.
    free: u64,
    /// Free to an ordinary user.
    available: u64,
}

fn usage(path: String, space: Space) -> DiskMetrics {
    let used = space.total.saturating_sub(space.free);
    DiskMetrics {
        path,
        total_bytes: space.total,
        used_bytes: used,
        free_bytes: space.available,
        percent: percent(used, used.saturating_add(space.available)),
    }
}

#[cfg(unix)]
mod platform {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::{DiskMetrics, Space, usage};

    /// The file system that holds `path`, with what tells it from others.
    pub(super) fn file_system(path: &str) -> Result<(u64, DiskMetrics), String> {
        // Only a path without symbolic links has its file system's mount point above it.
        let real = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
        let device = device(&real).ok_or("it has no device")?;
        let stat = rustix::fs::statvfs(&real).map_err(|error| error.to_string())?;
        let space = Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bfree.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        };
        let mount = real
            .ancestors()
            .take_while(|above| self::device(above) == Some(device))
            .last()
            .unwrap_or(&real);
        Ok((device, usage(mount.to_string_lossy().into_owned(), space)))
    }

    fn device(path: &Path) -> Option<u64> {
        std::fs::metadata(path).ok().map(|metadata| metadata.dev())
    }

    /// Mount points of file systems that can fill up. The list has no pseudo and no network file
    /// systems (these may hang); what is read-only cannot fill, and an overlay other than the root
    /// is a container's view of a file system that is listed already.
    pub(super) fn every_real_mount() -> Vec<String> {
        let Ok(disks) = sysinfo::Disks::new_with_refreshed_list() else {
            return Vec::new();
        };
        let mut mounts: Vec<String> = disks
            .iter()
            .filter(|disk| disk.total_space() > 0 && disk.mount_point().is_dir())
            .filter(|disk| {
                let is_root = disk.mount_point() == Path::new("/");
                is_root || !(disk.is_read_only() || disk.file_system() == "overlay")
            })
            .map(|disk| disk.mount_point().to_string_lossy().into_owned())
            .collect();
        mounts.sort_unstable();
        mounts
    }
}

#[cfg(not(unix))]
mod platform {
    use std::path::Path;

    use super::{DiskMetrics, Space, usage};

    /// The file system that holds `path`, with what tells it from others.
    pub(super) fn file_system(path: &str) -> Result<(String, DiskMetrics), String> {
        let disks = sysinfo::Disks::new_with_refreshed_list().map_err(|error| error.to_string())?;
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let disk = disks
            .iter()
            .filter(|disk| path.starts_with(disk.mount_point()))
            .max_by_key(|disk| disk.mount_point().components().count())
            .ok_or("no file system holds it")?;
        let space = Space {
            total: disk.total_space(),
            free: disk.available_space(),
            available: disk.available_space(),
        };
        let mount = disk.mount_point().to_string_lossy().into_owned();
        Ok((mount.clone(), usage(mount, space)))
    }

    /// Mount points of file systems that can fill up.
    pub(super) fn every_real_mount() -> Vec<String> {
        let Ok(disks) = sysinfo::Disks::new_with_refreshed_list() else {
            return Vec::new();
        };
        disks
            .iter()
            .filter(|disk| disk.total_space() > 0 && !disk.is_read_only())
            .map(|disk| disk.mount_point().to_string_lossy().into_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_df() {
        let cases = [
            // 5 of 100 are kept for root: 60 used and 35 to be had is 63 %, not 60 %.
            ((100, 40, 35), (60, 35, 63.157)),
            ((100, 5, 0), (95, 0, 100.0)),
            ((100, 100, 100), (0, 100, 0.0)),
            ((0, 0, 0), (0, 0, 0.0)),
            ((100, 200, 200), (0, 200, 0.0)),
        ];
        for ((total, free, available), (used, to_be_had, percent)) in cases {
            let space = Space { total, free, available };
            let disk = usage("/".to_owned(), space);
            assert_eq!((disk.used_bytes, disk.free_bytes), (used, to_be_had));
            assert!((disk.percent - percent).abs() < 0.001, "{disk:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn two_paths_on_one_file_system_are_one_disk_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir(&a).unwrap();
        std::os::unix::fs::symlink(&a, &b).unwrap();
        let missing = dir.path().join("missing").display().to_string();
        let paths = [a.display().to_string(), b.display().to_string(), missing];
        let (found, failed) = measure(&Disks::Paths(paths.to_vec()));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(dir.path().starts_with(&found[0].path), "{found:?}");
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, paths[2]);
    }

    #[test]
    fn every_real_file_system_is_listed_once() {
        let (found, _) = measure(&Disks::All);
        let paths: BTreeSet<_> = found.iter().map(|disk| &disk.path).collect();
        assert_eq!(paths.len(), found.len(), "{found:?}");
        assert!(found.iter().all(|disk| disk.total_bytes > 0), "{found:?}");
    }
}
