//! TLS on ring with the machine's own roots, set up once, and what its failures mean.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::service::HttpSpec;
use mcpmon_core::time::Timestamp;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use tokio::sync::OnceCell;

use super::endpoint::{Endpoint, Origin};
use super::{HttpClient, certificate};
use crate::error::CallError;

/// The shared TLS settings; reading the machine's roots takes tens of milliseconds, so it is done
/// when the first `https` service is asked, and once.
#[derive(Debug, Default)]
pub(super) struct TlsSettings {
    config: OnceCell<Arc<ClientConfig>>,
    /// When the certificate ends that each origin showed last. Connections are shared by the
    /// services of an origin, and so is what they show.
    ends: Mutex<HashMap<Origin, Timestamp>>,
}

impl TlsSettings {
    /// Settings made elsewhere, for a private authority or a client certificate.
    pub(super) fn with_config(config: Arc<ClientConfig>) -> Self {
        Self { config: OnceCell::new_with(Some(config)), ends: Mutex::default() }
    }

    /// The settings, made on first use.
    ///
    /// # Errors
    ///
    /// `tls_failed` if the provider supports no TLS version, which its features rule out.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, CallError> {
        let config = self.config.get_or_try_init(|| async {
            let built = tokio::task::spawn_blocking(build).await;
            built.unwrap_or_else(|error| Err(failed(&error.to_string())))
        });
        config.await.cloned()
    }
}

impl TlsSettings {
    /// Remembers when the certificate of a finished handshake ends.
    pub(super) fn note(&self, origin: &Origin, connection: &ClientConnection) {
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        if let Some(end) = leaf.and_then(|leaf| certificate::not_after(leaf)) {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.insert(origin.clone(), end);
        }
    }

    fn end(&self, origin: &Origin) -> Option<Timestamp> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).get(origin).copied()
    }
}

impl HttpClient {
    /// When the certificate ends that a service's origin showed last; `None` if it never showed
    /// one.
    pub fn certificate_end(&self, spec: &HttpSpec) -> Option<Timestamp> {
        if !spec.url.starts_with("https") {
            return None;
        }
        self.tls.end(&Endpoint::parse(spec).ok()?.origin)
    }
}

fn build() -> Result<Arc<ClientConfig>, CallError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(ignored, errors = found.errors.len(), "No root certificates found");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn failed(reason: &str) -> CallError {
    CallError::new(FailureCode::TlsFailed, Phase::Tls, format!("TLS cannot be used: {reason}"))
}

/// The TLS error inside an I/O error, if that is what it is.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// The TLS error anywhere below another error.
pub(super) fn tls_error_below<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a rustls::Error> {
    let mut below = Some(error);
    while let Some(error) = below {
        if let Some(found) = error.downcast_ref::<io::Error>().and_then(tls_error) {
            return Some(found);
        }
        below = error.source();
    }
    None
}

/// What a failed handshake with `host` means.
pub(super) fn handshake_error(error: &io::Error, host: &str) -> CallError {
    let Some(tls) = tls_error(error) else {
        let cut =
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof);
        let message = if cut {
            format!("`{host}` closed the connection during the TLS handshake")
        } else {
            let source = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
            format!("the TLS handshake with `{host}` failed: {error}{source}")
        };
        return CallError::new(FailureCode::TlsFailed, Phase::Tls, message);
    };
    let (code, message) = classify(tls, host);
    CallError::new(code, Phase::Tls, message).with("tls_error", tls.to_string())
}

/// The code and words for a TLS error.
pub(super) fn classify(error: &rustls::Error, host: &str) -> (FailureCode, String) {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            (FailureCode::TlsCertificateExpired, format!("the certificate of `{host}` has expired"))
        }
        rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => (
            FailureCode::TlsCertificateExpired,
            format!("the certificate of `{host}` is not valid yet"),
        ),
        rustls::Error::InvalidCertificate(
            C::NotValidForName | C::NotValidForNameContext { .. },
        ) => (FailureCode::TlsNameMismatch, format!("the certificate is not for `{host}`")),
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => (
            FailureCode::TlsCertificateUntrusted,
            format!("the certificate of `{host}` is from an issuer this machine does not know"),
        ),
        // A self-signed certificate is most often its own authority.
        rustls::Error::InvalidCertificate(C::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            (
                FailureCode::TlsCertificateUntrusted,
                format!("the certificate of `{host}` is self-signed"),
            )
        }
        rustls::Error::InvalidMessage(_) => {
            (FailureCode::TlsFailed, format!("what answers at `{host}` does not speak TLS"))
        }
        rustls::Error::AlertReceived(alert) => {
            (FailureCode::TlsFailed, format!("`{host}` refused the TLS handshake: {alert:?}"))
        }
        other => {
            (FailureCode::TlsFailed, format!("the TLS handshake with `{host}` failed: {other}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_errors_are_told_apart() {
        use CertificateError as C;
        let cases = [
            (C::Expired, FailureCode::TlsCertificateExpired),
            (C::NotValidYet, FailureCode::TlsCertificateExpired),
            (C::UnknownIssuer, FailureCode::TlsCertificateUntrusted),
            (C::NotValidForName, FailureCode::TlsNameMismatch),
            (C::BadSignature, FailureCode::TlsFailed),
        ];
        for (certificate, code) in cases {
            let error = rustls::Error::InvalidCertificate(certificate);
            assert_eq!(classify(&error, "h").0, code, "{error}");
            let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(handshake_error(&wrapped, "h").code(), code);
        }
    }
}
