//! Tables for people: columns as wide as their widest cell, no wider than they must be.

use console::measure_text_width;

use super::text;

/// Columns with a head. Cells may have colours.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Of cells that are texts of others nothing steers the terminal, or ends the line.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| text::shown(cell)).collect());
    }

    /// As text that ends with a newline; each line without spaces at its end.
    pub(crate) fn render(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..head.len())
            .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| measure_text_width(cell)).max())
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for line in lines {
            let mut shown = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                shown.push_str(cell);
                shown.push_str(&" ".repeat(width.saturating_sub(measure_text_width(cell)) + 2));
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell_whatever_its_colours_and_letters() {
        let mut table = Table::new(&["STEP", "STATE", "WHERE"]);
        table.row(vec!["größe 大".to_owned(), "\x1b[32mpassed\x1b[0m".to_owned(), "box".to_owned()]);
        table.row(vec!["x".to_owned(), "failed (exit 3)".to_owned(), String::new()]);
        assert_eq!(
            table.render(),
            "STEP      STATE            WHERE\ngröße 大  \x1b[32mpassed\x1b[0m           box\nx         failed (exit 3)\n"
        );
    }

    #[test]
    fn a_text_of_others_in_a_cell_steers_no_terminal_and_makes_no_row() {
        let mut table = Table::new(&["STEP", "STATE"]);
        table.row(vec!["a\x1b[2J\x1b[1;1Hb\x07\nc".to_owned(), "passed".to_owned()]);
        assert_eq!(table.render(), "STEP  STATE\nabc   passed\n");
    }
}
