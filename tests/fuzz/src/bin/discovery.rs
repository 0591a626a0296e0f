//! Other programs' configuration files: any bytes are read or refused with a place in the file, in
//! the format of every client, and every service read has a name and a way to be reached or says
//! why it has none.
#![no_main]

use std::cell::RefCell;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use mcpmon_collect::clients::{ClientKind, Search};
use mcpmon_collect::{Environment, FileOutcome, Os, Variables};
use mcpmon_core::settings::Settings;
use tempfile::TempDir;

/// A home with nothing in it but the file that is read.
struct Desk {
    folder: TempDir,
    environment: Environment,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let environment = Environment {
            os: Os::Linux,
            home: Some(folder.path().to_owned()),
            cwd: folder.path().to_owned(),
            vars: Variables::new([("TOKEN", "value"), ("EMPTY", "")]),
        };
        Self { folder, environment }
    }

    fn read(&self, name: &str, bytes: &[u8], client: Option<ClientKind>) {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let limits = Settings::default().limits();
        let mut search = Search::new(&self.environment, &limits);
        search.import(&path, client);
        let discovery = search.finish();
        for service in &discovery.services {
            assert!(!service.name.as_str().is_empty(), "{service:?}");
        }
        let mut names: Vec<&str> =
            discovery.services.iter().map(|service| service.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), discovery.services.len(), "every name once");
        for file in &discovery.files {
            if let FileOutcome::Broken(problem) = &file.outcome {
                assert!(!problem.message.is_empty());
                assert!(problem.position.is_none_or(|(line, column)| line > 0 && column > 0));
            }
        }
    }
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk::new());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    DESK.with_borrow(|desk| {
        let kinds = ClientKind::ALL;
        let kind = kinds.get(usize::from(*first) % (kinds.len() + 1)).copied();
        desk.read("servers.json", rest, kind);
        if *first >= 192 {
            desk.read("servers.toml", rest, kind);
        }
    });
});
