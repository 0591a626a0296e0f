//! Rows under headings, one line each.
//!
//! A row is a line, always: people grep it, and a reason belongs beside the name. So where the
//! terminal is narrow a cell is cut, not wrapped: the last column first, then the widest.

use anstyle::Style;
use mcpmon_core::text;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::style::Look;

const GAP: &str = "  ";

/// A name or word longer than this is cut, so that one hostile name cannot push every row apart.
const WIDEST_CELL: usize = 40;

/// No column is cut below this.
const NARROWEST: usize = 12;

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
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: text::for_terminal(text.as_ref()), style: Style::new() }
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
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Every line, headings first, none longer than `width`.
    pub(crate) fn render(&self, width: Option<usize>, look: Look) -> String {
        let headings: Vec<Cell> = self
            .columns
            .iter()
            .map(|(heading, _)| Cell::from(*heading).styled(Style::new().bold()))
            .collect();
        let widths = self.widths(&headings, width);
        let mut out = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            self.push_line(&mut out, row, &widths, look);
        }
        out
    }

    fn widths(&self, headings: &[Cell], width: Option<usize>) -> Vec<usize> {
        let last = self.columns.len().saturating_sub(1);
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                std::iter::once(headings)
                    .chain(self.rows.iter().map(Vec::as_slice))
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.text.width())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for width in widths.iter_mut().take(last) {
            *width = (*width).min(WIDEST_CELL);
        }
        if let Some(total) = width {
            shrink(&mut widths, total);
        }
        widths
    }

    fn push_line(&self, out: &mut String, row: &[Cell], widths: &[usize], look: Look) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let text = cut(&cell.text, *width, look);
            let pad = " ".repeat(width.saturating_sub(text.width()));
            let painted = look.paint(&text, cell.style);
            match align {
                Align::Left => line.extend([painted.as_str(), pad.as_str()]),
                Align::Right => line.extend([pad.as_str(), painted.as_str()]),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Makes room: first the last column gives way, then the widest of the others, one by one.
fn shrink(widths: &mut [usize], total: usize) {
    let Some((last, others)) = widths.split_last_mut() else {
        return;
    };
    let over = |last: usize, others: &[usize]| {
        let used: usize = others.iter().map(|width| width + GAP.len()).sum();
        (used + last).saturating_sub(total)
    };
    *last -= over(*last, others).min(last.saturating_sub(NARROWEST));
    while over(*last, others) > 0 {
        match others.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
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
