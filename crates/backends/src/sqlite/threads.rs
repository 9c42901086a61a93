//! The threads that own the connections, and the queues in front of them.

use super::{schema, store_error};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc as blocking};
use std::thread::{self, JoinHandle};
use terse_model::store::{Result, StoreError};
use tokio::sync::{mpsc, oneshot};

/// Jobs that one transaction takes at most: enough to share an fsync, few enough to answer soon.
const BATCH_LEN_MAX: usize = 1024;

type ReadJob = Box<dyn FnOnce(&mut Connection) + Send>;

/// Threads that read. A bounded queue in front; whoever is idle takes the next job.
#[derive(Debug)]
pub(super) struct Readers {
    jobs: blocking::SyncSender<ReadJob>,
}

impl Readers {
    /// Threads that take one job after another.
    pub(super) fn start(connections: Vec<Connection>, queue_len_max: usize) -> Self {
        Readers::start_sharing(connections, queue_len_max, 1)
    }

    /// Threads that take up to `batch_len` jobs at once, which then share a read transaction: for short ones, of
    /// which its locks are a good part.
    pub(super) fn start_sharing(
        connections: Vec<Connection>,
        queue_len_max: usize,
        batch_len: usize,
    ) -> Self {
        let (jobs, queue) = blocking::sync_channel::<ReadJob>(queue_len_max);
        // Held only while a thread waits for a job, never while it works.
        let queue = Arc::new(Mutex::new(queue));
        for (number, mut connection) in connections.into_iter().enumerate() {
            let queue = queue.clone();
            spawn(&format!("sqlite-read-{number}"), move || {
                let mut batch = Vec::with_capacity(batch_len);
                loop {
                    let waiting = queue.lock().expect("no code panics under this lock");
                    match waiting.recv() {
                        Ok(job) => batch.push(job),
                        Err(blocking::RecvError) => return,
                    }
                    batch.extend(waiting.try_iter().take(batch_len - 1));
                    drop(waiting);
                    read_batch(&mut connection, &mut batch);
                }
            });
        }
        Readers { jobs }
    }

    /// Runs `read` on a reader thread. Unavailable at once when too many wait.
    pub(super) async fn run<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |connection| {
            let result = catch_unwind(AssertUnwindSafe(|| read(connection)));
            // Whoever asked may have gone away, which is no failure of ours.
            let _ = reply.send(result.unwrap_or_else(|_| Err(panicked())));
        });
        self.jobs.try_send(job).map_err(|_| overloaded("readers"))?;
        answer.await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// Runs jobs, several of them in one transaction. It begins when all of them have been asked, so that each sees every
/// commit that was answered before.
fn read_batch(connection: &mut Connection, batch: &mut Vec<ReadJob>) {
    // Where it can't begin, each job finds out for itself.
    let is_shared = batch.len() > 1 && execute(connection, "BEGIN").is_ok();
    batch.drain(..).for_each(|job| job(connection));
    if is_shared && execute(connection, "COMMIT").is_err() {
        undo(connection);
    }
}

/// The thread that writes, in batches that share a transaction and so an fsync.
#[derive(Debug)]
pub(super) struct Writer {
    // Both are there until the writer is dropped.
    jobs: Option<mpsc::Sender<Box<dyn WriteJob>>>,
    thread: Option<JoinHandle<()>>,
}

/// Waits for what is queued, so that a store that was closed is one file.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        // The last handle may be dropped by a job, on the writer thread itself, which ends by itself then.
        if let Some(thread) = self.thread.take().filter(|it| it.thread().id() != thread::current().id()) {
            // It catches what its jobs do wrong, and has nobody to tell about itself.
            let _ = thread.join();
        }
    }
}

/// One job of the writer.
trait WriteJob: Send {
    /// Runs the statements inside an open transaction; says whether they failed, and why.
    fn run(&mut self, connection: &Connection) -> Result<()>;
    /// After the commit: lets the caller know what came of it, a failure of its own included.
    fn succeed(self: Box<Self>);
    /// The transaction failed, and everything in it.
    fn fail(self: Box<Self>, error: StoreError);
}

struct Job<T, F, C> {
    statements: Option<F>,
    on_commit: C,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F, C> WriteJob for Job<T, F, C>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T> + Send,
    C: FnOnce(&T) + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<()> {
        let Some(statements) = self.statements.take() else { return Err(panicked()) };
        let outcome =
            catch_unwind(AssertUnwindSafe(|| statements(connection))).unwrap_or_else(|_| Err(panicked()));
        self.outcome.insert(outcome).as_ref().map(drop).map_err(clone_error)
    }

    fn succeed(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or_else(|| Err(panicked()));
        if let Ok(made) = &outcome {
            (self.on_commit)(made);
        }
        // Whoever asked may have gone away, which is no failure of ours.
        let _ = self.reply.send(outcome);
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

impl Writer {
    /// A thread that calls `prepare` before it takes jobs.
    pub(super) fn start(mut connection: Connection, queue_len_max: usize, prepare: fn()) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Box<dyn WriteJob>>(queue_len_max);
        let thread = spawn("sqlite-write", move || {
            prepare();
            let mut batch = Vec::new();
            while queue.blocking_recv_many(&mut batch, BATCH_LEN_MAX) > 0 {
                write_batch(&mut connection, std::mem::take(&mut batch));
            }
            if let Err(error) = schema::checkpoint(&connection) {
                tracing::debug!(%error, "No checkpoint at the end");
            }
        });
        Writer { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs `statements` in a transaction that is on disk when this returns. Unavailable at once when too many wait.
    pub(super) async fn run<T, F>(&self, statements: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.run_then(statements, |_| ()).await
    }

    /// The same; `on_commit` runs on the writer thread before anybody is answered, whether the caller waits or not.
    pub(super) async fn run_then<T, F, C>(&self, statements: F, on_commit: C) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job { statements: Some(statements), on_commit, outcome: None, reply };
        let jobs = self.jobs.as_ref().ok_or_else(panicked)?;
        jobs.try_send(Box::new(job)).map_err(|_| overloaded("writer"))?;
        answer.await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// Commits the whole batch at once. A job that fails is undone alone; a commit that fails fails them all.
fn write_batch(connection: &mut Connection, mut batch: Vec<Box<dyn WriteJob>>) {
    match transaction(connection, &mut batch) {
        Ok(()) => batch.into_iter().for_each(WriteJob::succeed),
        Err(error) => batch.into_iter().for_each(|job| job.fail(clone_error(&error))),
    }
}

fn transaction(connection: &mut Connection, batch: &mut [Box<dyn WriteJob>]) -> Result<()> {
    let execute = |sql: &str| execute(connection, sql);
    // An earlier rollback may itself have failed, on a full disk for instance.
    undo(connection);
    let result = (|| {
        execute("BEGIN IMMEDIATE")?;
        for job in batch {
            execute("SAVEPOINT job")?;
            if let Err(error) = job.run(connection) {
                // A full disk may have undone everything by now: then it is what fails the batch.
                if connection.is_autocommit() {
                    return Err(error);
                }
                execute("ROLLBACK TO job")?;
            }
            execute("RELEASE job")?;
        }
        execute("COMMIT")
    })();
    if result.is_err() {
        undo(connection);
    }
    result
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(store_error)?;
    statement.execute([]).map(drop).map_err(store_error)
}

fn undo(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "Could not roll back");
    }
}

/// One failure is told to every caller of the transaction.
fn clone_error(error: &StoreError) -> StoreError {
    let text = || -> terse_model::store::Source {
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string).into()
    };
    match error {
        StoreError::Unavailable(_) => StoreError::Unavailable(text()),
        StoreError::Timeout => StoreError::Timeout,
        StoreError::Corrupt(what) => StoreError::Corrupt(what.clone()),
        StoreError::Internal(_) => StoreError::Internal(text()),
    }
}

fn overloaded(who: &str) -> StoreError {
    StoreError::Unavailable(format!("too many jobs wait for the {who} of the embedded store").into())
}

fn panicked() -> StoreError {
    StoreError::Internal("a job of the embedded store did not finish".into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).expect("the system starts a thread")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn count(connection: &Connection) -> Result<i64> {
        connection.query_row("SELECT count(*) FROM rows", [], |row| row.get(0)).map_err(store_error)
    }

    #[tokio::test]
    async fn lookups_share_a_transaction_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let writer = schema::open_connection(&path, 64, false).unwrap();
        writer.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY)").unwrap();
        let reader = schema::open_connection(&path, 64, true).unwrap();
        let readers = Readers::start_sharing(vec![reader], 100, 8);
        let (go_on, wait) = blocking::channel::<()>();
        let busy = readers.run(move |_| {
            let _ = wait.recv_timeout(Duration::from_secs(10));
            Ok(())
        });
        let failing = readers.run(|_| -> Result<()> { Err(StoreError::Timeout) });
        let panicking = readers.run(|_| -> Result<()> { panic!("as asked") });
        let broken = readers.run(|connection| connection.execute_batch("nonsense").map_err(store_error));
        let shared = readers.run(|connection| Ok((count(connection)?, connection.is_autocommit())));
        let queue = async {
            // All of them are in the queue by now.
            tokio::task::yield_now().await;
            writer.execute_batch("INSERT INTO rows VALUES (1), (2)").unwrap();
            go_on.send(()).unwrap();
        };
        let (busy, failing, panicking, broken, shared, ()) =
            tokio::join!(busy, failing, panicking, broken, shared, queue);
        busy.unwrap();
        assert!(failing.is_err() && panicking.is_err() && broken.is_err());
        // It sees what was committed before it began, though it was asked earlier.
        assert_eq!(shared.unwrap(), (2, false));
        writer.execute_batch("INSERT INTO rows VALUES (3)").unwrap();
        let alone = readers.run(|connection| Ok((count(connection)?, connection.is_autocommit())));
        assert_eq!(alone.await.unwrap(), (3, true));
    }
}
