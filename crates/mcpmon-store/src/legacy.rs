//! The head as schema 2 had it, a table's row for each check, taken over into that of schema 3.

use rusqlite::{Connection, Transaction, params};

use crate::batch::BatchWriter;
use crate::head::Mark;
use crate::row::Row;

/// Checks of one row of the new head: some pages.
const AT_ONCE: usize = 256;

/// Moves every check of `check_head` into `head`, under its number, and drops the table.
pub(crate) fn move_head(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    copy_head(transaction)?;
    transaction.execute_batch("DROP TABLE check_head")
}

fn copy_head(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let runs = runs(transaction)?;
    let sql = format!("SELECT id, service, {} FROM check_head ORDER BY id", Row::COLUMNS);
    let mut statement = transaction.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut insert = transaction.prepare("INSERT INTO head (first, checks) VALUES (?1, ?2)")?;
    let mut batch = BatchWriter::default();
    let (mut first, mut next, mut held) = (0, 0, 0);
    while let Some(row) = rows.next()? {
        let (id, service) = (row.get::<_, i64>(0)?, row.get(1)?);
        // Numbers of one row have no gaps, and none reaches into the next run.
        let is_apart = id != next || runs.binary_search(&id).is_ok() || held >= AT_ONCE;
        if is_apart && !batch.is_empty() {
            insert.execute(params![first, batch.bytes()])?;
            batch.clear();
        }
        if batch.is_empty() {
            (first, held) = (id, 0);
        }
        batch.push(service, &Row::read(row, 2)?);
        (next, held) = (id + 1, held + 1);
    }
    if !batch.is_empty() {
        insert.execute(params![first, batch.bytes()])?;
    }
    Ok(())
}

/// Where runs of the head begin.
fn runs(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let sql = format!("SELECT {} FROM head_mark ORDER BY first", Mark::COLUMNS);
    let mut statement = connection.prepare(&sql)?;
    let marks = statement.query_map([], Mark::read)?;
    marks.map(|mark| Ok(mark?.first)).collect()
}
