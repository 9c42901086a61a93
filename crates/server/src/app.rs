//! The one place where everything is put together.

use crate::accounts::{Accounts, Passwords};
use crate::clicks::recorder::Recorder;
use crate::clicks::{self, Clicks, ClicksError};
use crate::clock::Clock;
use crate::config::{AnonymousCreate, BaseUrl, Config, Rates};
use crate::data_dir::{DataDir, DataDirError};
use crate::domains::Domains;
use crate::http::api::bulk::ROWS_LEN_MAX;
use crate::http::auth::Context;
use crate::http::idempotency::Idempotency;
use crate::http::pages;
use crate::http::router;
use crate::http::server::{Server, bind};
use crate::http::tls::{Tls, TlsError};
use crate::limit::{Limiter, Rate, Verdict, counted_address};
use crate::links::Links;
use crate::links::ids::Ids;
use crate::metrics::Metrics;
use crate::redirect::{Handler, Resolver};
use crate::sweeper;
use crate::workers::{self, Workers};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use terse_backends::sqlite::clicks::{SqliteClickOptions, SqliteClickStore};
use terse_backends::sqlite::{OpenError, SqliteOptions, SqliteStore};
use terse_model::click_store::ClickStore;
use terse_model::domain::DomainName;
use terse_model::link::LinkKey;
use terse_model::store::{AccountStore, Instance, LinkStore, StoreError};
use terse_model::tenant::{Actor, UserId};
use terse_model::time::Timestamp;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};

/// Exports of raw clicks that may be under way at once.
const EXPORTS_LEN_MAX: usize = 2;

/// Everything that a request may need.
#[derive(Debug)]
pub struct App {
    /// What the operator chose.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// What the store was initialised with.
    pub instance: Instance,
    /// What can be done with links.
    pub links: Links,
    /// The redirect path.
    pub redirect: Arc<Handler>,
    /// Statistics.
    pub clicks: Arc<Clicks>,
    /// Exports of raw clicks that may be under way at once: each holds a thread of the store.
    pub exports: Arc<Semaphore>,
    /// Users and keys.
    pub accounts: Accounts,
    /// Domains.
    pub domains: Arc<Domains>,
    /// Passwords of links.
    pub passwords: Arc<Passwords>,
    /// Rates of the API.
    pub limits: Limits,
    /// Repeated requests.
    pub idempotency: Idempotency,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The embedded stores, when they are the ones in use.
    pub embedded: Option<Embedded>,
    /// Whether anybody may create links without a key.
    pub anonymous_create: bool,
    /// Whether they may also from elsewhere than this machine.
    pub anonymous_create_open: bool,
    /// The API's description as JSON.
    pub openapi: String,
    /// The same as a page.
    pub docs_page: String,
    /// Runs what takes long, off the loop threads.
    pub background: Handle,
    /// Set when the server is about to stop.
    pub stopping: AtomicBool,
    /// Ends the background's thread when the app is dropped.
    _background_end: oneshot::Sender<()>,
}

/// Where links and accounts are kept.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Links.
    pub links: Arc<dyn LinkStore>,
    /// Accounts.
    pub accounts: Arc<dyn AccountStore>,
    /// Statistics.
    pub clicks: Arc<dyn ClickStore>,
    /// What they were initialised with.
    pub instance: Instance,
    /// Set when they are the embedded stores.
    pub embedded: Option<Embedded>,
}

/// The stores in a data folder.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// Links and accounts.
    pub links: Arc<SqliteStore>,
    /// Statistics.
    pub clicks: Arc<SqliteClickStore>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store's file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store.
    #[error("the store can't be read")]
    Store(#[from] StoreError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket of the command line.
    #[error("cannot listen on the local socket")]
    LocalSocket(#[source] io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The journal of clicks.
    #[error(transparent)]
    Clicks(#[from] ClicksError),
    /// The connection loop that was asked for.
    #[error("cannot use io_uring: {reason}; io = auto would use hyper instead")]
    Uring {
        /// What it may come from.
        reason: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Threads or runtimes.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

impl Stores {
    /// Opens the embedded store in a data folder.
    pub fn embedded(config: &Config, data_dir: &DataDir, now: Timestamp) -> Result<Self, OpenError> {
        let options = SqliteOptions {
            generator: config.generator,
            readers: config.store.readers,
            cache_kib: config.store.cache_kib,
            ..SqliteOptions::default()
        };
        let store = Arc::new(SqliteStore::open(&data_dir.store_path(), &options)?);
        let options = SqliteClickOptions {
            keeps_raw: config.clicks.raw_days > 0,
            cache_kib: config.store.cache_kib,
            ..SqliteClickOptions::new(now)
        };
        let clicks = Arc::new(SqliteClickStore::open(&data_dir.clicks_path(), &options)?);
        Ok(Stores {
            links: store.clone(),
            accounts: store.clone(),
            instance: store.instance().clone(),
            clicks: clicks.clone(),
            embedded: Some(Embedded { links: store, clicks }),
        })
    }
}

impl App {
    /// Puts an app together that listens on `address`.
    pub async fn new(
        config: Config,
        clock: Clock,
        stores: Stores,
        address: SocketAddr,
        metrics: Arc<Metrics>,
        clicks: Clicks,
        recorder: Option<Recorder>,
    ) -> Result<Arc<Self>, StoreError> {
        let base_url = config.base_url.clone().unwrap_or_else(|| base_url_of(address, config.tls.is_some()));
        let domains =
            Arc::new(Domains::load(stores.accounts.clone(), base_url.clone(), config.strict_hosts).await?);
        let passwords = Arc::new(Passwords::start(config.password_threads, stores.instance.secret));
        // The lock on the data folder sees to it.
        let sole_writer = stores.embedded.is_some();
        let redirect = Arc::new(Handler {
            resolver: Resolver::new(
                stores.links.clone(),
                clock.clone(),
                metrics.clone(),
                &config,
                sole_writer,
            ),
            domains: domains.clone(),
            store: stores.links.clone(),
            secrets: passwords.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            permanent_max_age: config.permanent_max_age,
            limiter: config.rates.as_ref().map(|rates| {
                (Limiter::new(rates.callers_len_max), Rate::per_minute(rates.redirects_per_minute))
            }),
            recorder,
        });
        let links = Links {
            store: stores.links.clone(),
            redirect: redirect.clone(),
            codes: stores.instance.codes.clone(),
            ids: Ids::new(stores.links.clone()),
            reserved: config.reserved_words.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
        };
        let is_local = address.ip().is_loopback() && is_loopback_name(&base_url.host);
        let anonymous_create = match config.anonymous_create {
            AnonymousCreate::Auto => is_local,
            AnonymousCreate::On => true,
            AnonymousCreate::Off => false,
        };
        let document = router::openapi();
        let (background, background_end) = start_background();
        Ok(Arc::new(App {
            limits: Limits::new(config.rates.clone()),
            accounts: Accounts::new(stores.accounts, clock.clone()),
            instance: stores.instance,
            links,
            redirect,
            clicks: Arc::new(clicks),
            exports: Arc::new(Semaphore::new(EXPORTS_LEN_MAX)),
            domains,
            passwords,
            idempotency: Idempotency::default(),
            metrics,
            embedded: stores.embedded,
            anonymous_create,
            anonymous_create_open: config.anonymous_create == AnonymousCreate::On,
            openapi: document.to_string(),
            docs_page: pages::docs(&document),
            background,
            _background_end: background_end,
            stopping: AtomicBool::new(false),
            clock,
            config,
        }))
    }

    /// The same for one command, which serves nobody and records nothing.
    pub async fn quiet(mut config: Config, data_dir: &DataDir) -> Result<Arc<Self>, StartError> {
        let clock = Clock::System;
        config.clicks.are_recorded = false;
        // A bulk call is one transaction, for nobody waits beside it: the more rows, the fewer writes, since places in
        // indexes are by chance and several rows share a page.
        config.store.batch_len = ROWS_LEN_MAX;
        let stores = Stores::embedded(&config, data_dir, clock.now())?;
        let (address, metrics) = (config.listen, Arc::new(Metrics::default()));
        let started = start_clicks(&config, data_dir, &stores, 0, &metrics, &clock).await?;
        Ok(App::new(config, clock, stores, address, metrics, started.clicks, None).await?)
    }

    /// Takes up to `wanted` of the links that a caller may create now. No verdict where there is no limit.
    pub fn take_creates(&self, context: &Context, wanted: u32) -> (u32, Option<Verdict>) {
        self.limits.creates(&context.actor, context.client.address, wanted, self.clock.now())
    }

    /// Whether a Host header names this server: a registered domain, or this machine.
    pub fn is_own_host(&self, host: &str) -> bool {
        let is_loopback = || {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            DomainName::parse(name).is_ok_and(|name| is_loopback_name(&name))
        };
        self.domains.is_known_host(host) || is_loopback()
    }
}

async fn start_clicks(
    config: &Config,
    data_dir: &DataDir,
    stores: &Stores,
    threads: usize,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<clicks::Started, ClicksError> {
    let place = clicks::Place {
        folder: &data_dir.journal_path(),
        salt: &data_dir.salt_path(),
        node: stores.instance.node_id,
        workers: threads,
    };
    clicks::start(&config.clicks, place, stores.clicks.clone(), metrics.clone(), clock.clone()).await
}

/// A thread with a runtime of its own.
fn start_background() -> (Handle, oneshot::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system starts a runtime");
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    let work = move || {
        terse_backends::priority::give_way();
        drop(runtime.block_on(ended));
    };
    std::thread::Builder::new()
        .name("background".to_owned())
        .spawn(work)
        .expect("the system starts a thread");
    (handle, end)
}

fn base_url_of(address: SocketAddr, tls: bool) -> BaseUrl {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let (scheme, own_port) = if tls { ("https", 443) } else { ("http", 80) };
    let host = DomainName::parse(&host).expect("an address is a host");
    BaseUrl { scheme, host, port: (address.port() != own_port).then_some(address.port()) }
}

fn is_loopback_name(name: &DomainName) -> bool {
    let text = name.as_str();
    let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    text == "localhost" || text.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The API's rates.
#[derive(Debug)]
pub struct Limits(Option<LimitTables>);

#[derive(Debug)]
struct LimitTables {
    rates: Rates,
    creates: Limiter<Creator>,
    passwords: Limiter<(LinkKey, IpAddr)>,
}

/// Whose bucket a creation is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Creator {
    Address(IpAddr),
    User(UserId),
    Key(u32),
}

impl Limits {
    fn new(rates: Option<Rates>) -> Self {
        Limits(rates.map(|rates| LimitTables {
            creates: Limiter::new(rates.callers_len_max),
            passwords: Limiter::new(rates.callers_len_max),
            rates,
        }))
    }

    fn creates(&self, actor: &Actor, address: IpAddr, wanted: u32, now: Timestamp) -> (u32, Option<Verdict>) {
        let Some(tables) = &self.0 else { return (wanted, None) };
        let (creator, per_hour) = match actor {
            Actor::Local(_) => return (wanted, None),
            Actor::Anonymous => {
                (Creator::Address(counted_address(address)), Some(tables.rates.anonymous_creates_per_hour))
            }
            Actor::User { key_id, creates_per_hour: Some(own), .. } => (Creator::Key(*key_id), Some(*own)),
            Actor::User { user, .. } => (Creator::User(user.id), user.tier.creates_per_hour()),
        };
        let Some(per_hour) = per_hour else { return (wanted, None) };
        let (taken, verdict) = tables.creates.take(&creator, Rate::per_hour(per_hour), wanted, now);
        (taken, Some(verdict))
    }

    /// One attempt at a link's password from an address.
    pub fn password(&self, key: &LinkKey, address: IpAddr, now: Timestamp) -> Option<Verdict> {
        let tables = self.0.as_ref()?;
        let rate = Rate::per_minute(tables.rates.passwords_per_minute);
        Some(tables.passwords.check(&(key.clone(), counted_address(address)), rate, now))
    }
}

/// At the end, for clicks that are not in the statistics yet. They are in the journal in any case.
const CLICKS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// What it serves.
    pub app: Arc<App>,
    stop: watch::Sender<bool>,
    workers: Workers,
    clicks: clicks::Running,
    // Released last: the socket in the run folder, and the lock on the data folder.
    data_dir: DataDir,
}

impl Running {
    /// Starts everything on the data folder of `config`.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let stores = Stores::embedded(&config, &data_dir, clock.now())?;
        Running::start_with(config, clock, stores, data_dir).await
    }

    /// Starts everything on other stores than those in the data folder.
    pub async fn start_with(
        config: Config,
        clock: Clock,
        stores: Stores,
        mut data_dir: DataDir,
    ) -> Result<Self, StartError> {
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let listen = config.listen;
        let (address, listeners) =
            bind(listen, config.workers).map_err(|source| StartError::Listen { address: listen, source })?;
        let chosen = workers::Loop::choose(config.io, config.workers, tls.is_some())?;
        let metrics = Arc::new(Metrics::default());
        let click_store = stores.clicks.clone();
        if !config.clicks.are_recorded {
            // Nobody needs it, and it is not to outlive its day.
            let _ = std::fs::remove_file(data_dir.salt_path());
        }
        let threads = chosen.threads(config.workers);
        let started = start_clicks(&config, &data_dir, &stores, threads, &metrics, &clock).await?;
        let app = App::new(config, clock, stores, address, metrics, started.clicks, started.recorder).await?;
        let local = data_dir.listen().map_err(StartError::LocalSocket)?;
        let server = Arc::new(Server::new(app.clone(), tls.clone()));
        let (stop, stopped) = watch::channel(false);
        let background = &app.background;
        background.spawn(clicks::upkeep(
            click_store,
            app.config.clicks.raw_days,
            app.clock.clone(),
            stopped.clone(),
        ));
        let journal = app.redirect.recorder.as_ref().map(|recorder| recorder.journal.clone());
        if let Some(recorder) = &app.redirect.recorder {
            background.spawn(clicks::chores(
                recorder.visitors.clone(),
                recorder.countries.clone(),
                app.clock.clone(),
                stopped.clone(),
            ));
        }
        let beside = {
            let (server, app, stopped) = (server.clone(), app.clone(), stopped.clone());
            move || {
                app.background.spawn(sweeper::run(app.clone(), stopped.clone()));
                if let Some(tls) = tls {
                    app.background.spawn(async move { tls.watch().await });
                }
                // What the command line has asked for is finished, too.
                tokio::spawn(async move {
                    match UnixListener::from_std(local) {
                        Ok(local) => server.serve_unix(local, stopped).await,
                        Err(error) => {
                            tracing::error!(%error, "Could not listen on the local socket: {error}");
                        }
                    }
                })
            }
        };
        let workers = workers::start(chosen, &server, listeners, journal.as_ref(), &stopped, beside)?;
        Ok(Running { address, app, stop, workers, clicks: started.running, data_dir })
    }

    /// Waits until a worker has ended, which none does by itself: connections that it had are gone, and those to come
    /// may find nobody.
    pub async fn worker_ended(&mut self) {
        self.workers.one_ended().await;
    }

    /// Stops accepting, lets requests finish, and returns when all have, or when the drain time is over.
    pub async fn stop(self) {
        let Running { app, stop, workers, clicks, data_dir, .. } = self;
        app.stopping.store(true, Ordering::Relaxed);
        let _ = stop.send(true);
        let deadline = tokio::time::Instant::now() + app.config.http.drain_timeout;
        while !workers.have_ended() {
            if tokio::time::Instant::now() >= deadline {
                tracing::warn!("Some requests did not finish in time");
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        clicks.stop(deadline.max(tokio::time::Instant::now() + CLICKS_PATIENCE)).await;
        drop((app, data_dir));
    }
}
