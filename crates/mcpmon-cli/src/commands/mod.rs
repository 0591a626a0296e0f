//! One module per command: its arguments and what it does.

pub(crate) mod ack;
pub(crate) mod alerts;
mod archive;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod db;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod handlers;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod paths;
pub(crate) mod ps;
pub(crate) mod rules;
pub(crate) mod silence;
pub(crate) mod status;
pub(crate) mod tools;
pub(crate) mod up;

use clap::ValueEnum;

/// How a reading command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Table,
    /// One object for programs.
    Json,
}

#[cfg(test)]
mod tests;
