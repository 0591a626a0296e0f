//! `mcpmon status`, `mcpmon check` and the page `up` shows: the dashboard in text.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::Style;
use jiff::tz::TimeZone;
use mcpmon_core::alert::AlertPhase;
use mcpmon_core::contract::{CheckReport, HostReport, ServiceReport, ServiceStatusReport};
use mcpmon_core::monitor::Snapshot;
use mcpmon_core::store::AlertRecord;
use mcpmon_core::{Status, Timestamp, text};

use super::style::{Look, level_style, status_cell};
use super::table::{Align, Cell, Table};
use super::words;
use super::wrap::join;

/// Alerts older than this are not shown beside the services.
const ALERTS_SPAN: Duration = Duration::from_secs(3_600);
/// No more alerts than this are.
const MOST_ALERTS: usize = 5;

/// How a snapshot is drawn.
#[derive(Debug, Clone)]
pub struct StatusOptions {
    /// Adds the machine: CPU, memory, disks, network.
    pub host: bool,
    /// Lines are cut here; `None` cuts nothing.
    pub width: Option<usize>,
    /// Colours and glyphs.
    pub look: Look,
    /// Whose local time is shown.
    pub zone: TimeZone,
}

impl Default for StatusOptions {
    fn default() -> Self {
        Self { host: false, width: Some(80), look: Look::plain(), zone: TimeZone::system() }
    }
}

/// Draws what a monitor knows: 80 columns, no colour, local time.
///
/// # Errors
///
/// When the writer fails.
pub fn render_status(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    render_status_with(snapshot, &StatusOptions::default(), out)
}

/// Draws what a monitor knows.
///
/// # Errors
///
/// When the writer fails.
pub fn render_status_with(
    snapshot: &Snapshot,
    options: &StatusOptions,
    out: &mut impl Write,
) -> io::Result<()> {
    let look = options.look;
    writeln!(out, "{}", headline(snapshot, options))?;
    if let Some(error) = &snapshot.monitor.store_error {
        writeln!(out, "the history cannot be written: {}", text::for_terminal(error))?;
    }
    if let Some(warning) = &snapshot.monitor.storage_warning {
        writeln!(out, "{}", text::for_terminal(warning))?;
    }
    if let Some(error) = &snapshot.monitor.reload_error {
        writeln!(out, "the new configuration was not taken: {}", text::for_terminal(error))?;
    }
    if !snapshot.services.is_empty() {
        writeln!(out, "\n{}", services(snapshot, options).render(options.width, look).trim_end())?;
    }
    render_alerts(snapshot, options, out)?;
    if options.host {
        render_host(snapshot.host.as_ref(), options, out)?;
    }
    Ok(())
}

fn headline(snapshot: &Snapshot, options: &StatusOptions) -> String {
    let services = &snapshot.services;
    let running = services.iter().filter(|s| s.check.status == Status::Running).count();
    let tools: usize =
        services.iter().filter_map(|s| s.check.tools_count).map(|n| n as usize).sum();
    let mut parts = vec![
        format!("mcpmon  updated {}", words::local_time(snapshot.at, &options.zone)),
        words::count(services.len(), "service"),
        format!("{running} running"),
        words::count(tools, "tool"),
    ];
    if !snapshot.monitor.running {
        parts.push(absence(snapshot, options));
    }
    let separator = format!("  {}  ", options.look.dot());
    let lines = join(&parts, &separator, options.width);
    let painted: Vec<_> =
        lines.lines().map(|line| options.look.paint(line, Style::new().bold())).collect();
    painted.join("\n")
}

/// Nobody watches now: what the page shows is how it was.
fn absence(snapshot: &Snapshot, options: &StatusOptions) -> String {
    let seen = snapshot.services.iter().filter_map(|service| service.metrics.as_ref());
    match seen.filter_map(|metrics| metrics.last_check_time).max() {
        Some(last) => format!(
            "no monitor running; last seen {}",
            words::moment(last, snapshot.at, &options.zone, true)
        ),
        None => "no monitor running".to_owned(),
    }
}

fn services(snapshot: &Snapshot, options: &StatusOptions) -> Table {
    let mut table = Table::new(&[
        ("STATUS", Align::Left),
        ("SERVICE", Align::Left),
        ("TOOLS", Align::Right),
        ("ERRORS", Align::Right),
        ("RESPONSE", Align::Right),
        ("SINCE", Align::Left),
        ("WHY", Align::Left),
    ])
    .rigid(&["STATUS", "SINCE"])
    .optional(&["TOOLS", "RESPONSE"]);
    let mut rows: Vec<&ServiceStatusReport> = snapshot.services.iter().collect();
    rows.sort_by_cached_key(|service| service.check.order());
    for service in rows {
        let check = &service.check;
        let errors = service.metrics.as_ref().filter(|metrics| metrics.error_rate_samples > 0);
        let errors = errors.map_or_else(dash, |m| format!("{:.1}%", m.error_rate * 100.0).into());
        // A service that only ever was in an import or a batch of checks has no such moment.
        let since = Some(service.since).filter(|since| *since != Timestamp::default());
        let response = service.metrics.as_ref().and_then(|metrics| metrics.avg_response_time);
        table.row([
            status_cell(check.status, options.look),
            Cell::new(check.service.as_str()),
            number(check.tools_count),
            errors,
            response.map_or_else(dash, |seconds| words::span(seconds_span(seconds)).into()),
            since.map_or_else(dash, |at| words::since(at, snapshot.at, &options.zone).into()),
            why(check, service.metrics.is_none()),
        ]);
    }
    table
}

fn seconds_span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn dash() -> Cell {
    Cell::from("-")
}

fn number(count: Option<u32>) -> Cell {
    count.map_or_else(dash, |count| count.to_string().into())
}

/// The cause, else what is odd, else that its numbers are missing.
fn why(check: &ServiceReport, unreadable: bool) -> Cell {
    match &check.failure {
        // The code is what people look up; colon and mark of a cut belong to it.
        Some(failure) => Cell::new(failure.to_string()).at_least(failure.code.as_str().len() + 4),
        None if unreadable => "its numbers cannot be read".into(),
        None => {
            let codes: Vec<_> =
                check.findings.iter().map(|finding| finding.code.as_str()).collect();
            Cell::new(codes.join(", ")).at_least(codes.first().map_or(0, |code| code.len() + 4))
        }
    }
}

fn render_alerts(
    snapshot: &Snapshot,
    options: &StatusOptions,
    out: &mut impl Write,
) -> io::Result<()> {
    let from = snapshot.at.saturating_sub(ALERTS_SPAN);
    let mut recent: Vec<&AlertRecord> =
        snapshot.alerts.iter().filter(|record| record.alert.timestamp >= from).collect();
    if recent.is_empty() {
        return Ok(());
    }
    recent.sort_by_key(|record| std::cmp::Reverse(record.alert.timestamp));
    writeln!(out, "\n{}", options.look.paint("Alerts of the last hour", Style::new().bold()))?;
    for record in recent.into_iter().take(MOST_ALERTS) {
        let quiet = match record.state {
            AlertPhase::Silenced | AlertPhase::Acknowledged => {
                format!(", {}", record.state.as_str())
            }
            _ => String::new(),
        };
        let line = format!(
            "[{}] {}{quiet}: {}",
            words::local_time(record.alert.timestamp, &options.zone),
            record.alert.level,
            text::for_terminal(&record.alert.message),
        );
        let line = match options.width {
            Some(width) => super::table::cut(&line, width, options.look),
            None => line,
        };
        writeln!(out, "{}", options.look.paint(&line, level_style(record.alert.level)))?;
    }
    Ok(())
}

fn render_host(
    host: Option<&HostReport>,
    options: &StatusOptions,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "\n{}", options.look.paint("Host", Style::new().bold()))?;
    let Some(HostReport { at, metrics }) = host else {
        return writeln!(out, "not measured yet");
    };
    let size = |count: u64| words::bytes(count as f64);
    writeln!(
        out,
        "cpu      {:.1}%, load {:.2}, at {}",
        metrics.cpu_percent,
        metrics.load_1m,
        words::local_time(*at, &options.zone)
    )?;
    writeln!(
        out,
        "memory   {:.1}%, {} used, {} available",
        metrics.memory_percent,
        size(metrics.memory_used_bytes),
        size(metrics.memory_available_bytes),
    )?;
    for disk in &metrics.disks {
        writeln!(
            out,
            "disk     {:.1}%, {} used, {} free  {}",
            disk.percent,
            size(disk.used_bytes),
            size(disk.free_bytes),
            text::for_terminal(&disk.path),
        )?;
    }
    let network = &metrics.network;
    writeln!(
        out,
        "network  {} sent ({}/s), {} received ({}/s)",
        size(network.bytes_sent),
        words::bytes(network.bytes_sent_per_second),
        size(network.bytes_recv),
        words::bytes(network.bytes_recv_per_second),
    )
}

/// `mcpmon check` as a table: status, name, revision, tools, times, and why.
pub(crate) fn render_check(report: &CheckReport, width: Option<usize>, look: Look) -> String {
    let mut table = Table::new(&[
        ("STATUS", Align::Left),
        ("SERVICE", Align::Left),
        ("PROTOCOL", Align::Left),
        ("TOOLS", Align::Right),
        ("RESPONSE", Align::Right),
        ("TOTAL", Align::Right),
        ("WHY", Align::Left),
    ])
    .rigid(&["STATUS", "PROTOCOL"])
    .optional(&["PROTOCOL", "TOTAL", "TOOLS"]);
    let millis = |value: Option<f64>| {
        value.map_or_else(dash, |millis| words::span(seconds_span(millis / 1_000.0)).into())
    };
    for service in &report.services {
        table.row([
            status_cell(service.status, look),
            Cell::new(service.service.as_str()),
            service.protocol_version.as_deref().map_or_else(dash, Cell::new),
            number(service.tools_count),
            millis(service.latency_ms),
            millis(service.total_ms),
            why(service, false),
        ]);
    }
    let mut text = if report.services.is_empty() {
        String::new()
    } else {
        format!("{}\n", table.render(width, look))
    };
    text.push_str(&format!("{}\n", check_summary(report)));
    text
}

fn check_summary(report: &CheckReport) -> String {
    let parts: Vec<String> = Status::WORST_FIRST
        .into_iter()
        .filter_map(|status| {
            let number = report.services.iter().filter(|s| s.status == status).count();
            (number > 0).then(|| format!("{number} {status}"))
        })
        .collect();
    let total = words::count(report.services.len(), "service");
    if parts.is_empty() { total } else { format!("{total}: {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::contract::MonitorReport;
    use mcpmon_core::{
        Alert, Failure, FailureCode, Finding, FindingCode, Level, Phase, ServiceMetrics, Subject,
        SystemMetrics,
    };

    const NOW: Timestamp = Timestamp::from_millis(1_795_356_571_120);

    fn ago(seconds: u64) -> Timestamp {
        NOW.saturating_sub(Duration::from_secs(seconds))
    }

    fn service(name: &str, status: Status) -> ServiceStatusReport {
        let mut check = ServiceReport::unasked(name.into(), "http", status);
        check.tools_count = status.is_available().then_some(13);
        let mut metrics = ServiceMetrics::unknown(name.into());
        metrics.status = status;
        (metrics.error_rate_samples, metrics.last_check_time) = (10, Some(ago(5)));
        if status.is_available() {
            metrics.avg_response_time = Some(0.06);
        }
        ServiceStatusReport { check, since: ago(600), metrics: Some(metrics) }
    }

    fn stopped(name: &str) -> ServiceStatusReport {
        let mut report = service(name, Status::Stopped);
        let message = "`npx` is not on PATH (/usr/bin:/bin)";
        report.check.failure =
            Some(Failure::new(FailureCode::CommandNotFound, Phase::Spawn, message));
        if let Some(metrics) = &mut report.metrics {
            metrics.error_rate = 1.0;
        }
        report
    }

    fn alert(level: Level, message: &str, seconds: u64) -> AlertRecord {
        AlertRecord {
            alert: Alert {
                schema: mcpmon_core::alert::ALERT_SCHEMA.to_owned(),
                id: format!("a{seconds}"),
                rule_name: "service_down".to_owned(),
                subject: Subject::Service("files".into()),
                level,
                message: message.to_owned(),
                timestamp: ago(seconds),
                resolved_at: None,
                metrics: serde_json::Value::Null,
                failure: None,
                labels: Default::default(),
                acknowledgements: Vec::new(),
                ended_because: None,
            },
            state: AlertPhase::Firing,
        }
    }

    fn snapshot(services: Vec<ServiceStatusReport>, alerts: Vec<AlertRecord>) -> Snapshot {
        Snapshot {
            at: NOW,
            monitor: MonitorReport { running: true, ..MonitorReport::default() },
            services,
            host: None,
            alerts,
        }
    }

    fn draw(snapshot: &Snapshot, host: bool) -> String {
        let options = StatusOptions { host, zone: TimeZone::UTC, ..StatusOptions::default() };
        let mut out = Vec::new();
        render_status_with(snapshot, &options, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 80),
            "{text}"
        );
        text
    }

    #[test]
    fn nothing_watched_is_one_line() {
        insta::assert_snapshot!(draw(&snapshot(vec![], vec![]), false), @"mcpmon  updated 14:09:31  ·  0 services  ·  0 running  ·  0 tools");
    }

    #[test]
    fn what_an_import_knows_nothing_of_is_left_blank_and_nobody_watching_is_said() {
        let mut imported = service("files", Status::Unknown);
        imported.since = Timestamp::default();
        if let Some(metrics) = &mut imported.metrics {
            (metrics.error_rate_samples, metrics.last_check_time) = (0, Some(ago(86_400)));
        }
        let mut stale = snapshot(vec![imported], vec![]);
        stale.monitor.running = false;
        insta::assert_snapshot!(draw(&stale, false), @r#"
        mcpmon  updated 14:09:31  ·  1 service  ·  0 running  ·  0 tools
        no monitor running; last seen Nov 21 14:09

        STATUS     SERVICE  TOOLS  ERRORS  RESPONSE  SINCE  WHY
        ? unknown  files        -       -         -  -
        "#);
        stale.services.clear();
        insta::assert_snapshot!(draw(&stale, false), @r#"
        mcpmon  updated 14:09:31  ·  0 services  ·  0 running  ·  0 tools
        no monitor running
        "#);
    }

    #[test]
    fn a_page_has_failing_services_first_with_reason_and_since() {
        let mut slow = service("github", Status::Degraded);
        slow.check.findings.push(Finding::new(FindingCode::SlowResponse, "1.4 s"));
        let mut unreadable = service("lost", Status::Unknown);
        unreadable.metrics = None;
        let services = vec![service("zeta", Status::Running), slow, stopped("files"), unreadable];
        let alerts = vec![
            alert(Level::Error, "files is stopped", 60),
            alert(Level::Warning, "github is slow", 30),
            alert(Level::Info, "too old to tell", 4_000),
        ];
        insta::assert_snapshot!(draw(&snapshot(services, alerts), false), @r#"
        mcpmon  updated 14:09:31  ·  4 services  ·  1 running  ·  26 tools

        STATUS      SERVICE  TOOLS  ERRORS  RESPONSE  SINCE  WHY
        ○ stopped   files        -  100.0%         -  13:59  command_not_found: `npx` i…
        ◐ degraded  github      13    0.0%     60 ms  13:59  slow_response
        ? unknown   lost         -       -         -  13:59  its numbers cannot be read
        ● running   zeta        13    0.0%     60 ms  13:59

        Alerts of the last hour
        [14:09:01] warning: github is slow
        [14:08:31] error: files is stopped
        "#);
    }

    #[test]
    fn only_the_newest_five_alerts_are_shown() {
        let alerts = (0..9).map(|n| alert(Level::Error, &format!("number {n}"), n)).collect();
        let text = draw(&snapshot(vec![service("a", Status::Running)], alerts), false);
        assert!(text.contains("number 0") && text.contains("number 4"), "{text}");
        assert!(!text.contains("number 5"), "{text}");
    }

    #[test]
    fn hostile_names_and_messages_cannot_leave_their_line() {
        let mut evil = stopped("a\x1b[2J\u{202e}b\nc");
        evil.check.failure = Some(Failure::new(
            FailureCode::ServerError,
            Phase::Request,
            "\x1b]0;owned\x07\r\nmcpmon  all is well",
        ));
        let alerts = vec![alert(Level::Error, "x\n[00:00:00] info: fine\x1b[1A", 5)];
        insta::assert_snapshot!(draw(&snapshot(vec![evil], alerts), false), @r#"
        mcpmon  updated 14:09:31  ·  1 service  ·  0 running  ·  0 tools

        STATUS     SERVICE              TOOLS  ERRORS  RESPONSE  SINCE  WHY
        ○ stopped  a\x1b[2J\u{202e}b\…      -  100.0%         -  13:59  server_error: \…

        Alerts of the last hour
        [14:09:26] error: x\n[00:00:00] info: fine\x1b[1A
        "#);
    }

    #[test]
    fn many_services_keep_their_columns() {
        let services = (0..30)
            .map(|n| {
                let name = format!("service-{n:02}-{}", "x".repeat(n * 3));
                service(&name, Status::WORST_FIRST[n % 8])
            })
            .collect();
        let text = draw(&snapshot(services, vec![]), false);
        assert_eq!(text.lines().count(), 33);
    }

    #[test]
    fn the_host_is_added_when_asked_for() {
        let metrics = SystemMetrics {
            cpu_percent: 12.34,
            load_1m: 0.5,
            memory_percent: 40.0,
            memory_used_bytes: 3_200_000_000,
            memory_available_bytes: 4_800_000_000,
            disks: vec![mcpmon_core::metrics::DiskMetrics {
                path: "/".to_owned(),
                used_bytes: 20_000_000_000,
                free_bytes: 30_000_000_000,
                total_bytes: 50_000_000_000,
                percent: 40.0,
            }],
            ..SystemMetrics::default()
        };
        let mut with_host = snapshot(vec![], vec![]);
        with_host.host = Some(HostReport { at: NOW, metrics });
        insta::assert_snapshot!(draw(&with_host, true), @r#"
        mcpmon  updated 14:09:31  ·  0 services  ·  0 running  ·  0 tools

        Host
        cpu      12.3%, load 0.50, at 14:09:31
        memory   40.0%, 3.2 GB used, 4.8 GB available
        disk     40.0%, 20.0 GB used, 30.0 GB free  /
        network  0 B sent (0 B/s), 0 B received (0 B/s)
        "#);
    }

    #[test]
    fn without_unicode_everything_is_ascii() {
        let options = StatusOptions {
            look: Look { colour: false, unicode: false },
            zone: TimeZone::UTC,
            ..StatusOptions::default()
        };
        let services = Status::WORST_FIRST.map(|status| service(status.as_str(), status)).into();
        let mut out = Vec::new();
        render_status_with(&snapshot(services, vec![]), &options, &mut out).unwrap();
        assert!(out.is_ascii(), "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn a_check_is_a_table_and_a_sum() {
        let mut good = ServiceReport::unasked("github".into(), "http", Status::Running);
        good.protocol_version = Some("2026-07-28".to_owned());
        (good.latency_ms, good.total_ms, good.tools_count) = (Some(60.0), Some(1_182.4), Some(41));
        let report = CheckReport::new(NOW, vec![good, stopped("files").check]);
        insta::assert_snapshot!(render_check(&report, Some(80), Look::plain()), @r#"
        STATUS     SERVICE  PROTOCOL    TOOLS  RESPONSE  TOTAL  WHY
        ○ stopped  files    -               -         -      -  command_not_found: `npx…
        ● running  github   2026-07-28     41     60 ms  1.2 s

        2 services: 1 stopped, 1 running
        "#);
        insta::assert_snapshot!(render_check(&CheckReport::new(NOW, vec![]), None, Look::plain()), @"0 services");
    }
}
