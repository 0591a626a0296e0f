//! A stdio server as a process: `helper-stdio FILE` adds a line to the file when it starts.

use std::path::Path;

use mcpmon_benches::{Failure, stdio};

fn main() -> Result<(), Failure> {
    let starts = std::env::args().nth(1).ok_or("usage: helper-stdio FILE")?;
    stdio::run(Path::new(&starts))
}
