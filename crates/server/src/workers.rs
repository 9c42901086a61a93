//! Worker threads: which connection loop they run, and how they begin.
//!
//! On hyper's loop a worker is one thread. On io_uring's it is two: one answers short codes, the other has a runtime for
//! whatever is handed over and for lookups that wait.

use crate::app::StartError;
use crate::clicks::journal::Journal;
use crate::config::Io;
use crate::http::server::Server;
use crate::http::uring::{self, EverythingElse, Ring};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// The loop that all workers run.
#[derive(Debug)]
pub enum Loop {
    /// hyper's.
    Hyper,
    /// io_uring's, with a ring for each worker.
    Uring(Vec<Ring>),
}

impl Loop {
    /// The loop that was asked for, or the one that can be had.
    pub fn choose(io: Io, workers: usize, has_tls: bool) -> Result<Self, StartError> {
        if io == Io::Tokio {
            tracing::info!("Connections are served by hyper");
            return Ok(Loop::Hyper);
        }
        if has_tls {
            tracing::info!("Connections are served by hyper, which carries TLS");
            return Ok(Loop::Hyper);
        }
        match uring::rings(workers) {
            Ok(rings) => {
                tracing::info!(
                    "Connections are served by io_uring, and by hyper for anything but short links"
                );
                Ok(Loop::Uring(rings))
            }
            Err(error) if io == Io::Uring => Err(StartError::Uring { reason: reason(&error), source: error }),
            Err(error) => {
                let reason = reason(&error);
                tracing::info!(%error, "Connections are served by hyper, because io_uring can't be used: {reason}");
                Ok(Loop::Hyper)
            }
        }
    }

    /// Threads that record clicks.
    pub fn threads(&self, workers: usize) -> usize {
        match self {
            Loop::Hyper => workers,
            Loop::Uring(_) => 2 * workers,
        }
    }
}

/// What an operator can make of it.
fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "this process may not, by the policy of its container or by kernel.io_uring_disabled"
        }
        io::ErrorKind::Unsupported => "this system has none",
        io::ErrorKind::InvalidInput => "the kernel is older than 6.1",
        io::ErrorKind::OutOfMemory => "there is not enough memory, or too little of it may be locked",
        _ => "setting it up failed",
    }
}

/// The threads of all workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

impl Workers {
    /// Waits until one of them has ended, as each does when it is told to, and else when its loop has failed.
    pub async fn one_ended(&mut self) {
        let _ = self.ended.recv().await;
    }

    /// Whether all of them have.
    pub fn have_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// Takes the listeners of all workers and starts their threads. `beside` is what the first one does besides: it begins
/// on its runtime, and returns a handle to what has to have ended before the worker does.
pub fn start(
    chosen: Loop,
    server: &Arc<Server>,
    listeners: Vec<TcpListener>,
    journal: Option<&Journal>,
    stopped: &watch::Receiver<bool>,
    beside: impl FnOnce() -> tokio::task::JoinHandle<()> + Send + 'static,
) -> Result<Workers, StartError> {
    let workers = listeners.len();
    let mut rings = match chosen {
        Loop::Hyper => Vec::new(),
        Loop::Uring(rings) => rings,
    };
    let mut beside = Some(beside);
    let (ending, ended) = mpsc::channel(1);
    let mut threads = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
        let beside = beside.take();
        let name = format!("worker-{number}");
        // Each thread that records clicks has a lane of its own.
        let enter = |lane: usize| {
            let journal = journal.cloned();
            move || journal.iter().for_each(|journal| journal.enter(lane))
        };
        let (server, stopped) = (server.clone(), stopped.clone());
        let (name, enter, serves) = match rings.pop() {
            None => (name, enter(number), Serves::Hyper(listener, server)),
            Some(ring) => {
                let (short_codes, rest) =
                    uring::halves(server, runtime.handle().clone()).map_err(StartError::Worker)?;
                let enter_loop = enter(number);
                threads.push(spawn(name.clone(), &ending, move || {
                    enter_loop();
                    if let Err(error) = short_codes.serve(ring, listener) {
                        tracing::error!(%error, "A worker's io_uring loop failed: {error}");
                    }
                })?);
                (format!("{name}-http"), enter(workers + number), Serves::Rest(rest))
            }
        };
        threads.push(spawn(name, &ending, move || {
            enter();
            run(runtime, serves, stopped, beside);
        })?);
    }
    Ok(Workers { threads, ended })
}

/// What a runtime serves.
enum Serves {
    Hyper(TcpListener, Arc<Server>),
    Rest(EverythingElse),
}

fn run(
    runtime: Runtime,
    serves: Serves,
    stopped: watch::Receiver<bool>,
    beside: Option<impl FnOnce() -> tokio::task::JoinHandle<()>>,
) {
    runtime.block_on(async move {
        let beside = beside.map(|beside| beside());
        match serves {
            Serves::Rest(rest) => rest.serve(stopped).await,
            Serves::Hyper(listener, server) => match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => server.serve_tcp(listener, stopped).await,
                Err(error) => tracing::error!(%error, "A worker could not listen: {error}"),
            },
        }
        if let Some(beside) = beside {
            let _ = beside.await;
        }
    });
}

/// Says that a thread has ended, be it by a panic.
struct Ending(mpsc::Sender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        // One word is enough.
        let _ = self.0.try_send(());
    }
}

fn spawn(
    name: String,
    ending: &mpsc::Sender<()>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let ending = Ending(ending.clone());
    let work = move || {
        let _ending = ending;
        work();
    };
    std::thread::Builder::new().name(name).spawn(work).map_err(StartError::Worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_thread_that_ends_by_itself_is_noticed() {
        for fails in [false, true] {
            let (ending, ended) = mpsc::channel(1);
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let alive = spawn("alive".to_owned(), &ending, move || while wait.recv().is_ok() {}).unwrap();
            let mut workers = Workers { threads: vec![alive], ended };
            let early = tokio::time::timeout(Duration::from_millis(100), workers.one_ended()).await;
            assert!(early.is_err(), "nobody has ended");
            workers
                .threads
                .push(spawn("ends".to_owned(), &ending, move || assert!(!fails, "as asked")).unwrap());
            workers.one_ended().await;
            assert!(!workers.have_ended(), "the other one goes on");
            drop(go_on);
            while !workers.have_ended() {
                tokio::task::yield_now().await;
            }
        }
    }
}
