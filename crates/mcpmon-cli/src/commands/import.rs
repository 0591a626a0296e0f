//! `mcpmon import FILE`: puts an export back.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use mcpmon_core::store::SampleStore;
use mcpmon_core::text;
use mcpmon_engine::MemoryStore;
use mcpmon_store::import::{ImportError, Importer};
use mcpmon_store::{OpenOptions, SqliteStore};

use super::archive::with_next_step;
use crate::exit::{CliError, Exit};
use crate::output::{self, Meter, Output};
use crate::paths::Paths;

/// Bytes of a file that say what it is.
const TELLING: u64 = 512;

/// Reads an export back into the history. The monitor must not be running.
///
/// A file with a mistake in it changes nothing. What is there already is left out, so a file may be
/// read twice, and an import that was interrupted is finished by reading the file again.
#[derive(Debug, clap::Args)]
#[command(override_usage = "mcpmon import [jsonl] <FILE>")]
pub(crate) struct Args {
    /// The file, `-` for standard input; what `mcpmon export jsonl` writes. Its format may stand
    /// before it.
    #[arg(value_name = "FILE", required = true, num_args = 1..=2)]
    words: Vec<OsString>,
}

impl Args {
    fn file(&self) -> Result<&Path, CliError> {
        let usage = |message: String| Err(CliError::Usage(message));
        match &self.words[..] {
            [format, file] if format == "jsonl" => Ok(Path::new(file)),
            [format, _] => usage(format!(
                "`{}` cannot be read back; write the export with `mcpmon export jsonl`",
                format.to_string_lossy()
            )),
            [word] if word == "jsonl" && !Path::new(word).exists() => {
                usage("name the file to read: mcpmon import jsonl FILE".to_owned())
            }
            [file] => Ok(Path::new(file)),
            _ => usage("name the file to read: mcpmon import FILE".to_owned()),
        }
    }
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let path = args.file()?;
    let (mut input, shown) = open(path)?;
    recognise(&mut input, &shown)?;
    if !paths.database().exists() {
        look_through(&mut input).await.map_err(|error| failed(&shown, error))?;
    }
    let store = SqliteStore::open(paths.database(), OpenOptions::default())
        .map_err(|error| with_next_step(error, "`mcpmon up --once`"))?;
    let length = input.get_ref().metadata().map_or(0, |file| file.len());
    let meter = Meter::new();
    let samples: &dyn SampleStore = &store;
    let importer = Importer::new(samples, &store).watched(|progress| {
        let done = progress.bytes as f64 / length.max(1) as f64;
        let doing = if progress.is_writing { "importing" } else { "checking" };
        let lines = output::number(progress.lines);
        meter.show(&format!("{doing} {shown}: {lines} lines, {:.0} %", done * 100.0));
    });
    let done = importer.read_jsonl(&mut input).await;
    meter.clear();
    let done = done.map_err(|error| failed(&shown, error))?;
    let count = |number: u64, what| {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        output::count(number, what)
    };
    output.line(&format!(
        "imported {}, {} and {}",
        count(done.checks, "check"),
        count(done.changes, "status change"),
        count(done.alerts, "alert"),
    ));
    if done.known > 0 {
        let verb = if done.known == 1 { "was" } else { "were" };
        output::say(&format!("{} {verb} there already", output::number(done.known)));
    }
    Ok(Exit::Ok)
}

/// Looks at every line and keeps none, so that a file with a mistake begins no history.
async fn look_through(input: &mut BufReader<File>) -> Result<(), ImportError> {
    let nowhere = MemoryStore::new();
    let mut once = Once { input, is_read: false };
    let looked = Importer::new(&nowhere, &nowhere).read_jsonl(&mut once).await;
    let is_read = once.is_read;
    input.seek(SeekFrom::Start(0))?;
    match looked {
        Err(ImportError::Input(_)) if is_read => Ok(()),
        looked => looked.map(|_| ()),
    }
}

/// An input that does not go back: what an import looks at before it writes is all it gets.
struct Once<'a> {
    input: &'a mut BufReader<File>,
    is_read: bool,
}

impl Read for Once<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(into)
    }
}

impl BufRead for Once<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
    }
}

impl Seek for Once<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        if to == SeekFrom::Current(0) {
            return self.input.stream_position();
        }
        self.is_read = true;
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Says what was done where an import ended early.
fn failed(shown: &str, error: ImportError) -> CliError {
    match error {
        ImportError::Store(error) => CliError::Store(error),
        ImportError::Input(error) => CliError::io(format!("cannot read `{shown}`"), error),
        error @ ImportError::Line { .. } => {
            CliError::Usage(format!("`{shown}`: {error}; nothing was imported"))
        }
        error => CliError::Usage(format!(
            "`{shown}`: {error}; what comes before may be imported: once the file is whole, import \
             it again, and what is there already is left out"
        )),
    }
}

/// The file, and how it is called; standard input is put into a file first, since it is read twice.
fn open(path: &Path) -> Result<(BufReader<File>, String), CliError> {
    if path == Path::new("-") {
        let keep = || -> std::io::Result<File> {
            let mut kept = tempfile::tempfile()?;
            std::io::copy(&mut std::io::stdin().lock(), &mut kept)?;
            kept.seek(SeekFrom::Start(0))?;
            Ok(kept)
        };
        let kept = keep().map_err(|error| CliError::io("cannot keep standard input", error))?;
        return Ok((BufReader::new(kept), "standard input".to_owned()));
    }
    let shown = text::for_terminal(&path.display().to_string());
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => CliError::Usage(format!("there is no file `{shown}`")),
        _ => CliError::io(format!("cannot read `{shown}`"), error),
    };
    let file = File::open(path).map_err(failed)?;
    let is_folder = file.metadata().is_ok_and(|about| about.is_dir());
    if is_folder {
        return Err(CliError::Usage(format!("`{shown}` is a folder; name an export in it")));
    }
    Ok((BufReader::new(file), shown))
}

/// Says what a file is that is no JSON lines, as far as its beginning tells.
fn recognise(input: &mut BufReader<File>, shown: &str) -> Result<(), CliError> {
    let unreadable = |error| CliError::io(format!("cannot read `{shown}`"), error);
    let mut begin = Vec::new();
    input.by_ref().take(TELLING).read_to_end(&mut begin).map_err(unreadable)?;
    input.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let first = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let what = match first.trim() {
        _ if begin.starts_with(b"SQLite format 3\0") => {
            let restore = format!("`{shown}` is a database; put it back with `mcpmon db restore`");
            return Err(CliError::Usage(restore));
        }
        "{" | "{}" => "an indented JSON export",
        line if line.starts_with("active_connections,") => "a CSV export",
        _ => return Ok(()),
    };
    Err(CliError::Usage(format!(
        "`{shown}` is {what}; only JSON lines can be read back: write them with `mcpmon export jsonl`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_ends_early_says_what_was_imported_and_whose_fault_it_is() {
        let message = || "expected value".to_owned();
        let ended = |error| {
            let error = failed("all.jsonl", error);
            (error.exit(), error.to_string())
        };
        let (exit, said) = ended(ImportError::Input(std::io::Error::other("disk gone")));
        assert_eq!(exit, Exit::CouldNotRun);
        assert!(said.contains("disk gone") && !said.contains("nothing was imported"), "{said}");
        let (exit, said) = ended(ImportError::Line { line: 7, message: message() });
        assert_eq!(exit, Exit::Usage);
        assert!(said.contains("line 7") && said.contains("nothing was imported"), "{said}");
        let (_, said) = ended(ImportError::Changed { line: 7, message: message() });
        assert!(said.contains("line 7") && !said.contains("nothing was imported"), "{said}");
    }

    fn file(words: &[&str]) -> Result<String, String> {
        let args = Args { words: words.iter().map(OsString::from).collect() };
        let file = args.file().map(|path| path.display().to_string());
        file.map_err(|error| error.to_string())
    }

    #[test]
    fn the_format_may_be_left_out_and_what_is_missing_is_named() {
        assert_eq!(file(&["all.jsonl"]), Ok("all.jsonl".to_owned()));
        assert_eq!(file(&["jsonl", "all"]), Ok("all".to_owned()));
        assert!(file(&["jsonl"]).unwrap_err().contains("mcpmon import jsonl FILE"));
        assert!(file(&["csv", "all.csv"]).unwrap_err().contains("mcpmon export jsonl"));
    }
}
