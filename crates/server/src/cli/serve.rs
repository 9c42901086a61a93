//! `terse serve`.

use crate::app::Running;
use crate::clock::Clock;
use crate::config::{AnonymousCreate, Config};
use anyhow::{Context, Result};
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Serves until SIGTERM or SIGINT. Fails when a worker ends before.
pub fn run(config: Config, unknown_variables: &[String]) -> Result<ExitCode> {
    log_to_stderr(&config.log, config.log_json);
    for variable in unknown_variables {
        tracing::warn!("{variable} is no configuration key and has no effect");
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything starts, so that a signal during the start is not lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut running = Running::start(config, Clock::System).await.context("terse could not start")?;
        // A server that nobody reads serves all the same.
        if let Err(error) = writeln!(std::io::stdout(), "{}", welcome(&running)) {
            tracing::warn!(%error, "Could not print where terse listens: {error}");
        }
        let code = tokio::select! {
            _ = terminate.recv() => ExitCode::SUCCESS,
            _ = interrupt.recv() => ExitCode::SUCCESS,
            () = running.worker_ended() => {
                // Half a server helps nobody; whoever supervises it starts a whole one.
                tracing::error!("A worker has ended by itself, so terse stops");
                ExitCode::FAILURE
            }
        };
        tracing::info!("Stopping: requests that are under way finish first");
        running.stop().await;
        Ok(code)
    })
}

/// Log lines as text or JSON, to stderr.
pub fn log_to_stderr(filter: &str, json: bool) {
    let filter: Targets = filter.parse().unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second call, as in tests, leaves the first one in force.
    let _ = if json {
        registry.with(lines.json()).try_init()
    } else {
        registry.with(lines.with_ansi(colours)).try_init()
    };
}

/// What a newcomer needs to know, and nothing else.
fn welcome(running: &Running) -> String {
    let app = &running.app;
    let scheme = if app.config.tls.is_some() { "https" } else { "http" };
    let who = match (app.anonymous_create, app.config.anonymous_create) {
        (true, AnonymousCreate::On) => "anybody, without a key (anonymous_create = on)",
        (true, _) => "anybody at this machine, without a key; from elsewhere with a key",
        (false, _) => "whoever has a key",
    };
    format!(
        "terse {} listening on {scheme}://{}\n  open it        {}\n  data in        {}\n  creates links  {who}\n  make a key     terse keys create --name NAME{}",
        env!("CARGO_PKG_VERSION"),
        running.address,
        app.domains.base_url(),
        app.config.data_dir.display(),
        if app.config.data_dir.as_os_str() == "./terse-data" {
            String::new()
        } else {
            format!(" --data-dir {}", app.config.data_dir.display())
        },
    )
}

/// Each connection takes a descriptor; the soft limit is often 1,024 for no reason of today.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!(%error, "The limit of open files stays as it is");
    }
}
