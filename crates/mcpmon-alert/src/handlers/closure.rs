//! A closure as a handler.

use std::fmt;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::pin::Pin;

use async_trait::async_trait;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, Receipt};

type Delivered = Result<Receipt, DeliveryError>;

/// What a closure may give back: nothing, a [`Receipt`], a result of either, or a future of any of
/// these. The parameter only tells plain values and futures apart; it is always inferred.
pub trait IntoDelivery<Kind>: Send {
    /// The delivery, to be awaited.
    fn into_delivery(self) -> Pin<Box<dyn Future<Output = Delivered> + Send>>;
}

/// What a delivery may end in.
trait IntoDelivered: Send {
    fn into_delivered(self) -> Delivered;
}

impl IntoDelivered for () {
    fn into_delivered(self) -> Delivered {
        Ok(Receipt::accepted())
    }
}

impl IntoDelivered for Receipt {
    fn into_delivered(self) -> Delivered {
        Ok(self)
    }
}

impl<T: IntoDelivered> IntoDelivered for Result<T, DeliveryError> {
    fn into_delivered(self) -> Delivered {
        self.and_then(IntoDelivered::into_delivered)
    }
}

mod kind {
    /// The closure gave the value itself.
    #[derive(Debug)]
    pub struct Plain;
    /// It gave a future of it.
    #[derive(Debug)]
    pub struct Awaited;
}

impl<T: IntoDelivered + 'static> IntoDelivery<kind::Plain> for T {
    fn into_delivery(self) -> Pin<Box<dyn Future<Output = Delivered> + Send>> {
        Box::pin(ready(self.into_delivered()))
    }
}

impl<F> IntoDelivery<kind::Awaited> for F
where
    F: Future + Send + 'static,
    F::Output: IntoDelivered,
{
    fn into_delivery(self) -> Pin<Box<dyn Future<Output = Delivered> + Send>> {
        Box::pin(async move { self.await.into_delivered() })
    }
}

/// A handler made of a closure; see [`handler_fn`].
pub struct FnHandler<F, Kind> {
    name: String,
    deliver: F,
    kind: PhantomData<fn() -> Kind>,
}

impl<F, Kind> fmt::Debug for FnHandler<F, Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnHandler").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A handler that calls `deliver` with each notification: an ordinary closure or an async one.
///
/// ```
/// use mcpmon_alert::handler_fn;
/// use mcpmon_core::{DeliveryError, Notification, Receipt};
///
/// let plain = handler_fn("log", |n: Notification| println!("{}", n.alerts[0].message));
/// let awaited = handler_fn("pager", |n: Notification| async move {
///     if n.attempt > 5 {
///         return Err(DeliveryError::permanent("nobody answers"));
///     }
///     Ok(Receipt::with_id("42"))
/// });
/// # let _ = (plain, awaited);
/// ```
pub fn handler_fn<F, R, Kind>(name: impl Into<String>, deliver: F) -> FnHandler<F, Kind>
where
    F: Fn(Notification) -> R + Send + Sync,
    R: IntoDelivery<Kind>,
{
    FnHandler { name: name.into(), deliver, kind: PhantomData }
}

#[async_trait]
impl<F, R, Kind> Handler for FnHandler<F, Kind>
where
    F: Fn(Notification) -> R + Send + Sync,
    R: IntoDelivery<Kind>,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Delivered {
        let delivery = (self.deliver)(notification.clone()).into_delivery();
        delivery.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::alert::NotificationKind;
    use mcpmon_testkit::{handler_conformance, samples};

    #[tokio::test]
    async fn plain_and_async_closures_deliver() {
        let notification = samples::notification("k", NotificationKind::Firing);
        let silent = handler_fn("silent", |_| ());
        let receipt = silent.deliver(&notification).await.unwrap();
        assert_eq!(receipt, Receipt::accepted());
        let refusing = handler_fn("refusing", |n: Notification| -> Result<(), DeliveryError> {
            Err(DeliveryError::permanent(n.key))
        });
        let error = refusing.deliver(&notification).await.unwrap_err();
        assert_eq!(error.to_string(), "k");
        let awaited = handler_fn("awaited", |n: Notification| async move {
            tokio::task::yield_now().await;
            Ok::<_, DeliveryError>(Receipt::with_id(n.key))
        });
        let receipt = awaited.deliver(&notification).await.unwrap();
        assert_eq!(receipt.id.as_deref(), Some("k"));
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        handler_conformance(&handler_fn("closure", |_| async {})).await;
    }
}
