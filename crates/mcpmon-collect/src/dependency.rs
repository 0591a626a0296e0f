//! Looks at what a service depends on: ports, URLs, files, variables. Other services are not
//! looked at here; whoever watches them knows how they are.
//!
//! Each look is one attempt and gives words or nothing. A dependency is not a service: it has no
//! codes, no history and no retries of its own, it only explains.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::Dependency;
use mcpmon_core::observation::DependencyObservation;
use mcpmon_core::service::{ServiceSpec, Transport};
use mcpmon_core::text::truncate;
use mcpmon_mcp::http::HttpClient;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Longest explanation, in characters.
const LONGEST: usize = 300;

/// Looks at everything `spec` depends on but services, all at once, and gives them in the order
/// they are written. What takes longer than `deadline` is down.
pub(crate) async fn look(
    spec: &ServiceSpec,
    http: &Arc<HttpClient>,
    deadline: Instant,
) -> Vec<DependencyObservation> {
    let mut looks = JoinSet::new();
    for (place, dependency) in spec.dependencies().enumerate() {
        let look = Look {
            http: Arc::clone(http),
            connection_timeout: spec.limits.connection_timeout,
            deadline,
            is_set: matches!(&dependency, Dependency::Env(name) if is_set(spec, name)),
        };
        if !matches!(dependency, Dependency::Service(_)) {
            looks.spawn(async move { (place, look.at(dependency).await) });
        }
    }
    let mut seen = looks.join_all().await;
    seen.sort_by_key(|(place, _)| *place);
    seen.into_iter().map(|(_, observation)| observation).collect()
}

/// A variable counts where the service would find it: in its own entry, else in this process.
fn is_set(spec: &ServiceSpec, name: &str) -> bool {
    let own = match &spec.transport {
        Transport::Stdio(stdio) => stdio.env.get(name).map(|value| !value.is_empty()),
        Transport::Http(_) | Transport::Sse(_) => None,
    };
    own.unwrap_or_else(|| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

struct Look {
    http: Arc<HttpClient>,
    connection_timeout: Duration,
    deadline: Instant,
    is_set: bool,
}

impl Look {
    async fn at(self, dependency: Dependency) -> DependencyObservation {
        let looked = match &dependency {
            // Nobody asks for it here.
            Dependency::Service(_) => Ok(()),
            Dependency::Tcp { host, port } => self.tcp(host, *port).await,
            Dependency::Http(url) => self.http(url).await,
            Dependency::File(path) => self.file(path.clone()).await,
            Dependency::Env(_) if self.is_set => Ok(()),
            Dependency::Env(name) => Err(format!("`{name}` is not set, or empty")),
        };
        let problem = looked.err().map(|problem| truncate(&problem, LONGEST));
        DependencyObservation { dependency: dependency.to_string(), problem }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<(), String> {
        let started = Instant::now();
        let limit = self.deadline.min(started + self.connection_timeout);
        match timeout_at(limit, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("`{host}:{port}` takes no connection: {error}")),
            Err(_) => {
                let waited = started.elapsed().as_secs_f64();
                Err(format!("`{host}:{port}` took no connection within {waited:.1} s"))
            }
        }
    }

    async fn http(&self, url: &str) -> Result<(), String> {
        match self.http.status_of(url, self.connection_timeout, self.deadline).await {
            Ok(status) if status < 500 => Ok(()),
            Ok(status) => Err(format!("it answers with HTTP {status}")),
            Err(error) => Err(error.failure.message),
        }
    }

    async fn file(&self, path: PathBuf) -> Result<(), String> {
        let shown = path.display().to_string();
        // A file system that hangs keeps a thread, but nobody waits for it past the deadline.
        let looking = tokio::task::spawn_blocking(move || is_readable(&path));
        match timeout_at(self.deadline, looking).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(format!("`{shown}` cannot be read: {error}")),
            Ok(Err(_)) | Err(_) => Err(format!("the file system of `{shown}` gives no answer")),
        }
    }
}

/// Asks without opening: to open a pipe or a device can wait, or do something.
#[cfg(unix)]
fn is_readable(path: &std::path::Path) -> io::Result<()> {
    Ok(rustix::fs::access(path, rustix::fs::Access::READ_OK)?)
}

#[cfg(not(unix))]
fn is_readable(path: &std::path::Path) -> io::Result<()> {
    std::fs::metadata(path).map(drop)
}

#[cfg(test)]
mod tests {
    use mcpmon_core::secret::Secret;
    use mcpmon_core::service::StdioSpec;
    use tokio::net::TcpListener;

    use super::*;

    async fn problems(mut spec: ServiceSpec, depends_on: Vec<String>) -> Vec<Option<String>> {
        spec.depends_on = depends_on.clone();
        let deadline = Instant::now() + Duration::from_secs(20);
        let seen = look(&spec, &Arc::default(), deadline).await;
        let named: Vec<_> = seen.iter().map(|seen| seen.dependency.clone()).collect();
        assert_eq!(named, depends_on, "as they are written, in their order");
        seen.into_iter().map(|seen| seen.problem).collect()
    }

    #[tokio::test]
    async fn ports_files_and_variables_are_looked_at_once_each() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (open_port, closed_port) = (port(&open), port(&closed));
        drop(closed);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("there");
        std::fs::write(&file, "").unwrap();
        let stdio = StdioSpec {
            command: "x".to_owned(),
            env: [("OWN", "v4lue-of-it"), ("EMPTY", "")]
                .map(|(name, value)| (name.to_owned(), Secret::new(value)))
                .into(),
            ..StdioSpec::default()
        };
        let spec = ServiceSpec::new("s", Transport::Stdio(stdio));
        let seen = problems(
            spec,
            vec![
                format!("tcp://127.0.0.1:{open_port}"),
                format!("tcp://127.0.0.1:{closed_port}"),
                format!("http://127.0.0.1:{closed_port}/"),
                format!("file://{}", file.display()),
                format!("file://{}/gone", folder.path().display()),
                "env:OWN".to_owned(),
                "env:EMPTY".to_owned(),
                "env:PATH".to_owned(),
                "env:MCPMON_NO_SUCH_VARIABLE".to_owned(),
            ],
        )
        .await;
        let up: Vec<bool> = seen.iter().map(Option::is_none).collect();
        assert_eq!(up, [true, false, false, true, false, true, false, true, false], "{seen:?}");
        assert!(!format!("{seen:?}").contains("v4lue-of-it"));
    }

    #[tokio::test]
    async fn services_are_left_to_those_who_watch_them() {
        let mut spec = ServiceSpec::http("s", "http://x/");
        spec.depends_on = vec!["other".to_owned(), "env:PATH".to_owned()];
        let deadline = Instant::now() + Duration::from_secs(5);
        let seen = look(&spec, &Arc::default(), deadline).await;
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].dependency, "env:PATH");
    }
}
