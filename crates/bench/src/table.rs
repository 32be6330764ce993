//! Tables in Markdown.

use std::fmt::Write;

pub struct Table {
    text: String,
    columns: usize,
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self { text: String::new(), columns: columns.len() };
        table.row(columns);
        table.row(&vec!["--"; columns.len()]);
        table
    }

    pub fn row(&mut self, cells: &[impl AsRef<str>]) {
        debug_assert_eq!(cells.len(), self.columns);
        for cell in cells {
            // Writing to a string cannot fail.
            let _ = write!(self.text, "| {} ", cell.as_ref());
        }
        self.text.push_str("|\n");
    }

    pub fn into_text(self) -> String {
        self.text
    }
}
