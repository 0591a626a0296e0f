//! A real SMTP server with STARTTLS and AUTH, and the mails it took.

use std::path::PathBuf;
use std::time::Duration;

use mcpmon_testkit::{ChildGuard, Stream};
use serde_json::Value;

use crate::home::until;
use crate::peers::Peer;

pub(crate) const USER: &str = "mon";
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running mail server.
pub(crate) struct Mailbox {
    server: ChildGuard,
    pub(crate) port: u16,
    /// The authority that signed its certificate.
    pub(crate) authority: PathBuf,
}

impl Mailbox {
    /// One that takes mail only from [`USER`] and only after STARTTLS.
    pub(crate) async fn open(smtpd: Peer, certificates: &Peer, more: &[&str]) -> Self {
        let certificate = certificates.path.join("server").display().to_string();
        let login = format!("{USER}:{PASSWORD}");
        let (server, port) = smtpd
            .with(&["--certificate", &certificate, "--require-starttls", "--require-auth", &login])
            .with(more)
            .listen()
            .await;
        Self { server, port, authority: certificates.path.join("ca.pem") }
    }

    /// Every mail so far.
    pub(crate) fn mails(&self) -> Vec<Value> {
        let written = self.server.written(Stream::Out);
        written.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the mail of this number, the first being 1.
    pub(crate) async fn wait_for(&self, count: usize, longest: Duration) -> Value {
        until(&format!("mail {count}"), longest, || async {
            self.mails().into_iter().nth(count - 1)
        })
        .await
    }
}
