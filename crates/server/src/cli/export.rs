//! `terse export`.

use super::client::Client;
use super::links::Pages;
use super::{Output, quiet_at_head};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use http::Method;
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// What links are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A header line, then a line for each link.
    Csv,
    /// A JSON object on each line; keeps everything.
    Ndjson,
}

/// Where to write links.
#[derive(Debug, Args)]
pub struct Export {
    /// The file to write; - for stdout
    #[arg(default_value = "-")]
    file: PathBuf,
    /// csv or ndjson [default: by the file's name, else ndjson]
    #[arg(long, hide_possible_values = true)]
    format: Option<Format>,
}

/// Columns of a CSV export; `terse import` reads them.
const COLUMNS: [&str; 16] = [
    "short_url",
    "short_code",
    "domain",
    "long_url",
    "created_at",
    "expires_at",
    "redirect_type",
    "title",
    "tags",
    "notes",
    "click_limit",
    "starts_at",
    "fallback_url",
    "forward_query",
    "enabled",
    "has_password",
];

/// Links that are fetched at once.
const PAGE_LEN: usize = 1000;

impl Export {
    /// Writes all links, newest first.
    pub async fn run(self, client: &mut Client, _: &Output) -> Result<ExitCode> {
        let by_name =
            if self.file.extension().is_some_and(|end| end == "csv") { Format::Csv } else { Format::Ndjson };
        let format = self.format.unwrap_or(by_name);
        let to_stdout = self.file.as_os_str() == "-";
        let sink: Box<dyn Write> = if to_stdout {
            Box::new(stdout().lock())
        } else {
            Box::new(File::create(&self.file).with_context(|| format!("cannot write {:?}", self.file))?)
        };
        let mut sink = BufWriter::new(Sink(sink));
        if format == Format::Csv {
            csv_line(&mut sink, COLUMNS.iter().map(|name| (*name).to_owned()))?;
        }
        let progress = if to_stdout { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let default = default_domain(client).await?;
        let mut pages = Pages::new(&[]);
        let mut written = 0;
        while let Some(mut page) = pages.next(client, PAGE_LEN).await? {
            for link in &mut page {
                // The default domain is an identity: wherever links are imported, they go to the default one there.
                if link["domain"] == default {
                    link["domain"] = Value::Null;
                }
                // How often it was followed is no part of a link.
                if let Some(fields) = link.as_object_mut() {
                    fields.remove("clicks");
                }
                match format {
                    Format::Ndjson => writeln!(sink, "{link}")?,
                    Format::Csv => csv_line(&mut sink, COLUMNS.iter().map(|name| cell(name, &link[*name])))?,
                }
            }
            written += page.len();
            progress.set_message(format!("{written} links"));
            progress.tick();
        }
        sink.flush().context("cannot write the links")?;
        progress.finish_and_clear();
        if !to_stdout {
            eprintln!("Wrote {written} links to {}", self.file.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn default_domain(client: &mut Client) -> Result<Value> {
    let mut answer = client.json(Method::GET, "/api/v1/domains", None).await?;
    let domains = answer["domains"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(domains
        .into_iter()
        .find(|domain| domain["is_default"] == true)
        .map_or(Value::Null, |it| it["name"].clone()))
}

/// What is written to; a reader that has gone away, as `head` does, ends the command.
struct Sink(Box<dyn Write>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(quiet_at_head)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(quiet_at_head)
    }
}

fn csv_line(sink: &mut impl Write, cells: impl Iterator<Item = String>) -> Result<()> {
    let mut writer = csv::WriterBuilder::new().from_writer(sink);
    writer.write_record(cells.collect::<Vec<_>>())?;
    writer.flush().context("cannot write the links")
}

/// A value as a cell. What a spreadsheet would run as a formula gets an apostrophe, which `terse import` takes away.
fn cell(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => list_cell(value, values),
        value => value.to_string(),
    };
    let is_free_text = ["title", "tags", "notes"].contains(&name);
    if is_free_text && text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) {
        format!("'{text}")
    } else {
        text
    }
}

/// A list as a cell: its items with commas between them, or JSON when an item would not survive that.
fn list_cell(value: &Value, items: &[Value]) -> String {
    let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
    let is_plain =
        |item: &&str| item.trim() == *item && !item.contains([',', ';', '|']) && !item.starts_with('[');
    if items.iter().all(is_plain) { items.join(",") } else { value.to_string() }
}
