//! `terse backup` and `terse restore`.

use super::Output;
use super::client::{Client, read_json};
use crate::config::Config;
use crate::data_dir::{DataDir, is_vacant, private_file, store_path};
use anyhow::{Context, Result, bail};
use clap::Args;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terse_backends::sqlite::restore::{check_clicks, make_safe};

/// Where to write a backup.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to make; - writes to stdout
    file: PathBuf,
    /// Back the statistics up, too, into this file
    #[arg(long, value_name = "FILE")]
    clicks: Option<PathBuf>,
}

impl Backup {
    /// Writes the backup, readable by its owner only; the file appears when it is complete.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let bytes = save(client, "/-/local/backup", &self.file).await?;
        let mut report = json!({"file": self.file.display().to_string(), "bytes": bytes});
        let mut lines = vec![wrote(&self.file, bytes)];
        if let Some(file) = &self.clicks {
            let bytes = save(client, "/-/local/backup/clicks", file).await?;
            report["clicks_file"] = json!(file.display().to_string());
            report["clicks_bytes"] = json!(bytes);
            lines.push(wrote(file, bytes));
        }
        if [Some(&self.file), self.clicks.as_ref()].contains(&Some(&PathBuf::from("-"))) {
            return Ok(ExitCode::SUCCESS);
        }
        out.print(&report, |_| lines.join("\n"))
    }
}

fn wrote(file: &Path, bytes: usize) -> String {
    format!("Wrote {} ({bytes} bytes)", file.display())
}

/// Writes what the server sends into a file, which appears when it is complete; returns its length.
async fn save(client: &mut Client, path: &str, file: &Path) -> Result<usize> {
    let response = client.call(Request::get(path), axum::body::Body::empty()).await?;
    if !response.status().is_success() {
        read_json::<serde_json::Value>(response).await?;
        bail!("the backup was refused");
    }
    let mut body = response.into_body();
    let mut bytes = 0;
    if file.as_os_str() == "-" {
        let mut stdout = std::io::stdout().lock();
        while let Some(frame) = body.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            bytes += data.len();
            stdout.write_all(&data)?;
        }
        stdout.flush()?;
        return Ok(bytes);
    }
    let part = part_of(file);
    let cannot = || format!("cannot write {file:?}");
    let mut writer = BufWriter::new(private_file().truncate(true).open(&part).with_context(cannot)?);
    while let Some(frame) = body.frame().await {
        let data = frame.context("the backup broke off")?.into_data().unwrap_or_default();
        bytes += data.len();
        writer.write_all(&data).with_context(cannot)?;
    }
    writer.into_inner().with_context(cannot)?.sync_all().with_context(cannot)?;
    fs::rename(&part, file).with_context(cannot)?;
    sync_parent(file)?;
    Ok(bytes)
}

/// What to restore.
#[derive(Debug, Args)]
pub struct Restore {
    /// A file that `terse backup` made
    #[arg(required_unless_present = "in_place", conflicts_with = "in_place")]
    file: Option<PathBuf>,
    /// A file that `terse backup --clicks` made, for the statistics
    #[arg(long, value_name = "FILE", conflicts_with = "in_place")]
    clicks: Option<PathBuf>,
    /// Make this data folder, which came from a plain copy or a snapshot, safe to serve from
    #[arg(long)]
    in_place: bool,
}

impl Restore {
    /// Restores, and skips ahead so that codes given out since the backup are never given out again.
    pub fn run(self, config: &Config, out: &Output) -> Result<ExitCode> {
        let folder = &config.data_dir;
        match &self.file {
            Some(file) => fill(folder, file, self.clicks.as_deref())?,
            None => {
                if !store_path(folder).is_file() {
                    bail!("{folder:?} holds no store");
                }
                let _locked = DataDir::open(folder)?;
                make_safe(&store_path(folder))?;
            }
        }
        let report = json!({"data_dir": folder.display().to_string()});
        out.print(&report, |_| format!("{} is ready to serve from", folder.display()))
    }
}

fn fill(folder: &Path, file: &Path, clicks: Option<&Path>) -> Result<()> {
    if !is_vacant(folder).with_context(|| format!("cannot read the data folder {folder:?}"))? {
        bail!("the data folder {folder:?} is not empty; restore into an empty or absent one");
    }
    let open = |file: &Path| File::open(file).with_context(|| format!("cannot read {file:?}"));
    let mut source = open(file)?;
    let clicks = clicks.map(|file| Ok::<_, anyhow::Error>((file, open(file)?))).transpose()?;
    // Locks the folder and makes empty files, which are replaced when their successors are complete.
    let data_dir = DataDir::open(folder)?;
    let restored = (|| {
        if let Some((file, mut source)) = clicks {
            replace(&data_dir.clicks_path(), &mut source, |part| Ok(check_clicks(part)?))
                .with_context(|| format!("cannot use {file:?}"))?;
        }
        replace(&data_dir.store_path(), &mut source, |part| Ok(make_safe(part)?))
    })();
    if restored.is_err() {
        // The folder was empty before, and a try that failed leaves it so.
        for entry in fs::read_dir(folder)?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
    restored.with_context(|| format!("cannot restore {file:?}"))
}

/// Puts a copy in the place of a file, once it is complete and `prepare` has found it right.
fn replace(file: &Path, source: &mut File, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let part = part_of(file);
    let mut copy = private_file().truncate(true).open(&part)?;
    std::io::copy(source, &mut copy)?;
    copy.sync_all()?;
    drop(copy);
    prepare(&part)?;
    fs::rename(&part, file)?;
    sync_parent(file)
}

/// Where a file is written before it is complete.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// A rename is on disk when its folder is.
fn sync_parent(file: &Path) -> Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all().with_context(|| format!("cannot write {parent:?}"))
}
