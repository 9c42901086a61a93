//! Clicks as others read them: the published schema of an event (docs/events.md), and the files that it is written to.

mod csv;
mod ndjson;
mod open;
#[cfg(feature = "parquet")]
mod parquet;

pub use open::{OpenError, open};

use crate::domains::Domains;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use terse_model::click::{Click, Device};
use terse_model::code_space::CodeSpace;
use terse_model::domain::DomainId;
use terse_model::time::Timestamp;
use utoipa::ToSchema;

/// The version of the schema. It changes when a field changes its meaning or goes away, not when one is added.
pub const VERSION: u8 = 1;

/// A click. It never holds an address.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ClickEvent)]
pub struct Event<'a> {
    /// The version of this schema: 1.
    #[schema(minimum = 1, maximum = 1)]
    pub v: u8,
    /// Its identity: no two clicks have the same.
    #[schema(value_type = String, example = "5f0c3a9be1d27746-0-1-2f8")]
    pub id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: String,
    /// The link, by a code that stays the same whatever becomes of it. It is the short code unless that was chosen.
    #[schema(value_type = String, example = "f3Kq9Zx")]
    pub link: String,
    /// The domain that served it.
    #[schema(value_type = String, example = "go.example.com")]
    pub domain: &'a str,
    /// `human`, `bot`, `preview`, `prefetch` or `head`.
    #[schema(value_type = String, example = "human")]
    pub kind: &'static str,
    /// The country, by ISO 3166-1 alpha-2; null when unknown.
    #[schema(value_type = Option<String>, example = "CH")]
    pub country: Option<&'a str>,
    /// `desktop`, `mobile`, `tablet`, `tv` or `console`; null when unknown.
    #[schema(value_type = Option<String>, example = "mobile")]
    pub device: Option<&'static str>,
    /// The browser's name; null when unknown.
    #[schema(value_type = Option<String>, example = "Firefox")]
    pub browser: Option<&'a str>,
    /// The operating system's name; null when unknown.
    #[schema(value_type = Option<String>, example = "Android")]
    pub os: Option<&'a str>,
    /// The first language that the browser asked for, in lower case; null when it asked for none.
    #[schema(value_type = Option<String>, example = "de-ch")]
    pub language: Option<&'a str>,
    /// The page that linked here; null when none was told.
    #[schema(value_type = Option<String>)]
    pub referrer: Option<&'a str>,
    /// Its host.
    #[schema(value_type = Option<String>, example = "news.example.org")]
    pub referrer_host: Option<&'a str>,
    /// The user agent as it was sent, cut at a bound; null when none was sent.
    #[schema(value_type = Option<String>)]
    pub user_agent: Option<&'a str>,
    /// Tells visitors of one UTC day apart, and of two days not.
    #[schema(value_type = String, example = "0a1b2c3d4e5f6071")]
    pub visitor: String,
    /// HEAD rather than GET.
    pub is_head: bool,
    /// Why it was fetched, by its headers: `visit`, `prefetch` or `preview`.
    #[schema(value_type = String, example = "visit")]
    pub purpose: &'static str,
    /// The link's tags then.
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<&'a str>,
    /// The same as `at`, for files that hold times as numbers.
    #[serde(skip)]
    #[schema(ignore)]
    pub instant: Timestamp,
}

/// Names what clicks hold by numbers.
#[derive(Debug)]
pub struct Names {
    codes: CodeSpace,
    domains: Arc<Domains>,
    known: HashMap<DomainId, String>,
}

impl Names {
    /// Names of links and domains.
    pub fn new(codes: CodeSpace, domains: Arc<Domains>) -> Self {
        Names { codes, domains, known: HashMap::new() }
    }

    /// The event of a click.
    pub fn event<'a>(&'a mut self, click: &Click<'a>) -> Event<'a> {
        let domain =
            self.known.entry(click.domain).or_insert_with(|| self.domains.name(click.domain).to_string());
        let known = |text: &'a str| (!text.is_empty()).then_some(text);
        let facts = &click.facts;
        Event {
            v: VERSION,
            id: click.id.to_string(),
            at: click.at.to_string(),
            // Ids are counted upwards, and would tell how many links there are.
            link: self.codes.encode(click.link).to_string(),
            domain,
            kind: facts.kind.as_str(),
            country: known(facts.country),
            device: (facts.device != Device::Unknown).then_some(facts.device.as_str()),
            browser: known(facts.browser),
            os: known(facts.os),
            language: known(facts.language),
            referrer: known(click.referrer),
            referrer_host: known(facts.referrer),
            user_agent: known(click.user_agent),
            visitor: click.visitor.to_string(),
            is_head: click.is_head,
            purpose: click.purpose.as_str(),
            tags: click.tag_list().collect(),
            instant: click.at,
        }
    }
}

/// What events are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header line, then a line for each event.
    Csv,
    /// A JSON object on each line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The format of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Format::Csv),
            "ndjson" => Some(Format::Ndjson),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }

    /// Its name, which also ends the names of files.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Ndjson => "application/x-ndjson",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Writes events to a file that grows in memory and is taken away piece by piece.
pub trait Encoder: fmt::Debug + Send {
    /// Adds an event.
    fn add(&mut self, event: &Event<'_>) -> io::Result<()>;

    /// Writes what the file ends with.
    fn finish(&mut self) -> io::Result<()>;

    /// How many bytes can be taken.
    fn ready(&self) -> usize;

    /// Takes what was written since the last time.
    fn take(&mut self) -> Vec<u8>;
}

/// The tags of an event in one cell: a JSON array.
fn tags_cell(event: &Event<'_>) -> String {
    serde_json::to_string(&event.tags).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event, of which a test sets what it is about.
    pub fn event() -> Event<'static> {
        Event {
            v: VERSION,
            id: "000000000000002a-0-1-40".to_owned(),
            at: "2027-01-15T08:00:00.000Z".to_owned(),
            link: "f3Kq9Zx".to_owned(),
            domain: "go.example.com",
            kind: "human",
            country: Some("CH"),
            device: None,
            browser: Some("Firefox"),
            os: None,
            language: Some("de-ch"),
            referrer: Some("https://news.example.org/a,b"),
            referrer_host: Some("news.example.org"),
            user_agent: Some("Mozilla/5.0 (\"quoted\")"),
            visitor: "0a1b2c3d4e5f6071".to_owned(),
            is_head: false,
            purpose: "visit",
            tags: vec!["news", "a,b"],
            instant: Timestamp::from_millis(1_800_000_000_000),
        }
    }

    /// The whole file of some events.
    pub fn file(mut encoder: Box<dyn Encoder>, events: &[Event<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in events {
            encoder.add(event).unwrap();
            bytes.extend(encoder.take());
        }
        encoder.finish().unwrap();
        bytes.extend(encoder.take());
        assert_eq!(encoder.ready(), 0);
        bytes
    }

    #[test]
    fn formats_have_names() {
        for format in [Format::Csv, Format::Ndjson, Format::Parquet] {
            assert_eq!(Format::parse(format.as_str()), Some(format));
        }
        assert_eq!(Format::parse("xlsx"), None);
    }
}
