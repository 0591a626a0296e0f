//! A program of one's own: exact arguments, no shell, the notification as JSON on its input.

use std::fmt;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::wording::headline;

/// As much of what it writes as is kept.
const LONGEST_OUTPUT: u64 = 16 * 1024;
/// `EX_TEMPFAIL` of `sysexits.h`: the program asks to be run again later.
const TRY_LATER: i32 = 75;

/// Runs a program for each notification, one at a time.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `command` | the program and its arguments, as a list; no shell | |
/// | `timeout` | the program is ended after it | `30s` |
///
/// The notification is JSON on its standard input (`mcpmon/notification/v1`). `MCPMON_KIND`,
/// `MCPMON_LEVEL`, `MCPMON_KEY` and `MCPMON_TEXT` are set. Exit code 0 means taken; 75
/// (`EX_TEMPFAIL`), an end by a signal or a timeout mean "later"; every other code is final.
pub struct CommandHandler {
    name: String,
    program: String,
    args: Vec<String>,
    timeout: Duration,
    /// One at a time: a pager script is seldom written to run beside itself.
    turn: Mutex<()>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandSettings {
    command: Vec<String>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

impl CommandHandler {
    /// Reads the keys of kind `command`; starts nothing.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: CommandSettings = settings.parse()?;
        if own.timeout.is_zero() {
            return Err(settings.error("`timeout`: it must be longer than 0"));
        }
        let mut words = own.command.into_iter();
        let program = words.next().filter(|program| !program.trim().is_empty());
        let Some(program) = program else {
            return Err(settings.error("`command`: it names no program"));
        };
        Ok(Self {
            name: settings.name.clone(),
            program,
            args: words.collect(),
            timeout: own.timeout,
            turn: Mutex::new(()),
        })
    }

    async fn run(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env("MCPMON_KIND", notification.kind.as_str())
            .env("MCPMON_LEVEL", notification.level().as_str())
            .env("MCPMON_KEY", for_terminal(&notification.key))
            .env("MCPMON_TEXT", for_terminal(&truncate(&headline(notification), 2_000)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let input = json!({
            "schema": "mcpmon/notification/v1",
            "key": notification.key,
            "kind": notification.kind.as_str(),
            "level": notification.level(),
            "attempt": notification.attempt,
            "text": headline(notification),
            "alerts": notification.alerts,
        });
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input has not failed.
                let _ = stdin.write_all(format!("{input}\n").as_bytes()).await;
            }
        };
        let output = beginning(child.stdout.take());
        let errors = beginning(child.stderr.take());
        let ((), output, errors, status) = tokio::join!(write, output, errors, child.wait());
        let status = status.map_err(|error| DeliveryError::transient(self.told(&error)))?;
        if status.success() {
            let id = output.lines().next_back().map(str::trim).filter(|line| !line.is_empty());
            return Ok(match id {
                Some(id) => Receipt::with_id(truncate(&for_terminal(id), 200)),
                None => Receipt::accepted(),
            });
        }
        let said = if errors.trim().is_empty() { output } else { errors };
        let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let why = self.told(&format_args!("ended with {status}: {said}"));
        Err(match status.code() {
            None | Some(TRY_LATER) => DeliveryError::transient(why),
            Some(_) => DeliveryError::permanent(why),
        })
    }

    fn not_started(&self, error: &io::Error) -> DeliveryError {
        let why = self.told(&format_args!("could not be started: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                DeliveryError::permanent(why)
            }
            _ => DeliveryError::transient(why),
        }
    }

    fn told(&self, why: &dyn fmt::Display) -> String {
        let why = truncate(&for_terminal(&why.to_string()), 300);
        format!("`{}`: {why}", for_terminal(&self.program))
    }
}

/// The beginning of what a program writes; the rest is read and forgotten, so that it never waits
/// for us.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut kept = Vec::new();
    let _ = (&mut stream).take(LONGEST_OUTPUT).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

impl fmt::Debug for CommandHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandHandler")
            .field("name", &self.name)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for CommandHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let _turn = self.turn.lock().await;
        match tokio::time::timeout(self.timeout, self.run(notification)).await {
            Ok(result) => result,
            Err(_) => {
                let waited = mcpmon_core::duration::format(self.timeout);
                let why = self.told(&format_args!("not done within {waited}; it was ended"));
                Err(DeliveryError::transient(why))
            }
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::NotificationKind;
    use mcpmon_testkit::{handler_conformance, samples};

    fn handler(script: &str) -> CommandHandler {
        let settings = HandlerSettings::new("script", "command")
            .with("command", vec!["sh", "-c", script, "notify"])
            .with("timeout", "5s");
        CommandHandler::from_settings(&settings).unwrap()
    }

    async fn run(script: &str) -> Result<Receipt, DeliveryError> {
        let firing = samples::notification("k-1", NotificationKind::Firing);
        handler(script).deliver(&firing).await
    }

    #[tokio::test]
    async fn gets_the_notification_and_its_last_line_is_the_receipt() {
        let script = r#"read -r json; case "$json" in *'"schema":"mcpmon/notification/v1"'*) echo noise; echo "$MCPMON_KIND $MCPMON_LEVEL $MCPMON_KEY";; esac"#;
        assert_eq!(run(script).await.unwrap().id.as_deref(), Some("firing error k-1"));
    }

    #[tokio::test]
    async fn an_exit_is_final_or_not_by_its_code() {
        for (script, is_transient) in
            [("exit 1", false), ("exit 75", true), ("kill -9 $$", true), ("exit 127", false)]
        {
            let error = run(&format!("echo why >&2; {script}")).await.unwrap_err();
            assert_eq!(error.is_transient(), is_transient, "{script}: {error}");
        }
        assert!(
            run("echo the reason >&2; exit 3").await.unwrap_err().to_string().contains("reason")
        );
    }

    #[tokio::test]
    async fn one_that_neither_reads_nor_stops_writing_is_ended() {
        let settings = HandlerSettings::new("script", "command")
            .with("command", vec!["sh", "-c", "while :; do echo flood; done"])
            .with("timeout", "300ms");
        let handler = CommandHandler::from_settings(&settings).unwrap();
        let firing = samples::notification("k", NotificationKind::Firing);
        let error = handler.deliver(&firing).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("0.3s"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_no_use_trying_again() {
        let settings =
            HandlerSettings::new("script", "command").with("command", vec!["/nowhere/at/all"]);
        let handler = CommandHandler::from_settings(&settings).unwrap();
        let firing = samples::notification("k", NotificationKind::Firing);
        assert!(!handler.deliver(&firing).await.unwrap_err().is_transient());
    }

    #[test]
    fn keys_that_cannot_work_are_told() {
        for (key, value) in
            [("command", json!([])), ("command", json!([" "])), ("command", json!("a b"))]
        {
            let settings = HandlerSettings::new("script", "command").with(key, value);
            assert!(CommandHandler::from_settings(&settings).is_err());
        }
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        handler_conformance(&handler("cat > /dev/null")).await;
    }
}
