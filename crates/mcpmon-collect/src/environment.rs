//! Where this process is and what it was given, as a value: what discovery looks at instead of the
//! process's own environment, so that every path and variable of a test is in the test.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// The kind of system, which decides where clients keep their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Os {
    /// Linux and the other free Unixes.
    Linux,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
}

impl Os {
    /// The system this was built for.
    pub const fn current() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::MacOs
        } else {
            Self::Linux
        }
    }
}

/// Environment variables. `Debug` shows how many there are, never a value.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    ignores_case: bool,
}

impl Variables {
    /// Variables whose names differ by case, as everywhere but on Windows.
    pub fn new<N: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let values = variables.into_iter();
        Self {
            values: values.map(|(name, value)| (name.into(), value.into())).collect(),
            ignores_case: false,
        }
    }

    /// The same variables, their names in any case, as on Windows.
    #[must_use]
    pub fn ignoring_case(self) -> Self {
        let values = self.values.into_iter();
        Self {
            values: values.map(|(name, value)| (name.to_uppercase(), value)).collect(),
            ignores_case: true,
        }
    }

    /// Every variable, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a variable that is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = if self.ignores_case {
            self.values.get(&name.to_uppercase())
        } else {
            self.values.get(name)
        };
        value.map(String::as_str)
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.values.len())
    }
}

/// What decides where clients' files are and what they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The kind of system.
    pub os: Os,
    /// The user's home directory; without one only files of the current folder are looked for.
    pub home: Option<PathBuf>,
    /// The current folder: the project whose files are looked for.
    pub cwd: PathBuf,
    /// The variables entries may refer to, and those that move clients' files.
    pub vars: Variables,
}

impl Environment {
    /// The environment of this process. Call it once, at the edge of a program.
    ///
    /// # Errors
    ///
    /// When the current directory is gone or may not be read.
    pub fn of_process() -> io::Result<Self> {
        let pairs = std::env::vars_os();
        let readable = pairs.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let vars = Variables::new(readable);
        Ok(Self {
            os: Os::current(),
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            cwd: std::env::current_dir()?,
            vars: if cfg!(windows) { vars.ignoring_case() } else { vars },
        })
    }

    /// Where programs keep their settings on Linux: `$XDG_CONFIG_HOME`, else `~/.config`.
    pub(crate) fn config_home(&self) -> Option<PathBuf> {
        // The XDG specification: a path that is not absolute is to be ignored.
        let given = self.directory("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        given.or_else(|| Some(self.home.as_ref()?.join(".config")))
    }

    /// Where programs keep their settings on Windows: `%APPDATA%`.
    pub(crate) fn app_data(&self) -> Option<PathBuf> {
        let below_home = || Some(self.home.as_ref()?.join("AppData").join("Roaming"));
        self.directory("APPDATA").or_else(below_home)
    }

    /// The directory a variable names, unless it is unset or empty.
    pub(crate) fn directory(&self, variable: &str) -> Option<PathBuf> {
        let value = self.vars.get(variable)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_case_but_on_windows() {
        let vars = Variables::new([("Path", "x")]);
        assert_eq!((vars.get("Path"), vars.get("PATH")), (Some("x"), None));
        let vars = vars.ignoring_case();
        assert_eq!((vars.get("Path"), vars.get("pATH")), (Some("x"), Some("x")));
    }

    #[test]
    fn a_value_is_never_shown() {
        let vars = Variables::new([("TOKEN", "hunter22")]);
        assert_eq!(format!("{vars:?}"), "Variables(1)");
    }

    #[test]
    fn settings_are_looked_for_where_the_variables_say() {
        let mut environment = Environment {
            os: Os::Linux,
            home: Some("/home/me".into()),
            cwd: "/src".into(),
            vars: Variables::default(),
        };
        assert_eq!(environment.config_home(), Some("/home/me/.config".into()));
        environment.vars = Variables::new([("XDG_CONFIG_HOME", "relative")]);
        assert_eq!(environment.config_home(), Some("/home/me/.config".into()));
        environment.vars = Variables::new([("XDG_CONFIG_HOME", "/etc/me"), ("APPDATA", "/roam")]);
        assert_eq!(environment.config_home(), Some("/etc/me".into()));
        assert_eq!(environment.app_data(), Some("/roam".into()));
    }
}
