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
use terse_backends::sqlite::restore::make_safe;

/// Where to write a backup.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to make; - writes to stdout
    file: PathBuf,
}

impl Backup {
    /// Writes the backup, readable by its owner only; the file appears when it is complete.
    pub async fn run(self, client: &mut Client, out: &Output) -> Result<ExitCode> {
        let response = client.call(Request::get("/-/local/backup"), axum::body::Body::empty()).await?;
        if !response.status().is_success() {
            read_json(response).await?;
            bail!("the backup was refused");
        }
        let mut body = response.into_body();
        if self.file.as_os_str() == "-" {
            let mut stdout = std::io::stdout().lock();
            while let Some(frame) = body.frame().await {
                stdout.write_all(&frame?.into_data().unwrap_or_default())?;
            }
            stdout.flush()?;
            return Ok(ExitCode::SUCCESS);
        }
        let part = part_of(&self.file);
        let cannot = || format!("cannot write {:?}", self.file);
        let file = private_file().truncate(true).open(&part).with_context(cannot)?;
        let mut writer = BufWriter::new(file);
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let data = frame.context("the backup broke off")?.into_data().unwrap_or_default();
            bytes += data.len();
            writer.write_all(&data).with_context(cannot)?;
        }
        let file = writer.into_inner().with_context(cannot)?;
        file.sync_all().with_context(cannot)?;
        fs::rename(&part, &self.file).with_context(cannot)?;
        sync_parent(&self.file)?;
        let report = json!({"file": self.file.display().to_string(), "bytes": bytes});
        out.print(&report, |_| format!("Wrote {} ({bytes} bytes)", self.file.display()))
    }
}

/// What to restore.
#[derive(Debug, Args)]
pub struct Restore {
    /// A file that `terse backup` made
    #[arg(required_unless_present = "in_place", conflicts_with = "in_place")]
    file: Option<PathBuf>,
    /// Make this data folder, which came from a plain copy or a snapshot, safe to serve from
    #[arg(long)]
    in_place: bool,
}

impl Restore {
    /// Restores, and skips ahead so that codes given out since the backup are never given out again.
    pub fn run(self, config: &Config, out: &Output) -> Result<ExitCode> {
        let folder = &config.data_dir;
        match &self.file {
            Some(file) => fill(folder, file)?,
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

fn fill(folder: &Path, file: &Path) -> Result<()> {
    if !is_vacant(folder).with_context(|| format!("cannot read the data folder {folder:?}"))? {
        bail!("the data folder {folder:?} is not empty; restore into an empty or absent one");
    }
    let mut source = File::open(file).with_context(|| format!("cannot read {file:?}"))?;
    // Locks the folder and makes an empty store file, which is replaced when its successor is complete.
    let data_dir = DataDir::open(folder)?;
    let part = part_of(&data_dir.store_path());
    let restored = (|| {
        let mut copy = private_file().truncate(true).open(&part)?;
        std::io::copy(&mut source, &mut copy)?;
        copy.sync_all()?;
        drop(copy);
        make_safe(&part)?;
        fs::rename(&part, data_dir.store_path())?;
        sync_parent(&data_dir.store_path())
    })();
    if restored.is_err() {
        // The folder was empty before, and a try that failed leaves it so.
        for entry in fs::read_dir(folder)?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
    restored.with_context(|| format!("cannot restore {file:?}"))
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
