//! `mcpmon explain`: what is wrong with a service, what a code means, and no more than is known.

use serde_json::json;

use crate::home::Home;

/// A home whose monitor has seen one service that cannot start, and one that works.
async fn watched() -> Home {
    let home = Home::new();
    let shell = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; id=${id%\}}
case "$line" in *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id";;
*'"ping"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id";; esac; done"#
        .replace("${", "$${");
    let dying = "echo 'ModuleNotFoundError: No module named \"\u{1b}[2Jmcp\"' >&2; exit 3";
    let configuration = json!({
        "monitoring": { "health_check_retries": 1 },
        "service_monitoring": { "max_consecutive_failures": 1 },
        "services": {
            "broken": { "command": "sh", "args": ["-c", dying] },
            "well": { "command": "sh", "args": ["-c", shell] },
            "exited": { "command": "no-such-program-anywhere" },
        },
    });
    home.configure(toml::to_string(&configuration).unwrap());
    home.run(&["up", "--once", "--yes"]).await.expect(0);
    home
}

#[tokio::test]
async fn a_service_is_explained_from_what_was_kept() {
    let home = watched().await;
    let text = home.run(&["explain", "broken"]).await.expect(0).out;
    for words in [
        "broken  \u{25cb} stopped  since ",
        "no monitor watches it now",
        "missing_module: exited with status 3",
        "failed in   handshake",
        "took        spawn ",
        "exit_status  3",
        "stderr",
        "Next\n",
        "Before\n",
        "missing_module (failure, stopped)",
        "Usual causes",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    let text = home.run(&["explain", "well"]).await.expect(0).out;
    assert!(text.contains("nothing is wrong with it"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    let report = home.run(&["explain", "broken", "--output", "json"]).await.expect(0).json();
    assert_eq!(report["schema"], "mcpmon/explain/v1");
    assert_eq!(report["service"]["failure"]["code"], "missing_module");
    assert_eq!(report["service"]["watched"], false);
    assert_eq!(report["service"]["changes"][0]["status"], "stopped");
    assert_eq!(report["codes"][0]["code"], "missing_module");
}

#[tokio::test]
async fn a_service_named_like_a_code_is_the_service_unless_said_otherwise() {
    let home = watched().await;
    let ran = home.run(&["explain", "exited"]).await.expect(0);
    assert!(ran.out.contains("command_not_found"), "{ran}");
    ran.says(&["there is a service `exited`", "--code exited"]);
    let ran = home.run(&["explain", "--code", "exited"]).await.expect(0);
    assert!(ran.out.starts_with("exited (failure, stopped)\n"), "{ran}");
}

#[tokio::test]
async fn a_code_is_explained_without_any_history() {
    let home = Home::new();
    let ran = home.run(&["explain", "DNS-Failed"]).await.expect(0);
    assert!(ran.out.starts_with("dns_failed (failure, stopped)\n"), "{ran}");
    assert!(ran.out.contains("Usual causes\n"), "{ran}");
    let ran = home.run(&["explain"]).await.expect(0);
    let codes = mcpmon_core::FailureCode::ALL.len() + mcpmon_core::FindingCode::ALL.len();
    // Two headings, and an empty line between the tables.
    assert_eq!(ran.out.lines().count(), codes + 3, "{ran}");
    let report = home.run(&["explain", "--output", "json"]).await.expect(0).json();
    assert_eq!(report["codes"].as_array().unwrap().len(), codes);
}

#[tokio::test]
async fn what_is_neither_is_wrong_usage_and_what_cannot_be_known_says_so() {
    let home = Home::new();
    home.run(&["explain", "dns_faild"]).await.expect(2).says(&["did you mean `dns_failed`?"]);
    home.run(&["explain", "github"]).await.expect(3).says(&["no history", "mcpmon check github"]);
    let home = watched().await;
    home.run(&["explain", "brokn"]).await.expect(2).says(&["did you mean `broken`?"]);
    home.run(&["explain", "--code", "broken"]).await.expect(2).says(&["no code `broken`"]);
}
