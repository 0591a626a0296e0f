//! What is started and with which environment, worked out before anything is.
//!
//! `exec` says "not found" for a missing program, a missing interpreter and a missing directory
//! alike; looking first tells them apart.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::secret::Secret;
use mcpmon_core::service::StdioSpec;

use crate::error::CallError;

/// Variables every child gets from ours; what else it needs, its entry names.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "USER", "LANG", "TERM", "TMPDIR", "SHELL", "LOGNAME", "TZ"];
const INHERITED_PREFIXES: [&str; 2] = ["LC_", "XDG_"];
/// Where programs are looked for when no `PATH` is set, as `execvp` does.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The environment of a child: the allow-listed part of ours, and the entry's own on top.
pub fn environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    own: &BTreeMap<String, Secret>,
) -> BTreeMap<OsString, OsString> {
    let inherited = ours.into_iter().filter(|(name, _)| {
        name.to_str().is_some_and(|name| {
            INHERITED.contains(&name)
                || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    });
    let own = own.iter().map(|(name, value)| (name.into(), value.expose().into()));
    inherited.chain(own).collect()
}

/// The file a command means.
///
/// # Errors
///
/// `command_not_found` or `command_not_executable`, each with where was looked.
pub fn locate(
    spec: &StdioSpec,
    environment: &BTreeMap<OsString, OsString>,
) -> Result<PathBuf, CallError> {
    if spec.command.is_empty() {
        return Err(CallError::new(
            FailureCode::ConfigurationInvalid,
            Phase::Prepare,
            "`command` is empty",
        ));
    }
    if let Some(cwd) = &spec.cwd
        && !cwd.is_dir()
    {
        let message = format!("the working directory `{}` is missing", cwd.display());
        return Err(failed(FailureCode::CommandNotExecutable, message, spec)
            .with("cwd", cwd.display().to_string()));
    }
    if spec.command.contains('/') {
        let path = spec
            .cwd
            .as_deref()
            .map_or_else(|| PathBuf::from(&spec.command), |cwd| cwd.join(&spec.command));
        return match judge(&path) {
            Candidate::Runnable => Ok(PathBuf::from(&spec.command)),
            Candidate::Barred => Err(not_executable(&path, spec)),
            Candidate::Absent => {
                let message = format!("there is no program at `{}`", path.display());
                Err(failed(FailureCode::CommandNotFound, message, spec))
            }
        };
    }
    let search = environment
        .get(OsStr::new("PATH"))
        .map_or_else(|| OsString::from(DEFAULT_PATH), OsString::clone);
    let mut barred = None;
    for folder in std::env::split_paths(&search) {
        let path = folder.join(&spec.command);
        match judge(&path) {
            Candidate::Runnable => return Ok(path),
            Candidate::Barred => barred = barred.or(Some(path)),
            Candidate::Absent => {}
        }
    }
    match barred {
        Some(path) => Err(not_executable(&path, spec)),
        None => {
            let message = format!("`{}` is not on PATH", spec.command);
            Err(failed(FailureCode::CommandNotFound, message, spec)
                .with("path", search.to_string_lossy().into_owned()))
        }
    }
}

enum Candidate {
    Runnable,
    Barred,
    Absent,
}

fn judge(path: &Path) -> Candidate {
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Candidate::Barred,
        Err(_) => Candidate::Absent,
        Ok(found) if !found.is_file() => Candidate::Barred,
        Ok(_) => match rustix::fs::access(path, rustix::fs::Access::EXEC_OK) {
            Ok(()) => Candidate::Runnable,
            Err(_) => Candidate::Barred,
        },
    }
}

fn not_executable(path: &Path, spec: &StdioSpec) -> CallError {
    let message = format!("`{}` is there but may not be executed", path.display());
    failed(FailureCode::CommandNotExecutable, message, spec)
}

fn failed(code: FailureCode, message: String, spec: &StdioSpec) -> CallError {
    CallError::new(code, Phase::Spawn, message).with("command", spec.command.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(command: &str, path: &str, cwd: Option<&str>) -> Result<PathBuf, FailureCode> {
        let spec = StdioSpec {
            command: command.to_owned(),
            cwd: cwd.map(PathBuf::from),
            ..StdioSpec::default()
        };
        let environment = BTreeMap::from([("PATH".into(), path.into())]);
        locate(&spec, &environment).map_err(|error| error.code())
    }

    #[test]
    fn a_program_is_looked_for_before_it_is_started() {
        assert_eq!(code("sh", "/nowhere:/bin", None), Ok("/bin/sh".into()));
        assert_eq!(code("/bin/sh", "", None), Ok("/bin/sh".into()));
        assert_eq!(code("bin/sh", "", Some("/")), Ok("bin/sh".into()));
        assert_eq!(code("no-such-program", "/bin", None), Err(FailureCode::CommandNotFound));
        assert_eq!(code("/no/such/program", "/bin", None), Err(FailureCode::CommandNotFound));
        assert_eq!(code("/etc/passwd", "/bin", None), Err(FailureCode::CommandNotExecutable));
        assert_eq!(code("/etc", "/bin", None), Err(FailureCode::CommandNotExecutable));
        assert_eq!(code("passwd", "/etc", None), Err(FailureCode::CommandNotExecutable));
        assert_eq!(code("sh", "/bin", Some("/nowhere")), Err(FailureCode::CommandNotExecutable));
        assert_eq!(code("", "/bin", None), Err(FailureCode::ConfigurationInvalid));
    }

    #[test]
    fn a_child_sees_the_allow_list_and_its_own_variables() {
        let ours = ["PATH", "LC_ALL", "XDG_CONFIG_HOME", "AWS_SECRET_ACCESS_KEY", "TZ"]
            .map(|name| (OsString::from(name), OsString::from("ours")));
        let own = BTreeMap::from([
            ("API_TOKEN".to_owned(), Secret::new("t")),
            ("TZ".to_owned(), Secret::new("UTC")),
        ]);
        let environment = environment(ours, &own);
        let names: Vec<_> = environment.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["API_TOKEN", "LC_ALL", "PATH", "TZ", "XDG_CONFIG_HOME"]);
        assert_eq!(environment[OsStr::new("TZ")], "UTC");
    }
}
