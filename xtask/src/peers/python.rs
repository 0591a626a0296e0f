//! The programs from PyPI: one environment per requirements file, every version pinned.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::manifest::Peer;
use super::tool::{self, Stamp};
use super::{Place, all_failed};

/// The environments. No two versions of the SDK can live in one.
pub(super) const BATCHES: &[Batch] = &[
    Batch {
        name: "modern",
        imports: "fastmcp, mcp_server_time",
        peers: &[
            Program {
                name: "time",
                package: "mcp-server-time",
                start: Start::Module("mcp_server_time"),
            },
            Program {
                name: "fastmcp-modern",
                package: "fastmcp",
                start: Start::Script("fastmcp_modern.py"),
            },
        ],
    },
    Batch {
        name: "legacy",
        imports: "mcp.server.fastmcp, uvicorn",
        peers: &[Program {
            name: "fastmcp-legacy",
            package: "mcp",
            start: Start::Script("fastmcp_legacy.py"),
        }],
    },
    Batch {
        name: "python-1.9",
        imports: "mcp.server.fastmcp, uvicorn",
        peers: &[Program {
            name: "python-1.9",
            package: "mcp",
            start: Start::Script("fastmcp_legacy.py"),
        }],
    },
    Batch {
        name: "python-1.0",
        imports: "mcp.server.stdio",
        peers: &[Program {
            name: "python-1.0",
            package: "mcp",
            start: Start::Script("lowlevel_first.py"),
        }],
    },
    Batch {
        name: "mail",
        imports: "aiosmtpd.smtp, cryptography.x509",
        peers: &[
            Program { name: "smtpd", package: "aiosmtpd", start: Start::Script("smtpd.py") },
            Program { name: CERTIFICATES, package: "cryptography", start: Start::None },
        ],
    },
];

const CERTIFICATES: &str = "certificates";
const PYTHONS: &[&str] = &["python3", "python"];

/// One environment and what is run from it.
pub(super) struct Batch {
    name: &'static str,
    /// Imported once after an install, so that a broken wheel is found here and not by a test.
    imports: &'static str,
    peers: &'static [Program],
}

struct Program {
    name: &'static str,
    /// Whose version is shown.
    package: &'static str,
    start: Start,
}

enum Start {
    /// `python -m`
    Module(&'static str),
    /// A script in `tests/peers`.
    Script(&'static str),
    /// Nothing to start: the environment made it.
    None,
}

impl Batch {
    /// Installs the environment and lists its peers; a failure stays within it.
    pub(super) fn install(&self, place: &Place, force: bool) -> Vec<(String, Peer)> {
        self.try_install(place, force).unwrap_or_else(|error| {
            let names: Vec<_> = self.peers.iter().map(|program| program.name).collect();
            all_failed(&names, &error)
        })
    }

    fn try_install(&self, place: &Place, force: bool) -> Result<Vec<(String, Peer)>> {
        let file = place.from.join(format!("requirements-{}.txt", self.name));
        let requirements = tool::read(&file)?;
        let maker = match self.makes_certificates() {
            true => tool::read(&place.from.join("make_certificates.py"))?,
            false => String::new(),
        };
        let system = tool::find("PYTHON", PYTHONS, "install Python 3.10 or newer")?;
        let version = version(&system)?;
        let folder = place.into.join(self.name);
        let python = folder.join("bin/python");
        let stamp = Stamp::new(&folder, &[&version, &requirements, &maker]);
        if force || !stamp.holds() || !python.is_file() {
            stamp.break_seal()?;
            self.fill(place, &system, &folder, &file)?;
            stamp.seal()?;
        }
        Ok(self
            .peers
            .iter()
            .map(|p| (p.name.to_owned(), p.peer(place, &python, &requirements)))
            .collect())
    }

    fn fill(&self, place: &Place, system: &Path, folder: &Path, requirements: &Path) -> Result<()> {
        let python = folder.join("bin/python");
        let log = |step: &str| format!("{}-{step}", self.name);
        tool::run(place, &log("venv"), || {
            let mut command = Command::new(system);
            command.args(["-m", "venv", "--clear"]).arg(folder);
            command
        })
        .context("the environment could not be made (on Debian, `venv` is in python3-venv)")?;
        tool::run(place, &log("pip"), || {
            let mut command = Command::new(&python);
            command
                .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"])
                // A source package would run code and want a compiler.
                .args(["--only-binary", ":all:", "--cache-dir"])
                .arg(place.into.join("cache/pip"))
                .arg("--requirement")
                .arg(requirements);
            command
        })?;
        tool::run(place, &log("import"), || {
            let mut command = Command::new(&python);
            command.arg("-c").arg(format!("import {}", self.imports));
            command
        })?;
        if self.makes_certificates() {
            tool::run(place, &log("certificates"), || {
                let mut command = Command::new(&python);
                command.arg(place.from.join("make_certificates.py")).arg(certificates(place));
                command
            })?;
        }
        Ok(())
    }

    fn makes_certificates(&self) -> bool {
        self.peers.iter().any(|program| program.name == CERTIFICATES)
    }
}

impl Program {
    fn peer(&self, place: &Place, python: &Path, requirements: &str) -> Peer {
        let version = pinned(requirements, self.package).unwrap_or("unknown");
        // `-B`: the scripts are the repository's, and byte code beside them would litter it.
        let args = match self.start {
            Start::Module(module) => vec!["-m".to_owned(), module.to_owned()],
            Start::Script(script) => {
                vec!["-B".to_owned(), place.from.join(script).display().to_string()]
            }
            Start::None => return Peer::folder(version, &certificates(place)),
        };
        Peer::command(version, python, args)
    }
}

fn certificates(place: &Place) -> PathBuf {
    place.into.join("tls")
}

fn version(python: &Path) -> Result<String> {
    let script = "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.base_prefix)";
    let version = tool::first_line(Command::new(python).args(["-c", script]))?;
    let mut numbers = version.split(['.', ' ']).map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    ensure!((major, minor) >= (3, 10), "Python is {version}, and the peers need 3.10 or newer");
    Ok(version)
}

/// The version a requirements file pins for a package.
fn pinned<'a>(requirements: &'a str, package: &str) -> Option<&'a str> {
    requirements.lines().find_map(|line| {
        let (name, version) = line.split_once("==")?;
        name.trim().eq_ignore_ascii_case(package).then_some(version.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_pinned_one_of_just_that_package() {
        let requirements = "# words\nmcp-types==2.3.0\nmcp==1.30.0\n";
        assert_eq!(pinned(requirements, "mcp"), Some("1.30.0"));
        assert_eq!(pinned(requirements, "aiosmtpd"), None);
    }

    #[test]
    fn every_batch_has_its_requirements_and_scripts() {
        let from = crate::workspace::root().unwrap().join("tests/peers");
        for batch in BATCHES {
            let requirements =
                tool::read(&from.join(format!("requirements-{}.txt", batch.name))).unwrap();
            for program in batch.peers {
                assert!(pinned(&requirements, program.package).is_some(), "{}", program.name);
                if let Start::Script(script) = program.start {
                    assert!(from.join(script).is_file(), "{script}");
                }
            }
        }
    }
}
