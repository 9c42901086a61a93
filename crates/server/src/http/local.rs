//! Calls that only the command line makes, over the socket in the run folder.

use super::client::Peer;
use super::error::{ApiError, ErrorCode};
use crate::app::App;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Bytes of a backup that are read at once.
const CHUNK_LEN: usize = 256 << 10;

/// GET /-/local/backup: a consistent copy of the store, as one file.
pub async fn backup(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
) -> Result<Response, ApiError> {
    if peer != Peer::Local {
        return Err(ApiError::not_found("there is nothing here"));
    }
    let Some(store) = &app.embedded else {
        return Err(ApiError::new(
            ErrorCode::ValidationError,
            "only the embedded store is backed up this way",
        ));
    };
    let failed = |error: std::io::Error| {
        tracing::error!(%error, "Could not make a backup");
        ApiError::new(ErrorCode::Unavailable, format!("the backup can't be written: {error}"))
    };
    // In the data folder, which nobody else may read, and gone again when the last byte was sent.
    let folder =
        tempfile::Builder::new().prefix("backup-").tempdir_in(&app.config.data_dir).map_err(failed)?;
    let path = folder.path().join("terse.db");
    store.backup(&path).await?;
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
