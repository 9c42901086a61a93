//! `terse doctor`.

use super::client::Client;
use super::{Output, text};
use crate::config::{Config, Raw};
use crate::data_dir::store_path;
use crate::http::tls::Tls;
use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

/// Less free space than this is worth a word.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    is_good: bool,
    says: String,
}

/// Looks at everything, prints what it finds, and exits with 1 when something is wrong.
pub fn run(raw: &Raw, json: bool) -> Result<ExitCode> {
    let mut findings = Vec::new();
    let mut add = |what, is_good, says: String| findings.push(Finding { what, is_good, says });
    match Config::check(raw) {
        Err(error) => add("configuration", false, error.to_string()),
        Ok(config) => {
            let unknown = raw.unknown_variables();
            if unknown.is_empty() {
                add("configuration", true, "every key is known and valid".to_owned());
            } else {
                add("configuration", false, format!("variables without effect: {}", unknown.join(", ")));
            }
            check_folder(&config, &mut add);
            if let Some(files) = config.tls.clone() {
                match Tls::load(files) {
                    Ok(_) => add("tls", true, "the certificate and its key fit".to_owned()),
                    Err(error) => add("tls", false, format!("{:#}", anyhow::Error::from(error))),
                }
            }
            check_server(config, &mut add)?;
        }
    }
    let is_good = findings.iter().all(|finding| finding.is_good);
    let values: Vec<Value> = findings
        .iter()
        .map(|finding| json!({"what": finding.what, "ok": finding.is_good, "says": finding.says}))
        .collect();
    Output { json }.print(&Value::Array(values), |values| {
        let line = |value: &Value| {
            let mark = if value["ok"] == true { "ok   " } else { "WRONG" };
            format!("{mark}  {:<14} {}", text(value, "what"), text(value, "says"))
        };
        values
            .as_array()
            .map(|values| values.iter().map(line).collect::<Vec<_>>().join("\n"))
            .unwrap_or_default()
    })?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_folder(config: &Config, add: &mut impl FnMut(&'static str, bool, String)) {
    let folder = &config.data_dir;
    let Ok(metadata) = std::fs::metadata(folder) else {
        return add(
            "data folder",
            true,
            format!("{} is not there yet; the first start makes it", folder.display()),
        );
    };
    let mode = metadata.mode() & 0o777;
    match mode & 0o077 {
        0 => add("data folder", true, format!("{}, for its owner only", folder.display())),
        _ => add(
            "data folder",
            false,
            format!("{} has mode {mode:03o}; chmod 700 it, it holds secrets", folder.display()),
        ),
    }
    if let Ok(space) = rustix::fs::statvfs(folder) {
        let free = space.f_bavail * space.f_frsize;
        add("disk", free >= FREE_BYTES_MIN, format!("{} MiB free", free >> 20));
    }
}

fn check_server(config: Config, add: &mut impl FnMut(&'static str, bool, String)) -> Result<()> {
    if !store_path(&config.data_dir).exists() {
        add("server", true, "none has run on this folder yet".to_owned());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let ready = async {
            let mut client = Client::open(config, None).await?;
            let answer = client.json(Method::GET, "/ready", None).await?;
            anyhow::Ok((client.is_served(), answer))
        };
        match ready.await {
            Ok((is_served, answer)) => {
                let who = if is_served { "the server answers" } else { "no server runs" };
                add("server", true, who.to_owned());
                add(
                    "store",
                    answer["dependencies"]["store"] == "ok",
                    text(&answer["dependencies"], "store").to_owned(),
                );
            }
            Err(error) => add("server", false, format!("{error:#}")),
        }
    });
    Ok(())
}
