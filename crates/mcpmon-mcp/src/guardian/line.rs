//! What monitor and guardian say to each other, and the socket they say it on.
//!
//! A packet is one message, so nothing has to be framed, and descriptors travel with the order
//! they belong to. What may be long, a command with its environment, is a descriptor too: a file
//! in memory, because a packet has no room for it.

use std::ffi::{OsStr, OsString};
use std::io::{IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::{fs, io};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::forensics::Exit;

/// Longest message, in bytes.
const LONGEST: usize = 1024;
/// Most processes named in one report.
pub(super) const MOST_NAMES: usize = 16;
/// Between names, none of which can hold it.
const SEPARATOR: char = '\u{0}';
/// Input, output, errors, and what to start.
pub(super) const DESCRIPTORS: usize = 4;

/// What the monitor wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Start what the descriptors say, under this number.
    Start(u64),
    /// Kill whatever is left of it, and say when nothing is.
    End(u64),
}

/// What the guardian did or saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// It runs under this process id.
    Started(u64, i32),
    /// The system refused to start it.
    Refused(u64, i32),
    /// Its leader ended.
    Exited(u64, Exit),
    /// Nothing of it is left. The names are those of processes that had left its group and were
    /// killed.
    Ended(u64, Vec<String>),
}

impl Order {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Start(id) => format!("start {id}"),
            Self::End(id) => format!("end {id}"),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (word, id) = text.split_once(' ')?;
        let id = id.parse().ok()?;
        match word {
            "start" => Some(Self::Start(id)),
            "end" => Some(Self::End(id)),
            _ => None,
        }
    }
}

impl Report {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Started(id, pid) => format!("started {id} {pid}"),
            Self::Refused(id, errno) => format!("refused {id} {errno}"),
            Self::Exited(id, Exit::Code(code)) => format!("code {id} {code}"),
            Self::Exited(id, Exit::Signal(signal)) => format!("signal {id} {signal}"),
            Self::Exited(id, Exit::Unknown) => format!("lost {id} 0"),
            Self::Ended(id, names) => {
                let names = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>();
                format!("ended {id} {}", names.join(&SEPARATOR.to_string()))
            }
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (word, id, rest) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let number = || rest.parse::<i32>().ok();
        Some(match word {
            "started" => Self::Started(id, number()?),
            "refused" => Self::Refused(id, number()?),
            "code" => Self::Exited(id, Exit::Code(number()?)),
            "signal" => Self::Exited(id, Exit::Signal(number()?)),
            "lost" => Self::Exited(id, Exit::Unknown),
            "ended" => {
                let names = rest.split(SEPARATOR).filter(|name| !name.is_empty());
                Self::Ended(id, names.map(str::to_owned).collect())
            }
            _ => return None,
        })
    }
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: PathBuf,
    /// The program's name as it is told to itself.
    pub(crate) name: OsString,
    pub(crate) args: Vec<OsString>,
    /// All of its environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) directory: Option<PathBuf>,
}

impl Command {
    /// The command as a file in memory, read from its beginning.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for what no system could start: a zero byte in a word.
    pub(super) fn to_file(&self) -> io::Result<OwnedFd> {
        let mut words: Vec<&OsStr> = vec![self.program.as_os_str(), &self.name];
        words.push(self.directory.as_deref().map_or(OsStr::new(""), |path| path.as_os_str()));
        let count = self.args.len().to_string();
        words.push(OsStr::new(&count));
        words.extend(self.args.iter().map(OsString::as_os_str));
        words.extend(self.environment.iter().flat_map(|(name, value)| [name.as_os_str(), value]));
        let mut bytes = Vec::new();
        for word in words {
            if word.as_bytes().contains(&0) {
                let message = "a zero byte in the command, an argument or the environment";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(0);
        }
        let mut file = fs::File::from(memfd_create("command", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Reads what [`Command::to_file`] wrote.
    pub(super) fn from_file(file: OwnedFd) -> Option<Self> {
        let mut bytes = Vec::new();
        fs::File::from(file).read_to_end(&mut bytes).ok()?;
        let mut words = bytes
            .strip_suffix(&[0])?
            .split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()));
        let (program, name, directory) = (words.next()?, words.next()?, words.next()?);
        let count = words.next()?.to_str()?.parse().ok()?;
        let args = words.by_ref().take(count).collect();
        let mut environment = Vec::new();
        while let Some(name) = words.next() {
            environment.push((name, words.next()?));
        }
        Some(Self {
            program: program.into(),
            name,
            args,
            environment,
            directory: (!directory.is_empty()).then(|| directory.into()),
        })
    }
}

/// The two ends of a line.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// One end, watched by the runtime. A stream in name only: it is sent and received on with the
/// functions of this module.
pub(super) fn watched(end: OwnedFd) -> io::Result<UnixStream> {
    let end = std::os::unix::net::UnixStream::from(end);
    end.set_nonblocking(true)?;
    UnixStream::from_std(end)
}

/// Waits for one message; `None` when the partner is gone.
pub(super) async fn received(socket: &UnixStream) -> Option<Received> {
    loop {
        match socket.async_io(Interest::READABLE, || Ok(receive(socket)?)).await {
            Ok(received) => return received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// Sends one message without waiting.
pub(super) fn send(
    socket: impl AsFd,
    text: &str,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let packet = [IoSlice::new(text.as_bytes())];
    // A partner that is gone is an error, not a signal.
    sendmsg(socket, &packet, &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// A message, and the descriptors that came with it.
pub(super) type Received = (String, Vec<OwnedFd>);

fn receive(socket: impl AsFd) -> Result<Option<Received>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; LONGEST];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    let text = String::from_utf8_lossy(&bytes[..got.bytes]).into_owned();
    Ok(Some((text, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for order in [Order::Start(0), Order::End(u64::MAX)] {
            assert_eq!(Order::parse(&order.encode()), Some(order));
        }
        let left = vec!["a b".to_owned(), "\u{1b}[31m".to_owned()];
        for report in [
            Report::Started(1, 4242),
            Report::Refused(2, 13),
            Report::Exited(3, Exit::Code(255)),
            Report::Exited(4, Exit::Signal(9)),
            Report::Exited(5, Exit::Unknown),
            Report::Ended(6, Vec::new()),
            Report::Ended(7, left),
        ] {
            assert_eq!(Report::parse(&report.encode()), Some(report));
        }
        assert_eq!(Order::parse("stop 1"), None);
        assert_eq!(Report::parse("started x y"), None);
    }

    #[test]
    fn a_report_with_every_name_fits_into_a_packet() {
        let names = vec!["\u{fffd}".repeat(15); 100];
        assert!(Report::Ended(u64::MAX, names).encode().len() <= LONGEST);
    }

    #[test]
    fn a_command_arrives_as_it_was_given() {
        let command = Command {
            program: "/bin/sh".into(),
            name: "sh".into(),
            args: vec!["-c".into(), "".into(), OsString::from_vec(vec![0xff, b'\n'])],
            environment: vec![("A".into(), "".into()), ("B".into(), "x=y".into())],
            directory: None,
        };
        assert_eq!(Command::from_file(command.to_file().unwrap()), Some(command.clone()));
        let elsewhere = Command { directory: Some("/tmp".into()), args: vec![], ..command.clone() };
        assert_eq!(Command::from_file(elsewhere.to_file().unwrap()), Some(elsewhere));
        let broken = Command { args: vec![OsString::from_vec(vec![b'a', 0])], ..command };
        assert_eq!(broken.to_file().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
