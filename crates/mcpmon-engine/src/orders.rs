//! What the loop does when it is asked to: services, rules and handlers come and go, a new
//! configuration is taken, commands are carried out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{Acknowledgement, AlertPhase, Silence};
use mcpmon_core::monitor::{CommandError, MonitorCommand, MonitorEvent};
use mcpmon_core::service::{ServiceLimits, ServiceName, ServiceSpec, Transport, WatchMode};
use mcpmon_core::store::{AlertRecord, Retention, Transition};
use mcpmon_core::{Handler, Question, Status, Timestamp};
use tokio::time::Instant;

use crate::builder::{StartError, check_names};
use crate::handle::{Change, Request};
use crate::judge::worth_recording;
use crate::maintain::Windows;
use crate::recall::Known;
use crate::run::Engine;
use crate::schedule::Schedule;
use crate::watcher::{Assignment, Watcher};
use crate::world::Watched;

/// What was known of a removed service is in the store by then, if the store works.
const WRITTEN_WITHIN: Duration = Duration::from_secs(600);

impl Engine {
    /// Starts asking a service, or gives it the status it rests in. Alerts of one that is paused
    /// are over, since nothing would ever end them; recording that is the caller's.
    pub(crate) fn wake(
        &mut self,
        watched: &mut Watched,
        spread: Duration,
        now: Timestamp,
    ) -> Option<Transition> {
        let name = watched.spec.name.clone();
        let resting = if self.settings.monitoring.enabled {
            watched.resting()
        } else {
            Some((Status::Paused, None))
        };
        if let Some((status, failure)) = resting {
            watched.note_rest();
            self.judge.needs_changed();
            self.network.forget(&name);
            if watched.spec.mode == WatchMode::Passive {
                tracing::info!(service = %name, "Passive: never asked, only seen through the tap");
            }
            let change = watched.fold.state.schedule(&name, status, failure, now);
            self.note_change(change);
            self.buffer.batch.facts.extend(watched.changed_facts());
            // What a maintenance window pauses is asked again, and then says itself what is over.
            let forgotten = status == Status::Paused && !watched.maintained;
            return forgotten.then(|| self.judge.forget(&name, now)).flatten();
        }
        let stdio = matches!(watched.spec.transport, Transport::Stdio(_));
        if !watched.fold.state.seen || watched.fold.state.status == Status::Paused {
            let status = if stdio { Status::Starting } else { Status::Unknown };
            let change = watched.fold.state.schedule(&name, status, None, now);
            self.note_change(change);
        }
        // Whoever reads the store before the first check has ended sees a whole service.
        self.buffer.batch.facts.extend(watched.changed_facts());
        self.network.watch(&watched.spec);
        let (watcher, reins) = Watcher::new(Assignment {
            spec: Arc::clone(&watched.spec),
            generation: watched.generation,
            spread,
            starts: watched.starts.clone(),
            factory: Arc::clone(&self.factory),
            clock: Arc::clone(&self.shared.clock),
            pools: self.pools.clone(),
            reports: self.reports.clone(),
            after: self.leaving_watchers.take(&name),
        });
        watched.reins = Some(reins);
        watched.is_checked = true;
        self.watchers.spawn(watcher.run());
        None
    }

    /// Stops asking a service; its session ends by itself.
    pub(crate) fn dismiss(&mut self, watched: &mut Watched) {
        if let Some(reins) = watched.reins.take() {
            self.leaving_watchers.note(watched.spec.name.clone(), reins.dismiss());
        }
    }

    pub(crate) fn request(&mut self, request: Request) {
        match request {
            Request::AddService(spec, known, reply) => {
                let _ = reply.send(self.add_service(*spec, known));
            }
            Request::RemoveService(name, reply) => {
                let _ = reply.send(self.remove_service(&name));
            }
            Request::AddRule(rule, reply) => {
                self.judge.add_rule(rule);
                self.rules_changed();
                let _ = reply.send(());
            }
            Request::RemoveRule(name, reply) => {
                let now = self.shared.clock.now();
                let ended = self.judge.remove_rule(&name, now);
                let is_gone = ended.is_some();
                self.record_ended(ended.and_then(worth_recording));
                let _ = reply.send(is_gone);
            }
            Request::AddHandler(handler, reply) => {
                self.judge.add_handler(handler.name());
                self.feed(handler);
                let _ = reply.send(());
            }
            Request::RemoveHandler(name, reply) => {
                self.judge.remove_handler(&name);
                let _ = reply.send(self.stop_feeding(&name));
            }
            Request::Apply(change, known, reply) => {
                let _ = reply.send(self.apply(*change, known));
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
                self.replace_service(spec, Duration::ZERO, None);
                Ok(())
            }
            MonitorCommand::Silence(silence) => {
                self.keep_silence(silence.clone());
                self.judge.silence(silence, self.shared.clock.now());
                self.rules_changed();
                Ok(())
            }
            MonitorCommand::Acknowledge { alert, by, comment } => {
                let at = self.shared.clock.now();
                let acknowledgement = Acknowledgement { by, comment, at };
                let transition = self.judge.acknowledge(&alert, acknowledgement, at);
                let transition = transition.ok_or(CommandError::NoSuchAlert(alert))?;
                for known in &transition.alerts {
                    let record =
                        AlertRecord { alert: known.clone(), state: AlertPhase::Acknowledged };
                    self.shared.write().note_alert(record);
                }
                self.record(Some(transition));
                Ok(())
            }
            MonitorCommand::Redeliver { handler } => {
                if !self.feeders.contains_key(&handler) {
                    return Err(CommandError::NoSuchHandler(handler));
                }
                self.clear_given_up(handler, true);
                Ok(())
            }
            MonitorCommand::ForgetUndelivered { handler } => {
                self.clear_given_up(handler, false);
                Ok(())
            }
            _ => Err(CommandError::Unsupported("carry out this command")),
        }
    }

    /// Has what was given up for a handler sent once more, or forgotten.
    fn clear_given_up(&self, handler: String, again: bool) {
        let (outbox, queued) = (Arc::clone(&self.outbox), Arc::clone(&self.queued));
        let now = self.shared.due_time();
        tokio::spawn(async move {
            let cleared = match again {
                true => outbox.revive(&handler, now).await,
                false => outbox.discard(&handler).await,
            };
            match cleared {
                Ok(messages) if again => {
                    tracing::info!(%handler, messages, "What was given up is sent once more");
                    queued.notify_waiters();
                }
                Ok(messages) => {
                    tracing::info!(%handler, messages, "What was given up is forgotten");
                }
                Err(error) => {
                    tracing::warn!(%handler, %error, "What was given up stays as it is; ask again");
                }
            }
        });
    }

    /// Has a silence written, so that it holds after a restart too. It holds at once, whether or
    /// not that works.
    fn keep_silence(&self, silence: Silence) {
        let store = Arc::clone(&self.shared.store);
        tokio::spawn(async move {
            if let Err(error) = store.put_silence(&silence).await {
                tracing::warn!(%error, id = %silence.id, "Silence could not be kept; it ends with this run");
            }
        });
    }

    pub(crate) fn ask_now(
        &mut self,
        service: Option<ServiceName>,
        question: Question,
    ) -> Result<(), CommandError> {
        let world = self.shared.read();
        let ask = |watched: &Watched| {
            if let Some(reins) = &watched.reins {
                reins.ask(question);
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

    /// `known` is what the store knows of it.
    fn add_service(&mut self, spec: ServiceSpec, mut known: Known) -> Result<(), CommandError> {
        if self.shared.read().services.contains_key(&spec.name) {
            return Err(CommandError::ServiceExists(spec.name));
        }
        let known = known.remove(&spec.name);
        self.replace_service(spec, Duration::ZERO, known);
        Ok(())
    }

    pub(crate) fn remove_service(&mut self, name: &ServiceName) -> Result<(), CommandError> {
        let removed = self.shared.write().services.remove(name);
        let Some(mut watched) = removed else {
            return Err(CommandError::NoSuchService(name.clone()));
        };
        self.dismiss(&mut watched);
        self.network.forget(name);
        let now = self.shared.clock.now();
        self.buffer.batch.changes.extend(watched.fold.state.schedule(
            name,
            Status::Paused,
            None,
            now,
        ));
        self.buffer.batch.facts.extend(watched.note_removed());
        let ended = self.judge.forget(name, now);
        self.record_ended(ended);
        self.removed.retain(|_, (since, _)| since.elapsed() < WRITTEN_WITHIN);
        self.removed.insert(name.clone(), (Instant::now(), watched));
        Ok(())
    }

    /// What is known of a service that is watched from now on. What was known when it was removed a
    /// short while ago goes before what the store knows, which may not have all of it yet.
    fn take_known(&mut self, name: &ServiceName, stored: Option<Watched>) -> Option<Watched> {
        let removed = self.removed.remove(name).map(|(_, watched)| watched);
        let mut watched = removed.or(stored)?;
        watched.note_return();
        // It may have been taken away while no monitor ran.
        let now = self.shared.clock.now();
        let paused = watched.fold.state.schedule(name, Status::Paused, None, now);
        self.buffer.batch.changes.extend(paused);
        Some(watched)
    }

    /// Exchanges settings, services and handlers; all of it, or nothing.
    fn apply(&mut self, change: Change, known: Known) -> Result<(), StartError> {
        check_names(&change.services, &change.handlers)?;
        let handlers: Vec<String> =
            change.handlers.iter().map(|handler| handler.name().to_owned()).collect();
        let now = self.shared.clock.now();
        // Where only services change, nothing is evaluated anew but those.
        let is_judged_anew = self.settings != change.settings
            || handlers.len() != self.feeders.len()
            || handlers.iter().any(|name| !self.feeders.contains_key(name));
        let ended = self.judge.reconfigure(&change.settings, &handlers, now)?;
        self.record_ended(ended);
        self.settings = change.settings;
        self.repairs.reconfigure(&self.settings);
        self.windows = Windows::new(&self.settings);
        self.buffer.set_limit(self.settings.data_collection.metrics_buffer_size);
        self.host_enabled.send_replace(self.settings.performance_enabled());
        self.retention.send_replace(Retention::from_settings(&self.settings));
        self.exchange_services(change.services, known);
        self.exchange_handlers(change.handlers);
        let mut world = self.shared.write();
        world.report.reload_error = None;
        world.report.interval_seconds = Some(self.settings.monitoring.check_interval.as_secs_f64());
        if !self.settings.performance_enabled() {
            world.host = None;
        }
        let services = u32::try_from(world.services.len()).unwrap_or(u32::MAX);
        drop(world);
        if is_judged_anew {
            self.rules_changed();
        }
        self.tell(MonitorEvent::Reloaded { services });
        Ok(())
    }

    fn exchange_handlers(&mut self, handlers: Vec<Arc<dyn Handler>>) {
        let known: Vec<String> = self.feeders.keys().cloned().collect();
        for name in known {
            self.stop_feeding(&name);
        }
        for handler in handlers {
            self.feed(handler);
        }
    }

    fn exchange_services(&mut self, services: Vec<ServiceSpec>, mut known: Known) {
        let wanted: BTreeSet<ServiceName> = services.iter().map(|spec| spec.name.clone()).collect();
        let (gone, changed) = {
            let world = self.shared.read();
            let gone: Vec<ServiceName> =
                world.services.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
            let is_same = |spec: &ServiceSpec| {
                world.services.get(&spec.name).is_some_and(|watched| *watched.spec == *spec)
            };
            let changed: Vec<ServiceSpec> =
                services.into_iter().filter(|spec| !is_same(spec)).collect();
            (gone, changed)
        };
        for name in gone {
            let _ = self.remove_service(&name);
        }
        let spread = Schedule::spread(changed.len(), self.settings.monitoring.check_interval);
        for spec in changed {
            if !self.retime_service(&spec) {
                let known = known.remove(&spec.name);
                self.replace_service(spec, spread, known);
            }
        }
    }

    /// Changes a service without touching its session, unless the session depends on what changed.
    fn retime_service(&mut self, spec: &ServiceSpec) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        let watched = world.services.get_mut(&spec.name);
        let Some(watched) = watched.filter(|watched| same_session(&watched.spec, spec)) else {
            return false;
        };
        let Some(reins) = &watched.reins else { return false };
        watched.spec = Arc::new(spec.clone());
        watched.dirty = true;
        self.windows.look_again();
        reins.retime(Arc::clone(&watched.spec));
        true
    }

    /// Adds a service, of which the store knows `stored`, or exchanges the probe of one that
    /// changed: its history goes on.
    fn replace_service(&mut self, spec: ServiceSpec, spread: Duration, stored: Option<Watched>) {
        let shared = Arc::clone(&self.shared);
        let is_new = !shared.read().services.contains_key(&spec.name);
        let mut known = is_new.then(|| self.take_known(&spec.name, stored)).flatten();
        let mut world = shared.write();
        let now = shared.clock.now();
        self.generation += 1;
        let (generation, spec) = (self.generation, Arc::new(spec));
        let reach = self.judge.reach();
        let watched = world.services.entry(spec.name.clone()).or_insert_with(|| {
            known.take().unwrap_or_else(|| Watched::new(Arc::clone(&spec), generation, reach, now))
        });
        watched.fold.window.set_reach(reach);
        self.dismiss(watched);
        if watched.spec.transport != spec.transport {
            watched.signs.let_in = false;
        }
        watched.looked_at.retain(|looked| spec.depends_on.contains(&looked.dependency));
        watched.maintained = self.windows.holds(&spec, now);
        watched.spec = spec;
        watched.generation = generation;
        watched.dirty = true;
        self.judge.needs_changed();
        let ended = self.wake(watched, spread, now);
        drop(world);
        self.record_ended(ended);
    }

    /// Everything is judged anew, through windows as long as the rules now want them.
    pub(crate) fn rules_changed(&mut self) {
        let reach = self.judge.reach();
        let mut world = self.shared.write();
        world.reach_of_rules = reach;
        for watched in world.services.values_mut() {
            watched.fold.window.set_reach(reach);
            watched.dirty = true;
        }
        drop(world);
        self.host_dirty = true;
        self.judge.run_facts_anew();
    }
}

/// Whether a session opened for `old` serves `new` as well: only the timetable, the judgement and
/// what is said of it differ.
fn same_session(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let mut alike = new.clone();
    alike.labels.clone_from(&old.labels);
    alike.remediation.clone_from(&old.remediation);
    alike.origin.clone_from(&old.origin);
    alike.limits = ServiceLimits {
        call_timeout: new.limits.call_timeout,
        connection_timeout: new.limits.connection_timeout,
        max_body: new.limits.max_body,
        response_time_threshold: new.limits.response_time_threshold,
        ..old.limits.clone()
    };
    alike == *old
}
