//! The whole command, as a library: main programs of their own add a handler and run it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mcpmon_alert::{ConsoleHandler, ConsoleStyle, HandlerRegistry};
use mcpmon_collect::Environment;
use mcpmon_core::Handler;
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_mcp::Guardian;

use crate::commands;
use crate::config::Surroundings;
use crate::exit::{CliError, Exit};
use crate::guard::guarded;
use crate::output::{self, Output};
use crate::paths::Paths;
use crate::{demo, logging, signals};

/// Blocking work that was given up may go on for so long before the process ends without it.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Watches MCP servers: which of them work, how well, what changed, and why not.
#[derive(Debug, Parser)]
#[command(name = "mcpmon", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Keep the history in this directory, in place of the state directory.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(commands::up::Args),
    Check(commands::check::Args),
    Status(commands::status::Args),
    History(commands::history::Args),
    Alerts(commands::alerts::Args),
    Silence(commands::silence::Args),
    Ack(commands::ack::Args),
    Tools(commands::tools::Args),
    Ps(commands::ps::Args),
    Explain(commands::explain::Args),
    Export(commands::export::Args),
    Import(commands::import::Args),
    Init(commands::init::Args),
    Rules(commands::rules::Args),
    Handlers(commands::handlers::Args),
    Config(commands::config::Args),
    Db(commands::db::Args),
    Paths(commands::paths::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
    /// Serves MCP on stdio or HTTP, to try things out: slow, failing or flapping as wanted.
    DemoServer(demo::DemoOptions),
}

/// The `mcpmon` command: built-in parts, and those a program adds.
///
/// ```no_run
/// use mcpmon_core::{DeliveryError, Handler, Notification, Receipt};
///
/// struct Pager(String);
///
/// #[async_trait::async_trait]
/// impl Handler for Pager {
///     fn name(&self) -> &str {
///         &self.0
///     }
///
///     async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
///         println!("{}", notification.alerts[0].message);
///         Ok(Receipt::accepted())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     mcpmon_cli::App::new()
///         .handler("pager", |settings| Ok(Box::new(Pager(settings.name.clone()))))
///         .run()
/// }
/// ```
#[derive(Debug, Default)]
pub struct App {
    handlers: HandlerRegistry,
}

impl App {
    /// The command with its built-in parts.
    pub fn new() -> Self {
        Self { handlers: HandlerRegistry::new() }
    }

    /// Adds a kind of handler: what `type = "…"` under `[[handlers]]` can say. The factory gets the
    /// entry with its secrets filled in.
    #[must_use]
    pub fn handler(
        mut self,
        kind: &str,
        factory: impl Fn(&HandlerSettings) -> Result<Box<dyn Handler>, SettingsError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.handlers.register(kind, factory);
        self
    }

    /// Reads the process's arguments, does what they say, and gives the exit code.
    ///
    /// To be called before anything else in `main`: on Linux the program starts itself a second
    /// time, as the guardian of the processes it starts, and that is decided here.
    pub fn run(self) -> ExitCode {
        let guardian = match Guardian::enter() {
            Ok(guardian) => guardian,
            Err(done) => return done,
        };
        let cli = match Cli::try_parse() {
            Ok(cli) => cli,
            Err(error) => return usage(&error),
        };
        let output = Output::stdout();
        let result = self.dispatch(cli, Some(&guardian), &output);
        finish(result, &output).into()
    }

    pub(crate) fn dispatch(
        self,
        cli: Cli,
        guardian: Option<&Guardian>,
        output: &Output,
    ) -> Result<Exit, CliError> {
        let state_dir = cli.state_dir;
        let paths = || Paths::from_env(state_dir.as_deref());
        match cli.command {
            Command::Up(args) => {
                let surroundings = self.surroundings(paths()?, output)?;
                block_on(guarded(
                    guardian,
                    commands::up::run(&args, &surroundings, guardian, output),
                ))
            }
            Command::Check(args) => {
                logging::quiet();
                let surroundings = self.surroundings(paths()?, output)?;
                block_on(guarded(
                    guardian,
                    commands::check::run(&args, &surroundings, guardian, output),
                ))
            }
            Command::Ps(args) => {
                logging::quiet();
                let surroundings = self.surroundings(paths()?, output)?;
                block_on(async {
                    tokio::select! {
                        result = commands::ps::run(&args, &surroundings, output) => result,
                        () = signals::interrupted() => Err(CliError::Interrupted),
                    }
                })
            }
            Command::Rules(args) => {
                logging::quiet();
                let surroundings = self.surroundings(paths()?, output)?;
                block_on(async {
                    tokio::select! {
                        result = commands::rules::run(&args, &surroundings, output) => result,
                        () = signals::interrupted() => Err(CliError::Interrupted),
                    }
                })
            }
            Command::Handlers(args) => {
                logging::quiet();
                let surroundings = self.surroundings(paths()?, output)?;
                block_on(async {
                    tokio::select! {
                        result = commands::handlers::run(&args, &surroundings, output) => result,
                        () = signals::interrupted() => Err(CliError::Interrupted),
                    }
                })
            }
            Command::Config(args) => {
                commands::config::run(&args, &self.surroundings(paths()?, output)?, output)
            }
            Command::Status(args) => reading(paths()?, |paths| async move {
                commands::status::run(&args, &paths, output).await
            }),
            Command::History(args) => reading(paths()?, |paths| async move {
                commands::history::run(&args, &paths, output).await
            }),
            Command::Alerts(args) => reading(paths()?, |paths| async move {
                commands::alerts::run(&args, &paths, output).await
            }),
            Command::Silence(args) => reading(paths()?, |paths| async move {
                commands::silence::run(&args, &paths, output).await
            }),
            Command::Ack(args) => {
                reading(
                    paths()?,
                    |paths| async move { commands::ack::run(&args, &paths, output).await },
                )
            }
            Command::Tools(args) => reading(paths()?, |paths| async move {
                commands::tools::run(&args, &paths, output).await
            }),
            Command::Explain(args) => reading(paths()?, |paths| async move {
                commands::explain::run(&args, &paths, output).await
            }),
            Command::Export(args) => reading(paths()?, |paths| async move {
                commands::export::run(&args, &paths, output).await
            }),
            Command::Import(args) => reading(paths()?, |paths| async move {
                commands::import::run(&args, &paths, output).await
            }),
            Command::Db(args) => {
                reading(
                    paths()?,
                    |paths| async move { commands::db::run(&args, &paths, output).await },
                )
            }
            Command::Init(args) => commands::init::run(&args, output),
            Command::Paths(args) => commands::paths::run(&args, &paths()?, output),
            Command::Completions(args) => commands::completions::run(&args, output),
            Command::Man(args) => commands::man::run(&args, output),
            Command::DemoServer(options) => block_on(demo::run(options)),
        }
    }

    fn surroundings(mut self, paths: Paths, output: &Output) -> Result<Surroundings, CliError> {
        let (look, writer) = (output.look(), output.clone());
        let style = ConsoleStyle { unicode: look.unicode, color: look.colour };
        let console = ConsoleHandler::factory(style, move || writer.clone());
        self.handlers.register("console", console);
        Ok(Surroundings {
            paths,
            environment: Environment::of_process()
                .map_err(|error| CliError::io("cannot use the current directory", error))?,
            handlers: self.handlers,
        })
    }
}

/// Runs a command that only reads; a signal ends it at once.
fn reading<F: Future<Output = Result<Exit, CliError>>>(
    paths: Paths,
    command: impl FnOnce(Paths) -> F,
) -> Result<Exit, CliError> {
    logging::quiet();
    let command = command(paths);
    block_on(async {
        tokio::select! {
            result = command => result,
            () = signals::interrupted() => Err(CliError::Interrupted),
        }
    })
}

fn block_on(command: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("cannot start", error))?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(LAST_WORK);
    result
}

/// clap's own words: help and version are answers, the rest is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a standard error that cannot be written.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into()
}

pub(crate) fn finish(result: Result<Exit, CliError>, output: &Output) -> Exit {
    let exit = match result {
        Ok(exit) => exit,
        Err(CliError::Interrupted) => return Exit::Interrupted,
        Err(error) => {
            tell(&error);
            return error.exit();
        }
    };
    match output.take_failure() {
        None => exit,
        Some(error) => {
            output::say(&format!("mcpmon: cannot write to standard output: {error}"));
            Exit::CouldNotRun
        }
    }
}

fn tell(error: &CliError) {
    match error {
        // A configuration's problems begin with `FILE:LINE:COL`, which editors and terminals follow.
        CliError::Config(_) | CliError::Nothing(_) => output::say(&error.to_string()),
        _ => output::say(&format!("mcpmon: {error}")),
    }
}
