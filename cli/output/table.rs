//! Aligned tables: columns as wide as their widest cell on a terminal, no lines, no trailing blanks.

use crate::output::escape::escape;
use unicode_width::UnicodeWidthStr;

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A head and rows of the same number of cells.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; control characters are shown escaped.
    pub fn row(&mut self, cells: &[String]) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows
            .push(cells.iter().map(|cell| escape(cell)).collect());
    }

    /// The table; nothing at all when it has no rows.
    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let head: Vec<String> = self.columns.iter().map(|c| c.0.to_owned()).collect();
        let mut widths: Vec<usize> = head.iter().map(|cell| cell.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        std::iter::once(&head)
            .chain(&self.rows)
            .map(|row| self.line(row, &widths))
            .collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(&self.columns) {
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) = match align {
                Align::Left => ("", blanks.as_str()),
                Align::Right => (blanks.as_str(), ""),
            };
            line.extend([before, cell, after, "  "]);
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// `label  value` lines, values in one column.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(label, _)| label.width())
        .max()
        .unwrap_or(0);
    let line = |(label, value): &(&str, String)| {
        let blanks = " ".repeat(width - label.width());
        format!("{label}{blanks}  {}\n", escape(value))
    };
    pairs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_keep_the_columns_straight() {
        let mut table = Table::new(&[("DEVICE", Align::Left), ("SIZE", Align::Right)]);
        table.row(&["日本".into(), "4.0 GiB".into()]);
        table.row(&["a\nb".into(), "1 B".into()]);
        assert_eq!(
            table.text(),
            "DEVICE     SIZE\n日本    4.0 GiB\na\\nb        1 B\n"
        );
    }

    #[test]
    fn an_empty_table_has_no_head() {
        assert_eq!(Table::new(&[("DEVICE", Align::Left)]).text(), "");
    }

    #[test]
    fn pairs_stand_in_two_columns() {
        let text = pairs(&[("id", "1".into()), ("name", "monday".into())]);
        assert_eq!(text, "id    1\nname  monday\n");
    }
}
