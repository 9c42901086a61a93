//! `terse import`.

use super::Output;
use super::client::{Client, read_json};
use super::export::Format;
use crate::http::body::BODY_LEN_MAX;
use anyhow::{Context, Result, bail};
use axum::body::Body;
use clap::Args;
use csv::StringRecord;
use http::Request;
use http::header::CONTENT_TYPE;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, stdin};
use std::path::PathBuf;
use std::process::ExitCode;
use terse_model::target::TargetUrl;
use tokio::sync::mpsc;

/// What to import.
#[derive(Debug, Args)]
pub struct Import {
    /// A CSV file with a header line, or NDJSON; - for stdin
    file: PathBuf,
    /// csv or ndjson [default: by the file's name, else by its first character]
    #[arg(long, hide_possible_values = true)]
    format: Option<Format>,
    /// The domain of links that name none
    #[arg(long)]
    domain: Option<String>,
}

type Input = BufReader<Box<dyn Read + Send>>;
/// A row, or why it is none; outside of that, why there can be no further one.
type ReadRow = io::Result<Result<Map<String, Value>>>;

/// What some programs begin a text file with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Rows in one call, which is one transaction where no server runs.
const BATCH_LEN: usize = 20_000;
/// Bytes after which a call takes no further row.
const BATCH_BYTES: usize = 8 << 20;
/// Longest row, in bytes: as much as a call takes that creates one link.
const ROW_LEN_MAX: usize = BODY_LEN_MAX;
/// Refusals that the report tells one by one.
const REFUSALS_SHOWN_MAX: usize = 100;

/// Fields of a link that can be imported.
const FIELDS: [&str; 15] = [
    "long_url",
    "custom_alias",
    "domain",
    "expires_at",
    "expires_in",
    "redirect_type",
    "title",
    "tags",
    "notes",
    "password",
    "click_limit",
    "starts_at",
    "fallback_url",
    "forward_query",
    "enabled",
];
/// What others call them.
const SYNONYMS: [(&str, &str); 14] = [
    ("url", "long_url"),
    ("original_url", "long_url"),
    ("target", "long_url"),
    ("target_url", "long_url"),
    ("destination", "long_url"),
    ("longurl", "long_url"),
    ("alias", "custom_alias"),
    ("short_code", "custom_alias"),
    ("code", "custom_alias"),
    ("slug", "custom_alias"),
    ("keyword", "custom_alias"),
    ("expiry", "expires_at"),
    ("description", "notes"),
    ("tag", "tags"),
];

/// What came of all rows.
#[derive(Debug, Default)]
struct Report {
    rows: usize,
    created: usize,
    existing: usize,
    refused: usize,
    refusals: Vec<(usize, String)>,
}

impl Import {
    /// Imports, and ends with a report. Exits with 1 when a row was refused.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let (input, length) = self.open()?;
        let progress = progress_bar(length);
        let (batches, mut next) = mpsc::channel(1);
        let read_progress = progress.clone();
        // Nobody waits for it when a call fails: it may itself wait for a terminal.
        let reading = std::thread::Builder::new()
            .name("import".to_owned())
            .spawn(move || self.read(input, &read_progress, &batches))?;
        let mut report = Report::default();
        while let Some(mut batch) = next.recv().await {
            report.take_in(&mut batch, client).await?;
            progress.set_message(format!("{} rows", report.rows));
        }
        reading.join().unwrap_or_else(|_| bail!("the reading of rows did not finish"))?;
        progress.finish_and_clear();
        print_report(out, &report)?;
        Ok(if report.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Reads all rows, one batch ahead of what is sent.
    fn read(self, mut input: Input, progress: &ProgressBar, batches: &mpsc::Sender<Batch>) -> Result<()> {
        let start = input.fill_buf().with_context(|| format!("cannot read {:?}", self.file))?;
        if start.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
        }
        let first = input.fill_buf()?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let by_name = match self.file.extension().and_then(|end| end.to_str()) {
            Some("csv") => Some(Format::Csv),
            Some("ndjson" | "jsonl") => Some(Format::Ndjson),
            _ => None,
        };
        let by_content = if first == Some(b'{') { Format::Ndjson } else { Format::Csv };
        let rows: Box<dyn Iterator<Item = ReadRow>> = match self.format.or(by_name).unwrap_or(by_content) {
            Format::Ndjson => Box::new(ndjson_rows(progress.wrap_read(input))),
            Format::Csv => Box::new(csv_rows(progress.wrap_read(input))?),
        };
        let mut batch = Batch::default();
        for row in rows {
            batch.rows += 1;
            if let Err(error) = row?.and_then(|row| batch.add(self.translate(row)?)) {
                batch.refused.push((batch.rows, format!("{error:#}")));
            }
            let is_full = batch.rows == BATCH_LEN || batch.body.len() >= BATCH_BYTES;
            if is_full && batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
        }
        let _ = batches.blocking_send(batch);
        Ok(())
    }

    /// The rows, and how many bytes they are if that is known.
    fn open(&self) -> Result<(Input, Option<u64>)> {
        if self.file.as_os_str() == "-" {
            return Ok((BufReader::new(Box::new(stdin())), None));
        }
        let file = File::open(&self.file).with_context(|| format!("cannot read {:?}", self.file))?;
        let length = file.metadata().ok().map(|metadata| metadata.len());
        Ok((BufReader::new(Box::new(file)), length))
    }

    /// A row as a request to create a link. A row without a code takes an equal link that an earlier run made.
    fn translate(&self, row: Map<String, Value>) -> Result<Map<String, Value>> {
        let mut request = Map::new();
        let mut had_password = false;
        for (name, value) in row {
            let lower = name.trim().to_ascii_lowercase();
            let name = SYNONYMS
                .iter()
                .find(|(synonym, _)| *synonym == lower)
                .map_or(lower.as_str(), |(_, name)| name);
            had_password |= name == "has_password" && value == true;
            // Columns of other programs, and of our own export, that no link can be created with.
            if !FIELDS.contains(&name) || value.is_null() {
                continue;
            }
            if request.insert(name.to_owned(), value).is_some() {
                bail!("two columns mean {name}");
            }
        }
        if !request.contains_key("long_url") {
            bail!("there is no long_url");
        }
        // A link that asked for a password must not come back open.
        if had_password && !request.contains_key("password") {
            bail!("the link has a password, which no export holds; add it as the field password");
        }
        if let (Some(domain), false) = (&self.domain, request.contains_key("domain")) {
            request.insert("domain".to_owned(), json!(domain));
        }
        if !request.contains_key("custom_alias") {
            request.insert("find_if_exists".to_owned(), json!(true));
        }
        Ok(request)
    }
}

fn progress_bar(length: Option<u64>) -> ProgressBar {
    let style = "{bar:30} {bytes}/{total_bytes} {msg} {elapsed}, {eta} left";
    match (length, ProgressStyle::with_template(style)) {
        (Some(length), Ok(style)) => ProgressBar::new(length).with_style(style),
        _ => ProgressBar::new_spinner(),
    }
}

fn ndjson_rows(input: impl Read) -> impl Iterator<Item = ReadRow> {
    let lines = BufReader::new(input).split(b'\n');
    let lines = lines.filter(|line| !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()));
    lines.map(|line| Ok(serde_json::from_slice(&line?).context("not a JSON object")))
}

fn csv_rows(input: impl Read) -> Result<impl Iterator<Item = ReadRow>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(input);
    let headers = reader.headers().context("the file has no readable header line")?.clone();
    Ok(reader.into_records().map(move |record| match record {
        Ok(record) => Ok(csv_row(&headers, &record)),
        Err(error) if error.is_io_error() => Err(error.into()),
        Err(error) => Ok(Err(error).context("not a CSV line")),
    }))
}

fn csv_row(headers: &StringRecord, record: &StringRecord) -> Result<Map<String, Value>> {
    // As when an address with a comma stands without quotes: what is before the comma leads elsewhere.
    if record.iter().skip(headers.len()).any(|cell| !cell.is_empty()) {
        bail!("has {} cells, and the header names {}; put quotes around commas", record.len(), headers.len());
    }
    let cells = headers.iter().zip(record.iter()).filter(|(_, cell)| !cell.is_empty());
    Ok(cells.map(|(name, cell)| (name.to_owned(), cell_value(name, cell))).collect())
}

fn cell_value(name: &str, cell: &str) -> Value {
    let cell = match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) => rest,
        _ => cell,
    };
    match name.to_ascii_lowercase().as_str() {
        "tags" | "tag" => match serde_json::from_str(cell) {
            Ok(Value::Array(tags)) => Value::Array(tags),
            _ => cell.split([',', ';', '|']).map(str::trim).filter(|tag| !tag.is_empty()).collect(),
        },
        "click_limit" | "expires_in" => cell.parse::<i64>().map_or_else(|_| json!(cell), Value::from),
        "forward_query" | "enabled" | "has_password" => match cell.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => json!(true),
            "false" | "0" | "no" => json!(false),
            _ => json!(cell),
        },
        _ => json!(cell),
    }
}

/// Rows that were read together, and are sent in one call.
#[derive(Default)]
struct Batch {
    rows: usize,
    /// Those that can be sent, with their numbers in the batch.
    requests: Vec<(usize, Map<String, Value>)>,
    /// The same as NDJSON.
    body: Vec<u8>,
    /// The others, and why.
    refused: Vec<(usize, String)>,
}

/// What a call answers of its rows.
#[derive(Deserialize)]
struct Answer<T> {
    results: Vec<T>,
}

/// What came of a row.
#[derive(Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    detail: Option<String>,
}

/// What is under a row's code.
#[derive(Deserialize)]
struct Found {
    link: Option<FoundLink>,
}

#[derive(Deserialize)]
struct FoundLink {
    long_url: String,
}

impl Outcome {
    fn reason(self) -> String {
        self.error.and_then(|error| error.detail).unwrap_or_else(|| "no reason given".to_owned())
    }
}

impl Batch {
    fn add(&mut self, request: Map<String, Value>) -> Result<()> {
        let before = self.body.len();
        serde_json::to_writer(&mut self.body, &request)?;
        if self.body.len() - before > ROW_LEN_MAX {
            self.body.truncate(before);
            bail!("is longer than {ROW_LEN_MAX} bytes");
        }
        self.body.push(b'\n');
        self.requests.push((self.rows, request));
        Ok(())
    }
}

/// Sends rows as one call; gives what came of each.
async fn call<T: DeserializeOwned>(client: &mut Client, rows: usize, body: Vec<u8>) -> Result<Vec<T>> {
    if rows == 0 {
        return Ok(Vec::new());
    }
    let request = Request::post("/api/v1/urls/bulk").header(CONTENT_TYPE, "application/x-ndjson");
    let Answer { results } = read_json(client.call(request, Body::from(body)).await?).await?;
    if results.len() != rows {
        bail!("the server has answered {} of {rows} rows", results.len());
    }
    Ok(results)
}

impl Report {
    /// Sends a batch and counts what came of its rows.
    async fn take_in(&mut self, batch: &mut Batch, client: &mut Client) -> Result<()> {
        let body = std::mem::take(&mut batch.body);
        let outcomes: Vec<Outcome> = call(client, batch.requests.len(), body).await?;
        let mut refused = std::mem::take(&mut batch.refused);
        let mut taken = Vec::new();
        for ((row, request), outcome) in batch.requests.iter().zip(outcomes) {
            match outcome.status {
                201 => self.created += 1,
                200 => self.existing += 1,
                409 => taken.push((*row, request, outcome)),
                _ => refused.push((*row, outcome.reason())),
            }
        }
        let rows: Vec<_> = taken.iter().map(|(_, request, _)| *request).collect();
        let are_there = are_there(client, &rows).await?;
        for ((row, _, outcome), is_there) in taken.into_iter().zip(are_there) {
            if is_there {
                self.existing += 1;
            } else {
                refused.push((row, outcome.reason()));
            }
        }
        refused.sort_by_key(|(row, _)| *row);
        self.refused += refused.len();
        let room = REFUSALS_SHOWN_MAX - self.refusals.len();
        let before = self.rows;
        self.refusals.extend(refused.into_iter().take(room).map(|(row, reason)| (before + row, reason)));
        self.rows += batch.rows;
        Ok(())
    }
}

/// Whether the codes of rows already lead where each row says. Changes that change nothing tell, all in one call.
async fn are_there(client: &mut Client, rows: &[&Map<String, Value>]) -> Result<Vec<bool>> {
    let mut body = Vec::new();
    for row in rows {
        let (code, domain) = (row.get("custom_alias"), row.get("domain"));
        let change = json!({"action": "update", "short_code": code, "domain": domain, "changes": {}});
        serde_json::to_writer(&mut body, &change)?;
        body.push(b'\n');
    }
    let found: Vec<Found> = call(client, rows.len(), body).await?;
    let is_there = |(row, found): (&&Map<String, Value>, Found)| {
        let wanted = row.get("long_url").and_then(Value::as_str).and_then(|url| TargetUrl::parse(url).ok());
        wanted.zip(found.link).is_some_and(|(wanted, link)| wanted.as_str() == link.long_url)
    };
    Ok(rows.iter().zip(found).map(is_there).collect())
}

fn print_report(out: &Output, report: &Report) -> Result<()> {
    let refusals: Vec<Value> =
        report.refusals.iter().map(|(row, reason)| json!({"row": row, "reason": reason})).collect();
    let value = json!({
        "rows": report.rows,
        "created": report.created,
        "existing": report.existing,
        "refused": report.refused,
        "refusals": refusals,
    });
    out.print(&value, |_| {
        let mut text = format!(
            "{} rows: {} created, {} existing, {} refused",
            report.rows, report.created, report.existing, report.refused
        );
        for (row, reason) in &report.refusals {
            text.push_str(&format!("\n  row {row}: {reason}"));
        }
        if report.refused > report.refusals.len() {
            text.push_str(&format!("\n  and {} more", report.refused - report.refusals.len()));
        }
        text
    })?;
    Ok(())
}
