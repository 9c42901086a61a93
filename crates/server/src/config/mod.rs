//! Configuration: raw texts from the file, the environment and the command line become one checked [`Config`].
//!
//! Every mistake is reported at once, with the place that it came from.

mod raw;

pub use raw::{KEYS, Key, Raw, Source};

use http::HeaderName;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use terse_model::code::ReservedWords;
use terse_model::code_space::Generator;
use terse_model::domain::DomainName;
use terse_model::link::RedirectType;
use terse_model::redirect::PERMANENT_MAX_AGE_MAX;

/// Everything that an operator can choose, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for HTTP.
    pub listen: SocketAddr,
    /// The folder that holds everything.
    pub data_dir: PathBuf,
    /// What short links begin with. `None` takes the address that is listened on.
    pub base_url: Option<BaseUrl>,
    /// Worker threads, each with its own listener.
    pub workers: usize,
    /// Which connection loop they run.
    pub io: Io,
    /// Which log lines are written, as a `tracing` filter.
    pub log: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Who may create links without a key.
    pub anonymous_create: AnonymousCreate,
    /// Whether a host that is no registered domain is refused rather than served as the default one.
    pub strict_hosts: bool,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether /metrics answers without a key to others than loopback clients.
    pub metrics_public: bool,
    /// Certificate and key files for TLS.
    pub tls: Option<TlsFiles>,
    /// The code generator of a new store, or the one that an existing store must have.
    pub generator: Option<Generator>,
    /// The status of links that don't say.
    pub redirect_type: RedirectType,
    /// Seconds that browsers may keep permanent redirects.
    pub permanent_max_age: u32,
    /// Words that no alias may be.
    pub reserved_words: ReservedWords,
    /// Rates, or `None` for no limits at all.
    pub rates: Option<Rates>,
    /// The in-process cache.
    pub cache: CacheConfig,
    /// Bounds of connections and requests.
    pub http: HttpConfig,
    /// The embedded store.
    pub store: StoreConfig,
    /// The background sweeper.
    pub sweeper: SweeperConfig,
    /// Threads that check passwords.
    pub password_threads: usize,
    /// Clicks and statistics.
    pub clicks: ClicksConfig,
}

/// What short links begin with: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The name of the default domain.
    pub host: DomainName,
    /// The port, unless it is the scheme's own.
    pub port: Option<u16>,
}

impl BaseUrl {
    /// The address of a path on `domain`, which is served at the same scheme and port.
    pub fn on(&self, domain: &DomainName) -> String {
        match self.port {
            Some(port) => format!("{}://{domain}:{port}", self.scheme),
            None => format!("{}://{domain}", self.scheme),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.on(&self.host))
    }
}

impl FromStr for BaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected http:// or https:// with a host and perhaps a port, such as https://go.example.com";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        let (scheme, own_port) = match scheme {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return Err(EXPECTED),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| EXPECTED)?)),
            _ => (rest, None),
        };
        let host = DomainName::parse(host).map_err(|_| EXPECTED)?;
        Ok(BaseUrl { scheme, host, port: port.filter(|port| *port != own_port) })
    }
}

/// A connection loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// io_uring where it can be had, else hyper.
    Auto,
    /// io_uring, or no start.
    Uring,
    /// hyper on tokio.
    Tokio,
}

/// Who may create links without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnonymousCreate {
    /// Whoever sits at this machine: only if the listen address and the base URL are both loopback.
    Auto,
    /// Everybody.
    On,
    /// Nobody.
    Off,
}

/// Certificate and key files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first, in PEM.
    pub cert: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

/// Requests that one caller may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Redirects a minute for an address.
    pub redirects_per_minute: u32,
    /// Links an hour for an address without a key.
    pub anonymous_creates_per_hour: u32,
    /// Lookups a second of one code that the in-process cache can't answer.
    pub misses_per_second: u32,
    /// Password attempts a minute for a link and an address.
    pub passwords_per_minute: u32,
    /// Callers that are told apart at once, per kind of limit.
    pub callers_len_max: usize,
}

/// The in-process cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Memory for links.
    pub bytes_max: u64,
    /// Codes that are remembered as unknown.
    pub missing_len_max: usize,
    /// How long an entry is believed.
    pub ttl: Duration,
    /// How long a code is remembered as unknown.
    pub missing_ttl: Duration,
    /// Loads that may be under way at once.
    pub loads_len_max: usize,
}

/// Bounds of connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Connections that are open at once.
    pub connections_max: usize,
    /// For the head of a request, and between two requests of a connection.
    pub head_timeout: Duration,
    /// For the body of a request.
    pub body_timeout: Duration,
    /// For the answer of an API call.
    pub answer_timeout: Duration,
    /// For everything that is under way when the server stops.
    pub drain_timeout: Duration,
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// How long a redirect waits for it.
    pub timeout: Duration,
    /// Threads that read.
    pub readers: usize,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Rows of a bulk call in one transaction.
    pub batch_len: usize,
}

/// The background sweeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweeperConfig {
    /// Pause between two rounds.
    pub interval: Duration,
    /// How long an expired link can still be extended.
    pub grace: Duration,
    /// Links in one transaction.
    pub batch_len: usize,
}

/// Clicks and statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClicksConfig {
    /// Whether clicks are recorded.
    pub are_recorded: bool,
    /// Size of the journal on disk.
    pub journal_bytes_max: u64,
    /// Size of one of its segments.
    pub segment_len: u32,
    /// How often it is written to disk.
    pub flush_interval: Duration,
    /// Memory for counts on their way to the rollups.
    pub memory_bytes_max: usize,
    /// Days that raw events are kept; 0 keeps none.
    pub raw_days: u32,
    /// A pipeline that is further behind is shown as degraded.
    pub lag_max: Duration,
    /// Whether the query of a referrer is kept.
    pub referrer_query: bool,
    /// A file to find countries in, in place of the built-in table.
    pub country_file: Option<PathBuf>,
    /// The header in which a trusted proxy tells the visitor's country.
    pub country_header: Option<HeaderName>,
    /// Listeners to live counts at once.
    pub live_len_max: usize,
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has mistakes:\n{}", .0.iter().map(|mistake| format!("  - {mistake}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

impl Config {
    /// Checks all values and reports all mistakes.
    pub fn check(raw: &Raw) -> Result<Self, ConfigErrors> {
        let mut check = Check { raw, mistakes: raw.mistakes().to_vec() };
        let config = check.config();
        match config {
            Some(config) if check.mistakes.is_empty() => Ok(config),
            _ => Err(ConfigErrors(check.mistakes)),
        }
    }
}

struct Check<'a> {
    raw: &'a Raw,
    mistakes: Vec<String>,
}

impl Check<'_> {
    /// `None` when a mistake leaves nothing to build from. All keys are read in any case.
    fn config(&mut self) -> Option<Config> {
        let listen = self.parse("listen", "an address and a port such as 127.0.0.1:8080");
        let base_url = self.optional("base_url", |text| text.parse::<BaseUrl>().map_err(str::to_owned));
        let workers = self.number("workers", 0..=1024);
        let io = self.choice("io", &[("auto", Io::Auto), ("uring", Io::Uring), ("tokio", Io::Tokio)]);
        let log = self.text("log");
        if log.parse::<tracing_subscriber::filter::Targets>().is_err() {
            self.mistake(
                "log",
                "expected a level such as info, or targets with levels such as info,terse=debug",
            );
        }
        let log_json = self.choice("log_format", &[("text", false), ("json", true)]);
        let anonymous_create = self.choice(
            "anonymous_create",
            &[("auto", AnonymousCreate::Auto), ("on", AnonymousCreate::On), ("off", AnonymousCreate::Off)],
        );
        let strict_hosts = self.switch("strict_hosts");
        let trusted_proxies = self.list("trusted_proxies", |text| {
            text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                "expected addresses or networks such as 10.0.0.0/8, separated by commas".to_owned()
            })
        });
        let metrics_public = self.switch("metrics_public");
        let tls = self.tls();
        let generator =
            self.optional("generator", |text| text.parse::<Generator>().map_err(|e| e.to_string()));
        let redirect_type = self.optional("redirect_type", |text| {
            RedirectType::parse(text).ok_or_else(|| "expected 301, 302, 307 or 308".to_owned())
        });
        let permanent_max_age = self.number("permanent_max_age_s", 0..=u64::from(PERMANENT_MAX_AGE_MAX));
        let reserved_words = self.list("reserved_words", |text| Ok(text.to_owned()));
        let limited = self.switch("rate_limits");
        let rates = Rates {
            redirects_per_minute: self.number("redirects_per_minute", 1..=1_000_000_000)? as u32,
            anonymous_creates_per_hour: self.number("anonymous_creates_per_hour", 1..=1_000_000_000)? as u32,
            misses_per_second: self.number("misses_per_second", 1..=1_000_000_000)? as u32,
            passwords_per_minute: self.number("passwords_per_minute", 1..=1_000_000)? as u32,
            callers_len_max: self.number("callers_len_max", 16..=100_000_000)? as usize,
        };
        let cache = CacheConfig {
            bytes_max: self.number("cache_mb", 1..=1_000_000)? << 20,
            missing_len_max: self.number("missing_cache_len", 16..=100_000_000)? as usize,
            ttl: self.seconds("cache_ttl_s", 1..=30)?,
            missing_ttl: self.seconds("missing_cache_ttl_s", 1..=30)?,
            loads_len_max: self.number("loads_len_max", 1..=1_000_000)? as usize,
        };
        let http = HttpConfig {
            connections_max: self.number("connections_max", 1..=10_000_000)? as usize,
            head_timeout: self.seconds("head_timeout_s", 1..=3600)?,
            body_timeout: self.seconds("body_timeout_s", 1..=3600)?,
            answer_timeout: self.seconds("answer_timeout_s", 1..=3600)?,
            drain_timeout: self.seconds("drain_timeout_s", 1..=3600)?,
        };
        let store = StoreConfig {
            timeout: Duration::from_millis(self.number("store_timeout_ms", 1..=60_000)?),
            readers: self.number("store_readers", 1..=256)? as usize,
            cache_kib: self.number("store_cache_kib", 64..=64 << 20)? as u32,
            batch_len: self.number("store_batch_len", 1..=100_000)? as usize,
        };
        let sweeper = SweeperConfig {
            interval: self.seconds("sweep_interval_s", 1..=86_400)?,
            grace: self.seconds("sweep_grace_s", 0..=366 * 86_400)?,
            batch_len: self.number("sweep_batch_len", 1..=100_000)? as usize,
        };
        let password_threads = self.number("password_threads", 1..=256)? as usize;
        let are_recorded = self.switch("clicks");
        let referrer_query = self.switch("referrer_query");
        let country_header = self.optional("country_header", |text| {
            text.parse::<HeaderName>().map_err(|_| "expected the name of a header".to_owned())
        });
        let country_file = self.text("country_file");
        let clicks = ClicksConfig {
            are_recorded: are_recorded?,
            journal_bytes_max: self.number("clicks_journal_mb", 1..=100_000_000)? << 20,
            segment_len: (self.number("clicks_segment_kib", 64..=64 << 10)? << 10) as u32,
            flush_interval: Duration::from_millis(self.number("clicks_flush_ms", 10..=3_600_000)?),
            memory_bytes_max: (self.number("clicks_memory_mb", 1..=1_000_000)? << 20) as usize,
            raw_days: self.number("clicks_raw_days", 0..=36_500)? as u32,
            lag_max: self.seconds("clicks_lag_max_s", 1..=86_400)?,
            referrer_query: referrer_query?,
            country_file: (!country_file.is_empty()).then(|| country_file.into()),
            country_header,
            live_len_max: self.number("live_len_max", 1..=1_000_000)? as usize,
        };
        let workers = match workers? {
            0 => available_cores(),
            workers => workers as usize,
        };
        // Each thread fills one segment while the next one is ready, and with io_uring a worker has two threads.
        let threads = if io == Some(Io::Tokio) { workers } else { 2 * workers };
        let least = 2 * threads as u64 * u64::from(clicks.segment_len);
        if clicks.journal_bytes_max < least {
            let least = least.div_ceil(1 << 20);
            self.mistake(
                "clicks_journal_mb",
                &format!("expected at least {least}, two segments of clicks_segment_kib for each thread"),
            );
        }
        Some(Config {
            listen: listen?,
            data_dir: PathBuf::from(self.text("data_dir")),
            base_url,
            workers,
            io: io?,
            log,
            log_json: log_json?,
            anonymous_create: anonymous_create?,
            strict_hosts: strict_hosts?,
            trusted_proxies,
            metrics_public: metrics_public?,
            tls,
            generator,
            redirect_type: redirect_type?,
            permanent_max_age: permanent_max_age? as u32,
            reserved_words: ReservedWords::new(reserved_words),
            rates: limited?.then_some(rates),
            cache,
            http,
            store,
            sweeper,
            password_threads,
            clicks,
        })
    }

    fn tls(&mut self) -> Option<TlsFiles> {
        match (self.text("tls_cert"), self.text("tls_key")) {
            (cert, key) if cert.is_empty() && key.is_empty() => None,
            (cert, key) if cert.is_empty() || key.is_empty() => {
                self.mistake("tls_cert", "tls_cert and tls_key go together");
                None
            }
            (cert, key) => Some(TlsFiles { cert: cert.into(), key: key.into() }),
        }
    }

    fn text(&self, key: &str) -> String {
        self.raw.get(key).0.to_owned()
    }

    fn mistake(&mut self, key: &str, message: &str) {
        let (value, source) = self.raw.get(key);
        self.mistakes.push(format!("{key} = \"{value}\" ({source}): {message}"));
    }

    fn parse<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        let parsed = self.text(key).parse().ok();
        if parsed.is_none() {
            self.mistake(key, &format!("expected {expected}"));
        }
        parsed
    }

    fn optional<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key);
        if text.is_empty() {
            return None;
        }
        parse(&text).map_err(|message| self.mistake(key, &message)).ok()
    }

    fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let text = self.text(key);
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        match parts.map(parse).collect() {
            Ok(values) => values,
            Err(message) => {
                self.mistake(key, &message);
                Vec::new()
            }
        }
    }

    fn number(&mut self, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let number = self.text(key).parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.mistake(key, &format!("expected a whole number from {} to {}", range.start(), range.end()));
        }
        // So that one bad number doesn't hide the mistakes that follow it.
        number.or(Some(*range.start()))
    }

    fn seconds(&mut self, key: &str, range: std::ops::RangeInclusive<u64>) -> Option<Duration> {
        self.number(key, range).map(Duration::from_secs)
    }

    fn switch(&mut self, key: &str) -> Option<bool> {
        self.choice(key, &[("on", true), ("off", false)])
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key);
        let choice = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if choice.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.mistake(key, &format!("expected {}", names.join(" or ")));
        }
        choice
    }
}

/// Cores that this process may use, by affinity and cgroup.
fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let mut raw = Raw::default();
        for (key, value) in settings {
            raw.set(key, (*value).to_owned(), Source::CommandLine);
        }
        Config::check(&raw)
    }

    #[test]
    fn the_defaults_are_right() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.data_dir, PathBuf::from("./terse-data"));
        assert_eq!(config.redirect_type, RedirectType::Found);
        assert!(config.base_url.is_none() && config.tls.is_none() && config.generator.is_none());
        assert_eq!(config.rates.unwrap().redirects_per_minute, 1000);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error = config(&[
            ("listen", "nonsense"),
            ("base_url", "https://example.com/path"),
            ("rate_limits", "maybe"),
            ("cache_mb", "0"),
            ("tls_cert", "cert.pem"),
            ("trusted_proxies", "10.0.0.0/8, nobody"),
            ("generator", "permuted:99"),
        ])
        .unwrap_err();
        let text = error.to_string();
        for key in
            ["listen", "base_url", "rate_limits", "cache_mb", "tls_cert", "trusted_proxies", "generator"]
        {
            assert!(text.contains(&format!("{key} = ")), "{key} is missing in\n{text}");
        }
        assert_eq!(error.0.len(), 7, "{text}");
    }

    #[test]
    fn base_urls() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                text.parse::<BaseUrl>().ok().map(|url| url.to_string()).as_deref(),
                expected,
                "{text}"
            );
        };
        check("https://go.example.com", Some("https://go.example.com"));
        check("https://go.example.com/", Some("https://go.example.com"));
        check("https://go.example.com:443", Some("https://go.example.com"));
        check("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check("http://[::1]", Some("http://[::1]"));
        check("http://[::1]:81", Some("http://[::1]:81"));
        for text in ["", "go.example.com", "ftp://x", "https://", "https://a/b", "https://a:b", "https://u@a"]
        {
            check(text, None);
        }
    }

    #[test]
    fn the_documentation_names_every_key_with_its_default() {
        let page = include_str!("../../../../docs/configuration.md");
        for key in KEYS {
            let row =
                format!("| `{}` | `TERSE_{}` | {} |", key.name, key.name.to_uppercase(), key.shown_default());
            assert!(page.contains(&row), "docs/configuration.md has no row that begins with\n{row}");
        }
    }
}
