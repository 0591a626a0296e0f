//! A stdio server at the least cost, which notes each of its starts.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;

use mcpmon_mcp::protocol::methods;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Failure;
use crate::fleet::Answers;

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
}

/// What the program `helper-stdio` does: adds a line to the file at `starts`, then answers line by
/// line until its input ends, as a legacy server of the fleet does.
///
/// # Errors
///
/// When the file cannot be written, or what comes is no MCP.
pub fn run(starts: &Path) -> Result<(), Failure> {
    writeln!(OpenOptions::new().append(true).create(true).open(starts)?, "started")?;
    let answers = Answers::new(1, std::time::Duration::ZERO);
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let asked: Asked<'_> = serde_json::from_str(&line)?;
        let Some(id) = asked.id else { continue };
        let rest = match asked.method {
            methods::INITIALIZE => answers.initialize(),
            methods::PING => answers.ping(),
            methods::TOOLS_LIST => answers.tools(),
            _ => answers.unknown(),
        };
        let mut answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{}", id.get()).into_bytes();
        answer.extend_from_slice(rest);
        answer.push(b'\n');
        out.write_all(&answer)?;
        out.flush()?;
    }
    Ok(())
}
