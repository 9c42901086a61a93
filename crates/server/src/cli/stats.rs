//! `terse stats`: what was counted, the raw clicks, and their upkeep.

use super::client::{Client, read_json};
use super::links::{Which, encode};
use super::{Output, print_line, quiet_at_head, text};
use anyhow::{Context, Result, bail};
use axum::body::Body;
use clap::{Args, Subcommand};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use indicatif::{HumanBytes, ProgressBar};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// What to do with statistics.
#[derive(Debug, Subcommand)]
pub enum Stats {
    /// Show how often a link was followed, by whom and from where; without a link, all together, or with --user that user's
    Show(Box<Show>),
    /// Follow a link's count until Ctrl-C; needs a running server
    Live(Which),
    /// Write raw clicks as CSV, NDJSON or Parquet; without a link, those of all links, or with --user of that user's
    Export(Export),
    /// Count days anew from their raw clicks, and show what has changed
    Reconcile(Reconcile),
    /// Erase the clicks of a link or of a visitor
    Erase(Erase),
}

impl Stats {
    /// Runs the command.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        match self {
            Stats::Show(show) => show.run(client, out).await,
            Stats::Live(which) => live(which, client, out).await,
            Stats::Export(export) => export.run(client, out).await,
            Stats::Reconcile(reconcile) => reconcile.run(client, out).await,
            Stats::Erase(erase) => erase.run(client, out).await,
        }
    }
}

/// Which clicks to show.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    which: MaybeWhich,
    /// Without a link: only the user's own that have this tag
    #[arg(long, conflicts_with = "code")]
    tag: Option<String>,
    /// From when on: a time, or a date [default: since the first click]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until when: a time, or a date, which is counted as a whole [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Whose days: a name such as Europe/Zurich, or an offset such as +05:30 [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// hour, day, week or month [default: by the length of the range]
    #[arg(long)]
    granularity: Option<String>,
    /// Counts for each referrer, country, device, browser, os, language or kind, too
    #[arg(long, value_name = "WHAT")]
    group_by: Option<String>,
    /// human, all, bot, preview, prefetch or head [default: human]
    #[arg(long)]
    kind: Option<String>,
    /// Only clicks from this country: two letters
    #[arg(long)]
    country: Option<String>,
    /// Only clicks by this device: desktop, mobile, tablet, tv, console or unknown
    #[arg(long)]
    device: Option<String>,
    /// Only clicks by this browser
    #[arg(long)]
    browser: Option<String>,
    /// Only clicks from this operating system
    #[arg(long)]
    os: Option<String>,
    /// Only clicks of browsers that ask for this language first
    #[arg(long)]
    language: Option<String>,
    /// Only clicks from pages of this host; direct for none
    #[arg(long, value_name = "HOST")]
    referrer: Option<String>,
    /// Values in each list
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// A link by its code, or none.
#[derive(Debug, Args)]
struct MaybeWhich {
    /// The short code, or the whole short link
    code: Option<String>,
    /// The link's domain; without a link, only links on it
    #[arg(long)]
    domain: Option<String>,
}

impl MaybeWhich {
    /// The path and the first parameters of a call: `one` below a link, or `many` for all.
    async fn path(self, client: &mut Client, one: &str, many: &str) -> Result<Query> {
        match self.code {
            Some(code) => Ok(Query(Which { code, domain: self.domain }.path_to(client, one).await?)),
            None => Ok(Query(many.to_owned()).and("domain", self.domain)),
        }
    }
}

/// A path with its parameters.
struct Query(String);

impl Query {
    fn and(mut self, name: &str, value: Option<String>) -> Self {
        if let Some(value) = value {
            let mark = if self.0.contains('?') { '&' } else { '?' };
            self.0.push_str(&format!("{mark}{name}={}", encode(&value)));
        }
        self
    }
}

impl Show {
    async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        // Tags are each user's own.
        let everyone = everyone(client, self.which.code.is_none() && self.tag.is_none());
        let query = self.which.path(client, "/stats", "/api/v1/stats").await?;
        let query = query
            .and("everyone", everyone)
            .and("tag", self.tag)
            .and("from", self.from)
            .and("to", self.to)
            .and("timezone", self.timezone)
            .and("granularity", self.granularity)
            .and("group_by", self.group_by)
            .and("kind", self.kind)
            .and("country", self.country)
            .and("device", self.device)
            .and("browser", self.browser)
            .and("os", self.os)
            .and("language", self.language)
            .and("referrer", self.referrer)
            .and("limit", self.limit.map(|limit| limit.to_string()));
        let stats = client.json(Method::GET, &query.0, None).await?;
        out.print(&stats, describe)
    }
}

/// Characters of the longest bar.
const BAR_LEN: u64 = 40;
/// Buckets that are drawn; of a longer series, the last ones.
const BUCKETS_LEN_MAX: usize = 60;

/// Statistics as a page for people.
fn describe(stats: &Value) -> String {
    let mut lines = Vec::new();
    let subject = stats["short_url"].as_str().unwrap_or("Links together");
    lines.push(subject.to_owned());
    lines.push(format!(
        "{} until {}, by the {} in {}",
        text(stats, "from"),
        text(stats, "to"),
        text(stats, "granularity"),
        text(stats, "timezone")
    ));
    lines.push(String::new());
    lines.push(format!("{:<16}{}", "clicks", number(&stats["total_clicks"])));
    lines.push(format!("{:<16}{}", "visitors", visitors(stats)));
    lines.push(format!("{:<16}{}", "of every kind", number(&stats["clicks_total_all"])));
    for kind in ["bot", "preview", "prefetch", "head"] {
        let clicks = &stats["clicks_by_kind"][kind];
        if *clicks != 0 {
            lines.push(format!("  {kind:<14}{}", number(clicks)));
        }
    }
    if stats["clicks"] != stats["total_clicks"] {
        lines.push(format!("{:<16}{}", "counted below", number(&stats["clicks"])));
    }
    lines.extend(chart(&stats["clicks_over_time"], text(stats, "granularity")));
    let lists = [
        ("Referrers", "top_referrers"),
        ("Countries", "top_countries"),
        ("Devices", "devices"),
        ("Browsers", "browsers"),
        ("Operating systems", "os"),
        ("Languages", "languages"),
        ("Groups", "groups"),
    ];
    for (title, field) in lists {
        lines.extend(list(title, &stats[field]));
    }
    let notes = stats["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.extend(notes.map(|note| format!("\nNote: {note}")));
    lines.join("\n")
}

fn visitors(stats: &Value) -> String {
    match (&stats["unique_visitors"], stats["unique_visitors_error"].as_f64()) {
        (Value::Null, _) => {
            format!("unknown: {}", stats["unique_visitors_reason"].as_str().unwrap_or("no reason was given"))
        }
        (visitors, Some(error)) if error > 0.0 => format!("{} (±{:.1} %)", number(visitors), error * 100.0),
        (visitors, _) => number(visitors),
    }
}

/// A whole number with a gap after each three digits.
fn number(value: &Value) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A bar for each bucket.
fn chart(series: &Value, granularity: &str) -> Vec<String> {
    let buckets = series.as_array().map(Vec::as_slice).unwrap_or_default();
    let most = buckets.iter().filter_map(|bucket| bucket["clicks"].as_u64()).max().unwrap_or(0);
    if most == 0 {
        return Vec::new();
    }
    let drawn = &buckets[buckets.len().saturating_sub(BUCKETS_LEN_MAX)..];
    let mut lines = vec![String::new()];
    if drawn.len() < buckets.len() {
        lines.push(format!("The last {} of {} {granularity}s; --json has all", drawn.len(), buckets.len()));
    }
    // 2027-01-15T08:00:00+01:00
    let label_len = match granularity {
        "hour" => 16,
        "month" => 7,
        _ => 10,
    };
    for bucket in drawn {
        let clicks = bucket["clicks"].as_u64().unwrap_or(0);
        let label: String = text(bucket, "start").chars().take(label_len).collect();
        // A bucket with clicks has a bar, however short.
        let length = (clicks * BAR_LEN).div_ceil(most) as usize;
        lines.push(format!(
            "{}  {:<40} {}",
            label.replace('T', " "),
            "█".repeat(length),
            number(&bucket["clicks"])
        ));
    }
    lines
}

/// Values with their clicks, one below the other.
fn list(title: &str, values: &Value) -> Vec<String> {
    let Some(values) = values.as_array().filter(|values| !values.is_empty()) else { return Vec::new() };
    let counts: Vec<String> = values.iter().map(|value| number(&value["clicks"])).collect();
    let width = counts.iter().map(String::len).max().unwrap_or(0);
    let lines = values.iter().zip(&counts);
    let lines = lines.map(|(value, count)| format!("  {count:>width$}  {}", printable(text(value, "value"))));
    [format!("\n{title}")].into_iter().chain(lines).collect()
}

/// What strangers sent, without what would steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '�' } else { letter }).collect()
}

async fn live(which: Which, client: &mut Client, out: &Output) -> Result<ExitCode> {
    if !client.is_served() {
        bail!(
            "no server runs on this data folder, so nobody follows its links; `terse stats show` shows the count"
        );
    }
    let path = which.path_to(client, "/live").await?;
    let response = success(client.call(Request::get(path), Body::empty()).await?).await?;
    let mut body = response.into_body();
    let mut unread = String::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        let Some(frame) = frame else { return Ok(ExitCode::SUCCESS) };
        let data = frame.context("the server has gone away")?.into_data().unwrap_or_default();
        unread.push_str(&String::from_utf8_lossy(&data));
        while let Some((event, rest)) = unread.split_once("\n\n") {
            if let Some(count) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                print_line(&if out.json { count.to_owned() } else { describe_count(count)? })?;
            }
            unread = rest.to_owned();
        }
    }
}

fn describe_count(count: &str) -> Result<String> {
    let count: Value = serde_json::from_str(count).context("the server sent no count")?;
    let (clicks, all) = (number(&count["total_clicks"]), number(&count["clicks_total_all"]));
    Ok(format!("{clicks} clicks, {} visitors, {all} of every kind", number(&count["unique_visitors"])))
}

/// An answer whose body is worth reading; otherwise what the problem says.
async fn success(response: Response<Body>) -> Result<Response<Body>> {
    if response.status().is_success() {
        return Ok(response);
    }
    read_json::<Value>(response).await?;
    bail!("the server refused without a reason")
}

/// Which clicks to write, and where.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    which: MaybeWhich,
    /// csv, ndjson or parquet
    #[arg(long, default_value = "ndjson")]
    format: String,
    /// The file to write; - for stdout
    #[arg(long, short, default_value = "-", value_name = "FILE")]
    output: PathBuf,
    /// Only clicks from this time or UTC date on
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only clicks until this time, or this UTC date as a whole
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl Export {
    /// Writes the clicks; a file appears when it is complete.
    async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let everyone = everyone(client, self.which.code.is_none());
        let query = self.which.path(client, "/clicks/export", "/api/v1/clicks/export").await?;
        let query = query
            .and("everyone", everyone)
            .and("format", Some(self.format))
            .and("from", self.from)
            .and("to", self.to);
        let response = success(client.call(Request::get(query.0), Body::empty()).await?).await?;
        let mut body = response.into_body();
        if self.output.as_os_str() == "-" {
            let mut stdout = stdout().lock();
            while let Some(frame) = body.frame().await {
                let data = frame.context("the export broke off")?.into_data().unwrap_or_default();
                stdout.write_all(&data).map_err(quiet_at_head).context("cannot write the clicks")?;
            }
            stdout.flush().map_err(quiet_at_head).context("cannot write the clicks")?;
            return Ok(ExitCode::SUCCESS);
        }
        let cannot = || format!("cannot write {:?}", self.output);
        let mut part = self.output.clone().into_os_string();
        part.push(".part");
        let mut file = BufWriter::new(File::create(&part).with_context(cannot)?);
        let progress = ProgressBar::new_spinner();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let data = frame.context("the export broke off")?.into_data().unwrap_or_default();
            file.write_all(&data).with_context(cannot)?;
            bytes += data.len() as u64;
            progress.set_message(HumanBytes(bytes).to_string());
            progress.tick();
        }
        file.into_inner().with_context(cannot)?.sync_all().with_context(cannot)?;
        std::fs::rename(&part, &self.output).with_context(cannot)?;
        progress.finish_and_clear();
        let report = json!({"file": self.output.display().to_string(), "bytes": bytes});
        out.print(&report, |_| format!("Wrote {} ({bytes} bytes)", self.output.display()))
    }
}

/// The command line is an admin's and means everybody's links, unless it acts as somebody.
fn everyone(client: &Client, names_no_link: bool) -> Option<String> {
    (names_no_link && client.named_user().is_none()).then(|| "true".to_owned())
}

/// Which days to count anew.
#[derive(Debug, Args)]
pub struct Reconcile {
    /// The first day, a UTC date [default: the last one]
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// The last day, a UTC date [default: yesterday]
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
}

impl Reconcile {
    async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let request = json!({"from": self.from, "to": self.to});
        let answer = client.json(Method::POST, "/api/v1/stats/reconcile", Some(&request)).await?;
        out.print(&answer, describe_days)
    }
}

/// A line for each day that was counted anew, and one for those that were not.
fn describe_days(answer: &Value) -> String {
    let mut lines = Vec::new();
    let days = answer["days"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !days.is_empty() {
        let [day, clicks, people] = ["day", "clicks", "of people"];
        lines.push(format!(
            "{day:<10}  {clicks:>25}  {people:>25}  {:>8}  {:>8}  {:>8}  {:>8}",
            "by agent", "by rate", "repeats", "erased"
        ));
    }
    let change = |day: &Value, of: &str| {
        let (before, after) = (&day[format!("{of}_before")], &day[format!("{of}_after")]);
        if before == after { number(after) } else { format!("{} → {}", number(before), number(after)) }
    };
    for day in days {
        let [by_agent, by_rate, repeats, erased] =
            ["by_agent", "by_rate", "repeats", "erased"].map(|reason| number(&day[reason]));
        lines.push(format!(
            "{}  {:>25}  {:>25}  {by_agent:>8}  {by_rate:>8}  {repeats:>8}  {erased:>8}",
            text(day, "day"),
            change(day, "clicks"),
            change(day, "human"),
        ));
    }
    let left_out: Vec<&str> =
        answer["left_out"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !left_out.is_empty() {
        let days = left_out.join(", ");
        lines.push(format!("Left as they are, because not all of their raw clicks are kept: {days}"));
    }
    lines.join("\n")
}

/// Whose clicks to erase.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// The clicks of this link: its short code, or the whole short link
    #[arg(long, value_name = "CODE")]
    link: Option<String>,
    /// The raw clicks of this visitor, as raw clicks tell it; on all links, or with --user on that user's
    #[arg(long, value_name = "HASH")]
    visitor: Option<String>,
}

/// What to erase.
#[derive(Debug, Args)]
pub struct Erase {
    #[command(flatten)]
    whose: Whose,
    /// The link's domain
    #[arg(long, conflicts_with = "visitor")]
    domain: Option<String>,
}

impl Erase {
    async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let query = match self.whose.link {
            Some(code) => Query(Which { code, domain: self.domain }.path_to(client, "/clicks").await?),
            None => Query("/api/v1/clicks".to_owned())
                .and("visitor", self.whose.visitor)
                .and("everyone", everyone(client, true)),
        };
        let answer = client.json(Method::DELETE, &query.0, None).await?;
        out.print(&answer, |answer| format!("Erased {} raw clicks", number(&answer["erased_events"])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_readable() {
        let bucket = |start: &str, clicks: u64| json!({"start": start, "clicks": clicks});
        let stats = json!({
            "short_url": "https://go.example.com/f3Kq9Zx", "short_code": "f3Kq9Zx",
            "from": "2027-01-14T00:00:00.000Z", "to": "2027-01-17T00:00:00.000Z",
            "timezone": "UTC", "granularity": "day",
            "total_clicks": 1_234_567, "clicks_total_all": 1_234_600, "clicks": 1_234_567,
            "unique_visitors": 98_765, "unique_visitors_error": 0.016, "unique_visitors_reason": null,
            "clicks_by_kind": {"human": 1_234_567, "bot": 33, "preview": 0, "prefetch": 0, "head": 0},
            "clicks_over_time": [
                bucket("2027-01-14T00:00:00+00:00", 1), bucket("2027-01-15T00:00:00+00:00", 0),
                bucket("2027-01-16T00:00:00+00:00", 1_234_566),
            ],
            "top_referrers": [{"value": "news.example.org", "clicks": 1_234_500}, {"value": "a\u{1b}[2J", "clicks": 67}],
            "top_countries": [], "devices": [], "browsers": [], "os": [], "languages": [],
            "notes": ["Days before 2027-01-15 are not exact."],
        });
        let expected = [
            "https://go.example.com/f3Kq9Zx",
            "2027-01-14T00:00:00.000Z until 2027-01-17T00:00:00.000Z, by the day in UTC",
            "",
            "clicks          1 234 567",
            "visitors        98 765 (±1.6 %)",
            "of every kind   1 234 600",
            "  bot           33",
            "",
            "2027-01-14  █                                        1",
            "2027-01-15                                           0",
            "2027-01-16  ████████████████████████████████████████ 1 234 566",
            "",
            "Referrers",
            "  1 234 500  news.example.org",
            "         67  a�[2J",
            "",
            "Note: Days before 2027-01-15 are not exact.",
        ];
        assert_eq!(describe(&stats), expected.join("\n"));
    }

    #[test]
    fn visitors_that_cannot_be_told_say_why() {
        let stats = json!({"unique_visitors": null, "unique_visitors_reason": "raw clicks are gone"});
        assert_eq!(visitors(&stats), "unknown: raw clicks are gone");
        assert_eq!(visitors(&json!({"unique_visitors": 7, "unique_visitors_error": 0.0})), "7");
    }

    #[test]
    fn a_long_series_shows_its_end() {
        let buckets: Vec<Value> =
            (0..100).map(|at| json!({"start": format!("2027-01-15T{at:02}"), "clicks": at})).collect();
        let lines = chart(&Value::Array(buckets), "hour");
        assert_eq!(lines.len(), 62);
        assert_eq!(lines[1], "The last 60 of 100 hours; --json has all");
        assert!(lines[2].starts_with("2027-01-15 40  "), "{}", lines[2]);
        assert_eq!(chart(&json!([{"start": "2027-01-15", "clicks": 0}]), "day"), Vec::<String>::new());
    }

    #[test]
    fn days_that_were_counted_anew_are_a_table() {
        let day = json!({
            "day": "2027-01-14", "clicks_before": 1200, "clicks_after": 1190, "human_before": 1000,
            "human_after": 1000, "by_agent": 0, "by_rate": 0, "repeats": 10, "erased": 0,
        });
        let table = describe_days(&json!({"days": [day], "left_out": ["2027-01-12", "2027-01-13"]}));
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].contains("1 200 → 1 190") && lines[1].ends_with("0"), "{table}");
        assert_eq!(lines[0].chars().count(), lines[1].chars().count(), "{table}");
        assert!(lines[2].ends_with("2027-01-12, 2027-01-13"), "{table}");
    }
}
