//! What ends by itself: a certificate, and a token that says when.
//!
//! Both stop a service at a moment that is known long before, which is the one outage nobody need
//! have. The dates are read where they are (the TLS handshake, the configured header); what they
//! mean on a given day is decided here, purely.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcpmon_core::failure::{Failure, FailureCode, Finding, FindingCode};
use mcpmon_core::service::HttpSpec;
use mcpmon_core::time::Timestamp;
use serde::Deserialize;

const DAY: Duration = Duration::from_secs(86_400);
/// A certificate that ends sooner is worth a finding: renewals run weeks ahead, so one that has
/// not run by then has failed.
pub const CERTIFICATE_NOTICE: Duration = Duration::from_secs(21 * 86_400);
/// A token that ends sooner is worth a finding.
pub const TOKEN_NOTICE: Duration = Duration::from_secs(3 * 86_400);
/// Longest token looked into, in bytes.
const LONGEST_TOKEN: usize = 16 * 1024;

/// The finding that a certificate ends soon.
pub fn certificate_finding(expires: Timestamp, now: Timestamp) -> Option<Finding> {
    let left = expires.since(now);
    (left < CERTIFICATE_NOTICE).then(|| {
        let text = format!("the certificate ends in {} ({expires})", told(left));
        Finding::new(FindingCode::CertificateExpiring, text)
            .with("expires_at", expires.to_string())
            .with("days_left", days(left))
    })
}

/// The finding that the configured token ends soon. Tokens made to live a short time have to be
/// renewed by whoever configures them anyway, and are told of all the same: nobody else would.
pub fn token_finding(expires: Timestamp, now: Timestamp) -> Option<Finding> {
    let left = expires.since(now);
    (expires > now && left < TOKEN_NOTICE).then(|| {
        let text = format!("the configured token ends in {} ({expires})", told(left));
        Finding::new(FindingCode::TokenExpiring, text)
            .with("expires_at", expires.to_string())
            .with("days_left", days(left))
    })
}

/// Says of a refusal that the configured token has ended, where it has.
pub fn blame_token(failure: &mut Failure, expires: Timestamp, now: Timestamp) {
    let refused = matches!(failure.code, FailureCode::Unauthorized | FailureCode::Forbidden);
    if refused && expires <= now {
        failure.evidence.insert("token_expired_at".to_owned(), expires.to_string().into());
        failure.next_step = format!(
            "the configured token ended at {expires}; put a new one into the service's `headers`"
        );
    }
}

/// When the bearer token of a service ends, if it has one that says so: a JWT with `exp`. It is
/// neither verified nor kept.
pub fn token_expires(spec: &HttpSpec) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let is_authorization = |name: &str| name.eq_ignore_ascii_case("authorization");
    let (_, value) = spec.headers.iter().find(|(name, _)| is_authorization(name))?;
    let (scheme, token) = value.expose().trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > LONGEST_TOKEN {
        return None;
    }
    let mut parts = token.trim().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    // Seconds since 1970; what is beyond the year 9999 is no date.
    (1.0..253_402_300_800.0).contains(&exp).then(|| Timestamp::from_millis((exp * 1_000.0) as i64))
}

/// Whole days and tenths.
fn days(left: Duration) -> f64 {
    (left.as_secs_f64() / DAY.as_secs_f64() * 10.0).floor() / 10.0
}

fn told(left: Duration) -> String {
    let hours = left.as_secs() / 3_600;
    match hours {
        0 => format!("{} minutes", left.as_secs() / 60),
        1..48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mcpmon_core::failure::Phase;
    use mcpmon_core::secret::Secret;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_356_571_120);

    fn in_days(days: u64) -> Timestamp {
        NOW.saturating_add(DAY * u32::try_from(days).unwrap())
    }

    #[test]
    fn a_certificate_is_told_of_in_its_last_weeks_and_degrades_in_its_last_days() {
        for (days, degrading) in
            [(0, Some(true)), (6, Some(true)), (7, Some(false)), (20, Some(false)), (21, None)]
        {
            let found = certificate_finding(in_days(days), NOW);
            assert_eq!(found.map(|finding| finding.is_degrading()), degrading, "{days} days");
        }
    }

    fn bearer(value: &str) -> HttpSpec {
        let headers = BTreeMap::from([("authorization".to_owned(), Secret::new(value))]);
        HttpSpec { url: "https://h/".to_owned(), headers }
    }

    fn jwt(claims: &str) -> String {
        format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_tokens_end_is_read_where_it_says_one() {
        let end = |value: &str| token_expires(&bearer(value)).map(|at| at.to_string());
        let expected = Some("2026-11-22T14:09:31.000Z".to_owned());
        assert_eq!(end(&jwt(r#"{"exp":1795356571,"sub":"x"}"#)), expected);
        assert_eq!(end(&jwt(r#"{"exp":1795356571.0}"#)), expected);
        for none in [
            "Bearer opaque",
            "Basic e30.e30.e30",
            "Bearer a.b.c",
            "",
            &jwt("{}"),
            &jwt(r#"{"exp":"soon"}"#),
            &jwt(r#"{"exp":1e300}"#),
            &jwt(r#"{"exp":-5}"#),
        ] {
            assert_eq!(end(none), None, "{none}");
        }
    }

    #[test]
    fn a_token_is_told_of_until_it_has_ended_and_blamed_from_then_on() {
        let soon = token_finding(in_days(2), NOW).unwrap();
        assert!(soon.message.contains("2 days") && !soon.is_degrading(), "{soon:?}");
        assert_eq!(token_finding(in_days(3), NOW), None);
        assert_eq!(token_finding(NOW, NOW), None);
        let mut failure = Failure::new(FailureCode::Unauthorized, Phase::Handshake, "401");
        blame_token(&mut failure, in_days(1), NOW);
        assert!(failure.evidence.is_empty());
        blame_token(&mut failure, NOW, NOW);
        assert!(failure.next_step.contains("ended"), "{failure:?}");
    }
}
