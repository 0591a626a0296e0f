//! mcpmon: monitors MCP servers; which of them work, how well, what changed, and why not.

fn main() -> std::process::ExitCode {
    mcpmon_cli::App::new().run()
}
