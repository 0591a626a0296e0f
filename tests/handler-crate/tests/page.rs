//! docs/handlers.md shows this crate, and its binary with the configuration shown there pages
//! somebody.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use mcpmon_testkit::{ChildGuard, within};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use toml::Table;

const PAGE: &str = include_str!("../../../docs/handlers.md");
const FILES: [&str; 3] =
    [include_str!("../src/lib.rs"), include_str!("../src/main.rs"), include_str!("promises.rs")];

/// The fenced blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let after = PAGE.split(fence.as_str()).skip(1);
    after.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect()
}

#[test]
fn the_page_shows_the_files_of_this_crate() {
    assert_eq!(blocks("rust"), FILES);
}

#[test]
fn a_handler_takes_less_than_sixty_lines() {
    let is_code = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("//")
    };
    let lines = FILES[..2].iter().flat_map(|file| file.lines()).filter(is_code).count();
    assert!(lines < 60, "{lines} lines");
}

#[test]
fn the_page_names_the_dependencies_of_this_crate() {
    let shown: Table = toml::from_str(blocks("toml")[0]).unwrap();
    let ours: Table = toml::from_str(include_str!("../Cargo.toml")).unwrap();
    let names = |manifest: &Table, kind: &str| -> BTreeSet<String> {
        manifest[kind].as_table().unwrap().keys().cloned().collect()
    };
    assert_eq!(names(&shown, "dependencies"), names(&ours, "dependencies"));
    assert!(names(&ours, "dev-dependencies").contains("mcpmon-testkit"));
    assert!(names(&shown, "dev-dependencies").contains("mcpmon-testkit"));
}

fn up(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmon-handler-pager"));
    command.arg("up").current_dir(home).env_clear();
    command.env("HOME", home).env("PAGER_TOKEN", "hunter22");
    command
}

#[tokio::test]
async fn the_binary_pages_with_the_configuration_of_the_page() {
    let home = tempfile::tempdir().unwrap();
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (shown, written) = (blocks("toml")[1], "127.0.0.1:7070");
    assert!(shown.contains(written), "{shown}");
    let configuration = shown.replace(written, &gateway.local_addr().unwrap().to_string());
    // The first page is about the service, whatever this machine's disk is like.
    let configuration = format!("{configuration}\n[performance_monitoring]\nenabled = false\n");
    std::fs::write(home.path().join("mcpmon.toml"), configuration).unwrap();

    let mut monitor = ChildGuard::spawn(up(home.path())).unwrap();
    let (stream, _) = within("a page", gateway.accept()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    within("a line", stream.read_line(&mut line)).await.unwrap();
    stream.write_all(b"ok 1\n").await.unwrap();
    let page: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&page["token"], &page["kind"]), (&"hunter22".into(), &"firing".into()), "{page}");
    assert!(page["text"].as_str().unwrap().contains("gone"), "{page}");

    monitor.signal(rustix::process::Signal::INT).unwrap();
    let status = monitor.wait_at_most(Duration::from_secs(15)).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
