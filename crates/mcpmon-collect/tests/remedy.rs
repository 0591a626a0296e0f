//! Repairs carried out for real: stub programs on a `PATH` of the test's own.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_collect::{Mender, Variables};
use mcpmon_core::remedy::{Grip, Remedy as _, RemedyReport, Repair};
use mcpmon_core::secret::Secret;
use mcpmon_core::service::{RemediationSpec, RemedyAction};
use mcpmon_core::{FailureCode, ServiceSpec};
use mcpmon_testkit::within;
use tempfile::TempDir;

/// Counts how often it is let go of.
#[derive(Default)]
struct Held(AtomicUsize);

#[async_trait]
impl Grip for Held {
    async fn release(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Programs of the test, first on their `PATH`.
struct Programs(TempDir);

impl Programs {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        for (name, script) in scripts {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
            let runnable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, runnable).expect("a program that may run");
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mender(&self) -> Mender {
        let path = format!("{}:/usr/bin:/bin", self.path().display());
        Mender::new(Variables::new([
            ("PATH", path.as_str()),
            ("LANG", "C"),
            ("AWS_SECRET_ACCESS_KEY", "hunter22"),
            ("DOCKER_HOST", "unix:///run/test.sock"),
        ]))
    }
}

async fn apply(mender: &Mender, action: &RemediationSpec, service: &ServiceSpec) -> RemedyReport {
    let held = Held::default();
    let repair = Repair {
        service,
        action,
        rule: Some("service_down"),
        code: Some(FailureCode::ResponseTimeout),
        attempt: 2,
        grip: &held,
    };
    let report = mender.apply(&repair).await;
    let lets_go = action.action == RemedyAction::Restart && report.error.is_none();
    assert_eq!(held.0.load(Ordering::Relaxed), usize::from(lets_go));
    report
}

fn command<A: Into<String>>(argv: impl IntoIterator<Item = A>) -> RemediationSpec {
    let command = argv.into_iter().map(Into::into).collect();
    RemediationSpec { command, ..RemediationSpec::new(RemedyAction::Command) }
}

fn service() -> ServiceSpec {
    ServiceSpec::http("files", "http://files.test/mcp")
}

const ARGUMENTS: &str = r#"for word in "$@"; do echo "<$word>"; done"#;

#[tokio::test]
async fn presets_run_what_people_would_type() {
    let programs = Programs::new(&[("systemctl", ARGUMENTS), ("docker", ARGUMENTS)]);
    let systemd = RemediationSpec {
        unit: Some("mcp files.service".to_owned()),
        ..RemediationSpec::new(RemedyAction::Systemd)
    };
    let of_user = RemediationSpec { user: true, ..systemd.clone() };
    let docker = RemediationSpec {
        container: Some("files".to_owned()),
        ..RemediationSpec::new(RemedyAction::Docker)
    };
    for (action, words) in [
        (systemd, &["<restart>", "<mcp files.service>"][..]),
        (of_user, &["<--user>", "<restart>", "<mcp files.service>"]),
        (docker, &["<restart>", "<files>"]),
    ] {
        let report = apply(&programs.mender(), &action, &service()).await;
        assert_eq!((report.error, report.exit_status), (None, Some(0)));
        assert_eq!(report.last_lines, words);
    }
}

#[tokio::test]
async fn a_command_gets_no_shell_and_only_what_it_may_see() {
    let script = r#"
        echo "$1"
        echo "$MCPMON_SERVICE $MCPMON_FAILURE $MCPMON_RULE $MCPMON_ATTEMPT"
        echo "secret=$AWS_SECRET_ACCESS_KEY docker=$DOCKER_HOST lang=$LANG"
        read -r line || echo "no input""#;
    let programs = Programs::new(&[("mend", script)]);
    let action = command(["mend", "$HOME; echo two"]);
    let report = apply(&programs.mender(), &action, &service()).await;
    assert_eq!(
        report.last_lines,
        [
            "$HOME; echo two",
            "files response_timeout service_down 2",
            "secret= docker= lang=C",
            "no input"
        ]
    );
    // What names Docker's daemon is for Docker's client.
    let programs = Programs::new(&[("docker", "echo \"$DOCKER_HOST\"")]);
    let docker = RemediationSpec {
        container: Some("files".to_owned()),
        ..RemediationSpec::new(RemedyAction::Docker)
    };
    let report = apply(&programs.mender(), &docker, &service()).await;
    assert_eq!(report.last_lines, ["unix:///run/test.sock"]);
}

#[tokio::test]
async fn what_goes_wrong_is_told() {
    let programs = Programs::new(&[("mend", "echo no such unit >&2; exit 5")]);
    let mender = programs.mender();
    let report = apply(&mender, &command(["mend"]), &service()).await;
    assert_eq!(report.exit_status, Some(5));
    assert_eq!(report.last_lines, ["no such unit"]);
    assert!(report.error.unwrap().contains("exit status: 5"));
    let report = apply(&mender, &command(["no-such-program"]), &service()).await;
    assert!(report.error.unwrap().contains("not on PATH"));
    assert_eq!(report.exit_status, None);
    let report = apply(&mender, &command([""; 0]), &service()).await;
    assert!(report.error.unwrap().contains("no program"));
}

#[tokio::test]
async fn what_is_not_done_in_time_is_ended_with_what_it_started() {
    let programs = Programs::new(&[("mend", "sleep 1000 & echo $!; sleep 1000")]);
    let action = RemediationSpec { timeout: Duration::from_millis(300), ..command(["mend"]) };
    let report = apply(&programs.mender(), &action, &service()).await;
    assert!(report.error.unwrap().contains("not done within 0.3s"));
    assert_eq!(report.exit_status, None);
    let child: i32 = report.last_lines[0].parse().unwrap();
    let child = rustix::process::Pid::from_raw(child).unwrap();
    within("the grandchild is gone", async {
        // Whoever adopts it may be slow to reap it; a zombie does nothing any more.
        while is_alive(child) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn is_alive(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat.ok().and_then(|stat| stat.rsplit(')').next()?.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[tokio::test]
async fn a_daemon_it_starts_is_left_running() {
    let programs = Programs::new(&[("mend", "sleep 1000 & echo $!")]);
    let report = within("the command ends although its output is held open", async {
        apply(&programs.mender(), &command(["mend"]), &service()).await
    })
    .await;
    assert_eq!(report.error, None);
    let daemon: i32 = report.last_lines[0].parse().unwrap();
    let daemon = rustix::process::Pid::from_raw(daemon).unwrap();
    assert!(is_alive(daemon));
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn of_a_flood_the_end_is_kept_and_no_secret_of_the_service() {
    let script = "i=0; while [ $i -lt 5000 ]; do echo \"line $i of a flood\"; i=$((i+1)); done\n\
                  echo \"token is $1\"";
    let programs = Programs::new(&[("mend", script)]);
    let mut service = service();
    service.secrets.push(Secret::new("hunter22-and-more"));
    let action = command(["mend", "hunter22-and-more"]);
    let report = apply(&programs.mender(), &action, &service).await;
    assert_eq!(report.last_lines.len(), 10);
    assert_eq!(report.last_lines[8], "line 4999 of a flood");
    assert!(!format!("{report:?}").contains("hunter22"), "{report:?}");
}

#[tokio::test]
async fn a_restart_lets_go_of_the_process_and_nothing_else() {
    let mender = Programs::new(&[]).mender();
    let restart = RemediationSpec::new(RemedyAction::Restart);
    let held = ServiceSpec::stdio("files", "files-server", [""; 0]);
    assert_eq!(apply(&mender, &restart, &held).await, RemedyReport::done());
    let report = apply(&mender, &restart, &service()).await;
    assert!(report.error.unwrap().contains("no process"));
}
