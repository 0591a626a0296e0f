//! Services found in the files of MCP clients.

use serde_json::{Value, json};

use crate::home::{Home, service};

fn demo() -> Value {
    json!({ "command": env!("CARGO_BIN_EXE_mcpmon"), "args": ["demo-server"] })
}

/// A home with the files of several clients: one server each, one that two of them share, and one
/// file that is broken.
fn furnished() -> Home {
    let home = Home::new();
    let mut claude = demo();
    claude["env"] = json!({ "FROM": "claude-desktop" });
    home.write(
        ".config/Claude/claude_desktop_config.json",
        json!({ "mcpServers": { "desktop": claude, "shared": demo() } }).to_string(),
    );
    let mut cursor = demo();
    cursor["env"] = json!({ "FROM": "cursor" });
    home.write(
        ".cursor/mcp.json",
        json!({ "mcpServers": { "cursor": cursor, "shared-too": demo() } }).to_string(),
    );
    let vscode = format!(
        "{{\n  // the editor writes comments\n  \"servers\": {{ \"editor\": {} }},\n}}",
        json!({ "type": "stdio", "command": env!("CARGO_BIN_EXE_mcpmon"),
                "args": ["demo-server"], "env": { "FROM": "vscode" } })
    );
    home.write(".config/Code/User/mcp.json", vscode);
    let codex = toml::to_string(&json!({ "mcp_servers": { "codex": {
        "command": env!("CARGO_BIN_EXE_mcpmon"), "args": ["demo-server"],
        "env": { "FROM": "codex" }, "startup_timeout_sec": 10,
    }}}));
    home.write(".codex/config.toml", codex.unwrap());
    home.write(".gemini/settings.json", "{ \"mcpServers\": { \"half\": ");
    home
}

const FOUND: [&str; 4] = ["cursor", "desktop", "editor", "codex"];

#[tokio::test]
async fn services_of_every_client_are_found_and_a_shared_one_counts_once() {
    let home = furnished();
    let ran = home.run(&["up", "--once", "--yes"]).await.expect(0);
    // The broken file is named, and stops nothing.
    ran.says(&[".gemini/settings.json"]);
    let status = home.status().await.unwrap();
    for name in FOUND {
        assert_eq!(service(&status, name)["status"], "running", "{status:#}");
    }
    let shared = status["services"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|service| service["service"].as_str().unwrap().starts_with("shared"))
        .count();
    assert_eq!(shared, 1, "{status:#}");
    assert_eq!(status["summary"]["total"], 5, "{status:#}");
}

#[tokio::test]
async fn without_consent_commands_stay_paused_and_it_is_said() {
    let home = furnished();
    let ran = home.run(&["up", "--once"]).await.expect(0);
    ran.says(&["--yes", "paused"]);
    let status = home.status().await.unwrap();
    assert_eq!(status["summary"]["paused"], 5, "{status:#}");
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn a_url_needs_no_consent() {
    let home = Home::new();
    home.write(
        ".cursor/mcp.json",
        json!({ "mcpServers": { "remote": { "url": "http://127.0.0.1:9/mcp" } } }).to_string(),
    );
    home.run(&["up", "--once"]).await.expect(0);
    let status = home.status().await.unwrap();
    assert_eq!(service(&status, "remote")["failure"]["code"], "connection_refused", "{status:#}");
}

#[tokio::test]
async fn a_project_file_in_the_working_directory_is_found() {
    let home = Home::new();
    home.write("work/.mcp.json", json!({ "mcpServers": { "project": demo() } }).to_string());
    home.run(&["up", "--once", "--yes"]).await.expect(0);
    let status = home.status().await.unwrap();
    assert_eq!(service(&status, "project")["status"], "running", "{status:#}");
}

#[tokio::test]
async fn a_configuration_that_names_services_reads_no_clients_file_unasked() {
    let home = furnished();
    home.configure("[services.own]\nurl = \"http://127.0.0.1:9/mcp\"\n");
    home.run(&["up", "--once", "--yes"]).await.expect(0);
    let status = home.status().await.unwrap();
    assert_eq!(status["summary"]["total"], 1, "{status:#}");
}

#[tokio::test]
async fn a_disabled_entry_is_listed_as_paused_and_never_started() {
    let home = Home::new();
    let mut entry = demo();
    entry["disabled"] = json!(true);
    home.write(".cursor/mcp.json", json!({ "mcpServers": { "off": entry } }).to_string());
    home.run(&["up", "--once", "--yes"]).await.expect(0);
    let status = home.status().await.unwrap();
    assert_eq!(service(&status, "off")["status"], "paused", "{status:#}");
}

#[tokio::test]
async fn importing_a_clients_file_changes_nothing_in_it() {
    let home = furnished();
    let files =
        [".config/Claude/claude_desktop_config.json", ".cursor/mcp.json", ".codex/config.toml"];
    let before = files.map(|file| std::fs::read(home.path().join(file)).unwrap());
    home.run(&["up", "--once", "--yes"]).await.expect(0);
    assert_eq!(files.map(|file| std::fs::read(home.path().join(file)).unwrap()), before);
}
