//! Where states are kept: by service, then tool; few of them at a time, found without allocating.

use std::collections::HashMap;

use mcpmon_core::alert::AlertState;
use mcpmon_core::rule::Scope;
use mcpmon_core::service::ServiceName;

/// Whom an evaluation is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    Service(&'a ServiceName),
    Tool(&'a ServiceName, &'a str),
    Host,
    /// The monitor itself, or what services depend on.
    Monitor(Option<&'a ServiceName>),
}

#[derive(Debug, Default)]
pub(super) struct Book {
    services: HashMap<ServiceName, OfService>,
    host: Vec<AlertState>,
    /// By subject; a dependency may have the name of a service.
    monitor: HashMap<Option<ServiceName>, Vec<AlertState>>,
}

#[derive(Debug, Default)]
struct OfService {
    own: Vec<AlertState>,
    tools: HashMap<String, Vec<AlertState>>,
}

impl OfService {
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.tools.is_empty()
    }
}

impl Book {
    /// Takes the states of a subject out for the time of an evaluation.
    pub(super) fn take(&mut self, about: About<'_>) -> Vec<AlertState> {
        let states = match about {
            About::Host => Some(&mut self.host),
            About::Monitor(subject) => self.monitor.get_mut(&subject.cloned()),
            About::Service(service) => self.services.get_mut(service).map(|of| &mut of.own),
            About::Tool(service, tool) => {
                self.services.get_mut(service).and_then(|of| of.tools.get_mut(tool))
            }
        };
        states.map(std::mem::take).unwrap_or_default()
    }

    /// Puts them back; a subject without any leaves nothing behind.
    pub(super) fn put(&mut self, about: About<'_>, states: Vec<AlertState>) {
        match about {
            About::Host => self.host = states,
            About::Monitor(subject) if states.is_empty() => {
                self.monitor.remove(&subject.cloned());
            }
            About::Monitor(subject) => drop(self.monitor.insert(subject.cloned(), states)),
            About::Service(service) => {
                if let Some(of) = self.services.get_mut(service) {
                    of.own = states;
                    if of.is_empty() {
                        self.services.remove(service);
                    }
                } else if !states.is_empty() {
                    self.services.entry(service.clone()).or_default().own = states;
                }
            }
            About::Tool(service, tool) if states.is_empty() => {
                if let Some(of) = self.services.get_mut(service) {
                    of.tools.remove(tool);
                    if of.is_empty() {
                        self.services.remove(service);
                    }
                }
            }
            About::Tool(service, tool) => {
                let of = self.services.entry(service.clone()).or_default();
                of.tools.insert(tool.to_owned(), states);
            }
        }
    }

    /// Takes up one state, in the place of another of its key.
    pub(super) fn insert(&mut self, state: AlertState, scope: Scope) {
        let states = match (&state.key.service, &state.key.tool) {
            (subject, _) if scope == Scope::Monitor => {
                self.monitor.entry(subject.clone()).or_default()
            }
            (None, _) => &mut self.host,
            (Some(service), None) => &mut self.services.entry(service.clone()).or_default().own,
            (Some(service), Some(tool)) => self
                .services
                .entry(service.clone())
                .or_default()
                .tools
                .entry(tool.clone())
                .or_default(),
        };
        states.retain(|known| known.key != state.key);
        states.push(state);
    }

    /// Removes the states that are meant and gives them out.
    pub(super) fn extract(&mut self, is_meant: impl Fn(&AlertState) -> bool) -> Vec<AlertState> {
        let mut out = Vec::new();
        let mut sift = |states: &mut Vec<AlertState>| {
            out.extend(states.extract_if(.., |state| is_meant(state)));
        };
        sift(&mut self.host);
        self.monitor.values_mut().for_each(&mut sift);
        self.monitor.retain(|_, states| !states.is_empty());
        for of in self.services.values_mut() {
            sift(&mut of.own);
            of.tools.values_mut().for_each(&mut sift);
            of.tools.retain(|_, states| !states.is_empty());
        }
        self.services.retain(|_, of| !of.is_empty());
        // Maps have no order; what is recorded and shown should have one.
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &AlertState> {
        self.host.iter().chain(self.monitor.values().flatten()).chain(
            self.services.values().flat_map(|of| of.own.iter().chain(of.tools.values().flatten())),
        )
    }

    pub(super) fn find_mut(
        &mut self,
        is_meant: impl Fn(&AlertState) -> bool,
    ) -> Option<&mut AlertState> {
        self.host
            .iter_mut()
            .chain(self.monitor.values_mut().flatten())
            .chain(
                self.services
                    .values_mut()
                    .flat_map(|of| of.own.iter_mut().chain(of.tools.values_mut().flatten())),
            )
            .find(|state| is_meant(state))
    }
}
