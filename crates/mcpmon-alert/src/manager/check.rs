//! The other half, for programs without an outbox: judge, and deliver to the handlers held here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::metrics::ServiceMetrics;
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::RuleError;
use mcpmon_core::store::NewDelivery;
use mcpmon_core::time::Timestamp;

use super::AlertManager;
use super::evaluate::ServiceView;

/// What a check found, said and could not do.
#[derive(Debug, Default)]
pub struct CheckOutcome {
    /// Alerts that fired, or got worse.
    pub fired: Vec<Alert>,
    /// Alerts that ended.
    pub resolved: Vec<Alert>,
    /// Rules that could not be evaluated.
    pub rule_errors: Vec<RuleError>,
    /// Every delivery that was tried, in the handlers' order.
    pub deliveries: Vec<DeliveryReport>,
}

impl CheckOutcome {
    /// Deliveries that failed.
    pub fn failed_deliveries(&self) -> impl Iterator<Item = &DeliveryReport> {
        self.deliveries.iter().filter(|report| report.result.is_err())
    }
}

/// One delivery and what became of it.
#[derive(Debug)]
pub struct DeliveryReport {
    /// The handler.
    pub handler: String,
    /// What it was to be told.
    pub kind: NotificationKind,
    /// The alert's id.
    pub alert: String,
    /// Its answer.
    pub result: Result<Receipt, DeliveryError>,
}

impl AlertManager {
    /// Judges a service's numbers and tells the handlers held here what follows.
    ///
    /// Handlers are called at the same time and each in order; a handler or a rule that fails is
    /// reported and stops nothing else. There is no outbox: a firing notice that failed and may
    /// succeed later counts as never told, so the next check tells it again; what failed for good
    /// is not repeated before the cooldown ends. `check` ends when the slowest handler does, so
    /// wrap it in a timeout where one may hang; dropping the future abandons what is under way.
    pub async fn check(&mut self, metrics: &ServiceMetrics, now: Timestamp) -> CheckOutcome {
        self.check_with(metrics, ServiceView::default(), now).await
    }

    /// The same with labels, limits and failure; limits left out are the manager's.
    pub async fn check_with(
        &mut self,
        metrics: &ServiceMetrics,
        view: ServiceView<'_>,
        now: Timestamp,
    ) -> CheckOutcome {
        let limits = self.limits.clone();
        let view = ServiceView { limits: view.limits.or(Some(&limits)), ..view };
        let evaluated = self.evaluate_service(&metrics.service_name, view, |_| metrics, now);
        let mut outcome =
            CheckOutcome { rule_errors: evaluated.rule_errors, ..CheckOutcome::default() };
        for event in evaluated.events {
            match event {
                MonitorEvent::AlertFired(record) => outcome.fired.push(record.alert),
                MonitorEvent::AlertResolved(record) => outcome.resolved.push(record.alert),
                _ => {}
            }
        }
        let deliveries =
            evaluated.transition.map(|transition| transition.deliveries).unwrap_or_default();
        outcome.deliveries = self.deliver(deliveries).await;
        self.untell(&outcome.deliveries);
        outcome
    }

    async fn deliver(&self, deliveries: Vec<NewDelivery>) -> Vec<DeliveryReport> {
        if deliveries.is_empty() {
            return Vec::new();
        }
        let (for_handlers, for_nobody): (Vec<_>, Vec<_>) = deliveries
            .into_iter()
            .partition(|delivery| self.handlers.iter().any(|h| h.name() == delivery.handler));
        let calls = self.handlers.iter().map(|handler| {
            let own: Vec<&Notification> = for_handlers
                .iter()
                .filter(|delivery| delivery.handler == handler.name())
                .map(|delivery| &delivery.notification)
                .collect();
            deliver_in_order(handler, own)
        });
        let mut reports: Vec<DeliveryReport> =
            join_all(calls).await.into_iter().flatten().collect();
        reports.extend(for_nobody.into_iter().map(|delivery| {
            let error = DeliveryError::permanent("this manager holds no such handler");
            report(&delivery.handler, &delivery.notification, Err(error))
        }));
        reports
    }

    /// Takes back that a handler was told, where it was not: it must neither be told of an end it
    /// knows no beginning of, nor stay silent for a cooldown because of a mail server's hiccup.
    fn untell(&mut self, reports: &[DeliveryReport]) {
        for report in reports {
            let (NotificationKind::Firing, Err(error)) = (report.kind, &report.result) else {
                continue;
            };
            let is_meant = |state: &mcpmon_core::alert::AlertState| {
                let alert = state.alert.as_ref();
                alert.is_some_and(|alert| alert.id == report.alert)
            };
            let Some(state) = self.book.find_mut(is_meant) else {
                continue;
            };
            state.told_to.retain(|handler| *handler != report.handler);
            state.told = !state.told_to.is_empty();
            if !state.told && error.is_transient() {
                state.last_notified = None;
            }
        }
    }
}

async fn deliver_in_order(
    handler: &Arc<dyn Handler>,
    notifications: Vec<&Notification>,
) -> Vec<DeliveryReport> {
    let mut reports = Vec::with_capacity(notifications.len());
    for notification in notifications {
        let call = AssertUnwindSafe(handler.deliver(notification)).catch_unwind();
        let result =
            call.await.unwrap_or_else(|_| Err(DeliveryError::permanent("the handler panicked")));
        reports.push(report(handler.name(), notification, result));
    }
    reports
}

fn report(
    handler: &str,
    notification: &Notification,
    result: Result<Receipt, DeliveryError>,
) -> DeliveryReport {
    DeliveryReport {
        handler: handler.to_owned(),
        kind: notification.kind,
        alert: notification.alerts.first().map(|alert| alert.id.clone()).unwrap_or_default(),
        result,
    }
}
