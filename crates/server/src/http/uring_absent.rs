//! Stands in for the io_uring loop where the system has none.

use super::server::Server;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// There is none.
#[derive(Debug)]
pub struct Ring(Infallible);

/// Says that there is none.
pub fn rings(_workers: usize) -> io::Result<Vec<Ring>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is a part of Linux"))
}

/// Is never asked for, since it takes a ring to use them.
pub fn halves(_server: Arc<Server>, _runtime: Handle) -> io::Result<(ShortCodes, EverythingElse)> {
    rings(1).map(|rings| match rings[0].0 {})
}

/// See the real one.
#[derive(Debug)]
pub struct ShortCodes(Infallible);

/// See the real one.
#[derive(Debug)]
pub struct EverythingElse(Infallible);

impl ShortCodes {
    /// See the real one.
    pub fn serve(self, _ring: Ring, _listener: TcpListener) -> io::Result<()> {
        match self.0 {}
    }
}

impl EverythingElse {
    /// See the real one.
    pub async fn serve(self, _stop: watch::Receiver<bool>) {
        match self.0 {}
    }
}
