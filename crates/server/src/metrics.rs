//! Counters and gauges, in the text format of OpenMetrics for Prometheus.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::Mutex;

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
    /// Open connections.
    pub connections: Gauge,
    /// Connections closed at once because too many were open.
    pub connections_refused: Counter,
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
