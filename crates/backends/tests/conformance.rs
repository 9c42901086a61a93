//! Every store passes the suites of the model, and under random use all of them do the same.

use proptest::prelude::*;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use terse_backends::memory::MemoryStore;
use terse_backends::sqlite::{SqliteOptions, SqliteStore};
use terse_model::code::ShortCode;
use terse_model::code_space::{CodeSpace, Generator, LinkId};
use terse_model::domain::DomainId;
use terse_model::link::{Link, LinkKey, LinkRecord, LinkSettings, LinkState, Removal, Revision};
use terse_model::store::{
    AccountStore, ChangeRefused, Instance, LinkStore, LinkWrite, ListQuery, NewLink, Receipt, Result,
};
use terse_model::target::TargetUrl;
use terse_model::tenant::{SecretHash, UserId};
use terse_model::testsuite::{account_store_suite, link_store_suite};
use terse_model::time::Timestamp;

#[tokio::test]
async fn memory_keeps_links() {
    link_store_suite(async |generator| {
        let instance = instance(generator);
        (Arc::new(MemoryStore::new(instance.clone())) as Arc<dyn LinkStore>, instance)
    })
    .await;
}

#[tokio::test]
async fn memory_keeps_accounts() {
    account_store_suite(async || {
        let store = Arc::new(MemoryStore::new(instance(Generator::DEFAULT)));
        (store.clone() as Arc<dyn AccountStore>, store as Arc<dyn LinkStore>)
    })
    .await;
}

#[tokio::test]
async fn sqlite_keeps_links() {
    let root = TempDir::new().unwrap();
    link_store_suite(async |generator| {
        let (store, instance) = sqlite(&new_dir(&root), generator);
        (store as Arc<dyn LinkStore>, instance)
    })
    .await;
}

#[tokio::test]
async fn sqlite_keeps_accounts() {
    let root = TempDir::new().unwrap();
    account_store_suite(async || {
        let (store, _) = sqlite(&new_dir(&root), Generator::DEFAULT);
        (store.clone() as Arc<dyn AccountStore>, store as Arc<dyn LinkStore>)
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sqlite_does_what_memory_does(
        generator in prop_oneof![Just(Generator::DEFAULT), Just(Generator::Counter)],
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let dir = TempDir::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (sqlite, instance) = sqlite(dir.path(), generator);
            let memory = MemoryStore::new(instance.clone());
            let expected = Run::of(&memory, &instance.codes, &operations).await;
            let told = Run::of(&*sqlite, &instance.codes, &operations).await;
            for (told, expected) in told.iter().zip(&expected) {
                prop_assert_eq!(told, expected);
            }
            prop_assert_eq!(told.len(), expected.len());
            Ok(())
        })?;
    }
}

fn instance(generator: Generator) -> Instance {
    Instance { node_id: 1, codes: CodeSpace::new(generator, b"a key for tests!"), secret: [1; 32] }
}

fn sqlite(dir: &Path, generator: Generator) -> (Arc<SqliteStore>, Instance) {
    let options = SqliteOptions { generator: Some(generator), ..SqliteOptions::default() };
    let store = SqliteStore::open(&dir.join("links.db"), &options).unwrap();
    let instance = store.instance().clone();
    (Arc::new(store), instance)
}

fn new_dir(root: &TempDir) -> std::path::PathBuf {
    TempDir::new_in(root.path()).unwrap().keep()
}

/// Something that a server asks of its store.
#[derive(Clone, Debug)]
enum Operation {
    Lease(u64),
    Write { writes: Vec<Write>, request: Option<RequestPart> },
    TakeClick(u64),
    SweepLinks,
    SweepAnswers,
    List { owner: Option<u32>, text: Option<&'static str>, state: Option<LinkState>, limit: usize },
}

#[derive(Clone, Debug)]
enum Write {
    Insert {
        /// The number of a code that is chosen; otherwise it is that of the id.
        name: Option<usize>,
        domain: u32,
        owner: Option<u32>,
        settings: usize,
        reuse_equal: bool,
        /// With the first id of all again, as no server should.
        stale: bool,
    },
    Change {
        code: usize,
        domain: u32,
        change: Change,
    },
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Edit(usize),
    Remove,
    Keep,
    Refuse,
}

/// Which part of which request a batch is; a silent one keeps no answer.
#[derive(Clone, Copy, Debug)]
struct RequestPart {
    scope: u8,
    part: u32,
    silent: bool,
}

const NAMES: [&str; 2] = ["promo", "Promo"];
/// So many codes are in play: the names, then those of the first ids.
const CODES: usize = NAMES.len() + 16;
const STATES: [LinkState; 6] = [
    LinkState::Active,
    LinkState::Disabled,
    LinkState::Scheduled,
    LinkState::Expired,
    LinkState::Exhausted,
    LinkState::Deleted,
];

fn operation() -> impl Strategy<Value = Operation> {
    let text = prop::option::of(prop::sample::select(vec!["PROMO", "a.example", "nowhere"]));
    let state = prop::option::of(prop::sample::select(STATES.to_vec()));
    prop_oneof![
        2 => (1..6u64).prop_map(Operation::Lease),
        12 => (prop::collection::vec(write(), 0..4), request())
            .prop_map(|(writes, request)| Operation::Write { writes, request }),
        4 => (0..4u64).prop_map(Operation::TakeClick),
        1 => Just(Operation::SweepLinks),
        1 => Just(Operation::SweepAnswers),
        1 => (prop::option::of(0..3u32), text, state, 1..5usize)
            .prop_map(|(owner, text, state, limit)| Operation::List { owner, text, state, limit }),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    // Some values come more often, so that equal links meet and limits are reached.
    let domain = prop::sample::select(vec![0, 0, 0, 1]);
    let name = prop::option::weighted(0.4, 0..CODES);
    let owner = prop::sample::select(vec![None, Some(1), Some(1), Some(2)]);
    let settings = prop::sample::select(vec![0, 0, 0, 0, 1, 2, 2, 2, 3, 4, 5]);
    let reuse_equal = prop::bool::weighted(0.7);
    let stale = prop::bool::weighted(0.05);
    let change = prop_oneof![
        4 => settings.clone().prop_map(Change::Edit),
        2 => Just(Change::Remove),
        1 => Just(Change::Keep),
        1 => Just(Change::Refuse),
    ];
    prop_oneof![
        3 => (name, domain.clone(), owner, settings, reuse_equal, stale).prop_map(
            |(name, domain, owner, settings, reuse_equal, stale)| {
                Write::Insert { name, domain, owner, settings, reuse_equal, stale }
            }
        ),
        2 => (0..CODES, domain, change)
            .prop_map(|(code, domain, change)| Write::Change { code, domain, change }),
    ]
}

fn request() -> impl Strategy<Value = Option<RequestPart>> {
    let part = (0..4u8, 0..2u32, prop::bool::weighted(0.2));
    prop::option::weighted(0.3, part.prop_map(|(scope, part, silent)| RequestPart { scope, part, silent }))
}

/// Operations applied to one store, with everything that it told.
struct Run<'a, S> {
    store: &'a S,
    codes: &'a CodeSpace,
    now: Timestamp,
    free: Vec<LinkId>,
    first: Option<LinkId>,
    told: Vec<String>,
}

impl<'a, S: LinkStore> Run<'a, S> {
    async fn of(store: &'a S, codes: &'a CodeSpace, operations: &[Operation]) -> Vec<String> {
        let now = Timestamp::from_millis(1_900_000_000_123);
        let mut run = Run { store, codes, now, free: Vec::new(), first: None, told: Vec::new() };
        for operation in operations {
            run.now = run.now.plus_seconds(1);
            run.apply(operation).await;
        }
        run.look_around().await;
        run.told
    }

    /// Notes an answer. Errors are alike: their texts belong to the store.
    fn tell<T: Debug>(&mut self, question: &dyn Debug, answer: Result<T>) {
        self.told.push(format!("{question:?}: {:?}", answer.map_err(drop)));
    }

    async fn apply(&mut self, operation: &Operation) {
        let store = self.store;
        match operation.clone() {
            Operation::Lease(count) => self.lease(count).await,
            Operation::Write { writes, request } => {
                let mut batch = Vec::new();
                for write in writes {
                    batch.push(self.write(write).await);
                }
                let receipt = request.map(|part| self.receipt(part));
                self.tell(operation, store.links_write(batch, receipt).await);
            }
            Operation::TakeClick(index) => {
                self.tell(operation, store.click_take(self.id(index), Revision::FIRST).await);
            }
            Operation::SweepLinks => {
                let mut swept = store.links_sweep(self.now.plus_seconds(-1), self.now, 1000).await;
                if let Ok(keys) = &mut swept {
                    keys.sort();
                }
                self.tell(operation, swept);
            }
            Operation::SweepAnswers => {
                self.tell(operation, store.answers_sweep(self.now.plus_seconds(-10), 1000).await);
            }
            Operation::List { owner, text, state, limit } => self.list(owner, text, state, limit).await,
        }
    }

    /// Everything that can be seen in the end.
    async fn look_around(&mut self) {
        let store = self.store;
        for code in 0..CODES {
            for domain in 0..3 {
                let key = self.key(domain, code);
                let record = store.link_get(&key).await;
                let denied = matches!(record, Ok(Some(_))) && store.surely_absent(&key);
                assert!(!denied, "what is there is not surely absent: {key:?}");
                self.tell(&key, record);
            }
        }
        for state in STATES.map(Some) {
            self.list(None, None, state, 5).await;
        }
        for scope in 0..4 {
            self.tell(&scope, store.answers_get(&[scope; 32]).await);
        }
        // Shows which ids are reserved.
        self.lease(1000).await;
    }

    async fn lease(&mut self, count: u64) {
        let lease = self.store.ids_lease(count).await;
        if let Ok(lease) = &lease {
            self.free.extend(lease.ids.clone().filter(|id| !lease.reserved.contains(id)).map(LinkId));
        }
        self.tell(&"lease", lease);
    }

    /// Where pages end is the store's choice, so only what they hold together is told.
    async fn list(&mut self, owner: Option<u32>, text: Option<&str>, state: Option<LinkState>, limit: usize) {
        let (owner, text) = (owner.map(UserId), text.map(str::to_owned));
        let query = ListQuery { owner, before: None, text, tag: None, state, now: self.now, limit };
        let mut links = Vec::new();
        let mut before = None;
        loop {
            let page = self.store.link_list(&ListQuery { before, ..query.clone() }).await.unwrap();
            links.extend(page.links);
            if page.next.is_none() {
                return self.tell(&query, Ok(links));
            }
            assert!(before.is_none() || page.next < before, "the next page begins further down");
            before = page.next;
        }
    }

    async fn write(&mut self, write: Write) -> LinkWrite {
        match write {
            Write::Insert { name, domain, owner, settings, reuse_equal, stale } => {
                let id = match self.first {
                    Some(id) if stale => id,
                    _ => self.take_id().await,
                };
                let key = match name {
                    Some(code) => self.key(domain, code),
                    None => LinkKey { domain: DomainId(domain), code: self.codes.encode(id) },
                };
                let link = Link {
                    id,
                    key,
                    named: name.is_some(),
                    owner: owner.map(UserId),
                    manage_token: owner.is_none().then_some(SecretHash([7; 32])),
                    created_at: self.now,
                    updated_at: self.now,
                    revision: Revision::FIRST,
                    clicks_used: 0,
                    settings: sample_settings(settings),
                };
                LinkWrite::Insert(Box::new(NewLink { link: Arc::new(link), reuse_equal }))
            }
            Write::Change { code, domain, change } => {
                let now = self.now;
                let apply = Arc::new(move |record: &LinkRecord| match (change, record) {
                    (Change::Keep, _) => Ok(None),
                    (Change::Refuse, _) => Err(ChangeRefused::Forbidden),
                    (_, LinkRecord::Removed(removed)) => Err(ChangeRefused::Gone(removed.removal)),
                    (Change::Remove, LinkRecord::Present(link)) => {
                        Ok(Some(LinkRecord::Removed(link.clone().remove(Removal::Deleted, now))))
                    }
                    (Change::Edit(settings), LinkRecord::Present(link)) => {
                        Ok(Some(LinkRecord::Present(Link {
                            settings: sample_settings(settings),
                            revision: link.revision.next(),
                            updated_at: now,
                            ..link.clone()
                        })))
                    }
                });
                LinkWrite::Change { key: self.key(domain, code), apply }
            }
        }
    }

    async fn take_id(&mut self) -> LinkId {
        loop {
            if let Some(id) = self.free.pop() {
                self.first.get_or_insert(id);
                return id;
            }
            self.lease(3).await;
        }
    }

    fn id(&self, index: u64) -> LinkId {
        LinkId(self.codes.first_id().0 + index)
    }

    fn key(&self, domain: u32, code: usize) -> LinkKey {
        let code = match NAMES.get(code) {
            Some(name) => ShortCode::parse(name).unwrap(),
            None => self.codes.encode(self.id((code - NAMES.len()) as u64)),
        };
        LinkKey { domain: DomainId(domain), code }
    }

    fn receipt(&self, request: RequestPart) -> Receipt {
        let RequestPart { scope, part, silent } = request;
        Receipt {
            scope: [scope; 32],
            fingerprint: [9; 32],
            part,
            at: self.now,
            answer: Arc::new(move |written| (!silent).then(|| format!("{written:?}").into_bytes())),
        }
    }
}

fn sample_settings(index: usize) -> LinkSettings {
    let plain = LinkSettings::plain(TargetUrl::parse("https://a.example/").unwrap());
    let soon = Some(Timestamp::from_millis(1_900_000_000_123).plus_seconds(15));
    match index {
        0 => plain,
        1 => LinkSettings { target: TargetUrl::parse("https://b.example/").unwrap(), ..plain },
        2 => LinkSettings { click_limit: Some(2), ..plain },
        3 => LinkSettings { expires_at: soon, ..plain },
        4 => LinkSettings { expires_at: soon, fallback: Some(plain.target.clone()), ..plain },
        _ => LinkSettings { title: Some("Promo".into()), enabled: false, ..plain },
    }
}
