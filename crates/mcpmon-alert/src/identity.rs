//! What alerts and notifications are called.
//!
//! An alert's id is made of its rule, its subject and the moment it fired, not of chance: the same
//! history gives the same ids, so a replay can be compared with what happened, and nothing here
//! needs a source of randomness. It begins with the time, so ids sort as alerts came. A hostile
//! tool name cannot show in it.

use std::fmt::Write as _;

use mcpmon_core::alert::{AlertKey, NotificationKind};
use mcpmon_core::time::Timestamp;

/// The id of the alert of `key` that fired at `now`. Two alerts of one key cannot fire in the same
/// millisecond: one would have to end in between.
pub(crate) fn alert_id(key: &AlertKey, now: Timestamp) -> String {
    let subject = &key.subject;
    // The kind is a part: a handler may have the name of a service.
    let service = subject.tool().and(subject.service()).map_or("", |service| service.as_str());
    let name = subject.name().unwrap_or_default();
    let hash = fnv1a([key.rule.as_str(), subject.kind().as_str(), service, name]);
    let millis = now.as_millis().max(0);
    let mut id = String::with_capacity(28);
    let _ = write!(id, "{millis:011x}-{hash:016x}");
    id
}

/// The key of a notification about alert `id`: the same for every attempt, and for nothing else. A
/// handler that threads its messages finds the first one under the kind `firing`.
pub fn notification_key(id: &str, kind: NotificationKind, detail: &str) -> String {
    if detail.is_empty() {
        format!("{id}/{kind}", kind = kind.as_str())
    } else {
        format!("{id}/{kind}/{detail}", kind = kind.as_str())
    }
}

/// FNV-1a over the parts, which are kept apart: stable across machines and versions.
pub(crate) fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mcpmon_core::subject::Subject;

    use super::*;

    #[test]
    fn ids_are_stable_sorted_by_time_and_different_for_every_subject() {
        let at = |second: i64| Timestamp::from_millis(1_795_356_571_000 + second * 1_000);
        let of_service =
            |rule: &str, name: &str| AlertKey::new(rule, Subject::Service(name.into()));
        let id = alert_id(&of_service("slow", "files"), at(0));
        assert_eq!(id, alert_id(&of_service("slow", "files"), at(0)));
        assert!(id < alert_id(&of_service("slow", "files"), at(1)));
        let keys = [
            of_service("slow", "files"),
            of_service("slowf", "iles"),
            of_service("slow", "github"),
            of_service("slow", ""),
            AlertKey::new("slow", Subject::tool_of("file", "s")),
            AlertKey::new("slow", Subject::tool_of("files", "")),
            AlertKey::new("slow", Subject::tool_of("files", "files")),
            AlertKey::new("slow", Subject::tool_of("", "files")),
            AlertKey::new("slow", Subject::Dependency("files".to_owned())),
            AlertKey::new("slow", Subject::Handler("files".to_owned())),
            AlertKey::new("slow", Subject::Host),
            AlertKey::new("slow", Subject::Monitor),
        ];
        let ids: BTreeSet<String> = keys.iter().map(|key| alert_id(key, at(0))).collect();
        assert_eq!(ids.len(), keys.len(), "{ids:?}");
        let hostile = alert_id(&AlertKey::new("r", Subject::tool_of("s", "\r\nBcc: x")), at(0));
        assert!(hostile.chars().all(|c| c.is_ascii_hexdigit() || c == '-'));
    }
}
