//! Web hooks that answer with errors, want to be left alone, hang, hang up, or point elsewhere.

use std::time::Duration;

use super::far_sides::FarSide;
use super::hook::{Attempt, Hook, Says};
use super::stage::{Deed, Stage, at, between, down, heard, mute, over};

async fn hook(first: &[Says]) -> FarSide {
    FarSide::Hook(Hook::open(first).await, "timeout = \"3s\"\n")
}

fn attempts(stage: &Stage, name: &str) -> Vec<Attempt> {
    match stage.far_side(name) {
        FarSide::Hook(hook, _) => hook.attempts(),
        _ => panic!("`{name}` is no web hook"),
    }
}

/// The pauses before each attempt but the first at the first message.
fn pauses(attempts: &[Attempt]) -> Vec<Duration> {
    let first = &attempts[0].key;
    let of_first: Vec<&Attempt> = attempts.iter().filter(|tried| tried.key == *first).collect();
    of_first.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

async fn a_web_hook_that_fails_is_tried_again_and_holds_up_no_other() {
    let stranger = Hook::open(&[]).await;
    let mut stage = Stage::new(&["a"])
        .await
        .with("well", hook(&[]).await)
        .with("broken", hook(&[Says::broken(), Says::broken(), Says::broken()]).await)
        .with("busy", hook(&[Says::busy(6)]).await)
        .with("hanging", hook(&[Says::Nothing, Says::Nothing]).await)
        .with("closing", hook(&[Says::HangsUp]).await)
        .with("moving", hook(&[Says::moved(&stranger.url())]).await)
        .configured(
            r#"
[[routes]]
rules = ["service_down"]
handlers = ["well", "broken", "busy", "hanging", "closing", "moving"]
[[routes]]
rules = ["delivery_failing"]
handlers = ["well", "moving"]
"#,
        );
    let mut line = vec![
        at(0.0, Deed::Falls("a")),
        // Before those that hang or wait.
        between(0.0, 20.0, down("well", "a")),
        between(3.0, 60.0, down("closing", "a")),
        // Not before 6 s after it said so.
        between(6.0, 60.0, down("busy", "a")),
        // After about 1, 2 and 4 s.
        between(5.5, 60.0, down("broken", "a")),
        // Twice 3 s of silence, then about 1 and 2 s.
        between(8.0, 60.0, down("hanging", "a")),
        // A redirect is final: said at once, by another.
        between(0.0, 20.0, mute("well", "moving")),
        at(18.0, Deed::Rises("a")),
        // Who refused the beginning is told the end.
        between(18.0, 60.0, over("moving", "a")),
        between(18.0, 60.0, heard("well", "moving")),
    ];
    line.extend(
        ["well", "closing", "busy", "broken", "hanging"]
            .map(|name| between(18.0, 60.0, over(name, "a"))),
    );
    stage.play(&line).await;

    let of_broken = pauses(&attempts(&stage, "broken"));
    // 1, 2 and 4 s, each up to a fifth shorter or longer.
    for (pause, least) in of_broken.iter().zip([800, 1_600, 3_200]) {
        assert!(*pause >= Duration::from_millis(least), "{of_broken:?}");
    }
    assert_eq!(of_broken.len(), 3);
    let of_busy = pauses(&attempts(&stage, "busy"));
    assert!(of_busy.len() == 1 && of_busy[0] >= Duration::from_secs(6), "{of_busy:?}");
    assert_eq!(stranger.attempts().len(), 0, "nothing of it goes where a redirect points");
    let numbers: Vec<u64> = attempts(&stage, "broken")
        .iter()
        .take(4)
        .map(|attempt| attempt.body["attempt"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

async fn what_ended_before_it_could_be_told_is_one_message_that_says_so() {
    let mut stage = Stage::new(&["a", "b"])
        .await
        .with("ops", hook(&[]).await)
        .configured("[[routes]]\nrules = [\"service_down\"]\nhandlers = [\"ops\"]\n");
    let line = [
        at(0.0, Deed::Says("ops", Says::broken())),
        at(0.0, Deed::Falls("a")),
        at(7.0, Deed::Rises("a")),
        // Falls while the far side is away, and stays down.
        at(7.0, Deed::Falls("b")),
        at(14.0, Deed::Says("ops", Says::Well)),
        between(14.0, 60.0, over("ops", "a")),
        between(14.0, 60.0, down("ops", "b")),
        at(24.0, Deed::Rises("b")),
        between(24.0, 60.0, over("ops", "b")),
    ];
    stage.play(&line).await;
}

/// Beside each other, since most of each line is waiting.
#[tokio::test]
async fn web_hooks_get_what_they_will_take_and_nothing_twice() {
    tokio::join!(
        a_web_hook_that_fails_is_tried_again_and_holds_up_no_other(),
        what_ended_before_it_could_be_told_is_one_message_that_says_so()
    );
}
