//! The same binary as `mcpmon-cli` makes, built where the integration tests can find it.

fn main() -> std::process::ExitCode {
    mcpmon_cli::App::new().run()
}
