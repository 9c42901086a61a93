//! Events as Apache Parquet, by the format's own writer: columns are held until a row group is full, then compressed.

use super::{Encoder, Event, tags_cell};
use ::parquet::basic::Compression;
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A row group is written when it has so many rows, or so many bytes of text.
const GROUP_ROWS_MAX: usize = 100_000;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// The columns, in the order of the schema.
const SCHEMA: &str = "message click {
    required int32 v;
    required binary id (STRING);
    required int64 at (TIMESTAMP(MILLIS, true));
    required binary link (STRING);
    required binary domain (STRING);
    required binary kind (STRING);
    optional binary country (STRING);
    optional binary device (STRING);
    optional binary browser (STRING);
    optional binary os (STRING);
    optional binary language (STRING);
    optional binary referrer (STRING);
    optional binary referrer_host (STRING);
    optional binary user_agent (STRING);
    required binary visitor (STRING);
    required boolean is_head;
    required binary purpose (STRING);
    required binary tags (JSON);
}";

/// A file of row groups.
pub struct Parquet {
    // None when it is finished.
    writer: Option<SerializedFileWriter<Vec<u8>>>,
    finished: Vec<u8>,
    columns: Columns,
}

impl fmt::Debug for Parquet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parquet").field("rows", &self.columns.v.len()).finish_non_exhaustive()
    }
}

/// The rows of a group that is not written yet.
#[derive(Default)]
struct Columns {
    v: Vec<i32>,
    id: Texts,
    at: Vec<i64>,
    link: Texts,
    domain: Texts,
    kind: Texts,
    country: Texts,
    device: Texts,
    browser: Texts,
    os: Texts,
    language: Texts,
    referrer: Texts,
    referrer_host: Texts,
    user_agent: Texts,
    visitor: Texts,
    is_head: Vec<bool>,
    purpose: Texts,
    tags: Texts,
    bytes: usize,
}

/// A column of texts: those that are there, one behind the other, and for each row whether it has one.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    levels: Vec<i16>,
}

impl Texts {
    fn push(&mut self, text: Option<&str>) -> usize {
        self.levels.push(i16::from(text.is_some()));
        if let Some(text) = text {
            self.bytes.extend_from_slice(text.as_bytes());
            self.ends.push(self.bytes.len() as u32);
        }
        text.map_or(0, str::len)
    }

    /// Writes the column, and frees it: values of their own would take several times the memory of their bytes.
    fn write(
        self,
        group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
        is_optional: bool,
    ) -> Result<(), ParquetError> {
        let bytes = Bytes::from(self.bytes);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends).map(|(start, end)| start as usize..*end as usize);
        let values: Vec<ByteArray> = ranges.map(|range| bytes.slice(range).into()).collect();
        write_column::<ByteArrayType>(group, &values, is_optional.then_some(&self.levels))
    }
}

impl Columns {
    fn push(&mut self, event: &Event<'_>) {
        self.v.push(i32::from(event.v));
        self.at.push(event.instant.as_millis());
        self.is_head.push(event.is_head);
        let tags = tags_cell(event);
        self.bytes += self.id.push(Some(&event.id))
            + self.link.push(Some(&event.link))
            + self.domain.push(Some(event.domain))
            + self.kind.push(Some(event.kind))
            + self.country.push(event.country)
            + self.device.push(event.device)
            + self.browser.push(event.browser)
            + self.os.push(event.os)
            + self.language.push(event.language)
            + self.referrer.push(event.referrer)
            + self.referrer_host.push(event.referrer_host)
            + self.user_agent.push(event.user_agent)
            + self.visitor.push(Some(&event.visitor))
            + self.purpose.push(Some(event.purpose))
            + self.tags.push(Some(&tags));
    }

    fn is_full(&self) -> bool {
        self.v.len() >= GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX
    }

    fn write(self, writer: &mut SerializedFileWriter<Vec<u8>>) -> Result<(), ParquetError> {
        let mut group = writer.next_row_group()?;
        write_column::<Int32Type>(&mut group, &self.v, None)?;
        self.id.write(&mut group, false)?;
        write_column::<Int64Type>(&mut group, &self.at, None)?;
        self.link.write(&mut group, false)?;
        self.domain.write(&mut group, false)?;
        self.kind.write(&mut group, false)?;
        self.country.write(&mut group, true)?;
        self.device.write(&mut group, true)?;
        self.browser.write(&mut group, true)?;
        self.os.write(&mut group, true)?;
        self.language.write(&mut group, true)?;
        self.referrer.write(&mut group, true)?;
        self.referrer_host.write(&mut group, true)?;
        self.user_agent.write(&mut group, true)?;
        self.visitor.write(&mut group, false)?;
        write_column::<BoolType>(&mut group, &self.is_head, None)?;
        self.purpose.write(&mut group, false)?;
        self.tags.write(&mut group, false)?;
        group.close()?;
        Ok(())
    }
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<&Vec<i16>>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("as many columns are written as the schema has");
    column.typed::<T>().write_batch(values, levels.map(Vec::as_slice), None)?;
    column.close()
}

impl Parquet {
    /// An empty file.
    pub fn new() -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(io::Error::other)?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties));
        let writer = Some(writer.map_err(io::Error::other)?);
        Ok(Parquet { writer, finished: Vec::new(), columns: Columns::default() })
    }

    fn write_group(&mut self) -> io::Result<()> {
        let columns = std::mem::take(&mut self.columns);
        let writer = self.writer.as_mut().expect("a finished file gets no more rows");
        columns.write(writer).map_err(io::Error::other)?;
        writer.flush()
    }
}

impl Encoder for Parquet {
    fn add(&mut self, event: &Event<'_>) -> io::Result<()> {
        self.columns.push(event);
        if self.columns.is_full() { self.write_group() } else { Ok(()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        if !self.columns.v.is_empty() {
            self.write_group()?;
        }
        let writer = self.writer.take().expect("a file is finished once");
        self.finished = writer.into_inner().map_err(io::Error::other)?;
        Ok(())
    }

    fn ready(&self) -> usize {
        self.writer.as_ref().map_or(self.finished.len(), |writer| writer.inner().len())
    }

    fn take(&mut self) -> Vec<u8> {
        // The writer counts for itself where in the file it is; what it wrote may be taken away.
        std::mem::take(self.writer.as_mut().map_or(&mut self.finished, SerializedFileWriter::inner_mut))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{event, file};
    use super::*;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use ::parquet::record::Field;

    fn rows(bytes: Vec<u8>) -> (usize, Vec<Vec<Field>>) {
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let cells =
            |row: ::parquet::record::Row| row.get_column_iter().map(|(_, cell)| cell.clone()).collect();
        let rows = reader.get_row_iter(None).unwrap().map(|row| cells(row.unwrap())).collect();
        (reader.num_row_groups(), rows)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let events = [event(), Event { country: None, is_head: true, device: Some("tv"), ..event() }];
        let (groups, rows) = rows(file(Box::new(Parquet::new().unwrap()), &events));
        assert_eq!((groups, rows.len()), (1, 2));
        let text = |text: &str| Field::Str(text.to_owned());
        assert_eq!(rows[0][0], Field::Int(1));
        assert_eq!(rows[0][1], text("000000000000002a-0-1-40"));
        assert_eq!(rows[0][2], Field::TimestampMillis(1_800_000_000_000));
        assert_eq!((&rows[0][6], &rows[1][6]), (&text("CH"), &Field::Null));
        assert_eq!((&rows[0][7], &rows[1][7]), (&Field::Null, &text("tv")));
        assert_eq!((&rows[0][15], &rows[1][15]), (&Field::Bool(false), &Field::Bool(true)));
        assert_eq!(rows[0][17], text("[\"news\",\"a,b\"]"));
    }

    #[test]
    fn an_empty_file_is_one_too() {
        assert_eq!(rows(file(Box::new(Parquet::new().unwrap()), &[])), (0, Vec::new()));
    }

    #[test]
    fn what_is_held_in_memory_is_bounded() {
        let long = "x".repeat(64 << 10);
        let count = 3 * GROUP_BYTES_MAX / long.len();
        let events = vec![Event { user_agent: Some(&long), ..event() }; count];
        let (groups, rows) = rows(file(Box::new(Parquet::new().unwrap()), &events));
        assert_eq!((groups, rows.len()), (3, count));
    }
}
