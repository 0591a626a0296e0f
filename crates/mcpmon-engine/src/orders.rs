//! What the loop does when it is asked to: services, rules and handlers come and go, a new
//! configuration is taken, commands are carried out.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::monitor::{CommandError, MonitorCommand, MonitorEvent};
use mcpmon_core::service::{ServiceName, ServiceSpec, Transport};
use mcpmon_core::store::Retention;
use mcpmon_core::{Question, Status, Timestamp};
use tokio::sync::mpsc;

use crate::builder::StartError;
use crate::handle::{Change, Request};
use crate::judge::worth_recording;
use crate::run::Engine;
use crate::watcher::{Order, Watcher};
use crate::world::Watched;

impl Engine {
    /// Starts asking a service, or gives it the status it rests in.
    pub(crate) fn wake(&mut self, watched: &mut Watched, spread: Duration, now: Timestamp) {
        let name = watched.spec.name.clone();
        let resting = if self.settings.monitoring.enabled {
            watched.resting()
        } else {
            Some((Status::Paused, None))
        };
        if let Some((status, failure)) = resting {
            watched.checked = true;
            let change = watched.state.set(&name, status, failure, now);
            self.note_change(change);
            self.buffer.batch.facts.extend(watched.changed_facts());
            return;
        }
        let stdio = matches!(watched.spec.transport, Transport::Stdio(_));
        if !watched.state.seen || watched.state.status == Status::Paused {
            let status = if stdio { Status::Starting } else { Status::Unknown };
            let change = watched.state.set(&name, status, None, now);
            self.note_change(change);
        }
        // Whoever reads the store before the first check has ended sees a whole service.
        self.buffer.batch.facts.extend(watched.changed_facts());
        let (orders, inbox) = mpsc::unbounded_channel();
        watched.orders = Some(orders);
        let watcher = Watcher {
            spec: Arc::clone(&watched.spec),
            generation: watched.generation,
            spread,
            factory: Arc::clone(&self.factory),
            clock: Arc::clone(&self.shared.clock),
            pools: self.pools.clone(),
            orders: inbox,
            reports: self.reports.clone(),
        };
        self.watchers.spawn(watcher.run());
    }

    pub(crate) fn request(&mut self, request: Request) {
        match request {
            Request::AddService(spec, reply) => {
                let _ = reply.send(self.add_service(*spec));
            }
            Request::RemoveService(name, reply) => {
                let _ = reply.send(self.remove_service(&name));
            }
            Request::AddRule(rule, reply) => {
                self.judge.add_rule(rule);
                self.all_dirty();
                let _ = reply.send(());
            }
            Request::RemoveRule(name, reply) => {
                let now = self.shared.clock.now();
                let ended = self.judge.remove_rule(&name, now);
                let _ = reply.send(ended.is_some());
                self.record(ended.and_then(worth_recording));
            }
            Request::AddHandler(handler, reply) => {
                self.judge.add_handler(handler.name());
                self.feed(handler);
                let _ = reply.send(());
            }
            Request::RemoveHandler(name, reply) => {
                self.judge.remove_handler(&name);
                let fed = self.deliverers.remove(&name);
                if let Some(task) = &fed {
                    task.abort();
                }
                let _ = reply.send(fed.is_some());
            }
            Request::Apply(change, reply) => {
                let _ = reply.send(self.apply(*change));
            }
            Request::ReloadFailed(error) => {
                self.shared.write().report.reload_error = Some(error);
            }
            Request::Command(command, reply) => {
                let result = self.command(command);
                match (reply, result) {
                    (Some(reply), result) => drop(reply.send(result)),
                    (None, Err(error)) => tracing::warn!(%error, "Command was not carried out"),
                    (None, Ok(())) => {}
                }
            }
            Request::Stop => {}
        }
    }

    pub(crate) fn command(&mut self, command: MonitorCommand) -> Result<(), CommandError> {
        match command {
            MonitorCommand::CheckNow { service, question } => self.ask_now(service, question),
            MonitorCommand::Approve { service } => {
                let mut spec = {
                    let world = self.shared.read();
                    let watched = world.services.get(&service);
                    let spec = watched.map(|watched| ServiceSpec::clone(&watched.spec));
                    spec.ok_or_else(|| CommandError::NoSuchService(service.clone()))?
                };
                spec.paused_because = None;
                self.remove_service(&service)?;
                self.add_service(spec)
            }
            MonitorCommand::Silence(_) => Err(CommandError::Unsupported("silence alerts")),
            MonitorCommand::Acknowledge { .. } => {
                Err(CommandError::Unsupported("acknowledge alerts"))
            }
            _ => Err(CommandError::Unsupported("carry out this command")),
        }
    }

    pub(crate) fn ask_now(
        &mut self,
        service: Option<ServiceName>,
        question: Question,
    ) -> Result<(), CommandError> {
        let world = self.shared.read();
        let ask = |watched: &Watched| {
            if let Some(orders) = &watched.orders {
                let _ = orders.send(Order::Ask(question));
            }
        };
        match service {
            None => world.services.values().for_each(ask),
            Some(name) => match world.services.get(&name) {
                Some(watched) => ask(watched),
                None => return Err(CommandError::NoSuchService(name)),
            },
        }
        Ok(())
    }

    pub(crate) fn add_service(&mut self, spec: ServiceSpec) -> Result<(), CommandError> {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        if world.services.contains_key(&spec.name) {
            return Err(CommandError::ServiceExists(spec.name));
        }
        let now = self.shared.clock.now();
        self.generation += 1;
        let name = spec.name.clone();
        let mut watched = Watched::new(Arc::new(spec), self.generation, self.judge.reach(), now);
        self.wake(&mut watched, Duration::ZERO, now);
        world.services.insert(name, watched);
        Ok(())
    }

    pub(crate) fn remove_service(&mut self, name: &ServiceName) -> Result<(), CommandError> {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        let Some(watched) = world.services.remove(name) else {
            return Err(CommandError::NoSuchService(name.clone()));
        };
        if let Some(orders) = watched.orders {
            let _ = orders.send(Order::Stop);
        }
        if let Some(mut facts) = watched.facts {
            facts.watched = false;
            self.buffer.batch.facts.push(facts);
        }
        let now = self.shared.clock.now();
        let ended = self.judge.forget(name, now);
        self.record(ended);
        Ok(())
    }

    /// Exchanges settings, services and handlers; all of it, or nothing.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), StartError> {
        let handlers: Vec<String> =
            change.handlers.iter().map(|handler| handler.name().to_owned()).collect();
        let now = self.shared.clock.now();
        let ended = self.judge.reconfigure(&change.settings, &handlers, now)?;
        self.record(ended);
        self.settings = change.settings;
        self.buffer.set_limit(self.settings.data_collection.metrics_buffer_size);
        self.host_enabled.send_replace(self.settings.performance_enabled());
        self.retention.send_replace(Retention::from_settings(&self.settings));
        self.exchange_services(change.services);
        for (_, task) in self.deliverers.drain() {
            task.abort();
        }
        for handler in change.handlers {
            self.feed(handler);
        }
        let mut world = self.shared.write();
        world.report.reload_error = None;
        world.report.interval_seconds = Some(self.settings.monitoring.check_interval.as_secs_f64());
        let services = u32::try_from(world.services.len()).unwrap_or(u32::MAX);
        drop(world);
        self.all_dirty();
        let _ = self.shared.events.send(MonitorEvent::Reloaded { services });
        Ok(())
    }

    pub(crate) fn exchange_services(&mut self, services: Vec<ServiceSpec>) {
        let kept: Vec<ServiceName> = {
            let world = self.shared.read();
            services
                .iter()
                .filter(|spec| {
                    let known = world.services.get(&spec.name);
                    known.is_some_and(|watched| *watched.spec == **spec)
                })
                .map(|spec| spec.name.clone())
                .collect()
        };
        let wanted: Vec<ServiceName> = services.iter().map(|spec| spec.name.clone()).collect();
        let gone: Vec<ServiceName> = {
            let world = self.shared.read();
            world.services.keys().filter(|name| !wanted.contains(name)).cloned().collect()
        };
        for name in gone {
            let _ = self.remove_service(&name);
        }
        for spec in services {
            if kept.contains(&spec.name) {
                continue;
            }
            self.replace_service(spec);
        }
    }

    /// Adds a service, or exchanges the probe of one that changed: its history goes on.
    pub(crate) fn replace_service(&mut self, spec: ServiceSpec) {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        let now = self.shared.clock.now();
        self.generation += 1;
        let name = spec.name.clone();
        match world.services.get_mut(&name) {
            None => {
                let mut watched =
                    Watched::new(Arc::new(spec), self.generation, self.judge.reach(), now);
                self.wake(&mut watched, Duration::ZERO, now);
                world.services.insert(name, watched);
            }
            Some(watched) => {
                if let Some(orders) = watched.orders.take() {
                    let _ = orders.send(Order::Stop);
                }
                watched.spec = Arc::new(spec);
                watched.generation = self.generation;
                self.wake(watched, Duration::ZERO, now);
            }
        }
    }

    pub(crate) fn all_dirty(&mut self) {
        self.shared.write().services.values_mut().for_each(|watched| watched.dirty = true);
        self.host_dirty = true;
    }
}
