//! The command line. Commands act through the running server when there is one on the data folder, else on the
//! folder itself; either way they are calls of the same API.

mod client;
mod doctor;
mod export;
mod import;
mod keys;
mod links;
mod serve;
mod snapshot;
mod stats;

use crate::config::{Config, Raw, Source};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use client::Client;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A URL shortener in one binary.
///
/// Without a command it serves, from one folder, with no configuration needed.
#[derive(Debug, Parser)]
#[command(version, name = "terse", max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command. Every configuration key is also a variable, `TERSE_` and the key in capitals; see docs/configuration.md.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Options {
    /// Where to listen [env: TERSE_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The folder that holds everything [env: TERSE_DATA_DIR] [default: ./terse-data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// What short links begin with [env: TERSE_BASE_URL] [default: the address listened on]
    #[arg(long, global = true, value_name = "URL")]
    base_url: Option<String>,
    /// A file of configuration keys, TOML [env: TERSE_CONFIG]
    #[arg(long, global = true, env = "TERSE_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// As which user to act; made if there is none of that name [env: TERSE_USER] [default: local]
    #[arg(long, global = true, env = "TERSE_USER", hide_env = true, value_name = "NAME")]
    user: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve links (also without a command)
    Serve,
    /// Create a short link and print it
    Shorten(links::Shorten),
    /// List links, newest first
    List(links::List),
    /// Show a link
    Show(links::Which),
    /// Change a link
    Update(links::Update),
    /// Delete a link; its code is never used again
    Delete(links::Which),
    /// Show, follow, export, count anew and erase clicks
    Stats {
        #[command(subcommand)]
        command: stats::Stats,
    },
    /// Make, list and revoke API keys
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
    /// Register and list domains
    Domains {
        #[command(subcommand)]
        command: keys::Domains,
    },
    /// Create links from a CSV or NDJSON file; safe to run again
    Import(import::Import),
    /// Write all links as CSV or NDJSON
    Export(export::Export),
    /// Write a consistent copy of the store, while serving goes on
    Backup(snapshot::Backup),
    /// Fill an empty data folder from a backup, or make a plain copy of a folder safe to serve from
    Restore(snapshot::Restore),
    /// Look for what is wrong with the configuration, the data folder and the server
    Doctor,
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let raw = cli.options.raw();
    if let Some(Command::Doctor) = cli.command {
        return doctor::run(&raw, cli.options.json);
    }
    let config = Config::check(&raw)?;
    let Some(command) = cli.command else { return serve::run(config, raw.unknown_variables()) };
    let out = Output { json: cli.options.json };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let user = cli.options.user;
    match command {
        Command::Serve => serve::run(config, raw.unknown_variables()),
        Command::Restore(restore) => restore.run(&config, &out),
        Command::Doctor => unreachable!("it runs before the configuration is checked"),
        command => {
            serve::log_to_stderr("warn", false);
            runtime.block_on(async {
                let mut client = Client::open(config, user).await?;
                match command {
                    Command::Shorten(shorten) => shorten.run(&mut client, &out).await,
                    Command::List(list) => list.run(&mut client, &out).await,
                    Command::Show(which) => which.show(&mut client, &out).await,
                    Command::Update(update) => update.run(&mut client, &out).await,
                    Command::Delete(which) => which.delete(&mut client, &out).await,
                    Command::Stats { command } => command.run(&mut client, &out).await,
                    Command::Keys { command } => command.run(&mut client, &out).await,
                    Command::Domains { command } => command.run(&mut client, &out).await,
                    Command::Import(import) => import.run(&mut client, &out).await,
                    Command::Export(export) => export.run(&mut client, &out).await,
                    Command::Backup(backup) => backup.run(&mut client, &out).await,
                    Command::Serve | Command::Restore(_) | Command::Doctor => unreachable!("handled above"),
                }
            })
        }
    }
}

impl Options {
    fn raw(&self) -> Raw {
        let mut raw = Raw::default();
        if let Some(path) = &self.config {
            raw.read_file(path);
        }
        // Whoever else's variables need not be text.
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        raw.read_environment(std::env::vars_os().filter_map(text).filter(|(name, _)| name != "TERSE_USER"));
        let options = [("listen", &self.listen), ("data_dir", &self.data_dir), ("base_url", &self.base_url)];
        for (key, value) in options {
            if let Some(value) = value {
                raw.set(key, value.clone(), Source::CommandLine);
            }
        }
        raw
    }
}

/// How results are printed.
#[derive(Debug)]
struct Output {
    json: bool,
}

impl Output {
    /// Prints a result as JSON, or as what `text` makes of it.
    fn print(&self, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<ExitCode> {
        let text = if self.json { serde_json::to_string_pretty(value)? } else { text(value) };
        print_line(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints to stdout. A reader that has gone away, as `head` does, is no error.
fn print_line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(quiet_at_head).context("cannot print")
}

/// Ends the command without a word when the reader of its output has gone away.
fn quiet_at_head(error: std::io::Error) -> std::io::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    error
}

/// A field of an answer as text.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
