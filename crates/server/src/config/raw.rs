//! Where configuration comes from: defaults, then the file, the environment, the command line; the last one wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that can be configured.
#[derive(Debug)]
pub struct Key {
    /// In the file; `TERSE_` and this in capitals in the environment.
    pub name: &'static str,
    /// As text; empty for "not set".
    pub default: &'static str,
}

impl Key {
    /// The default as docs/configuration.md shows it.
    pub fn shown_default(&self) -> String {
        if self.default.is_empty() { "–".to_owned() } else { format!("`{}`", self.default) }
    }
}

const fn key(name: &'static str, default: &'static str) -> Key {
    Key { name, default }
}

/// Every key. docs/configuration.md says what they mean.
pub const KEYS: &[Key] = &[
    key("listen", "127.0.0.1:8080"),
    key("data_dir", "./terse-data"),
    key("base_url", ""),
    key("anonymous_create", "auto"),
    key("redirect_type", "302"),
    key("permanent_max_age_s", "30"),
    key("reserved_words", ""),
    key("strict_hosts", "off"),
    key("generator", ""),
    key("tls_cert", ""),
    key("tls_key", ""),
    key("trusted_proxies", ""),
    key("metrics_public", "off"),
    key("log", "info"),
    key("log_format", "text"),
    key("rate_limits", "on"),
    key("redirects_per_minute", "1000"),
    key("anonymous_creates_per_hour", "10"),
    key("misses_per_second", "50000"),
    key("passwords_per_minute", "10"),
    key("callers_len_max", "1000000"),
    key("workers", "0"),
    key("io", "auto"),
    key("cache_mb", "64"),
    key("cache_ttl_s", "30"),
    key("missing_cache_len", "100000"),
    key("missing_cache_ttl_s", "5"),
    key("loads_len_max", "4096"),
    key("connections_max", "20000"),
    key("head_timeout_s", "30"),
    key("body_timeout_s", "30"),
    key("answer_timeout_s", "30"),
    key("drain_timeout_s", "8"),
    key("store_timeout_ms", "2000"),
    key("store_readers", "2"),
    key("store_cache_kib", "8192"),
    key("store_batch_len", "2500"),
    key("sweep_interval_s", "60"),
    key("sweep_grace_s", "86400"),
    key("sweep_batch_len", "5000"),
    key("password_threads", "2"),
    key("clicks", "on"),
    key("clicks_journal_mb", "6144"),
    key("clicks_segment_kib", "4096"),
    key("clicks_flush_ms", "1000"),
    key("clicks_memory_mb", "64"),
    key("clicks_raw_days", "30"),
    key("clicks_lag_max_s", "60"),
    key("referrer_query", "off"),
    key("country_file", ""),
    key("country_header", "CF-IPCountry"),
    key("live_len_max", "1000"),
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// An option.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("the default"),
            Source::File(path) => write!(f, "from {}", path.display()),
            Source::Environment(name) => write!(f, "from {name}"),
            Source::CommandLine => f.write_str("from the command line"),
        }
    }
}

/// Values as texts, with where they came from.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    values: BTreeMap<&'static str, (String, Source)>,
    mistakes: Vec<String>,
    unknown_variables: Vec<String>,
}

impl Raw {
    /// Reads a TOML file of keys and values.
    pub fn read_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self
                    .mistakes
                    .push(format!("cannot read the configuration {}: {error}", path.display()));
            }
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return self.mistakes.push(format!("{} is no TOML: {error}", path.display())),
        };
        for (name, value) in table {
            match (find(&name), as_text(&value)) {
                (Some(key), Some(text)) => self.set(key.name, text, Source::File(path.to_owned())),
                (Some(_), None) => {
                    self.mistakes
                        .push(format!("{name} (from {}): expected a plain value or a list", path.display()));
                }
                (None, _) => {
                    self.mistakes.push(format!(
                        "{name} (from {}): there is no such key{}",
                        path.display(),
                        hint(&name)
                    ));
                }
            }
        }
    }

    /// Takes `TERSE_<KEY>` variables. Others that begin with `TERSE_` are remembered for a warning.
    pub fn read_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("TERSE_") else { continue };
            match find(&name.to_lowercase()) {
                Some(key) => self.set(key.name, value, Source::Environment(variable)),
                None if name == "CONFIG" => {}
                None => self.unknown_variables.push(format!("{variable}{}", hint(&name.to_lowercase()))),
            }
        }
    }

    /// Sets one value.
    ///
    /// # Panics
    /// When `name` is no key.
    pub fn set(&mut self, name: &str, value: String, source: Source) {
        let key = find(name).expect("a key of KEYS");
        self.values.insert(key.name, (value.trim().to_owned(), source));
    }

    /// The value in force.
    ///
    /// # Panics
    /// When `name` is no key.
    pub fn get(&self, name: &str) -> (&str, &Source) {
        let key = find(name).expect("a key of KEYS");
        self.values.get(key.name).map_or((key.default, &Source::Default), |(value, source)| (value, source))
    }

    /// What could not be read.
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }

    /// Variables that look like ours and mean nothing.
    pub fn unknown_variables(&self) -> &[String] {
        &self.unknown_variables
    }
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn hint(name: &str) -> String {
    let near = KEYS.iter().find(|key| key.name.contains(name) || name.contains(key.name));
    near.map_or(String::new(), |key| format!(" (did you mean {}?)", key.name))
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(set) => Some(if *set { "on" } else { "off" }.to_owned()),
        toml::Value::Array(values) => {
            values.iter().map(as_text).collect::<Option<Vec<_>>>().map(|all| all.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win_and_mistakes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("terse.toml");
        std::fs::write(&file, "listen = \"[::]:80\"\ncache_mb = 5\nstrict_hosts = true\nbase = \"x\"\n")
            .unwrap();
        let mut raw = Raw::default();
        raw.read_file(&file);
        let variables =
            [("TERSE_CACHE_MB", "6"), ("TERSE_LISTN", "x"), ("PATH", "/bin"), ("TERSE_CONFIG", "f")];
        raw.read_environment(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(raw.get("listen"), ("[::]:80", &Source::File(file)));
        assert_eq!(raw.get("cache_mb").0, "6");
        assert_eq!(raw.get("strict_hosts").0, "on");
        assert_eq!(raw.get("log").0, "info");
        assert_eq!(raw.mistakes().len(), 1);
        assert!(raw.mistakes()[0].contains("did you mean base_url?"), "{:?}", raw.mistakes());
        assert_eq!(raw.unknown_variables(), ["TERSE_LISTN"]);
    }

    #[test]
    fn a_missing_or_broken_file_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let mut raw = Raw::default();
        raw.read_file(&dir.path().join("absent.toml"));
        let broken = dir.path().join("broken.toml");
        std::fs::write(&broken, "listen = ").unwrap();
        raw.read_file(&broken);
        assert_eq!(raw.mistakes().len(), 2, "{:?}", raw.mistakes());
    }
}
