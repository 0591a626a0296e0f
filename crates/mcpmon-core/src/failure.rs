//! What can be wrong with a service: a closed list of stable codes.
//!
//! A check that did not find its service well has exactly one [`Failure`], the cause furthest
//! along; what is merely odd is a [`Finding`]. A code decides the status alone, so that no two
//! parts of the monitor can disagree about what a code means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::status::{Status, UnknownWord};

/// Free-form facts behind a failure or finding: exit status, last stderr lines, HTTP status and
/// headers, an excerpt. Redacted and capped before it is put here.
pub type Evidence = Map<String, Value>;

macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident => $text:literal, $status:ident, $next:literal; )+) => {
        /// The cause of a failed check. Never renamed; new ones may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum FailureCode { $( $(#[$doc])* $variant, )+ }

        impl FailureCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The contract's spelling.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }

            /// The status a check with this failure has.
            pub const fn status(self) -> Status {
                match self { $( Self::$variant => Status::$status, )+ }
            }

            /// What to do about it, in a sentence, where nothing better is known.
            pub const fn next_step(self) -> &'static str {
                match self { $( Self::$variant => $next, )+ }
            }
        }
    };
}

codes! {
    /// The program is not on `PATH` or not there.
    CommandNotFound => "command_not_found", Stopped,
        "install the program, or give its full path as `command`";
    /// It is there, but may not be executed, or the working directory is missing.
    CommandNotExecutable => "command_not_executable", Stopped,
        "make the file executable (chmod +x) and check that `cwd` exists";
    /// The system refused to start a process: our trouble, not the service's.
    SpawnFailed => "spawn_failed", Unknown,
        "check the limits on open files and processes of the user mcpmon runs as";
    /// Exited; stderr names a module, package or import that is missing.
    MissingModule => "missing_module", Stopped,
        "install the missing module in the environment the server runs in";
    /// Exited; the package runner found no such package or version.
    PackageNotFound => "package_not_found", Stopped,
        "check the package name and version in `args`";
    /// Exited; the interpreter is too old or too new, or the platform is wrong.
    RuntimeUnsupported => "runtime_unsupported", Stopped,
        "run the server with a version of its runtime that it supports";
    /// Exited or refused; a key, token or variable must be set.
    MissingCredential => "missing_credential", Stopped,
        "set the named variable in the service's `env`";
    /// Exited with usage text: arguments or a subcommand are missing.
    UsageError => "usage_error", Stopped,
        "run the command by hand with --help and complete `args`";
    /// Exited before it answered, for none of the reasons above.
    ExitedAtStart => "exited_at_start", Stopped,
        "run the command by hand and read what it prints";
    /// Answered once, then exited.
    Exited => "exited", Stopped,
        "read the last lines of its stderr in the evidence";
    /// Ended by a signal, which is named.
    KilledBySignal => "killed_by_signal", Stopped,
        "if the signal is SIGKILL, look for the kernel's out-of-memory killer";
    /// Closed its standard output, but lives.
    ClosedOutput => "closed_output", Error,
        "the server must write its answers to standard output; look for code that closes it";
    /// The name does not resolve.
    DnsFailed => "dns_failed", Stopped,
        "check the host name in `url` and this machine's resolver";
    /// Nothing listens.
    ConnectionRefused => "connection_refused", Stopped,
        "start the server, or check the port in `url`";
    /// No answer to the connection in time.
    ConnectTimeout => "connect_timeout", Stopped,
        "check firewalls and routes between here and the host";
    /// No route to it.
    NetworkUnreachable => "network_unreachable", Stopped,
        "check this machine's routes, VPN and IPv6 to the host";
    /// Connected, then cut before a whole answer.
    ConnectionReset => "connection_reset", Error,
        "look in the server's or its proxy's log for a crash or a limit";
    /// The TLS handshake failed.
    TlsFailed => "tls_failed", Error,
        "check that the port speaks TLS and which versions it allows";
    /// The certificate is expired or not yet valid.
    TlsCertificateExpired => "tls_certificate_expired", Error,
        "renew the server's certificate, or correct this machine's clock";
    /// Unknown issuer or self-signed.
    TlsCertificateUntrusted => "tls_certificate_untrusted", Error,
        "add the issuing authority to this machine's trust store";
    /// The certificate is for another name.
    TlsNameMismatch => "tls_name_mismatch", Error,
        "use a host name the certificate is made for in `url`";
    /// Our own network is gone; nothing is said of the service.
    MonitorOffline => "monitor_offline", Unknown,
        "restore this machine's network; checks resume by themselves";
    /// HTTP 401.
    Unauthorized => "unauthorized", AuthRequired,
        "set valid credentials in the service's `headers`";
    /// HTTP 403.
    Forbidden => "forbidden", AuthRequired,
        "grant the configured credentials access to this endpoint";
    /// Credentials that worked stopped working.
    TokenExpired => "token_expired", AuthRequired,
        "renew the token in the service's `headers`";
    /// HTTP 429, or 503 with `Retry-After`.
    RateLimited => "rate_limited", Degraded,
        "raise the service's `check_interval`, or its limit for this client";
    /// HTTP 404 or 410 at the endpoint.
    EndpointNotFound => "endpoint_not_found", Error,
        "check the path in `url`; many servers listen at /mcp";
    /// HTTP 405 to what the transport requires.
    MethodNotAllowed => "method_not_allowed", Error,
        "check that `url` is the MCP endpoint and that proxies pass POST";
    /// Another 4xx.
    ClientError => "client_error", Error,
        "read the answer in the evidence; the server refuses the request";
    /// HTTP 5xx.
    ServerError => "server_error", Error,
        "look in the server's log for the time of this check";
    /// HTTP 502, 503, 504.
    UpstreamUnavailable => "upstream_unavailable", Error,
        "the proxy answers but the server behind it does not; start that one";
    /// A redirect to another origin, scheme or a private address.
    RedirectRefused => "redirect_refused", Error,
        "if the new address is right, put it in `url`";
    /// More redirects than the cap.
    RedirectLoop => "redirect_loop", Error,
        "follow `url` with curl -L and correct the server's redirects";
    /// A web page where MCP was expected.
    HtmlResponse => "html_response", Error,
        "`url` leads to a web page or a login; use the MCP endpoint";
    /// Neither JSON nor an event stream, nor HTML.
    UnexpectedContentType => "unexpected_content_type", Error,
        "check that `url` is the MCP endpoint";
    /// The body ended early.
    TruncatedResponse => "truncated_response", Error,
        "look for a crash, or a size limit in a proxy on the way";
    /// Connected or started, no answer to the first request in time.
    HandshakeTimeout => "handshake_timeout", Error,
        "run the server by hand; if it only starts slowly, raise `startup_timeout`";
    /// A later request got no whole answer in time.
    ResponseTimeout => "response_timeout", Error,
        "look for what blocks the server; if it is only slow, raise `health_check_timeout`";
    /// Speaks, but nothing it says is JSON-RPC.
    NotMcp => "not_mcp", Error,
        "check that this is an MCP server, and not its help text or log on standard output";
    /// A message is not JSON, or not UTF-8.
    InvalidJson => "invalid_json", Error,
        "report it to the server's author with the excerpt in the evidence";
    /// JSON, but not the shape the revision demands.
    InvalidMessage => "invalid_message", Error,
        "report it to the server's author with the excerpt in the evidence";
    /// Answers, but never to what was asked.
    WrongResponseId => "wrong_response_id", Error,
        "report it to the server's author: responses must echo the request's id";
    /// Answers the handshake or list with a JSON-RPC error.
    RpcError => "rpc_error", Error,
        "read the error's code and message in the evidence";
    /// No revision in common.
    UnsupportedProtocolVersion => "unsupported_protocol_version", Error,
        "update the server, or mcpmon, to a revision both speak";
    /// Will not go on without input from a user.
    InputRequired => "input_required", Error,
        "answer the server's question once in an interactive client";
    /// Forgets the session three times in a row.
    SessionLost => "session_lost", Error,
        "if several replicas serve this URL, make sessions sticky or shared";
    /// The event stream ended without the answer.
    StreamEnded => "stream_ended", Error,
        "look for a proxy that cuts event streams, or a crash in the handler";
    /// A message, body, line or event over its cap.
    TooLarge => "too_large", Error,
        "make the server page its lists, or raise `max_body`";
    /// More pages, tools or time than the cap, or cursors that go round.
    EndlessList => "endless_list", Error,
        "report it to the server's author: the list's cursor must come to an end";
    /// A tool, prompt or capability that the configuration requires is not there.
    CapabilityMissing => "capability_missing", Error,
        "check the server's version, or what the configuration requires of it";
    /// The configured call returned a JSON-RPC error.
    FunctionalError => "functional_error", Error,
        "run the call by hand with the arguments in the evidence";
    /// The configured call returned `isError`.
    FunctionalToolError => "functional_tool_error", Error,
        "read the tool's message in the evidence";
    /// The configured call returned, but an expectation failed.
    FunctionalMismatch => "functional_mismatch", Error,
        "compare what was expected with what was seen in the evidence";
    /// No result within `call_timeout`.
    FunctionalTimeout => "functional_timeout", Error,
        "look for what blocks the tool, or raise `call_timeout`";
    /// Not called: the tool is not known to be read-only.
    FunctionalRefused => "functional_refused", Unknown,
        "choose a read-only tool, or set `allow_side_effects = true`";
    /// A declared dependency is down and the service is too.
    DependencyDown => "dependency_down", Error,
        "repair the dependency first";
    /// This service's entry cannot be used.
    ConfigurationInvalid => "configuration_invalid", Unknown,
        "correct the service's entry in the file named in the message";
    /// The check could not be run in time by our own fault.
    MonitorOverloaded => "monitor_overloaded", Unknown,
        "raise `check_interval`, or give the machine mcpmon runs on more CPU";
}

impl FailureCode {
    /// Whether it says what came of a configured call, rather than of the service itself.
    pub const fn is_of_function(self) -> bool {
        matches!(
            self,
            Self::FunctionalError
                | Self::FunctionalToolError
                | Self::FunctionalMismatch
                | Self::FunctionalTimeout
                | Self::FunctionalRefused
        )
    }

    /// Whether the service was not even reached: what every service far away has when our own
    /// network is gone.
    pub const fn is_of_reach(self) -> bool {
        matches!(self, Self::DnsFailed | Self::ConnectTimeout | Self::NetworkUnreachable)
    }

    /// Whether it only says that something did not come in time.
    pub const fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout
                | Self::HandshakeTimeout
                | Self::ResponseTimeout
                | Self::FunctionalTimeout
        )
    }
}

macro_rules! findings {
    ($( $(#[$doc:meta])* $variant:ident => $text:literal; )+) => {
        /// What is odd but does not stop a service from working.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum FindingCode { $( $(#[$doc])* $variant, )+ }

        impl FindingCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The contract's spelling.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }
    };
}

findings! {
    /// Lines that are not MCP between messages.
    StdoutNoise => "stdout_noise";
    /// Slower than `response_time_threshold`.
    SlowResponse => "slow_response";
    /// Took long to start.
    SlowStart => "slow_start";
    /// Many of its checks or calls fail.
    HighErrorRate => "high_error_rate";
    /// Two tools of one name.
    DuplicateToolNames => "duplicate_tool_names";
    /// A tool definition out of shape.
    InvalidTool => "invalid_tool";
    /// One request was answered twice.
    DuplicateResponse => "duplicate_response";
    /// A smaller breach of the revision, named in the message.
    Nonconforming => "nonconforming";
    /// Speaks HTTP+SSE, which was deprecated in 2025-03-26.
    DeprecatedTransport => "deprecated_transport";
    /// The list of tools is another than before.
    ToolsChanged => "tools_changed";
    /// Lists differ from call to call.
    ToolsUnstable => "tools_unstable";
    /// Hidden or instructing text in what a model would read.
    SuspiciousText => "suspicious_text";
    /// The certificate ends soon.
    CertificateExpiring => "certificate_expiring";
    /// The token ends soon.
    TokenExpiring => "token_expiring";
    /// The tool list costs more tokens than its budget.
    LargeToolList => "large_tool_list";
    /// A process was left behind.
    LeftoverProcess => "leftover_process";
    /// Its processes use much CPU.
    HighCpu => "high_cpu";
    /// Its processes use much memory.
    HighMemory => "high_memory";
    /// Its memory only ever grows.
    MemoryGrowing => "memory_growing";
    /// It forgot our session and a new one was opened.
    SessionNotKept => "session_not_kept";
    /// It asked us to wait, and we did.
    RetryAfterObeyed => "retry_after_obeyed";
    /// A hint outside sane bounds was bounded.
    ClampedHint => "clamped_hint";
}

/// A certificate that ends within so many days makes its service `degraded`.
pub const CERTIFICATE_CRITICAL_DAYS: f64 = 7.0;

impl FindingCode {
    /// Whether a service with this finding is always `degraded` rather than `running`; see
    /// [`Finding::is_degrading`] for one that is so at times.
    pub const fn is_degrading(self) -> bool {
        matches!(
            self,
            Self::SlowResponse
                | Self::HighErrorRate
                | Self::ToolsUnstable
                | Self::InvalidTool
                | Self::MemoryGrowing
        )
    }
}

macro_rules! spelled {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|known| known.as_str() == word)
                    .ok_or_else(|| UnknownWord::new(word, $what))
            }
        }
    };
}

spelled!(FailureCode, "failure code");
spelled!(FindingCode, "finding code");

/// How far a check got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Before anything was started: configuration, our own queue.
    Prepare,
    /// Starting the process.
    Spawn,
    /// Resolving the host name.
    Dns,
    /// Opening the connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The first request: `server/discover` or `initialize`.
    Handshake,
    /// The timed request on a ready session.
    Request,
    /// Reading the lists.
    List,
    /// A configured call.
    Call,
}

impl Phase {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Spawn => "spawn",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Handshake => "handshake",
            Self::Request => "request",
            Self::List => "list",
            Self::Call => "call",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a check did not find its service well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The cause.
    pub code: FailureCode,
    /// The phase that failed.
    pub phase: Phase,
    /// What happened, in a lowercase fragment that names the path, the name, the number.
    pub message: String,
    /// The facts behind it.
    #[serde(default)]
    pub evidence: Evidence,
    /// What to do about it.
    pub next_step: String,
}

impl Failure {
    /// A failure with the code's usual next step and no evidence yet.
    pub fn new(code: FailureCode, phase: Phase, message: impl Into<String>) -> Self {
        Self {
            code,
            phase,
            message: message.into(),
            evidence: Evidence::new(),
            next_step: code.next_step().to_owned(),
        }
    }

    /// Adds one fact.
    #[must_use]
    pub fn with(mut self, key: &str, fact: impl Into<Value>) -> Self {
        self.evidence.insert(key.to_owned(), fact.into());
        self
    }

    /// Replaces the next step by one that knows more.
    #[must_use]
    pub fn advising(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = next_step.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Something odd about a service that works all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which oddity.
    pub code: FindingCode,
    /// What was seen, in a lowercase fragment.
    pub message: String,
    /// The facts behind it.
    #[serde(default)]
    pub evidence: Evidence,
}

impl Finding {
    /// A finding without evidence yet.
    pub fn new(code: FindingCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), evidence: Evidence::new() }
    }

    /// Adds one fact.
    #[must_use]
    pub fn with(mut self, key: &str, fact: impl Into<Value>) -> Self {
        self.evidence.insert(key.to_owned(), fact.into());
        self
    }

    /// The moment of the change it is about, if it is about one: another moment is another change.
    pub fn changed_at(&self) -> Option<&str> {
        self.evidence.get("changed_at")?.as_str()
    }

    /// Whether a service with it is `degraded` rather than `running`: as its code says, and a
    /// certificate inside its critical window ([`CERTIFICATE_CRITICAL_DAYS`], by the evidence
    /// `days_left`).
    pub fn is_degrading(&self) -> bool {
        let days_left = || self.evidence.get("days_left").and_then(Value::as_f64);
        match self.code {
            FindingCode::CertificateExpiring => {
                days_left().is_some_and(|days| days < CERTIFICATE_CRITICAL_DAYS)
            }
            code => code.is_degrading(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_spelled_the_same_everywhere() {
        for code in FailureCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        for code in FindingCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(code.as_str().parse(), Ok(*code));
        }
        assert_eq!(serde_json::to_value(Phase::Handshake).unwrap(), Phase::Handshake.as_str());
    }

    #[test]
    fn only_rate_limiting_degrades_by_failure() {
        for code in FailureCode::ALL {
            let degraded = code.status() == Status::Degraded;
            assert_eq!(degraded, *code == FailureCode::RateLimited, "{code}");
            assert!(!matches!(code.status(), Status::Running | Status::Paused | Status::Starting));
        }
    }
}
