//! mcpmon's own configuration in its three formats: any text is read or refused with what is wrong,
//! and what was read can be used: its entries become services, its conditions compile or say why
//! not.
//!
//! Nothing is started: commands that give secrets are answered here.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use mcpmon_alert::Condition;
use mcpmon_cli::config::Document;
use mcpmon_collect::{EntryContext, Variables, entries_from_json, spec_from_entry};
use tempfile::TempDir;

fn no_command(_: &[String]) -> Result<String, String> {
    Ok("output".to_owned())
}

fn read(folder: &TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    let document = match Document::read(&path) {
        Ok(document) => document,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let settings = &document.settings;
    let limits = settings.limits();
    let vars = Variables::new([("TOKEN", "value")]);
    let context = EntryContext { dir: folder.path(), vars: &vars, origin: "x", run: &no_command };
    for (name, entry) in &settings.services {
        match spec_from_entry(name, entry, &limits, &context) {
            Ok(service) => assert_eq!(service.name.as_str(), name),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let _ = entries_from_json(&settings.mcp_servers, &limits, &context);
    for rule in &settings.rules {
        if let Some(when) = &rule.when
            && let Err(error) = Condition::compile(when, rule.scope.unwrap_or_default())
        {
            assert!(!error.to_string().is_empty());
        }
    }
}

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a folder"));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let name = ["mcpmon.toml", "mcpmon.yaml", "mcpmon.json"][usize::from(*first) % 3];
    FOLDER.with_borrow(|folder| read(folder, name, rest));
});
