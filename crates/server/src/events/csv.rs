//! Events as CSV (RFC 4180) that a spreadsheet can open without running what strangers wrote into it.

use super::{Encoder, Event, tags_cell};
use std::borrow::Cow;
use std::io;

/// The columns, in the order of the schema.
const COLUMNS: [&str; 18] = [
    "v",
    "id",
    "at",
    "link",
    "domain",
    "kind",
    "country",
    "device",
    "browser",
    "os",
    "language",
    "referrer",
    "referrer_host",
    "user_agent",
    "visitor",
    "is_head",
    "purpose",
    "tags",
];

/// A file of lines under a header.
#[derive(Debug)]
pub struct Csv(csv::Writer<Vec<u8>>);

impl Csv {
    /// A file with its header.
    pub fn new() -> io::Result<Self> {
        let mut csv = Csv(writer());
        csv.0.write_record(COLUMNS)?;
        csv.0.flush()?;
        Ok(csv)
    }
}

fn writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new())
}

impl Encoder for Csv {
    fn add(&mut self, event: &Event<'_>) -> io::Result<()> {
        let optional = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let cells: [String; COLUMNS.len()] = [
            event.v.to_string(),
            event.id.clone(),
            event.at.clone(),
            event.link.clone(),
            event.domain.to_owned(),
            event.kind.to_owned(),
            optional(event.country),
            optional(event.device),
            optional(event.browser),
            optional(event.os),
            optional(event.language),
            optional(event.referrer),
            optional(event.referrer_host),
            optional(event.user_agent),
            event.visitor.clone(),
            event.is_head.to_string(),
            event.purpose.to_owned(),
            tags_cell(event),
        ];
        self.0.write_record(cells.iter().map(|cell| neutral(cell).into_owned()))?;
        // Into memory; a line is taken away whole.
        self.0.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn ready(&self) -> usize {
        self.0.get_ref().len()
    }

    fn take(&mut self) -> Vec<u8> {
        let taken = std::mem::replace(&mut self.0, writer());
        taken.into_inner().expect("it was flushed into memory")
    }
}

/// A cell with an apostrophe before what a spreadsheet would run as a formula (OWASP, CSV Injection), and before an
/// apostrophe, so that the first one can always be taken away again.
fn neutral(cell: &str) -> Cow<'_, str> {
    const RUN: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠'];
    if cell.starts_with(RUN) { Cow::Owned(format!("'{cell}")) } else { Cow::Borrowed(cell) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{event, file};
    use super::*;
    use proptest::prelude::*;

    fn rows(bytes: &[u8]) -> Vec<Vec<String>> {
        let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
        let cells = |row: csv::StringRecord| row.iter().map(str::to_owned).collect();
        reader.into_records().map(|row| cells(row.unwrap())).collect()
    }

    #[test]
    fn a_file_begins_with_its_header_even_when_nothing_follows() {
        let none = file(Box::new(Csv::new().unwrap()), &[]);
        assert_eq!(none, format!("{}\r\n", COLUMNS.join(",")).into_bytes());
        let some = rows(&file(Box::new(Csv::new().unwrap()), &[event(), event()]));
        assert_eq!(some.len(), 3);
        assert_eq!(some[0], COLUMNS);
        let cell = |name: &str| &some[1][COLUMNS.iter().position(|column| *column == name).unwrap()];
        assert_eq!(cell("referrer"), "https://news.example.org/a,b");
        assert_eq!(cell("user_agent"), "Mozilla/5.0 (\"quoted\")");
        assert_eq!((cell("device").as_str(), cell("tags").as_str()), ("", "[\"news\",\"a,b\"]"));
    }

    #[test]
    fn what_a_spreadsheet_would_run_is_a_text() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1"] {
            assert_eq!(neutral(cell), format!("'{cell}"));
        }
        for cell in ["", "a=1", "Mozilla/5.0", "[\"=1\"]", " =1"] {
            assert_eq!(neutral(cell), cell);
        }
    }

    proptest! {
        #[test]
        fn no_cell_begins_like_a_formula_and_each_can_be_had_back(text in "[=+@\\-'\t\r\n\",;a\u{ff1d}]{0,6}") {
            let bytes = file(Box::new(Csv::new().unwrap()), &[Event { user_agent: Some(&text), ..event() }]);
            let cell = &rows(&bytes)[1][13];
            prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}']), "{cell:?}");
            prop_assert_eq!(cell.strip_prefix('\'').unwrap_or(cell), text);
        }
    }
}
