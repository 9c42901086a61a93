//! Counters and gauges, in the text format of OpenMetrics for Prometheus.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// Everything that is counted. Each field's help text says what it means.
#[derive(Debug)]
pub struct Metrics {
    /// Redirects.
    pub redirects: Counter,
    /// Refusals that a link's state explains.
    pub redirects_refused: Counter,
    /// Refusals by rate.
    pub redirects_limited: Counter,
    /// Refusals because the store did not answer.
    pub redirects_unavailable: Counter,
    /// Lookups answered from memory.
    pub cache_hits: Counter,
    /// Lookups that went to the store.
    pub cache_misses: Counter,
    /// Memory of cached links.
    pub cache_bytes: Gauge,
    /// Cached links.
    pub cache_links: Gauge,
    /// Cached unknown codes.
    pub cache_missing: Gauge,
    /// Calls to the store that failed.
    pub store_failures: Counter,
    /// Links created.
    pub links_created: Counter,
    /// Links changed.
    pub links_changed: Counter,
    /// Links deleted.
    pub links_deleted: Counter,
    /// Expired links shrunken.
    pub links_swept: Counter,
    /// API calls refused by rate.
    pub api_limited: Counter,
    /// Requests to the API and the pages.
    pub api_requests: Counter,
    /// Clicks in the journal.
    pub clicks_appended: Counter,
    /// Clicks in the rollups.
    pub clicks_processed: Counter,
    /// Clicks that there was no room for.
    pub clicks_dropped: Counter,
    /// Clicks whose time was not believed.
    pub clicks_ahead: Counter,
    /// Clicks whose record can't be read.
    pub clicks_unreadable: Counter,
    /// Clicks that statistics don't show yet.
    pub clicks_lag: Gauge,
    /// Age of the oldest of them.
    pub clicks_lag_seconds: Gauge<f64, AtomicU64>,
    /// Clicks that a power cut took.
    pub clicks_lost: Gauge,
    /// Size of the journal.
    pub clicks_journal_bytes: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Connections closed at once because too many were open.
    pub connections_refused: Counter,
    /// Connections that went from io_uring to hyper.
    pub connections_handed_over: Counter,
    registry: Mutex<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("terse");
        registry.register(
            "build",
            "Version of this binary",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let redirects = counter("redirects", "Redirects answered");
        let redirects_refused =
            counter("redirects_refused", "Short links refused: unknown, gone, disabled, not started");
        let redirects_limited =
            counter("redirects_limited", "Short links refused because the caller asked too often");
        let redirects_unavailable =
            counter("redirects_unavailable", "Short links refused because the store failed");
        let cache_hits = counter("cache_hits", "Lookups answered from memory");
        let cache_misses = counter("cache_misses", "Lookups that needed the store");
        let store_failures = counter("store_failures", "Calls to the store that failed");
        let links_created = counter("links_created", "Links created");
        let links_changed = counter("links_changed", "Links changed");
        let links_deleted = counter("links_deleted", "Links deleted");
        let links_swept = counter("links_swept", "Expired links shrunken by the sweeper");
        let api_limited = counter("api_limited", "API calls refused because the caller asked too often");
        let api_requests = counter("api_requests", "Requests to the API and the pages");
        let connections_refused =
            counter("connections_refused", "Connections closed because too many were open");
        let connections_handed_over = counter(
            "connections_handed_over",
            "Connections that the io_uring loop handed over to hyper, for anything but short links",
        );
        let clicks_appended = counter("clicks_appended", "Clicks written to the journal");
        let clicks_processed = counter("clicks_processed", "Clicks added to the rollups, durably");
        let clicks_dropped = counter("clicks_dropped", "Clicks not counted because the journal had no room");
        let clicks_ahead =
            counter("clicks_ahead", "Clicks whose time lay more than ten minutes ahead and was replaced");
        let clicks_unreadable =
            counter("clicks_unreadable", "Clicks whose record in the journal can't be read");
        let clicks_lag_seconds = Gauge::<f64, AtomicU64>::default();
        let help = "Age of the oldest click that statistics don't show yet, in seconds";
        registry.register("clicks_lag_seconds", help, clicks_lag_seconds.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Metrics {
            cache_bytes: gauge("cache_bytes", "Memory of cached links, in bytes"),
            cache_links: gauge("cache_links", "Links in memory"),
            cache_missing: gauge("cache_missing", "Codes in memory as unknown"),
            connections: gauge("connections", "Open connections"),
            clicks_lag: gauge("clicks_lag_events", "Clicks in the journal that statistics don't show yet"),
            clicks_lost: gauge("clicks_lost", "Clicks that recovery found missing, after a power cut"),
            clicks_journal_bytes: gauge("clicks_journal_bytes", "Size of the journal of clicks, in bytes"),
            clicks_appended,
            clicks_processed,
            clicks_dropped,
            clicks_ahead,
            clicks_unreadable,
            clicks_lag_seconds,
            redirects,
            redirects_refused,
            redirects_limited,
            redirects_unavailable,
            cache_hits,
            cache_misses,
            store_failures,
            links_created,
            links_changed,
            links_deleted,
            links_swept,
            api_limited,
            api_requests,
            connections_refused,
            connections_handed_over,
            registry: Mutex::new(registry),
        }
    }
}

impl Metrics {
    /// The page for Prometheus.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().expect("no code panics under this lock");
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }
}
