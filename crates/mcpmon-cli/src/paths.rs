//! Where mcpmon's own files are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

/// The name of the configuration file, here and in the user's configuration directory.
pub(crate) const CONFIG_FILE: &str = "mcpmon.toml";

/// Where configuration is looked for and where data is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Places a configuration is looked for when none is named, first found first read.
    pub config_candidates: Vec<PathBuf>,
    /// Database, and whatever else must outlive the process. Only its owner may read it.
    pub state_dir: PathBuf,
}

/// Neither `HOME` nor a directory of systemd's says where data belongs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell where data belongs: name a --state-dir, or set HOME")]
pub struct NoHome;

impl Paths {
    /// What the environment says: systemd's `STATE_DIRECTORY`, else the XDG base directories. A
    /// state directory that is named wins over both.
    ///
    /// # Errors
    ///
    /// When there is no home directory and nothing in its place.
    pub fn from_env(state_dir: Option<&Path>) -> Result<Self, NoHome> {
        let base = etcetera::choose_base_strategy().ok();
        let config_home = base.as_ref().map(|base| base.config_dir());
        let state_home = base.as_ref().and_then(|base| base.state_dir().or(Some(base.data_dir())));
        Self::choose(
            state_dir,
            std::env::var_os("STATE_DIRECTORY").as_deref(),
            config_home.as_deref(),
            state_home.as_deref(),
        )
    }

    fn choose(
        named: Option<&Path>,
        systemd: Option<&OsStr>,
        config_home: Option<&Path>,
        state_home: Option<&Path>,
    ) -> Result<Self, NoHome> {
        let mut config_candidates = vec![PathBuf::from(CONFIG_FILE)];
        config_candidates.extend(config_home.map(|home| home.join("mcpmon").join(CONFIG_FILE)));
        // systemd gives a list separated by colons when a unit names several.
        let systemd = systemd
            .and_then(|list| std::env::split_paths(list).next())
            .filter(|path| path.is_absolute());
        let state_dir = named
            .map(Path::to_owned)
            .or(systemd)
            .or_else(|| state_home.map(|home| home.join("mcpmon")))
            .ok_or(NoHome)?;
        Ok(Self { config_candidates, state_dir })
    }

    /// The history.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("mcpmon.db")
    }

    /// The configuration that is read when none is named. One that is there but cannot be looked
    /// at counts as found, so that its error is told rather than a default used.
    pub fn found_config(&self) -> Option<&Path> {
        self.config_candidates
            .iter()
            .map(PathBuf::as_path)
            .find(|path| path.symlink_metadata().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_wins_and_its_first_directory_counts() {
        let paths = Paths::choose(
            None,
            Some(OsStr::new("/var/lib/mcpmon:/var/lib/other")),
            Some(Path::new("/home/me/.config")),
            Some(Path::new("/home/me/.local/state")),
        )
        .unwrap();
        assert_eq!(paths.database(), Path::new("/var/lib/mcpmon/mcpmon.db"));
        let expected = ["mcpmon.toml", "/home/me/.config/mcpmon/mcpmon.toml"];
        assert_eq!(paths.config_candidates, expected.map(PathBuf::from));
    }

    #[test]
    fn without_systemd_it_is_the_users_state_directory() {
        let state = Some(Path::new("/home/me/.local/state"));
        let paths = Paths::choose(None, None, None, state).unwrap();
        assert_eq!(paths.state_dir, Path::new("/home/me/.local/state/mcpmon"));
        assert_eq!(Paths::choose(None, Some(OsStr::new("relative")), None, state).unwrap(), paths);
        assert_eq!(Paths::choose(None, None, None, None), Err(NoHome));
        let named = Some(Path::new("here"));
        let systemd = Some(OsStr::new("/var/lib/mcpmon"));
        assert_eq!(
            Paths::choose(named, systemd, None, state).unwrap().state_dir,
            Path::new("here")
        );
    }
}
