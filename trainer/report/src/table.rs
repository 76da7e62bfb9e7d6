//! Tables that nobody has to scroll: on a phone every row becomes a small list with the columns' names beside the
//! values.

use maud::{Markup, html};

/// On paper, tables of no more rows are kept together.
const SHORT: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Text(&'static str),
    /// Aligned to the right.
    Number(&'static str),
}

pub struct Row {
    /// One for each column. An empty one is not shown on a phone.
    pub cells: Vec<Cell>,
    /// Small print below the row.
    pub note: Option<String>,
}

pub struct Cell {
    pub content: Markup,
    /// For what stands out, such as a verdict.
    pub class: &'static str,
    pub is_empty: bool,
}

impl Cell {
    pub fn text(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        Self { content: html! { (text) }, class: "", is_empty: text.is_empty() }
    }

    pub fn classed(text: impl AsRef<str>, class: &'static str) -> Self {
        Self { class, ..Self::text(text) }
    }
}

impl Row {
    pub fn of(cells: impl IntoIterator<Item = Cell>) -> Self {
        Self { cells: cells.into_iter().collect(), note: None }
    }
}

impl Column {
    fn name(self) -> &'static str {
        let (Column::Text(name) | Column::Number(name)) = self;
        name
    }

    fn class(self) -> &'static str {
        match self {
            Column::Text(_) => "",
            Column::Number(_) => "num",
        }
    }
}

/// `caption` is for those who cannot see what stands around the table.
pub fn table(caption: &str, columns: &[Column], rows: &[Row]) -> Markup {
    // The roles say again what the elements are: a style that changes their display takes it away from screen readers.
    html! {
        table.short[rows.len() <= SHORT] role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" {
                    @for column in columns {
                        th role="columnheader" scope="col" class=(column.class()) { (column.name()) }
                    }
                }
            }
            @for row in rows {
                tbody role="rowgroup" { (line(columns, row)) }
            }
        }
    }
}

/// A row, and its small print below it.
fn line(columns: &[Column], row: &Row) -> Markup {
    html! {
        tr role="row" {
            @for (column, cell) in columns.iter().zip(&row.cells) {
                td role="cell" data-label=(column.name())
                    class={ (column.class()) " " (cell.class) @if cell.is_empty { " empty" } } { (cell.content) }
            }
        }
        @if let Some(note) = &row.note {
            tr.note role="row" { td role="cell" colspan=(columns.len()) { (note) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_carries_the_name_of_its_column() {
        let row = Row { note: Some("why".into()), ..Row::of([Cell::text("leak"), Cell::text("2 < 3")]) };
        let html = table("gates", &[Column::Text("gate"), Column::Number("n")], &[row]).into_string();
        assert!(html.contains("data-label=\"gate\"") && html.contains("data-label=\"n\""), "{html}");
        assert!(html.contains("2 &lt; 3") && html.contains("colspan=\"2\""), "{html}");
    }
}
