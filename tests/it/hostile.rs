//! Servers that send without end: what they cost is bounded, and is given back.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::careless::{Asked, Careless};
use crate::home::{Home, until};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// `max_body` of the test: small, so that many rounds fit into it.
const CAP: u64 = 2_000_000;
const SERVICES: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(150);
/// The promise: memory is back this long after the last of them.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What a connection to a service of this path gets, as often as it is written.
struct Flood {
    head: &'static str,
    /// Sent once, then `again` until `bytes` of it are out or the reader has gone.
    first: &'static [u8],
    again: Vec<u8>,
    bytes: u64,
}

const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(payload: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat()
}

/// A mebibyte of zeros as a whole gzip file of 1,051 bytes; many in a row are one stream.
fn gzip_member() -> Vec<u8> {
    let start = [
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xed, 0xc1, 0x31, 1, 0, 0, 0, 0xc2, 0xa0, 0xf5, 0x4f,
        0x6d, 8, 0x5f, 0xa0,
    ];
    let end = [0x3e, 3, 0x1c, 0xea, 0x38, 0xa7, 0, 0, 0x10, 0];
    let mut member = start.to_vec();
    member.resize(1_051 - end.len(), 0);
    member.extend_from_slice(&end);
    member
}

fn floods() -> Vec<(&'static str, Flood)> {
    let quoted = br#"{"jsonrpc":"2.0","id":1,"result":{"x":""#;
    let some = vec![b'a'; 64 * 1024];
    let with_length = |status: &str| {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {GIB}\r\n\r\n"
        );
        &*head.leak()
    };
    let gzip = format!("{JSON}content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n").leak();
    let chunked = format!("{JSON}transfer-encoding: chunked\r\n\r\n").leak();
    let flood = |head, first, again, bytes| Flood { head, first, again, bytes };
    let told = b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n";
    vec![
        ("gibibyte", flood(with_length("200 OK"), quoted, some.clone(), GIB)),
        ("error", flood(with_length("500 Internal Server Error"), b"", some.clone(), GIB)),
        ("gzip", flood(gzip, b"", chunk(&gzip_member()), u64::MAX)),
        ("chunks", flood(chunked, b"1\r\n{\r\n", chunk(&some), u64::MAX)),
        ("event", flood(EVENTS, b"6\r\ndata: \r\n", chunk(&some), u64::MAX)),
        ("events", flood(EVENTS, b"", chunk(&told.repeat(1_000)), u64::MAX)),
        ("comments", flood(EVENTS, b"", chunk(&b": alive\n".repeat(1_000)), u64::MAX)),
        ("head", flood("HTTP/1.1 200 OK\r\nx: ", b"", some, u64::MAX)),
    ]
}

/// What the servers do now, and how often they have done it.
#[derive(Default)]
struct Weather {
    storm: AtomicBool,
    floods: [AtomicU64; 8],
    most_sent: AtomicU64,
}

async fn converse(mut stream: TcpStream, weather: Arc<Weather>, floods: Arc<Vec<(&str, Flood)>>) {
    let Some(asked) = Asked::read(&mut stream).await else { return };
    let path = asked.head.split([' ', '/']).nth(2).unwrap_or_default();
    let number = floods.iter().position(|(name, _)| *name == path).unwrap();
    if !weather.storm.load(Ordering::SeqCst) {
        let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        return;
    }
    let flood = &floods[number].1;
    let mut sent = 0;
    let opening = [flood.head.as_bytes(), flood.first].concat();
    let mut next = opening.as_slice();
    while sent < flood.bytes && stream.write_all(next).await.is_ok() {
        sent += next.len() as u64;
        next = &flood.again;
    }
    weather.most_sent.fetch_max(sent, Ordering::SeqCst);
    weather.floods[number].fetch_add(1, Ordering::SeqCst);
}

/// A field of `/proc/PID/status` that is in kB, over the monitor and its guardian, in bytes.
fn memory(home: &Home, field: &str) -> u64 {
    let ours = Path::new(env!("CARGO_BIN_EXE_mcpmon")).canonicalize().unwrap();
    let mut sum = 0;
    for (pid, _) in home.processes() {
        let proc = Path::new("/proc").join(pid.to_string());
        if std::fs::read_link(proc.join("exe")).is_ok_and(|exe| exe == ours) {
            let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let digits =
                line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok());
            sum += digits.unwrap_or(0_u64) * 1024;
        }
    }
    assert!(sum > 0, "the monitor has ended");
    sum
}

fn configuration(home: &Home, server: &Careless) -> String {
    let storm = home.path().join("storm").display().to_string();
    let seen = |name: &str| home.path().join(name).display().to_string();
    let wild = |name: &str, flood: &str| {
        let script = format!("[ -e '{storm}' ] || exit 1; echo >> '{}'; {flood}", seen(name));
        json!({ "command": "sh", "args": ["-c", script] })
    };
    let mut services = serde_json::Map::new();
    for (name, _) in floods() {
        services.insert(name.to_owned(), json!({ "url": server.url(name) }));
    }
    services.insert("line".to_owned(), wild("line", "yes aaaaaaaaaaaaaaa | tr -d '\\n'"));
    services.insert("stderr".to_owned(), wild("stderr", "yes aaaaaaaaaaaaaaa | tr -d '\\n' >&2"));
    assert_eq!(services.len() as u64, SERVICES);
    toml::to_string(&json!({
        "monitoring": {
            "check_interval": "1s", "health_check_timeout": "5s", "health_check_retries": 1,
        },
        "service_monitoring": { "max_body": CAP, "startup_timeout": "5s" },
        "services": services,
    }))
    .unwrap()
}

/// Linux tells the most memory a process ever had; nobody else does.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_send_without_end_cost_no_more_than_their_caps_and_it_is_given_back() {
    let weather = Arc::new(Weather::default());
    let floods = Arc::new(floods());
    let server = Careless::accept({
        let weather = Arc::clone(&weather);
        move |stream| converse(stream, Arc::clone(&weather), Arc::clone(&floods))
    })
    .await;
    let home = Home::new();
    home.configure(configuration(&home, &server));
    let up = home.start(&["up", "--yes"]);

    until("every service to have been tried", PATIENCE, || async {
        let status = home.status().await?;
        let all = status["services"].as_array()?;
        let tried = all.iter().filter(|service| service["failure"].is_object()).count();
        (tried as u64 == SERVICES).then_some(())
    })
    .await;
    let idle = memory(&home, "VmRSS");

    home.write("storm", "");
    weather.storm.store(true, Ordering::SeqCst);
    until("three floods of every kind", PATIENCE, || async {
        let floods = weather.floods.iter().all(|flood| flood.load(Ordering::SeqCst) >= 3);
        let wild = ["line", "stderr"].iter().all(|name| home.path().join(name).exists());
        (floods && wild).then_some(())
    })
    .await;
    until("verdicts on every kind of flood", PATIENCE, || async {
        let status = home.status().await?;
        let failing = |service: &serde_json::Value| {
            let evidence = service["failure"].to_string();
            let calm = evidence.contains("503") || evidence.contains("exited_at_start");
            !calm && service["failure"].is_object()
        };
        status["services"].as_array()?.iter().all(failing).then_some(())
    })
    .await;
    let peak = memory(&home, "VmHWM");
    let status = home.status().await.unwrap();
    for service in status["services"].as_array().unwrap() {
        println!(
            "{}: {} {}",
            service["service"], service["failure"]["code"], service["failure"]["message"]
        );
    }

    weather.storm.store(false, Ordering::SeqCst);
    std::fs::remove_file(home.path().join("storm")).unwrap();
    let calm = tokio::time::Instant::now();
    until("the memory to be given back", BACK_WITHIN, || async {
        (memory(&home, "VmRSS") <= idle + 16 * MIB).then_some(())
    })
    .await;
    println!(
        "idle {} kB, peak {} kB, back at {} kB after {:.1} s; most sent on one connection {} kB; {:?}",
        idle / 1024,
        peak / 1024,
        memory(&home, "VmRSS") / 1024,
        calm.elapsed().as_secs_f64(),
        weather.most_sent.load(Ordering::SeqCst) / 1024,
        weather.floods,
    );
    assert!(peak - idle < SERVICES * CAP + 32 * MIB, "idle {idle}, peak {peak}");
    drop(up);
}
