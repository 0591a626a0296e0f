//! `mcpmon/export/v1` as one object.

use std::io::{self, Write};

use mcpmon_core::text::for_json;
use mcpmon_core::{ServiceName, Timestamp};
use serde::Serialize;

use super::spool::Spool;
use super::{EXPORT_SCHEMA, ExportError, ExportQuery, Exporter};

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
    exporter
        .each_record(query, |record| {
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
