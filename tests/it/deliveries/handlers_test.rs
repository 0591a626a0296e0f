//! `mcpmon handlers test` sends one marked message and says what the far side answered, word for
//! word.

use crate::home::Ran;
use crate::mail::PASSWORD;
use crate::peers::peer;

use super::alertmanager::Alertmanager;
use super::far_sides::{FarSide, MailServer};
use super::hook::{Hook, Says};
use super::mail::{LOGIN, USER, strict, words};
use super::stage::Stage;

/// What is told of a handler, and of no other.
type Answer<'a> = (&'a str, Result<&'a str, Refusal<'a>>);

/// Whether a real message would be tried again, and words of the far side.
type Refusal<'a> = (bool, &'a str);

/// What is told of one handler.
fn result<'a>(ran: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let mut results = ran["results"].as_array().unwrap().iter();
    results.find(|result| result["handler"] == name).unwrap_or_else(|| panic!("{name} in {ran:#}"))
}

/// Tests every handler, each of which must fail with these words, and says whether a real message
/// would be tried again; or must give this receipt.
async fn check(stage: &Stage, expected: &[Answer<'_>]) {
    stage.configure();
    let well = expected.iter().all(|(_, expected)| expected.is_ok());
    let tested: Ran = stage.home.run(&["handlers", "test", "--output", "json"]).await;
    let tested = tested.expect(if well { 0 } else { 1 }).json();
    for (name, expected) in expected {
        let result = result(&tested, name);
        let said = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
        let line = stage.home.run(&["handlers", "test", name]).await;
        match expected {
            Ok(receipt) => {
                assert_eq!(result["delivered"], true, "{name}: {result:#}");
                assert!(said("receipt").contains(receipt), "{name}: {result:#}");
                let line = line.expect(0);
                assert!(line.out.contains(&format!("{name}: delivered in ")), "{line}");
                assert!(line.out.contains(receipt), "{line}");
            }
            Err((again, words)) => {
                assert_eq!(result["delivered"], false, "{name}: {result:#}");
                assert_eq!(result["transient"], *again, "{name}: {result:#}");
                assert!(said("error").contains(words), "{name}: {result:#}");
                let line = line.expect(1);
                assert!(line.out.contains(words), "{line}");
                let next = if *again { "would be tried again" } else { "would be given up" };
                assert!(line.out.contains(next), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_mail_server_answers_is_told() {
    let smtpd = peer!("smtpd");
    let certificates = peer!("certificates");
    let right = strict(&certificates, PASSWORD);
    let open = async |options: &[String]| {
        FarSide::Mail(MailServer::open(&smtpd, options, USER, LOGIN).await)
    };
    let plain = async |options: &[&str]| {
        FarSide::Mail(MailServer::open(&smtpd, &words(options), "", "").await)
    };
    let mut gone = MailServer::open(&smtpd, &[], "", "").await;
    gone.stop().await;
    let stage = Stage::new(&[])
        .await
        .with_env("SMTP_PASSWORD", PASSWORD)
        .with_env("SSL_CERT_FILE", certificates.path.join("ca.pem").display().to_string())
        .with("well", open(&right).await)
        .with("wrong-password", open(&strict(&certificates, "another")).await)
        .with("no-starttls", open(&[]).await)
        .with("later", plain(&["--defer", "9"]).await)
        .with("nobody", plain(&["--reject", "ops@example.com"]).await)
        .with("cut", plain(&["--drop", "9"]).await)
        .with("gone", FarSide::Mail(gone));
    let expected = [
        ("well", Ok("OK")),
        ("wrong-password", Err((false, "535"))),
        ("no-starttls", Err((false, "STARTTLS"))),
        ("later", Err((true, "Try again later"))),
        ("nobody", Err((false, "No such mailbox here"))),
        ("cut", Err((true, "localhost:"))),
        ("gone", Err((true, "refused"))),
    ];
    check(&stage, &expected).await;
    let FarSide::Mail(well) = stage.far_side("well") else { panic!("it takes mail") };
    for (_, mail) in well.mails() {
        let subject = mail["headers"]["subject"].as_str().unwrap();
        assert!(subject.starts_with("[mcpmon] TEST: "), "{subject}");
    }
}

#[tokio::test]
async fn what_a_web_hook_answers_is_told() {
    let hook = async |says: Says| {
        let hook = Hook::open(&[]).await;
        hook.says(says);
        FarSide::Hook(hook, "timeout = \"1s\"\n")
    };
    let stranger = Hook::open(&[]).await;
    let stage = Stage::new(&[])
        .await
        .with("well", hook(Says::Well).await)
        .with("broken", hook(Says::broken()).await)
        .with("busy", hook(Says::busy(60)).await)
        .with("moved", hook(Says::moved(&stranger.url())).await)
        .with("mute", hook(Says::Nothing).await)
        .with("closing", hook(Says::HangsUp).await);
    let expected = [
        ("well", Ok("")),
        ("broken", Err((true, "answered 500: the far side said 500 Internal Server Error"))),
        ("busy", Err((true, "answered 429: the far side said 429 Too Many Requests"))),
        ("moved", Err((false, "307 is a redirect, which is not followed"))),
        ("mute", Err((true, "no whole answer within 1s"))),
        ("closing", Err((true, "http://127.0.0.1:"))),
    ];
    check(&stage, &expected).await;
    assert_eq!(stranger.attempts().len(), 0);
}

#[tokio::test]
async fn what_an_alertmanager_answers_is_told() {
    let peer = peer!("alertmanager");
    let receiver = Hook::open(&[]).await;
    let stage = Stage::new(&[]).await;
    let folder = stage.home.path().join("am");
    let mut running = Alertmanager::open(&peer, &folder, &receiver, None).await;
    let url = running.url();
    let handler = |name: &str, url: &str| {
        format!("[[handlers]]\nname = \"{name}\"\ntype = \"alertmanager\"\nurl = \"{url}\"\n")
    };
    let stage = stage
        .configured(&handler("well", &url))
        .configured(&handler("elsewhere", &format!("{url}/not/there")));
    let expected = [("well", Ok("")), ("elsewhere", Err((false, "answered 404")))];
    check(&stage, &expected).await;
    running.stop().await;
    check(&stage, &[("well", Err((true, "refused")))]).await;
}
