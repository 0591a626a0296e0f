//! The same binary as `mcpmon`, with its history on a disk that fails on cue: `BAD_DISK` names the
//! directory, and the file `fault` in the home says what is wrong with it now.

use std::path::PathBuf;
use std::process::ExitCode;

use mcpmon_bad_disk::Disk;

fn main() -> ExitCode {
    // The processes of services and the guardian are this program too, and have no such disk.
    if let (Some(directory), Some(home)) = (std::env::var_os("BAD_DISK"), std::env::var_os("HOME"))
    {
        match Disk::at(&PathBuf::from(directory)) {
            Ok(disk) => disk.obey(PathBuf::from(home).join("fault")),
            Err(_) => return ExitCode::from(99),
        }
    }
    mcpmon_cli::App::new().run()
}
