//! How a command ends: a documented code, and a sentence when it could not do its work.

use std::process::ExitCode;

use mcpmon_core::StoreError;

use crate::config::ConfigError;
use crate::paths::NoHome;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did its work, and found nothing to complain of.
    Ok = 0,
    /// It did its work, and not everything is well.
    NotWell = 1,
    /// It was asked wrongly: usage, configuration, an unknown name.
    Usage = 2,
    /// It could not run: the store, a file, the system.
    CouldNotRun = 3,
    /// It was interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// It was asked for something that is not there or does not fit together.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The history cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing says where data belongs.
    #[error(transparent)]
    Home(#[from] NoHome),
    /// Something else the system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It has nothing to give; not wrong, but not done.
    #[error("{0}")]
    Nothing(String),
    /// Some part could not be started or did not end as it should.
    #[error("{0}")]
    Failed(String),
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The code it ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Config(_) => Exit::Usage,
            Self::Nothing(_) => Exit::NotWell,
            Self::Interrupted => Exit::Interrupted,
            Self::Store(_) | Self::Home(_) | Self::Io { .. } | Self::Failed(_) => Exit::CouldNotRun,
        }
    }
}
