//! TLS with certificate and key files, read again when they change.

use crate::config::TlsFiles;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Why TLS can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read as PEM.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// They don't fit each other, or are of no use.
    #[error("the certificate and the key can't be used")]
    Unusable(#[source] rustls::Error),
}

/// The configuration in force.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Tls { files, current })
    }

    /// What new connections use.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        self.current.load_full().into()
    }

    /// Reads the files again whenever they change. Files that can't be used leave the old ones in force.
    pub async fn watch(&self) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let stamps = self.stamps();
            if stamps == seen {
                continue;
            }
            seen = stamps;
            match read(&self.files) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!("Read the certificate again");
                }
                Err(error) => tracing::error!(error = ?error, "Kept the old certificate: {error}"),
            }
        }
    }

    fn stamps(&self) -> [Option<SystemTime>; 2] {
        let stamp = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        [stamp(&self.files.cert), stamp(&self.files.key)]
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(&files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
