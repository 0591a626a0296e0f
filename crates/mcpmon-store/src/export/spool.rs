//! Puts what comes in order of time into order of service, in bounded memory.
//!
//! A JSON export groups snapshots by service, a store gives them by time. Asking once per service
//! would read the history as often as there are services; instead one pass is spooled to a
//! temporary file in chunks, and each service's chunks are copied out together.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use mcpmon_core::ServiceName;
use tempfile::SpooledTempFile;

/// Bytes of all services before the spool goes to disk.
const IN_MEMORY: usize = 4 << 20;
/// Bytes of one service before they are put away, where services are few.
const CHUNK: usize = 16 << 10;
/// Bytes of all services that wait to be put away, give or take a record each.
const PENDING: usize = 8 << 20;

/// Records by service.
pub(super) struct Spool {
    file: SpooledTempFile,
    end: u64,
    lanes: BTreeMap<ServiceName, Lane>,
}

#[derive(Default)]
struct Lane {
    records: u64,
    pending: Vec<u8>,
    /// Where its chunks begin, and how long they are.
    chunks: Vec<(u64, u64)>,
}

impl Spool {
    pub(super) fn new() -> Self {
        Self { file: SpooledTempFile::new(IN_MEMORY), end: 0, lanes: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Adds a record of a service, `separator` before all but its first.
    pub(super) fn push(
        &mut self,
        service: &ServiceName,
        separator: &str,
        record: &[u8],
    ) -> io::Result<()> {
        if !self.lanes.contains_key(service) {
            self.lanes.insert(service.clone(), Lane::default());
        }
        let chunk = CHUNK.min(PENDING / self.lanes.len());
        let Some(lane) = self.lanes.get_mut(service) else { return Ok(()) };
        if lane.records > 0 {
            lane.pending.extend_from_slice(separator.as_bytes());
        }
        lane.records += 1;
        lane.pending.extend_from_slice(record);
        if lane.pending.len() >= chunk {
            let length = lane.pending.len() as u64;
            self.file.write_all(&lane.pending)?;
            lane.chunks.push((self.end, length));
            // Its room goes as well: thousands of services would each keep their largest.
            lane.pending = Vec::new();
            self.end += length;
        }
        Ok(())
    }

    /// Copies out each service's records, by name. `open` and `close` write what stands around
    /// them; `open` is told whether it is the first.
    pub(super) fn drain(
        mut self,
        out: &mut (dyn Write + Send),
        open: impl Fn(&mut dyn Write, &ServiceName, bool) -> io::Result<()>,
        close: impl Fn(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut first = true;
        for (service, lane) in std::mem::take(&mut self.lanes) {
            open(out, &service, first)?;
            first = false;
            for (start, length) in lane.chunks {
                self.file.seek(SeekFrom::Start(start))?;
                io::copy(&mut (&mut self.file).take(length), out)?;
            }
            out.write_all(&lane.pending)?;
            close(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_by_service_and_in_order() {
        let mut spool = Spool::new();
        let long = "x".repeat(CHUNK / 3);
        for n in 0..10 {
            for service in ["b", "a"] {
                let record = format!("{service}{n}{long}");
                spool.push(&service.into(), ",", record.as_bytes()).unwrap();
            }
        }
        let mut out = Vec::new();
        let open = |out: &mut dyn Write, service: &ServiceName, first| {
            write!(out, "{}{service}[", if first { "" } else { ";" })
        };
        spool.drain(&mut out, open, |out| write!(out, "]")).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&long, "");
        assert_eq!(text, "a[a0,a1,a2,a3,a4,a5,a6,a7,a8,a9];b[b0,b1,b2,b3,b4,b5,b6,b7,b8,b9]");
    }
}
