//! The background sweeper: shrinks links that expired a while ago, and forgets old answers. In small batches with a
//! pause between them, by indexes, never by a scan.

use crate::app::App;
use crate::http::idempotency::KEPT_SECONDS;
use std::sync::Arc;
use std::time::Duration;
use terse_model::store::StoreError;
use tokio::sync::watch;

/// Between two batches, so that other writers get their turn.
const BATCH_PAUSE: Duration = Duration::from_millis(200);

/// Sweeps at intervals until `stop` turns true.
pub async fn run(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(app.config.sweeper.interval) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        match sweep(&app).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "Swept {swept} expired links"),
            Err(error) => tracing::warn!(error = ?error, "Could not sweep: {error}"),
        }
    }
}

/// One round: everything that is due. Returns how many links were shrunken.
pub async fn sweep(app: &App) -> Result<usize, StoreError> {
    let config = &app.config.sweeper;
    let mut swept = 0;
    loop {
        let now = app.clock.now();
        let before = now.plus_seconds(-(config.grace.as_secs() as i64));
        let keys = app.links.store.links_sweep(before, now, config.batch_len).await?;
        keys.iter().for_each(|key| app.redirect.resolver.cache().invalidate(key));
        swept += keys.len();
        app.metrics.links_swept.inc_by(keys.len() as u64);
        let kept_from = now.plus_seconds(-KEPT_SECONDS);
        let forgotten = app.links.store.answers_sweep(kept_from, config.batch_len).await?;
        if keys.len() < config.batch_len && forgotten < config.batch_len {
            return Ok(swept);
        }
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}
