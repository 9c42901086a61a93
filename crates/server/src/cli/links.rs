//! `terse shorten`, `list`, `show`, `update` and `delete`.

use super::client::Client;
use super::{Output, print_line, text};
use anyhow::{Context, Result};
use clap::Args;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::io::{BufRead, stdin};
use std::process::ExitCode;

/// A link to create.
#[derive(Debug, Args)]
pub struct Shorten {
    /// Where the link leads
    url: String,
    /// A code of your own: 3 to 64 letters, digits, - or _
    #[arg(long, short)]
    alias: Option<String>,
    /// The domain of the short link
    #[arg(long)]
    domain: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Take an equal link that was made with this option before, if there is one
    #[arg(long)]
    find_if_exists: bool,
}

/// Settings of a link, for creating and changing it.
#[derive(Debug, Args)]
struct Settings {
    /// When it ends: 2030-01-31T12:00:00Z, or 2030-01-31 for 00:00 UTC of that day
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// In how many seconds it ends
    #[arg(long, value_name = "SECONDS")]
    expires_in: Option<i64>,
    /// 301, 302, 307, 308, permanent or temporary
    #[arg(long = "type", value_name = "STATUS")]
    redirect_type: Option<String>,
    /// A title
    #[arg(long)]
    title: Option<String>,
    /// A label; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Notes
    #[arg(long)]
    notes: Option<String>,
    /// A password for visitors; - reads it from stdin
    #[arg(long)]
    password: Option<String>,
    /// How often the target may be revealed
    #[arg(long, value_name = "N")]
    click_limit: Option<i64>,
    /// When it begins to work
    #[arg(long, value_name = "TIME")]
    starts_at: Option<String>,
    /// Where it leads after its expiry
    #[arg(long, value_name = "URL")]
    fallback_url: Option<String>,
    /// Whether a visitor's query is added to the target's
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    forward_query: Option<bool>,
}

impl Settings {
    fn into_fields(self) -> Result<Map<String, Value>> {
        let password = match self.password.as_deref() {
            Some("-") => Some(stdin().lock().lines().next().context("no password on stdin")??),
            _ => self.password,
        };
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| {
            if !value.is_null() {
                fields.insert(name.to_owned(), value);
            }
        };
        add("expires_at", json!(self.expires_at));
        add("expires_in", json!(self.expires_in));
        add("redirect_type", json!(self.redirect_type));
        add("title", json!(self.title));
        add("tags", if self.tags.is_empty() { Value::Null } else { json!(self.tags) });
        add("notes", json!(self.notes));
        add("password", json!(password));
        add("click_limit", json!(self.click_limit));
        add("starts_at", json!(self.starts_at));
        add("fallback_url", json!(self.fallback_url));
        add("forward_query", json!(self.forward_query));
        Ok(fields)
    }
}

impl Shorten {
    /// Creates the link and prints it alone, so that it can be piped.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let mut fields = self.settings.into_fields()?;
        fields.insert("long_url".to_owned(), json!(self.url));
        if let Some(alias) = self.alias {
            fields.insert("custom_alias".to_owned(), json!(alias));
        }
        if let Some(domain) = self.domain {
            fields.insert("domain".to_owned(), json!(domain));
        }
        if self.find_if_exists {
            fields.insert("find_if_exists".to_owned(), json!(true));
        }
        let link = client.json(Method::POST, "/api/v1/urls", Some(&Value::Object(fields))).await?;
        out.print(&link, |link| text(link, "short_url").to_owned())
    }
}

/// Which links to list.
#[derive(Debug, Args)]
pub struct List {
    /// Only links whose code, target, title or notes hold this text
    #[arg(short, long)]
    q: Option<String>,
    /// Only links with this tag
    #[arg(long)]
    tag: Option<String>,
    /// active, disabled, scheduled, expired, exhausted or deleted
    #[arg(long)]
    state: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
}

impl List {
    /// Prints the links, fetching pages until there are enough.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let mut pages = Pages::new(&[("q", self.q), ("tag", self.tag), ("state", self.state)]);
        let mut links = Vec::new();
        while links.len() < self.limit
            && let Some(page) = pages.next(client, (self.limit - links.len()).min(1000)).await?
        {
            links.extend(page);
        }
        if out.json {
            return out.print(&Value::Array(links), |_| String::new());
        }
        for link in links {
            let state = text(&link, "state");
            let mark = if state == "active" { String::new() } else { format!("  [{state}]") };
            print_line(&format!("{}  {}{mark}", text(&link, "short_url"), text(&link, "long_url")))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Pages of a list, one after the other.
pub struct Pages {
    query: String,
    cursor: Option<String>,
    ended: bool,
}

impl Pages {
    /// The pages of a list with these parameters.
    pub fn new(parameters: &[(&str, Option<String>)]) -> Self {
        let pair = |(name, value): &(&str, Option<String>)| {
            value.as_ref().map(|value| format!("&{name}={}", encode(value))).unwrap_or_default()
        };
        Pages { query: parameters.iter().map(pair).collect(), cursor: None, ended: false }
    }

    /// The next page, of at most `limit` links.
    pub async fn next(&mut self, client: &mut Client, limit: usize) -> Result<Option<Vec<Value>>> {
        if self.ended {
            return Ok(None);
        }
        let cursor = self.cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("/api/v1/urls?limit={limit}{}{cursor}", self.query);
        let mut page = client.json(Method::GET, &path, None).await?;
        self.cursor = page["next_cursor"].as_str().map(str::to_owned);
        self.ended = self.cursor.is_none();
        match page["links"].take() {
            Value::Array(links) => Ok(Some(links)),
            _ => Ok(None),
        }
    }
}

/// A link by its code.
#[derive(Debug, Args)]
pub struct Which {
    /// The short code, or the whole short link
    pub code: String,
    /// The link's domain
    #[arg(long)]
    pub domain: Option<String>,
}

impl Which {
    async fn path(&self, client: &mut Client) -> Result<String> {
        self.path_to(client, "").await
    }

    /// The path of something below the link, such as `/stats`, with the link's domain as a parameter.
    pub async fn path_to(&self, client: &mut Client, below: &str) -> Result<String> {
        let code = self.code.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let domain = match &self.domain {
            Some(domain) => Some(domain.clone()),
            None => self.registered_host(client).await?,
        };
        let domain = domain.map(|domain| format!("?domain={}", encode(&domain))).unwrap_or_default();
        Ok(format!("/api/v1/urls/{}{below}{domain}", encode(code)))
    }

    /// The host of a whole short link; as for visitors, one that is not registered means the default domain.
    async fn registered_host(&self, client: &mut Client) -> Result<Option<String>> {
        let Ok(link) = url::Url::parse(&self.code) else { return Ok(None) };
        let Some(host) = link.host_str() else { return Ok(None) };
        let domains = client.json(Method::GET, "/api/v1/domains", None).await?;
        let is_known = |domains: &Vec<Value>| domains.iter().any(|domain| text(domain, "name") == host);
        Ok(domains["domains"].as_array().is_some_and(is_known).then(|| host.to_owned()))
    }

    /// Prints the link.
    pub async fn show(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let path = self.path(client).await?;
        let link = client.json(Method::GET, &path, None).await?;
        out.print(&link, describe)
    }

    /// Deletes the link.
    pub async fn delete(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let path = self.path(client).await?;
        client.json(Method::DELETE, &path, None).await?;
        out.print(&json!({"deleted": self.code}), |_| format!("Deleted {}", self.code))
    }
}

/// A change of a link.
#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    which: Which,
    /// Where the link leads from now on
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Pause the link
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Resume it
    #[arg(long)]
    enable: bool,
    /// Settings to clear: expires-at, title, tags, notes, password, click-limit, starts-at, fallback-url
    #[arg(long, value_delimiter = ',', value_name = "SETTINGS")]
    clear: Vec<String>,
}

impl Update {
    /// Changes the link and prints it.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let mut fields = self.settings.into_fields()?;
        if let Some(url) = self.url {
            fields.insert("long_url".to_owned(), json!(url));
        }
        if self.enable || self.disable {
            fields.insert("enabled".to_owned(), json!(self.enable));
        }
        for setting in &self.clear {
            fields.insert(setting.replace('-', "_"), Value::Null);
        }
        let path = self.which.path(client).await?;
        let link = client.json(Method::PATCH, &path, Some(&Value::Object(fields))).await?;
        out.print(&link, describe)
    }
}

/// A link for people: what is set, a line each.
fn describe(link: &Value) -> String {
    let Value::Object(fields) = link else { return String::new() };
    let order = [
        "short_url",
        "long_url",
        "state",
        "redirect_type",
        "created_at",
        "updated_at",
        "expires_at",
        "revision",
    ];
    let rest = fields
        .keys()
        .map(String::as_str)
        .filter(|name| !order.contains(name) && !["short_code", "domain", "enabled"].contains(name));
    let shown = |name: &&str| match &fields.get(*name)? {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(values) if values.is_empty() => None,
        Value::Array(values) => Some(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")),
        value => Some(value.to_string()),
    };
    let line = |name: &str| shown(&name).map(|value| format!("{:<16}{value}", name.replace('_', " ")));
    order.into_iter().chain(rest).filter_map(line).collect::<Vec<_>>().join("\n")
}

/// A text as part of a path or a query.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
