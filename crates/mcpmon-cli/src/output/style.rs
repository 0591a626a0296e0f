//! Glyphs and colours. Colour only ever repeats what a glyph and a word already say.

use anstyle::{AnsiColor, Style};
use mcpmon_core::{Level, Status};

use super::table::Cell;

/// What the far end can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether styles are written.
    pub colour: bool,
    /// Whether characters beyond ASCII are drawn.
    pub unicode: bool,
}

impl Look {
    /// No colour, all of Unicode: a file, a pipe, a test.
    pub const fn plain() -> Self {
        Self { colour: false, unicode: true }
    }

    /// What the environment says. Only a locale that names another encoding turns glyphs into
    /// letters: an unset one says nothing about the terminal.
    pub(crate) fn from_env(colour: bool) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        Self { colour, unicode: locale.is_none_or(|locale| speaks_utf8(&locale)) }
    }

    /// The glyph of a status; always followed by its word.
    pub const fn glyph(self, status: Status) -> &'static str {
        match (status, self.unicode) {
            (Status::Unknown, _) => "?",
            (Status::Running, true) => "●",
            (Status::Running, false) => "*",
            (Status::Degraded, true) => "◐",
            (Status::Degraded, false) => "~",
            (Status::AuthRequired, _) => "!",
            (Status::Stopped, true) => "○",
            (Status::Stopped, false) => "o",
            (Status::Error, true) => "✗",
            (Status::Error, false) => "x",
            (Status::Starting, true) => "◌",
            (Status::Starting, false) => ".",
            (Status::Paused, true) => "‖",
            (Status::Paused, false) => "=",
        }
    }

    /// `text` in `style`, or as it is where colours are not wanted.
    pub fn paint(self, text: &str, style: Style) -> String {
        if self.colour && style != Style::new() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// A dot between two parts of a line.
    pub(crate) const fn dot(self) -> &'static str {
        if self.unicode { "·" } else { "-" }
    }

    /// An arrow from one state to the next.
    pub(crate) const fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }
}

fn speaks_utf8(locale: &str) -> bool {
    let encoding = locale.split('@').next().unwrap_or_default();
    let plain: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    plain.to_ascii_lowercase().ends_with("utf8")
}

const fn coloured(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(colour)))
}

pub(crate) fn status_style(status: Status) -> Style {
    match status {
        Status::Running => coloured(AnsiColor::Green),
        Status::Degraded | Status::AuthRequired => coloured(AnsiColor::Yellow),
        Status::Stopped | Status::Error => coloured(AnsiColor::Red).bold(),
        Status::Unknown | Status::Starting | Status::Paused => Style::new().dimmed(),
    }
}

pub(crate) fn level_style(level: Level) -> Style {
    match level {
        Level::Info => Style::new(),
        Level::Warning => coloured(AnsiColor::Yellow),
        Level::Error => coloured(AnsiColor::Red),
        Level::Critical => coloured(AnsiColor::Red).bold(),
    }
}

/// Glyph and word of a status.
pub(crate) fn status_cell(status: Status, look: Look) -> Cell {
    Cell::new(format!("{} {status}", look.glyph(status))).styled(status_style(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_glyph_of_one_column_in_both_looks() {
        for unicode in [true, false] {
            let look = Look { colour: false, unicode };
            for status in Status::WORST_FIRST {
                let glyph = look.glyph(status);
                assert_eq!(unicode_width::UnicodeWidthStr::width(glyph), 1, "{status}");
                assert!(unicode || glyph.is_ascii(), "{status}");
            }
        }
    }

    #[test]
    fn locales_are_read() {
        for (locale, utf8) in [
            ("en_US.UTF-8", true),
            ("C.utf8", true),
            ("de_DE.UTF-8@euro", true),
            ("C", false),
            ("POSIX", false),
            ("en_US.ISO-8859-1", false),
        ] {
            assert_eq!(speaks_utf8(locale), utf8, "{locale}");
        }
    }
}
