//! The whole `mcpmon` command, with `type = "pager"` beside its own handlers.

use mcpmon_handler_pager::Pager;

fn main() -> std::process::ExitCode {
    mcpmon_cli::App::new()
        .handler("pager", |settings| Ok(Box::new(Pager::from_settings(settings)?)))
        .run()
}
