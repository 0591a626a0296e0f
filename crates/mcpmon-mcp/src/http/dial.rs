//! Opens a connection, with name, socket and TLS timed apart.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::Phases;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::endpoint::{Origin, is_link_local};
use super::tls::{TlsSettings, handshake_error};
use crate::error::CallError;

/// How long one address is tried alone before the next is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: usize = 8;

/// Opens a connection to `origin` by `deadline` and notes in `phases` what each part took.
///
/// # Errors
///
/// One of the codes for reaching a service, with the phase that failed.
pub(super) async fn dial(
    origin: &Origin,
    tls: &TlsSettings,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Connection, CallError> {
    let addresses = resolve(origin, phases, deadline).await?;
    let started = Instant::now();
    let stream = match timeout_at(deadline, connect(&addresses)).await {
        Ok(connected) => connected.map_err(|error| connect_error(&error, origin, &addresses))?,
        Err(_) => {
            let message = format!("`{origin}` did not take a connection within {}", since(started));
            return Err(CallError::new(FailureCode::ConnectTimeout, Phase::Connect, message)
                .with("addresses", listed(&addresses)));
        }
    };
    phases.connect_ms = Some(millis(started));
    let _ = stream.set_nodelay(true);
    if origin.secure {
        secure(stream, origin, tls, phases, deadline).await
    } else {
        speak(stream).await
    }
}

async fn resolve(
    origin: &Origin,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, CallError> {
    if let Ok(address) = origin.host.parse::<IpAddr>() {
        return permitted(vec![SocketAddr::new(address, origin.port)], origin);
    }
    let started = Instant::now();
    let failed = |message: String| CallError::new(FailureCode::DnsFailed, Phase::Dns, message);
    let found = timeout_at(deadline, lookup_host((origin.host.as_str(), origin.port)))
        .await
        .map_err(|_| {
            failed(format!(
                "the resolver gave no answer for `{}` within {}",
                origin.host,
                since(started)
            ))
        })?
        .map_err(|error| failed(format!("`{}` does not resolve: {error}", origin.host)))?;
    phases.dns_ms = Some(millis(started));
    let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(failed(format!("`{}` resolves to no address", origin.host)));
    }
    permitted(addresses, origin)
}

fn permitted(addresses: Vec<SocketAddr>, origin: &Origin) -> Result<Vec<SocketAddr>, CallError> {
    let (barred, open): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| is_link_local(address.ip()));
    if open.is_empty() {
        let message = format!("`{}` is a link-local address, which is never asked", origin.host);
        return Err(CallError::new(FailureCode::ConfigurationInvalid, Phase::Dns, message)
            .with("addresses", listed(&barred)));
    }
    Ok(interleaved(open))
}

/// Addresses of both families in turn, so that one dead family costs one [`STAGGER`].
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let mut out = Vec::with_capacity(preferred.len() + other.len());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    loop {
        match (preferred.next(), other.next()) {
            (None, None) => return out,
            (a, b) => out.extend(a.into_iter().chain(b)),
        }
    }
}

async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(only).await;
    }
    let mut waiting = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(next) = waiting.next() {
            attempts.spawn(TcpStream::connect(next));
        }
        tokio::select! {
            joined = attempts.join_next() => match joined {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last_error = error,
                Some(Err(_)) => {}
                None => return Err(last_error),
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

fn connect_error(error: &io::Error, origin: &Origin, addresses: &[SocketAddr]) -> CallError {
    use io::ErrorKind as K;
    let (code, message) = match error.kind() {
        K::ConnectionRefused => {
            (FailureCode::ConnectionRefused, format!("nothing listens at `{origin}`"))
        }
        K::TimedOut => {
            (FailureCode::ConnectTimeout, format!("`{origin}` did not take a connection"))
        }
        K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown | K::AddrNotAvailable => {
            (FailureCode::NetworkUnreachable, format!("there is no route to `{origin}`"))
        }
        K::ConnectionReset | K::ConnectionAborted => {
            (FailureCode::ConnectionReset, format!("`{origin}` reset the connection"))
        }
        // Running out of descriptors or ports is our trouble and says nothing of the service.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => (
            FailureCode::MonitorOverloaded,
            format!("no connection to `{origin}` could be opened here"),
        ),
        _ => (FailureCode::NetworkUnreachable, format!("`{origin}` cannot be reached")),
    };
    CallError::new(code, Phase::Connect, format!("{message}: {error}"))
        .with("addresses", listed(addresses))
}

async fn secure(
    stream: TcpStream,
    origin: &Origin,
    tls: &TlsSettings,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Connection, CallError> {
    let config = tls.config().await?;
    let name = ServerName::try_from(origin.host.clone()).map_err(|_| {
        let message = format!("`{}` is no name a certificate can be for", origin.host);
        CallError::new(FailureCode::ConfigurationInvalid, Phase::Tls, message)
    })?;
    let started = Instant::now();
    let handshake = TlsConnector::from(Arc::clone(&config)).connect(name, stream);
    let stream = match timeout_at(deadline, handshake).await {
        Ok(shaken) => shaken.map_err(|error| handshake_error(&error, &origin.host))?,
        Err(_) => {
            let message = format!(
                "`{origin}` took the connection but did not finish the TLS handshake within {}",
                since(started)
            );
            return Err(CallError::new(FailureCode::TlsFailed, Phase::Tls, message));
        }
    };
    phases.tls_ms = Some(millis(started));
    tls.note(origin, stream.get_ref().1);
    speak(stream).await
}

async fn speak<S>(stream: S) -> Result<Connection, CallError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + Sync + 'static,
{
    Connection::over(stream).await.map_err(|error| {
        let message = format!("the connection was cut: {error}");
        CallError::new(FailureCode::ConnectionReset, Phase::Connect, message)
    })
}

fn listed(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1_000.0
}

fn since(started: Instant) -> String {
    format!("{:.1} s", started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let mixed = parse(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1"]);
        let expected = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(interleaved(mixed), expected);
    }

    fn origin(host: &str, port: u16) -> Origin {
        Origin { secure: false, host: host.to_owned(), port }
    }

    #[tokio::test]
    async fn link_local_addresses_are_refused_before_a_packet_is_sent() {
        for host in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254"] {
            let mut phases = Phases::default();
            let deadline = Instant::now() + Duration::from_secs(5);
            let error = dial(&origin(host, 80), &TlsSettings::default(), &mut phases, deadline)
                .await
                .unwrap_err();
            assert_eq!(error.code(), FailureCode::ConfigurationInvalid, "{host}");
        }
    }

    #[tokio::test]
    async fn a_dead_address_does_not_hide_a_live_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let dead = closed.local_addr().unwrap();
        drop(closed);
        assert_eq!(connect(&[dead, live]).await.unwrap().peer_addr().unwrap(), live);
        assert_eq!(
            connect(&[dead, dead]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
