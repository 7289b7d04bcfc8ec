// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables, as text in the two forms that pages here have.

/// A table. Its first column is text, and the others are numbers.
#[derive(Debug)]
pub struct Table {
    /// What it shows, and in which unit.
    pub caption: String,
    pub headings: Vec<String>,
    /// As many cells in each as there are headings.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(caption: impl Into<String>, headings: [&str; N]) -> Self {
        Self {
            caption: caption.into(),
            headings: headings.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// For a terminal, or a page in Markdown: the columns are aligned.
    pub fn markdown(&self) -> String {
        let lines = || [&self.headings].into_iter().chain(&self.rows);
        let widths: Vec<_> = (0..self.headings.len())
            .map(|column| {
                let cells = lines().map(|line| line[column].chars().count());
                cells.max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let cells = cells.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, &width))| match column {
                0 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
            format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
        };
        let rules: Vec<_> = widths
            .iter()
            .enumerate()
            .map(|(column, &width)| match column {
                0 => "-".repeat(width),
                _ => format!("{}:", "-".repeat(width - 1)),
            })
            .collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.headings) + &line(&rules) + &rows
    }

    /// For a page in reStructuredText.
    pub fn rst(&self) -> String {
        let lines = [&self.headings].into_iter().chain(&self.rows);
        let lines = lines.flat_map(|line| {
            line.iter().enumerate().map(|(column, cell)| {
                let mark = if column == 0 { "* -" } else { "  -" };
                format!("   {mark} {cell}").trim_end().to_owned() + "\n"
            })
        });
        format!(
            ".. list-table:: {}\n   :header-rows: 1\n\n{}\n",
            self.caption,
            lines.collect::<String>()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let strings = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        Table {
            rows: vec![strings(["read", "10"]), strings(["a longer one", ""])],
            ..Table::new("What it costs", ["call", "cost"])
        }
    }

    #[test]
    fn markdown_is_aligned() {
        let expected = "\
            | call         | cost |\n\
            | ------------ | ---: |\n\
            | read         |   10 |\n\
            | a longer one |      |\n";
        assert_eq!(table().markdown(), expected);
    }

    #[test]
    fn rst_has_an_item_for_each_cell() {
        let expected = "\
            .. list-table:: What it costs\n   :header-rows: 1\n\n   * - call\n     - cost\n   \
            * - read\n     - 10\n   * - a longer one\n     -\n\n";
        assert_eq!(table().rst(), expected);
    }
}
