//! One service's snapshots as a table.
//!
//! The columns are every field a record can have, sorted, known before the first row, so that rows
//! stream. Cells are text from servers as much as numbers: each goes through core's escape.

use std::io::Write;

use mcpmon_core::metrics::ProcessMetrics;
use mcpmon_core::store::CheckRecord;
use mcpmon_core::text::for_csv;
use mcpmon_core::{
    FailureCode, Observation, Phases, Question, ServiceMetrics, ServiceName, Timestamp,
};
use serde_json::Value;

use super::{ExportError, ExportQuery, ExportRecord, Exporter};

/// Fields of the check that every record has already.
const DOUBLED: [&str; 2] = ["check_service", "check_at"];

/// A column: its heading, and where its value stands in a record's JSON.
struct Column {
    name: String,
    pointer: String,
}

/// Writes the table of the query's service.
pub(super) async fn write(
    exporter: &Exporter<'_>,
    query: &ExportQuery,
    out: &mut (dyn Write + Send),
) -> Result<bool, ExportError> {
    if query.service.is_none() {
        return Err(ExportError::ServiceNeeded);
    }
    let columns = columns()?;
    let mut table = csv::Writer::from_writer(out);
    let mut any = false;
    exporter
        .each_record(query, |record| {
            if !std::mem::replace(&mut any, true) {
                table.write_record(columns.iter().map(|column| &column.name)).map_err(io_error)?;
            }
            let record = serde_json::to_value(record).map_err(std::io::Error::from)?;
            let cells = columns.iter().map(|column| cell(record.pointer(&column.pointer)));
            Ok(table.write_record(cells).map_err(io_error)?)
        })
        .await?;
    table.flush()?;
    Ok(any)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => for_csv(text),
        Some(value) => value.to_string(),
    }
}

fn io_error(error: csv::Error) -> std::io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => std::io::Error::other(format!("{other:?}")),
    }
}

/// Every field there can be, sorted.
fn columns() -> Result<Vec<Column>, ExportError> {
    let whole = serde_json::to_value(with_every_field()).map_err(std::io::Error::from)?;
    let mut columns = Vec::new();
    flatten(&whole, "", "", &mut columns);
    columns.retain(|column| !DOUBLED.contains(&column.name.as_str()));
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(columns)
}

fn flatten(value: &Value, name: &str, pointer: &str, columns: &mut Vec<Column>) {
    let Value::Object(fields) = value else {
        columns.push(Column { name: name.to_owned(), pointer: pointer.to_owned() });
        return;
    };
    for (field, value) in fields {
        let name = if name.is_empty() { field.clone() } else { format!("{name}_{field}") };
        flatten(value, &name, &format!("{pointer}/{field}"), columns);
    }
}

/// A record nothing is missing from.
fn with_every_field() -> ExportRecord {
    let service = ServiceName::from("");
    let at = Timestamp::default();
    let phases = Phases {
        spawn_ms: Some(0.0),
        dns_ms: Some(0.0),
        connect_ms: Some(0.0),
        tls_ms: Some(0.0),
        handshake_ms: Some(0.0),
        list_ms: Some(0.0),
    };
    let check = CheckRecord::new(service.clone(), at, Question::Health, &Observation::answered());
    let check = CheckRecord {
        code: Some(FailureCode::Exited),
        phases,
        process: Some(ProcessMetrics::default()),
        ..check
    };
    ExportRecord { timestamp: at, metrics: ServiceMetrics::unknown(service), check }
}
