//! `mcpmon/export/v1`, whole or a line each.

use std::io::{self, Write};

use mcpmon_core::store::AlertRecord;
use mcpmon_core::text::for_json;
use mcpmon_core::{ServiceName, Timestamp};
use serde::Serialize;

use super::spool::Spool;
use super::{EXPORT_SCHEMA, ExportError, ExportQuery, ExportRecord, Exporter, replay};

/// Indents a value as it stands `depth` levels deep.
fn pretty(value: &impl Serialize, depth: usize) -> io::Result<String> {
    let text = for_json(&serde_json::to_string_pretty(value)?);
    // Line breaks inside of strings are escaped, so these are all the layout's.
    Ok(text.replace('\n', &format!("\n{}", "  ".repeat(depth))))
}

/// Writes one indented object.
pub(super) async fn write(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    now: Timestamp,
    out: &mut (dyn Write + Send),
) -> Result<bool, ExportError> {
    let mut spool = Spool::new();
    replay::each_record(exporter.samples, query, |record| {
        let text = pretty(record, 3)?;
        Ok(spool.push(&record.metrics.service_name, ",\n      ", text.as_bytes())?)
    })
    .await?;
    let mut alerts = Spool::new();
    let lane = ServiceName::from("");
    exporter
        .each_alert(query, |alert| {
            let text = pretty(alert, 2)?;
            Ok(alerts.push(&lane, ",\n    ", text.as_bytes())?)
        })
        .await?;
    if spool.is_empty() && alerts.is_empty() {
        return Ok(false);
    }
    write!(out, "{{\n  \"schema\": \"{EXPORT_SCHEMA}\",\n  \"export_time\": \"{now}\",\n")?;
    out.write_all(b"  \"services\": {")?;
    let services = !spool.is_empty();
    spool.drain(
        out,
        |out, service, first| {
            let name = for_json(&serde_json::to_string(service)?);
            write!(out, "{}\n    {name}: [\n      ", if first { "" } else { "," })
        },
        |out| out.write_all(b"\n    ]"),
    )?;
    out.write_all(if services { b"\n  },\n" } else { b"},\n" })?;
    out.write_all(b"  \"alerts\": [")?;
    let any = !alerts.is_empty();
    alerts.drain(out, |out, _, _| out.write_all(b"\n    "), |_| Ok(()))?;
    out.write_all(if any { b"\n  ]\n}\n" } else { b"]\n}\n" })?;
    out.flush()?;
    Ok(true)
}

/// One line of JSON lines; `record` says which kind it is.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line<'a> {
    Export { schema: &'static str, export_time: Timestamp },
    Snapshot(&'a ExportRecord),
    Alert(&'a AlertRecord),
}

/// Writes one object a line: a header, snapshots in order of time, alerts newest first.
pub(super) async fn write_lines(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    now: Timestamp,
    out: &mut (dyn Write + Send),
) -> Result<bool, ExportError> {
    let mut any = false;
    let mut line = |line: Line<'_>| -> Result<(), ExportError> {
        if !std::mem::replace(&mut any, true) {
            let header = Line::Export { schema: EXPORT_SCHEMA, export_time: now };
            write_line(out, &header)?;
        }
        Ok(write_line(out, &line)?)
    };
    replay::each_record(exporter.samples, query, |record| line(Line::Snapshot(record))).await?;
    exporter.each_alert(query, |alert| line(Line::Alert(alert))).await?;
    out.flush()?;
    Ok(any)
}

fn write_line(out: &mut (dyn Write + Send), line: &Line<'_>) -> io::Result<()> {
    let mut text = for_json(&serde_json::to_string(line)?);
    text.push('\n');
    out.write_all(text.as_bytes())
}
