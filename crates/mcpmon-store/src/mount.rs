//! Which file system a path is on, and whether it is one that other machines write too.
//!
//! SQLite's log is shared memory between processes of one machine, and its locks are the file
//! system's. On a network file system neither can be relied upon: the history may be damaged, and
//! a monitor on another machine may not be refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// What the system calls it, such as `ext4` or `nfs4`.
    pub kind: String,
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    /// Whether it is on another machine, or passed on from one.
    pub is_network: bool,
}

/// File systems on other machines, or that hand on what the host of a virtual machine has.
const NETWORK: &[&str] = &[
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fuse.ceph-fuse",
    "fuse.cephfs",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "fuse.vmhgfs-fuse",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "prl_fs",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
];

/// The file system of `path`, which is absolute and whose directory has no links left in it.
/// `None` where the system does not say.
pub(crate) fn of(path: &Path) -> Option<FileSystem> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    find(&mounts, path)
}

/// The last mount at the longest place `path` is below, since a later one hides an earlier.
fn find(mounts: &str, path: &Path) -> Option<FileSystem> {
    mounts
        .lines()
        .filter_map(read)
        .filter(|(mounted_at, _)| path.starts_with(mounted_at))
        .max_by_key(|(mounted_at, _)| mounted_at.components().count())
        .map(|(mounted_at, kind)| FileSystem {
            is_network: NETWORK.contains(&kind.as_str()),
            kind,
            mounted_at,
        })
}

/// One line of `mountinfo`: identity, parent, device, root, place, options, any number of optional
/// fields, a dash, the kind, and more.
fn read(line: &str) -> Option<(PathBuf, String)> {
    let (before, after) = line.split_once(" - ")?;
    let mounted_at = before.split(' ').nth(4)?;
    let kind = after.split(' ').next().filter(|kind| !kind.is_empty())?;
    Some((PathBuf::from(unescaped(mounted_at)), kind.to_owned()))
}

/// Undoes the kernel's `\040` for a space, and its like.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 27 0:19 / /proc rw,nosuid shared:5 - proc proc rw
27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
40 27 0:40 / /home rw,relatime shared:20 master:1 propagate_from:2 - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/ada/local rw - xfs /dev/vdb rw
42 27 0:42 / /mnt/a\\040share rw - cifs //host/share rw
43 27 0:43 / /over rw - ext4 /dev/vdc rw
44 43 0:44 / /over rw - fuse.sshfs ada@host:/x rw
45 27 0:45 / /back\\134slash rw - 9p host rw
a line of another shape
46 27 0:46 / /cut rw -
";

    #[test]
    fn the_mount_nearest_to_a_path_says_what_it_is_on() {
        for (path, kind, network) in [
            ("/var/lib/mcpmon/mcpmon.db", "ext4", false),
            ("/home/ada/mcpmon.db", "nfs4", true),
            ("/home/ada/local/mcpmon.db", "xfs", false),
            ("/homestead/mcpmon.db", "ext4", false),
            ("/mnt/a share/mcpmon.db", "cifs", true),
            ("/over/mcpmon.db", "fuse.sshfs", true),
            ("/back\\slash/mcpmon.db", "9p", true),
            ("/cut/mcpmon.db", "ext4", false),
        ] {
            let found = find(MOUNTS, Path::new(path)).unwrap();
            assert_eq!((found.kind.as_str(), found.is_network), (kind, network), "{path}");
        }
        assert_eq!(find("", Path::new("/x")), None);
        assert_eq!(find("\\ - \\\n - \n 1 2 3 4 5 - ", Path::new("/x")), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_where_its_files_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("mcpmon.db");
        assert!(!of(&path).unwrap().kind.is_empty());
    }
}
