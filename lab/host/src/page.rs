// SPDX-License-Identifier: MIT OR Apache-2.0

//! A page with a table in it, which the lab writes.

use anyhow::Context;
use anyhow::Result;

/// The lines that the table lies between.
pub struct Marks<'a>(pub [&'a str; 2]);

impl Marks<'_> {
    /// The page, in three parts: before the table, the table, and after it.
    pub fn parts<'p>(&self, page: &'p str) -> Result<[&'p str; 3]> {
        let [begin, end] = self.0;
        let parts = || {
            let (before, rest) = page.split_once(begin)?;
            let (table, after) = rest.split_once(end)?;
            Some([before, table.trim_matches('\n'), after])
        };
        parts().with_context(|| format!("the page has no lines “{begin}” and “{end}”"))
    }

    /// The page with another table in it.
    pub fn replaced(&self, page: &str, table: &str) -> Result<String> {
        let [begin, end] = self.0;
        let [before, _, after] = self.parts(page)?;
        Ok(format!("{before}{begin}\n{table}{end}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_keeps_what_is_around_the_table() {
        let marks = Marks(["<begin>", "<end>"]);
        let page = "before\n<begin>\nold\n<end>\nafter\n";
        let new = marks.replaced(page, "new\n").expect("it has both marks");
        assert_eq!(new, "before\n<begin>\nnew\n<end>\nafter\n");
        let parts = marks.parts(&new).expect("it still has");
        assert_eq!(parts.map(str::trim), ["before", "new", "after"]);
        assert!(marks.replaced("no marks", "new\n").is_err());
    }
}
