//! `mcpmon up`: the monitor.

mod demo;
mod follow;
mod lines;
mod reload;
mod storage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_alert::handlers_or_console;
use mcpmon_collect::{McpProbeFactory, Mender, SysinfoHost};
use mcpmon_core::monitor::{EventStream, MonitorHandle as _};
use mcpmon_core::{Clock as _, Handler, ServiceSpec, Settings, SystemClock, Transport, duration};
use mcpmon_engine::{Monitor, RunningMonitor};
use mcpmon_mcp::Guardian;
use mcpmon_store::SqliteStore;

use self::demo::Demo;
use self::follow::Follower;
use self::lines::Lines;
use crate::config::{Config, ConfigError, Document, Surroundings};
use crate::consent::Consent;
use crate::exit::{CliError, Exit};
use crate::guard;
use crate::logging::Logging;
use crate::moment;
use crate::output::{self, Output, StatusOptions, count, render_status_with};
use crate::self_report::SelfReport;
use crate::signals::{self, Ends};

/// How long one round waits for what failed in it to be asked again and judged.
const VERDICTS_WITHIN: Duration = Duration::from_secs(15);
/// How often other commands are told how the monitor itself fares.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Watches services until it is told to stop: finds them, checks them, keeps what was seen, tells
/// whoever is to be told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check every service once, keep and judge what was seen, then stop. The exit code is 0 when the
    /// round ran, whatever it found; that of `mcpmon check` says whether all is well.
    #[arg(long)]
    once: bool,
    /// Start of one health check to the start of the next, in place of
    /// `monitoring.check_interval`.
    #[arg(long, value_name = "INTERVAL", value_parser = moment::interval)]
    interval: Option<Duration>,
    /// Watch services behind URLs only; start no command.
    #[arg(long)]
    http_only: bool,
    /// Start commands that were found in clients' files without asking.
    #[arg(long)]
    yes: bool,
    /// Refuse a database that is damaged, empty, another program's or a development version's
    /// (exit code 3), instead of setting it aside and beginning a new one.
    #[arg(long)]
    strict: bool,
}

impl Args {
    /// The configuration with what the command line says on top, and its handlers. Reads files and
    /// secrets; may block.
    fn read(&self, surroundings: &Surroundings) -> Result<Read, ConfigError> {
        let mut document = Document::find(self.config.as_deref(), &surroundings.paths)?;
        if let Some(interval) = self.interval {
            document.settings.monitoring.check_interval = interval;
        }
        let config = Config::from_document(document, surroundings)?;
        let handlers = config.handlers(surroundings)?;
        Ok(Read { config, handlers })
    }
}

/// A configuration as it was read, whole and valid.
struct Read {
    config: Config,
    handlers: Vec<Arc<dyn Handler>>,
}

/// A configuration made into what a monitor watches and tells.
struct Plan {
    settings: Settings,
    services: Vec<ServiceSpec>,
    handlers: Vec<Arc<dyn Handler>>,
    followed: Vec<PathBuf>,
}

/// What stays from one configuration to the next.
struct Up<'a> {
    args: &'a Args,
    surroundings: &'a Surroundings,
    logging: Logging,
    consent: Consent,
    demo: Option<Demo>,
    /// What makes the probes, once the monitor runs.
    probes: Option<McpProbeFactory>,
    /// The configuration in effect; `None` before the first.
    taken: Option<Taken>,
}

/// What tells whether a configuration that was read again says anything new.
#[derive(PartialEq)]
struct Taken {
    settings: Settings,
    services: Vec<ServiceSpec>,
    notes: Vec<String>,
}

impl Taken {
    fn of(config: &Config) -> Self {
        Self {
            settings: config.document.settings.clone(),
            services: config.services.clone(),
            notes: config.notes.clone(),
        }
    }
}

pub(crate) async fn run(
    args: &Args,
    surroundings: &Surroundings,
    guardian: Option<&Guardian>,
    output: &Output,
) -> Result<Exit, CliError> {
    let read = args.read(surroundings)?;
    let logging = Logging::start(read.config.document.settings.data_collection.log_level);
    if !read.config.document.settings.monitoring.enabled {
        output::say(
            "monitoring is switched off (`monitoring.enabled = false`): nothing is checked",
        );
        return Ok(Exit::Ok);
    }
    let database = surroundings.paths.database();
    let (store, set_aside) = storage::open(&database, args.strict)?;
    let mut consent = if args.yes { Consent::to_everything() } else { Consent::default() };
    consent.ask(&read.config.services, &read.config.needs_consent);
    // Until here a signal ends the process by itself, a question left open included; from here on
    // there is something to end in order.
    let mut ends = Ends::watch()?;
    let mut up = Up { args, surroundings, logging, consent, demo: None, probes: None, taken: None };
    let plan = up.plan(read).await?;
    if let Some(aside) = &set_aside {
        let handlers = plan.handlers.iter().map(|handler| handler.name().to_owned());
        storage::tell(&store, aside, handlers, SystemClock.now()).await?;
    }
    let lines = Lines {
        look: output.look(),
        zone: TimeZone::system(),
        console: has_console(&plan.settings),
    };
    output.line(&format!("{}; history in {}", watching(&plan), database.display()));
    let followed = plan.followed.clone();
    let probes = guard::probes(&plan.settings, guardian);
    up.probes = Some(probes.clone());
    // One round has no time to repair anything.
    let remedy = (!args.once).then(|| Mender::new(surroundings.environment.vars.clone()));
    let monitor = start(plan, store, probes, remedy).await?;
    let events = monitor.subscribe();
    let mut page = None;
    if args.once {
        page = once(&monitor, &mut ends, output).await;
    } else {
        up.until_ended(&monitor, events, lines, &followed, &mut ends, output).await?;
    }
    let checks = monitor.snapshot().monitor.checks_total;
    if !monitor.is_running() {
        let message = "the monitor ended by itself, which is a defect of mcpmon; start it again";
        return Err(CliError::Failed(message.to_owned()));
    }
    monitor.stop().await;
    // Only now: whoever is to be told of what it shows was told.
    output.text(&page.unwrap_or_default());
    output.line(&format!("stopped after {}", count(usize::try_from(checks).unwrap_or(0), "check")));
    Ok(Exit::Ok)
}

async fn start(
    plan: Plan,
    store: SqliteStore,
    probes: McpProbeFactory,
    remedy: Option<Mender>,
) -> Result<RunningMonitor, CliError> {
    let disks = plan.settings.performance_monitoring.disks.clone();
    let mut builder = Monitor::builder()
        .host_probe(SysinfoHost::new(disks))
        .probe_factory(probes)
        .store(Arc::new(store))
        .services(plan.services)
        .version(env!("CARGO_PKG_VERSION"));
    if let Some(remedy) = remedy {
        builder = builder.remedy(remedy);
    }
    for handler in plan.handlers {
        builder = builder.shared_handler(handler);
    }
    builder
        .settings(plan.settings)
        .start()
        .await
        .map_err(|error| CliError::Failed(error.to_string()))
}

/// One round, and what failed in it asked again until it can be judged; the page that shows what
/// came of it, unless somebody ended it before.
async fn once(monitor: &RunningMonitor, ends: &mut Ends, output: &Output) -> Option<String> {
    let round = async {
        monitor.first_round().await;
        let verdicts = monitor.first_verdicts();
        let _ = tokio::time::timeout(VERDICTS_WITHIN, verdicts).await;
    };
    tokio::select! {
        () = round => {}
        () = ends.next() => return None,
    }
    let options = StatusOptions {
        host: false,
        width: output.width(),
        look: output.look(),
        zone: TimeZone::system(),
    };
    let mut page = Vec::new();
    // Writing into memory does not fail.
    let _ = render_status_with(&monitor.snapshot(), &options, &mut page);
    Some(String::from_utf8_lossy(&page).into_owned())
}

fn has_console(settings: &Settings) -> bool {
    handlers_or_console(settings).iter().any(|handler| handler.kind == "console")
}

fn watching(plan: &Plan) -> String {
    let interval = duration::format(plan.settings.monitoring.check_interval);
    let services = count(plan.services.len(), "service");
    let paused = plan.services.iter().filter(|s| s.paused_because.is_some()).count();
    let paused = if paused > 0 { format!(" ({paused} paused)") } else { String::new() };
    format!("watching {services}{paused} every {interval}")
}

impl Up<'_> {
    /// What a configuration means for the monitor. Says what a person should know of it.
    async fn plan(&mut self, read: Read) -> Result<Plan, CliError> {
        let Read { mut config, handlers } = read;
        let taken = Taken::of(&config);
        config.notes.iter().for_each(|note| output::say(note));
        let mut services = std::mem::take(&mut config.services);
        if services.is_empty() {
            services = self.demo_services(&config).await?;
        } else {
            self.demo = None;
        }
        if self.args.http_only {
            services = without_commands(services)?;
        }
        let paused = self.consent.apply(&mut services, &config.needs_consent);
        if !paused.is_empty() {
            output::say(&format!(
                "paused, because nobody agreed to use what was found in clients' files: {}; \
                 start mcpmon on a terminal to be asked, or with --yes",
                paused.join(", ")
            ));
        }
        self.taken = Some(taken);
        let settings = config.document.settings;
        Ok(Plan { settings, services, handlers, followed: config.followed })
    }

    /// Something to show where there is nothing to watch: at the first start, and for as long as
    /// that stays so.
    async fn demo_services(&mut self, config: &Config) -> Result<Vec<ServiceSpec>, CliError> {
        if self.demo.is_none() && self.taken.is_some() {
            return Ok(Vec::new());
        }
        let demo = match self.demo.take() {
            Some(demo) => demo,
            None => {
                output::say(&nothing_found(config, self.surroundings));
                Demo::start().await?
            }
        };
        let mut services = demo.services.clone();
        let limits = config.document.settings.limits();
        services.iter_mut().for_each(|service| service.limits = limits.clone());
        self.demo = Some(demo);
        Ok(services)
    }

    async fn until_ended(
        &mut self,
        monitor: &RunningMonitor,
        mut events: Box<dyn EventStream>,
        mut lines: Lines,
        followed: &[PathBuf],
        ends: &mut Ends,
        output: &Output,
    ) -> Result<(), CliError> {
        let mut hang_up = signals::hang_up()?;
        let mut follower = Follower::new();
        follower.follow(followed);
        let mut own = SelfReport::new(&self.surroundings.paths.database());
        let mut reports = tokio::time::interval(REPORT_INTERVAL);
        reports.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while !output.is_closed() {
            let mut asked_for = false;
            tokio::select! {
                () = ends.next() => break,
                event = events.next() => match event {
                    Some(event) => {
                        if let Some(line) = lines.of(&event) {
                            output.line(&line);
                        }
                        continue;
                    }
                    None => break,
                },
                _ = reports.tick() => {
                    own.write(monitor.report());
                    continue;
                }
                _ = hang_up.recv() => asked_for = true,
                () = follower.changed() => {}
            }
            // A stop must not wait for a secret's command that hangs.
            let reloaded = tokio::select! {
                () = ends.next() => break,
                reloaded = self.reload(monitor, asked_for) => reloaded,
            };
            if let Some(reloaded) = reloaded {
                lines.console = reloaded.console;
                follower.follow(&reloaded.followed);
                output.line(&reloaded.line);
            }
        }
        Ok(())
    }
}

/// `--http-only`: the services behind URLs, of which there must be some.
fn without_commands(services: Vec<ServiceSpec>) -> Result<Vec<ServiceSpec>, CliError> {
    let found = services.len();
    let kept: Vec<ServiceSpec> = services
        .into_iter()
        .filter(|service| !matches!(service.transport, Transport::Stdio(_)))
        .collect();
    let left_out = count(found - kept.len(), "command");
    if kept.is_empty() && found > 0 {
        return Err(CliError::Usage(format!(
            "there is nothing to watch: {left_out} left out by --http-only"
        )));
    }
    if kept.len() < found {
        output::say(&format!("{left_out} left out (--http-only)"));
    }
    Ok(kept)
}

fn nothing_found(config: &Config, surroundings: &Surroundings) -> String {
    let mut text = "no services found; looked in:\n".to_owned();
    let own = &surroundings.paths.config_candidates;
    let own = config.document.path.as_slice().iter().chain(own);
    let mut seen = std::collections::BTreeSet::new();
    for path in own.chain(&config.looked).filter(|path| seen.insert(path.as_path())) {
        text.push_str(&format!("  {}\n", path.display()));
    }
    text.push_str("watching three demo services instead; `mcpmon init` writes a configuration");
    text
}
