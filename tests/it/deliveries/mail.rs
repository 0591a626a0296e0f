//! Mail servers that are away, demand privacy or a password, cut the line, or say "later".

use super::far_sides::{FarSide, MailServer};
use super::hook::Hook;
use super::stage::{Deed, Entry, Stage, at, between, down, heard, mute, over};
use crate::mail::PASSWORD;
use crate::peers::{Peer, peer};

/// What stands before the host in the URL of who logs in, and the keys beside it.
pub(super) const USER: &str = "mon@";
pub(super) const LOGIN: &str = "password = { env = \"SMTP_PASSWORD\" }\n";

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One that takes mail from [`USER`] with this password only, and only in private.
pub(super) fn strict(certificates: &Peer, password: &str) -> Vec<String> {
    let certificate = certificates.path.join("server").display().to_string();
    let login = format!("mon:{password}");
    words(&["--certificate", &certificate, "--require-starttls", "--require-auth", &login])
}

async fn mail(smtpd: &Peer, options: &[&str]) -> FarSide {
    FarSide::Mail(MailServer::open(smtpd, &words(options), "", "").await)
}

async fn private(smtpd: &Peer, options: &[String]) -> FarSide {
    FarSide::Mail(MailServer::open(smtpd, options, USER, LOGIN).await)
}

/// Every mail came through TLS, from who logged in.
#[track_caller]
fn is_private(stage: &Stage, name: &str) {
    let FarSide::Mail(server) = stage.far_side(name) else { panic!("`{name}` takes mail") };
    for (_, mail) in server.mails() {
        assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &"mon".into()), "{mail:#}");
    }
}

async fn each_mail_server_gets_its_mail_once_it_will_take_it_and_holds_up_no_other() {
    let smtpd = peer!("smtpd");
    let certificates = peer!("certificates");
    let right = strict(&certificates, PASSWORD);
    let mut stage = Stage::new(&["a"])
        .await
        .with_env("SMTP_PASSWORD", PASSWORD)
        .with_env("SSL_CERT_FILE", certificates.path.join("ca.pem").display().to_string())
        .with("private", private(&smtpd, &right).await)
        .with("later", mail(&smtpd, &["--defer", "2"]).await)
        .with("cut", mail(&smtpd, &["--drop", "1"]).await)
        .with("refusing", private(&smtpd, &strict(&certificates, "another password")).await)
        .with("watch", FarSide::Hook(Hook::open(&[]).await, ""))
        .configured(
            r#"
[[routes]]
rules = ["service_down"]
handlers = ["private", "later", "cut", "refusing", "watch"]
[[routes]]
rules = ["delivery_failing"]
handlers = ["refusing", "watch"]
"#,
        );
    let line = [
        at(0.0, Deed::Falls("a")),
        between(0.0, 20.0, down("private", "a")),
        between(0.0, 20.0, down("watch", "a")),
        between(1.0, 60.0, down("later", "a")),
        // Cut before the last word: it has the mail, and nobody knows.
        between(0.0, 20.0, down("cut", "a")),
        Entry::Doubles("cut", 1),
        // Given up, and told by another.
        between(0.0, 20.0, mute("watch", "refusing")),
        // The password is put right.
        at(16.0, Deed::Comes("refusing", right.clone())),
        at(18.0, Deed::Rises("a")),
        between(18.0, 60.0, over("private", "a")),
        between(18.0, 60.0, over("watch", "a")),
        between(18.0, 60.0, over("later", "a")),
        between(18.0, 60.0, over("cut", "a")),
        between(18.0, 60.0, over("refusing", "a")),
        between(18.0, 60.0, heard("watch", "refusing")),
    ];
    stage.play(&line).await;

    is_private(&stage, "private");
    is_private(&stage, "refusing");
    let dead = stage.home.run(&["db", "info", "--output", "json"]).await.expect(0).json();
    assert_eq!(dead["outbox"]["dead"].as_u64(), Some(1), "{dead:#}");
}

async fn nothing_is_sent_in_the_clear_and_that_is_told_by_another() {
    let smtpd = peer!("smtpd");
    let certificates = peer!("certificates");
    let mut stage = Stage::new(&["a"])
        .await
        .with_env("SMTP_PASSWORD", PASSWORD)
        .with_env("SSL_CERT_FILE", certificates.path.join("ca.pem").display().to_string())
        // Offers no STARTTLS, where it is required.
        .with("naked", private(&smtpd, &[]).await)
        .with("watch", FarSide::Hook(Hook::open(&[]).await, ""));
    let line = [
        at(0.0, Deed::Falls("a")),
        between(0.0, 20.0, down("watch", "a")),
        between(0.0, 20.0, mute("watch", "naked")),
        // It gets a certificate, and asks for the login.
        at(14.0, Deed::Comes("naked", strict(&certificates, PASSWORD))),
        at(16.0, Deed::Rises("a")),
        between(16.0, 60.0, over("naked", "a")),
        between(16.0, 60.0, over("watch", "a")),
        between(16.0, 60.0, heard("watch", "naked")),
    ];
    stage.play(&line).await;
    is_private(&stage, "naked");
}

async fn a_mail_server_that_was_away_gets_what_is_still_true_once() {
    let smtpd = peer!("smtpd");
    let mut stage = Stage::new(&["a", "b"])
        .await
        .with("ops", mail(&smtpd, &[]).await)
        .configured("[[routes]]\nrules = [\"service_down\"]\nhandlers = [\"ops\"]\n");
    let line = [
        at(0.0, Deed::Goes("ops")),
        at(0.0, Deed::Falls("a")),
        // Began and ended while nobody could be told: one mail, that it is over.
        at(7.0, Deed::Rises("a")),
        at(7.0, Deed::Falls("b")),
        at(14.0, Deed::Comes("ops", Vec::new())),
        between(14.0, 60.0, over("ops", "a")),
        between(14.0, 60.0, down("ops", "b")),
        at(24.0, Deed::Rises("b")),
        between(24.0, 60.0, over("ops", "b")),
    ];
    stage.play(&line).await;
}

async fn a_restart_in_the_middle_repeats_and_forgets_nothing() {
    let smtpd = peer!("smtpd");
    let mut stage = Stage::new(&["a"])
        .await
        .with("ops", mail(&smtpd, &[]).await)
        .configured("[[routes]]\nrules = [\"service_down\"]\nhandlers = [\"ops\"]\n");
    let line = [
        at(0.0, Deed::Goes("ops")),
        at(0.0, Deed::Falls("a")),
        // Killed between two attempts, with the mail queued.
        at(6.0, Deed::MonitorDies),
        at(6.5, Deed::Comes("ops", Vec::new())),
        at(7.0, Deed::MonitorStarts),
        between(7.0, 60.0, down("ops", "a")),
        at(14.0, Deed::MonitorDies),
        at(14.5, Deed::Rises("a")),
        at(15.0, Deed::MonitorStarts),
        between(15.0, 60.0, over("ops", "a")),
    ];
    stage.play(&line).await;
}

/// Beside each other, since most of each line is waiting.
#[tokio::test]
async fn mail_servers_get_what_they_will_take_and_nothing_twice() {
    tokio::join!(
        each_mail_server_gets_its_mail_once_it_will_take_it_and_holds_up_no_other(),
        nothing_is_sent_in_the_clear_and_that_is_told_by_another(),
        a_mail_server_that_was_away_gets_what_is_still_true_once(),
        a_restart_in_the_middle_repeats_and_forgets_nothing()
    );
}
