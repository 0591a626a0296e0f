//! What a service cannot work without: `depends_on`, read and checked.
//!
//! A dependency is told apart by how it is looked at, so that what a person wrote is either one of
//! these or an error where the configuration is read, and never a check that silently does nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::service::ServiceName;

/// One entry of `depends_on`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// Another service that is watched; up while it is available.
    Service(ServiceName),
    /// `tcp://host:port`; up while it takes a connection.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `http://…` or `https://…`; up while it answers with a status below 500.
    Http(String),
    /// `file:///…`; up while it is there and can be read.
    File(PathBuf),
    /// `env:NAME`; up while the variable is set and not empty. Its value is never told.
    Env(String),
}

/// An entry of `depends_on` that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {reason}")]
pub struct DependencyError {
    /// What was written.
    pub text: String,
    /// What is wrong with it and what to write, a lowercase fragment.
    pub reason: &'static str,
}

impl FromStr for Dependency {
    type Err = DependencyError;

    fn from_str(text: &str) -> Result<Self, DependencyError> {
        read(text).map_err(|reason| DependencyError { text: text.to_owned(), reason })
    }
}

fn read(text: &str) -> Result<Dependency, &'static str> {
    if text.trim().is_empty() || text.trim() != text || text.contains(char::is_control) {
        return Err("is empty, or holds space at its ends or control characters");
    }
    if let Some(name) = text.strip_prefix("env:") {
        let usable = !name.is_empty() && !name.contains(['=', ' ']);
        return if usable {
            Ok(Dependency::Env(name.to_owned()))
        } else {
            Err("names no variable; write `env:NAME`")
        };
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Dependency::Service(text.into()));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "tcp" => tcp(rest),
        "http" | "https" => http(text, rest),
        "file" if rest.starts_with('/') && rest.len() > 1 => Ok(Dependency::File(rest.into())),
        "file" => Err("names no file; write `file:///` and the whole path"),
        _ => Err("is none of `tcp://`, `http://`, `https://`, `file:///` and `env:`"),
    }
}

fn tcp(rest: &str) -> Result<Dependency, &'static str> {
    const SHAPE: &str = "is not `tcp://host:port`";
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or(SHAPE)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(address) => address,
        // Without brackets nobody can tell where an address ends and its port begins.
        None if host.contains(':') => return Err(SHAPE),
        None => host,
    };
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or(SHAPE)?;
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        return Err(SHAPE);
    }
    Ok(Dependency::Tcp { host: host.to_owned(), port })
}

fn http(text: &str, rest: &str) -> Result<Dependency, &'static str> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || text.contains(' ') {
        return Err("is not a URL with a host");
    }
    if authority.contains('@') {
        return Err("holds a user name or password, which would be shown in alerts");
    }
    Ok(Dependency::Http(text.to_owned()))
}

/// As it is written in `depends_on`.
impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => f.pad(name.as_str()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Http(url) => f.pad(url),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

/// A way from a service over what it depends on back to itself, first and last name alike; of
/// several the one that begins with the first name.
///
/// Such services could only ever be down because of each other, so no alert would be about any.
pub fn cycle(needs: &BTreeMap<ServiceName, Vec<ServiceName>>) -> Option<Vec<ServiceName>> {
    let mut cleared: Vec<&ServiceName> = Vec::new();
    for start in needs.keys() {
        let mut way: Vec<(&ServiceName, usize)> = vec![(start, 0)];
        while let Some((name, next)) = way.last_mut() {
            let needed = needs.get(*name).and_then(|needed| needed.get(*next));
            *next += 1;
            match needed {
                None => cleared.extend(way.pop().map(|(name, _)| name)),
                Some(needed) => {
                    if let Some(at) = way.iter().position(|(name, _)| *name == needed) {
                        let round = way[at..].iter().map(|(name, _)| (*name).clone());
                        return Some(round.chain([needed.clone()]).collect());
                    }
                    if !cleared.contains(&needed) {
                        way.push((needed, 0));
                    }
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_writing_is_one_dependency() {
        let tcp = |host: &str, port| Dependency::Tcp { host: host.into(), port };
        for (text, expected) in [
            ("github", Dependency::Service("github".into())),
            ("my server: 2", Dependency::Service("my server: 2".into())),
            ("tcp://db:5432", tcp("db", 5_432)),
            ("tcp://[::1]:80", tcp("::1", 80)),
            (
                "https://api.example.com/health?x=1",
                Dependency::Http("https://api.example.com/health?x=1".into()),
            ),
            ("HTTP://x", Dependency::Http("HTTP://x".into())),
            ("file:///var/lib/a b", Dependency::File("/var/lib/a b".into())),
            ("env:TOKEN", Dependency::Env("TOKEN".into())),
        ] {
            let read: Dependency = text.parse().unwrap();
            assert_eq!(read, expected);
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_reason() {
        for (text, word) in [
            ("", "empty"),
            (" github", "space"),
            ("a\u{1b}b", "control"),
            ("env:", "variable"),
            ("env:A=b", "variable"),
            ("tcp://db", "host:port"),
            ("tcp://db:0", "host:port"),
            ("tcp://db:99999", "host:port"),
            ("tcp://::1:80", "host:port"),
            ("tcp://user@db:1", "host:port"),
            ("https://", "host"),
            ("https://me:pw@x/", "password"),
            ("file://relative", "whole path"),
            ("file:///", "whole path"),
            ("redis://db:6379", "none of"),
        ] {
            let error = text.parse::<Dependency>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    /// `a>b c>d,e`: who needs whom.
    #[track_caller]
    fn check(needs: &str, expected: Option<&str>) {
        let needs: BTreeMap<ServiceName, Vec<ServiceName>> = needs
            .split_whitespace()
            .map(|one| {
                let (name, needed) = one.split_once('>').unwrap();
                (name.into(), needed.split(',').map(ServiceName::from).collect())
            })
            .collect();
        let found = cycle(&needs)
            .map(|names| names.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(">"));
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn a_cycle_is_found_and_a_diamond_is_none() {
        check("a>b b>c", None);
        check("a>b,c b>d c>d", None);
        check("a>a", Some("a>a"));
        check("a>b b>c c>b", Some("b>c>b"));
        check("a>x b>c c>d d>b", Some("b>c>d>b"));
    }
}
