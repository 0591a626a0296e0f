//! Rows under headings, one line each.
//!
//! A row is a line, always: people grep it, and a reason belongs beside the name. So where the
//! terminal is narrow a cell is cut, not wrapped. What gives way, in this order: the last column as
//! far as its cells say, long names, columns that may be left out, short names, and in the end the
//! rest of the last column. A time or a number is never cut: half of one is a wrong one.

use anstyle::Style;
use mcpmon_core::text;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::style::Look;

const GAP: &str = "  ";

/// A name or word longer than this is cut, so that one hostile name cannot push every row apart.
const WIDEST_CELL: usize = 40;

/// No column is cut below this.
const NARROWEST: usize = 12;

/// Nor below this while there are columns to leave out.
const COMFORTABLE: usize = 16;

/// Which side of its column a cell stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// One cell. Its text is escaped for the terminal when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    /// Columns of the text that are worth more than other columns of the table.
    least: usize,
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: text::for_terminal(text.as_ref()), style: Style::new(), least: 0 }
    }

    /// Keeps the first `columns` of the text for as long as anything else can give way. Of the last
    /// column only.
    pub(crate) fn at_least(mut self, columns: usize) -> Self {
        self.least = columns;
        self
    }

    pub(crate) fn styled(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Columns with headings, and rows of cells.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rigid: Vec<&'static str>,
    optional: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rigid: Vec::new(),
            optional: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Never cuts these columns; numbers, which stand on the right, are never cut either.
    pub(crate) fn rigid(mut self, headings: &[&'static str]) -> Self {
        self.rigid = headings.to_vec();
        self
    }

    /// Leaves these columns out, the first first, where there is no room for them.
    pub(crate) fn optional(mut self, headings: &[&'static str]) -> Self {
        self.optional = headings.to_vec();
        self
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Every line, headings first, none longer than `width` unless what is never cut is.
    pub(crate) fn render(&self, width: Option<usize>, look: Look) -> String {
        let headings: Vec<Cell> = self
            .columns
            .iter()
            .map(|(heading, _)| Cell::from(*heading).styled(Style::new().bold()))
            .collect();
        let mut columns = self.measure(&headings);
        if let Some(total) = width {
            fit(&mut columns, total, &self.optional);
        }
        let mut out = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            push_line(&mut out, row, &columns, look);
        }
        out
    }

    fn measure(&self, headings: &[Cell]) -> Vec<Column> {
        let last = self.columns.len().saturating_sub(1);
        let measured = self.columns.iter().enumerate().map(|(place, (heading, align))| {
            let rows = std::iter::once(headings).chain(self.rows.iter().map(Vec::as_slice));
            let cells = rows.filter_map(|row| row.get(place));
            let (mut wanted, mut least) = (0, 0);
            for cell in cells {
                wanted = wanted.max(cell.text.width());
                least = least.max(cell.least);
            }
            if place < last {
                wanted = wanted.min(WIDEST_CELL);
            }
            let is_rigid = *align == Align::Right || self.rigid.contains(heading);
            let least = least.max(NARROWEST).min(wanted);
            Column { heading, align: *align, is_rigid, wanted, least, width: Some(wanted) }
        });
        measured.collect()
    }
}

/// A column as wide as it is to be drawn.
#[derive(Debug, Clone, Copy)]
struct Column {
    heading: &'static str,
    align: Align,
    is_rigid: bool,
    wanted: usize,
    least: usize,
    /// `None` where there is no room for it.
    width: Option<usize>,
}

fn push_line(out: &mut String, row: &[Cell], columns: &[Column], look: Look) {
    let mut line = String::new();
    for (cell, column) in row.iter().zip(columns) {
        let Some(width) = column.width else { continue };
        if !line.is_empty() {
            line.push_str(GAP);
        }
        let text = cut(&cell.text, width, look);
        let pad = " ".repeat(width.saturating_sub(text.width()));
        let painted = look.paint(&text, cell.style);
        match column.align {
            Align::Left => line.extend([painted.as_str(), pad.as_str()]),
            Align::Right => line.extend([pad.as_str(), painted.as_str()]),
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// Makes room until the columns fit into `total`, or nothing is left to give way.
fn fit(columns: &mut [Column], total: usize, optional: &[&'static str]) {
    if columns.is_empty() {
        return;
    }
    let mut to_drop = optional.iter();
    loop {
        columns.iter_mut().for_each(|column| {
            column.width = column.width.map(|_| column.wanted);
        });
        let least = columns.last().map_or(0, |last| last.least);
        shrink_last(columns, total, least);
        shrink_names(columns, total, COMFORTABLE);
        if over(columns, total) == 0 {
            return;
        }
        match to_drop.next() {
            Some(heading) => columns
                .iter_mut()
                .filter(|column| column.heading == *heading)
                .for_each(|column| column.width = None),
            None => break,
        }
    }
    shrink_names(columns, total, NARROWEST);
    shrink_last(columns, total, NARROWEST);
}

/// Columns of the terminal that are missing.
fn over(columns: &[Column], total: usize) -> usize {
    let used: usize = columns.iter().filter_map(|c| c.width).map(|width| width + GAP.len()).sum();
    used.saturating_sub(GAP.len()).saturating_sub(total)
}

fn shrink_last(columns: &mut [Column], total: usize, least: usize) {
    let over = over(columns, total);
    if let Some(Column { width: Some(width), .. }) = columns.last_mut() {
        *width -= over.min(width.saturating_sub(least));
    }
}

/// Takes from the widest of the others, one by one.
fn shrink_names(columns: &mut [Column], total: usize, least: usize) {
    while over(columns, total) > 0 {
        let (_, others) =
            columns.split_last_mut().map_or((None, &mut [][..]), |(l, o)| (Some(l), o));
        let names = others.iter_mut().filter(|column| !column.is_rigid);
        match names.filter_map(|column| column.width.as_mut()).max() {
            Some(widest) if *widest > least => *widest -= 1,
            _ => return,
        }
    }
}

/// Cuts text to a width in columns, showing the cut.
pub(crate) fn cut(text: &str, width: usize, look: Look) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mark = if look.unicode { "…" } else { "..." };
    let room = width.saturating_sub(mark.width());
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        out.push(c);
    }
    out.push_str(mark);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("WHY", Align::Left)]);
        table.row(["files".into(), "12".into(), "command_not_found: npx is not on PATH".into()]);
        table.row(["日本".into(), "1".into(), "".into()]);
        table
    }

    #[test]
    fn the_last_column_gives_way_first() {
        let text = table().render(Some(30), Look::plain());
        assert_eq!(text, "NAME    N  WHY\nfiles  12  command_not_found:…\n日本    1\n");
        assert!(text.lines().all(|line| line.width() <= 30));
    }

    #[test]
    fn a_time_is_never_cut_and_what_can_be_spared_goes_before_a_code() {
        let columns = [
            ("TIME", Align::Left),
            ("NAME", Align::Left),
            ("SPARE", Align::Left),
            ("N", Align::Right),
            ("WHY", Align::Left),
        ];
        let mut table = Table::new(&columns).rigid(&["TIME"]).optional(&["SPARE"]);
        let code = "command_not_found";
        let why = Cell::new(format!("{code}: npx is not on PATH")).at_least(code.len() + 2);
        let name = "a-service-with-a-long-name";
        table.row(["2026-11-22 14:09".into(), name.into(), "spare".into(), "123456".into(), why]);
        let at =
            |width| table.render(Some(width), Look::plain()).lines().nth(1).unwrap().to_owned();
        insta::assert_snapshot!([100, 80, 70, 60, 40].map(at).join("\n"), @r#"
        2026-11-22 14:09  a-service-with-a-long-name  spare  123456  command_not_found: npx is not on PATH
        2026-11-22 14:09  a-service-with-a-long-name  spare  123456  command_not_found:…
        2026-11-22 14:09  a-service-with-…  spare  123456  command_not_found:…
        2026-11-22 14:09  a-service-wi…  123456  command_not_found:…
        2026-11-22 14:09  a-service-w…  123456  command_not…
        "#);
    }

    #[test]
    fn a_pipe_cuts_nothing() {
        assert!(table().render(None, Look::plain()).contains("on PATH"));
    }

    #[test]
    fn a_hostile_cell_stays_in_its_line() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Left)]);
        table.row([Cell::new("a\x1b[2Jb\nc"), "1".into()]);
        let text = table.render(Some(80), Look::plain());
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\x1b'));
    }
}
