//! `terse keys` and `terse domains`.

use super::client::Client;
use super::{Output, text};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key and print it alone; it is never shown again
    Create(Create),
    /// List keys, without the keys themselves
    List,
    /// Revoke a key
    Revoke {
        /// The key's id, as `terse keys list` shows it
        id: u32,
    },
}

/// A key to make.
#[derive(Debug, Args)]
pub struct Create {
    /// What it is for; also the user, unless --user says another
    #[arg(long)]
    name: String,
    /// The user's role: member or admin [default: member for a new user]
    #[arg(long)]
    role: Option<String>,
    /// The user's tier: free, premium, bulk or unlimited [default: free for a new user]
    #[arg(long)]
    tier: Option<String>,
    /// What it may be used for: links:read, links:write, stats:read, keys, admin [default: all]
    #[arg(long, value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// When it stops to work: a time or a date
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Links an hour for this key, in place of the tier's figure
    #[arg(long, value_name = "N")]
    creates_per_hour: Option<u32>,
}

impl Keys {
    /// Runs the command.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        match self {
            Keys::Create(create) => create.run(client, out).await,
            Keys::List => {
                let answer = client.json(Method::GET, "/api/v1/keys", None).await?;
                out.print(&answer["keys"], |keys| lines(keys, describe_key, "no keys"))
            }
            Keys::Revoke { id } => {
                client.json(Method::DELETE, &format!("/api/v1/keys/{id}"), None).await?;
                out.print(&json!({"revoked": id}), |_| format!("Revoked key {id}"))
            }
        }
    }
}

impl Create {
    async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let user = client.named_user().unwrap_or(&self.name).to_owned();
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| {
            if !value.is_null() {
                fields.insert(name.to_owned(), value);
            }
        };
        add("name", json!(self.name));
        add("user", json!(user));
        add("role", json!(self.role));
        add("tier", json!(self.tier));
        add("scopes", json!(self.scopes));
        add("expires_at", json!(self.expires));
        add("creates_per_hour", json!(self.creates_per_hour));
        client.act_as_default_user();
        let key = client.json(Method::POST, "/api/v1/keys", Some(&Value::Object(fields))).await?;
        if text(&key, "key").is_empty() {
            bail!("the answer holds no key");
        }
        out.print(&key, |key| text(key, "key").to_owned())
    }
}

fn describe_key(key: &Value) -> String {
    let scopes = key["scopes"]
        .as_array()
        .map(|scopes| scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","));
    let ends = key["expires_at"].as_str().map(|at| format!("  expires {at}")).unwrap_or_default();
    let used = key["last_used_at"].as_str().unwrap_or("never");
    format!(
        "{:>4}  {:<20} {:<16} {}  used {used}{ends}",
        key["id"],
        text(key, "name"),
        text(key, "user"),
        scopes.unwrap_or_default(),
    )
}

/// What to do with domains.
#[derive(Debug, Subcommand)]
pub enum Domains {
    /// Register a domain, so that links can be made under it
    Add {
        /// The host name, without scheme and port
        name: String,
    },
    /// List domains, the default one first
    List,
}

impl Domains {
    /// Runs the command.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        match self {
            Domains::Add { name } => {
                let domain =
                    client.json(Method::POST, "/api/v1/domains", Some(&json!({"name": name}))).await?;
                out.print(&domain, |domain| format!("Registered {}", text(domain, "name")))
            }
            Domains::List => {
                let answer = client.json(Method::GET, "/api/v1/domains", None).await?;
                let describe = |domain: &Value| {
                    let mark = if domain["is_default"] == true { "  (default)" } else { "" };
                    format!("{}{mark}", text(domain, "name"))
                };
                out.print(&answer["domains"], |domains| lines(domains, describe, "no domains"))
            }
        }
    }
}

fn lines(values: &Value, describe: impl Fn(&Value) -> String, none: &str) -> String {
    match values.as_array() {
        Some(values) if !values.is_empty() => values.iter().map(describe).collect::<Vec<_>>().join("\n"),
        _ => none.to_owned(),
    }
}
