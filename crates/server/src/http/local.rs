//! Calls that only the command line makes, over the socket in the run folder.

use super::client::Peer;
use super::error::{ApiError, ErrorCode};
use crate::app::{App, Embedded};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use std::path::Path;
use std::sync::Arc;
use terse_model::store::StoreError;
use tokio::io::AsyncReadExt;

/// Bytes of a backup that are read at once.
const CHUNK_LEN: usize = 256 << 10;

/// GET /-/local/backup: a consistent copy of the links, as one file.
pub async fn backup(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, ApiError> {
    let store = embedded(&app, peer)?;
    send(&app, async |path| store.links.backup(path).await).await
}

/// GET /-/local/backup/clicks: a consistent copy of the statistics, with every click so far.
pub async fn backup_clicks(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, ApiError> {
    let store = embedded(&app, peer)?;
    app.clicks.flush().await?;
    send(&app, async |path| store.clicks.backup(path).await).await
}

fn embedded(app: &App, peer: Peer) -> Result<&Embedded, ApiError> {
    if peer != Peer::Local {
        return Err(ApiError::not_found("there is nothing here"));
    }
    let other = || ApiError::new(ErrorCode::ValidationError, "only the embedded store is backed up this way");
    app.embedded.as_ref().ok_or_else(other)
}

/// Makes a copy and sends it.
async fn send(
    app: &App,
    copy: impl AsyncFnOnce(&Path) -> Result<(), StoreError>,
) -> Result<Response, ApiError> {
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "Could not make a backup");
        ApiError::new(ErrorCode::Unavailable, format!("the backup can't be written: {error}"))
    };
    // In the data folder, which nobody else may read, and gone again when the last byte was sent.
    let folder =
        tempfile::Builder::new().prefix("backup-").tempdir_in(&app.config.data_dir).map_err(failed)?;
    let path = folder.path().join("copy.db");
    copy(&path).await?;
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    let stream = futures_util::stream::try_unfold((file, folder), |(mut file, folder)| async move {
        let mut chunk = vec![0; CHUNK_LEN];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then_some((chunk, (file, folder))))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    Ok(response)
}
