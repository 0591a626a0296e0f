//! How a monitor is put together and started.

use std::collections::BTreeSet;
use std::sync::Arc;

use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::store::{Store, StoreError};
use mcpmon_core::{Clock, Handler, HostProbe, ProbeFactory, Remedy, Rule, Settings, SystemClock};

use crate::handle::RunningMonitor;
use crate::memory::MemoryStore;
use crate::run;

/// A monitor about to be started; see [`Monitor::builder`].
#[derive(Debug)]
pub struct Monitor;

impl Monitor {
    /// Puts a monitor together. Only the probe factory must be given.
    pub fn builder() -> MonitorBuilder {
        MonitorBuilder {
            settings: Settings::default(),
            services: Vec::new(),
            factory: None,
            host: None,
            remedy: None,
            store: None,
            builtin_rules: true,
            rules: Vec::new(),
            handlers: Vec::new(),
            clock: Arc::new(SystemClock),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The parts of a monitor.
#[must_use = "a monitor does nothing until `start` is awaited"]
pub struct MonitorBuilder {
    pub(crate) settings: Settings,
    pub(crate) services: Vec<ServiceSpec>,
    pub(crate) factory: Option<Arc<dyn ProbeFactory>>,
    pub(crate) host: Option<Box<dyn HostProbe>>,
    pub(crate) remedy: Option<Arc<dyn Remedy>>,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) builtin_rules: bool,
    pub(crate) rules: Vec<Arc<dyn Rule>>,
    pub(crate) handlers: Vec<Arc<dyn Handler>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) version: String,
}

impl std::fmt::Debug for MonitorBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonitorBuilder")
            .field("services", &self.services.len())
            .field("rules", &self.rules.len())
            .field("handlers", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

/// A monitor could not be started; nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Nothing was given that could ask a service.
    #[error("no probe factory was given; without one no service can be asked")]
    NoProbeFactory,
    /// Two services of one name.
    #[error("two services are called `{0}`; names must be unique")]
    DuplicateService(ServiceName),
    /// Two handlers of one name.
    #[error("two handlers are called `{0}`; names must be unique")]
    DuplicateHandler(String),
    /// The monitor was to be changed, but has stopped.
    #[error("the monitor has stopped")]
    Stopped,
    /// The settings' rules or routes cannot be used.
    #[error("{0}")]
    Rules(String),
    /// What was stored could not be read.
    #[error("stored state could not be read: {0}")]
    Store(#[from] StoreError),
}

impl MonitorBuilder {
    /// Intervals, limits, thresholds, rules and routes. Services and handlers of the settings are
    /// not made here: they need files and secrets; give them with [`Self::services`] and
    /// [`Self::handler`].
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// One service more.
    pub fn service(mut self, service: ServiceSpec) -> Self {
        self.services.push(service);
        self
    }

    /// Services more.
    pub fn services(mut self, services: impl IntoIterator<Item = ServiceSpec>) -> Self {
        self.services.extend(services);
        self
    }

    /// What asks a service.
    pub fn probe_factory(mut self, factory: impl ProbeFactory + 'static) -> Self {
        self.factory = Some(Arc::new(factory));
        self
    }

    /// What measures the machine. Without it, or with performance monitoring off, it is not.
    pub fn host_probe(mut self, host: impl HostProbe + 'static) -> Self {
        self.host = Some(Box::new(host));
        self
    }

    /// What carries out repairs that services or rules ask for. Without it, none is made.
    pub fn remedy(mut self, remedy: impl Remedy + 'static) -> Self {
        self.remedy = Some(Arc::new(remedy));
        self
    }

    /// Where it is kept. Without it, 24 hours are kept in memory ([`MemoryStore`]).
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// One rule beside the built-in ones and those of the settings.
    pub fn rule(mut self, rule: impl Rule + 'static) -> Self {
        self.rules.push(Arc::new(rule));
        self
    }

    /// Leaves out the built-in rules and those of the settings.
    pub fn without_builtin_rules(mut self) -> Self {
        self.builtin_rules = false;
        self
    }

    /// Somebody to tell.
    pub fn handler(self, handler: impl Handler + 'static) -> Self {
        self.shared_handler(Arc::new(handler))
    }

    /// Somebody to tell, held elsewhere too.
    pub fn shared_handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handlers.push(handler);
        self
    }

    /// What time it is, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The version shown in the monitor's own report; the engine's if not said.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Takes up what was stored and begins. Needs a Tokio runtime with time and I/O.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub async fn start(mut self) -> Result<RunningMonitor, StartError> {
        let factory = self.factory.take().ok_or(StartError::NoProbeFactory)?;
        check_names(&self.services, &self.handlers)?;
        let store = self.store.take().unwrap_or_else(|| Arc::new(MemoryStore::new()));
        run::start(self, factory, store).await
    }
}

/// Names are what services and handlers are told apart by.
pub(crate) fn check_names(
    services: &[ServiceSpec],
    handlers: &[Arc<dyn Handler>],
) -> Result<(), StartError> {
    let mut names = BTreeSet::new();
    for service in services {
        if !names.insert(&service.name) {
            return Err(StartError::DuplicateService(service.name.clone()));
        }
    }
    let mut names = BTreeSet::new();
    for handler in handlers {
        if !names.insert(handler.name()) {
            return Err(StartError::DuplicateHandler(handler.name().to_owned()));
        }
    }
    Ok(())
}
