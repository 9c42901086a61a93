//! The in-process cache: links and unknown codes, each bounded apart, with one load per key.
//!
//! **Nothing stale stays.** A value enters the cache only under its key's slot, and a change detaches the slot: a load
//! that began before a change, or before a create, still answers those who wait for it, but is not kept. Slots live in
//! sharded maps under a lock that is held for a few map operations, never while anything is awaited. Reading a hit
//! takes no slot lock.

use quick_cache::Weighter;
use quick_cache::sync::Cache as WeightedCache;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;
use terse_model::code_space::LinkId;
use terse_model::link::{Link, LinkKey, LinkRecord, RedirectType};
use terse_model::store::StoreError;
use terse_model::tenant::UserId;
use terse_model::time::Timestamp;
use tokio::sync::watch;

#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};
// The tests of this file explore interleavings.
#[cfg(test)]
use shuttle::sync::{Mutex, MutexGuard};

/// What is known of a key.
#[derive(Clone, Debug)]
pub enum Known {
    /// A link that sends everybody to the same place: nothing to decide.
    Plain(Plain),
    /// Anything else that a store holds: conditions, or a removal.
    Ruled(Arc<LinkRecord>),
    /// Nobody ever made it.
    Missing,
}

/// What the answer of a plain link needs, ready made.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The target. In one piece with its count of users, so that a hit waits for memory once less.
    pub location: Arc<str>,
    /// The status.
    pub redirect_type: RedirectType,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Its identity.
    pub id: LinkId,
    /// Whose it is.
    pub owner: Option<UserId>,
    /// Its tags, each followed by a line feed.
    pub tags: Option<Arc<str>>,
}

impl Known {
    /// What a store's answer comes to.
    pub fn of(record: Option<LinkRecord>) -> Self {
        match record {
            None => Known::Missing,
            Some(LinkRecord::Present(link)) if is_plain(&link) => Known::Plain(Plain {
                location: link.settings.target.as_str().into(),
                redirect_type: link.settings.redirect_type,
                expires_at: link.settings.expires_at,
                id: link.id,
                owner: link.owner,
                tags: joined_tags(&link.settings.tags).map(Into::into),
            }),
            Some(record) => Known::Ruled(Arc::new(record)),
        }
    }
}

/// Tags as clicks hold them.
pub fn joined_tags(tags: &[String]) -> Option<String> {
    (!tags.is_empty()).then(|| tags.iter().flat_map(|tag| [tag.as_str(), "\n"]).collect())
}

/// Whether everybody who follows the link gets the same answer until it expires.
fn is_plain(link: &Link) -> bool {
    let settings = &link.settings;
    settings.enabled
        && settings.password_hash.is_none()
        && settings.click_limit.is_none()
        && settings.starts_at.is_none()
        && settings.fallback.is_none()
        && !settings.forward_query
}

/// A load's outcome, shared by all who wait for it.
pub type Loaded = Result<Known, Arc<StoreError>>;

/// The cache.
#[derive(Debug)]
pub struct Cache {
    links: WeightedCache<LinkKey, Held, HeldWeight>,
    missing: WeightedCache<LinkKey, Timestamp>,
    slots: Vec<Mutex<HashMap<LinkKey, Slot>>>,
    hasher: RandomState,
    ttl_seconds: Option<i64>,
    missing_ttl_seconds: i64,
}

#[derive(Clone, Debug)]
struct Held {
    known: Known,
    /// Not believed from this instant on.
    until: Timestamp,
}

#[derive(Clone, Debug)]
struct HeldWeight;

/// An entry's own size with its key, hash table slot and allocations.
const HELD_BYTES: u64 = 240;
/// What tags cost besides their text.
const TAGS_BYTES: usize = 32;

impl Weighter<LinkKey, Held> for HeldWeight {
    fn weight(&self, key: &LinkKey, held: &Held) -> u64 {
        let code = key.code.as_str().len();
        let own = match &held.known {
            Known::Plain(plain) => {
                plain.location.len() + plain.tags.as_ref().map_or(0, |tags| tags.len() + TAGS_BYTES)
            }
            Known::Ruled(record) => size_of::<LinkRecord>() + ruled_heap_bytes(record),
            Known::Missing => 0,
        };
        HELD_BYTES + if code > 24 { code as u64 } else { 0 } + own as u64
    }
}

fn ruled_heap_bytes(record: &LinkRecord) -> usize {
    let LinkRecord::Present(link) = record else { return 0 };
    let settings = &link.settings;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    settings.target.as_str().len()
        + settings.fallback.as_ref().map_or(0, |url| url.as_str().len())
        + text(&settings.title)
        + text(&settings.notes)
        + text(&settings.password_hash)
        + settings.tags.iter().map(|tag| tag.len() + size_of::<String>()).sum::<usize>()
}

/// What goes on under a key right now.
#[derive(Debug)]
enum Slot {
    /// A load that others may join.
    Load(Arc<()>, watch::Receiver<Option<Loaded>>),
    /// A link is being created; what loads find meanwhile is not kept.
    Fill(Arc<()>),
}

impl Slot {
    fn mark(&self) -> &Arc<()> {
        match self {
            Slot::Load(mark, _) | Slot::Fill(mark) => mark,
        }
    }
}

/// How to go on after a miss.
#[derive(Debug)]
pub enum Begun {
    /// Whoever gets this loads, and finishes with it.
    Lead(Load),
    /// Somebody loads already; wait for what they find.
    Follow(watch::Receiver<Option<Loaded>>),
}

/// A load under way. Dropped without [`Load::finish`] it lets waiters know that they must load themselves.
#[derive(Debug)]
pub struct Load {
    key: LinkKey,
    mark: Arc<()>,
    sender: watch::Sender<Option<Loaded>>,
}

/// A creation under way. Dropped without [`Fill::finish`], nothing is kept under its key.
#[derive(Debug)]
pub struct Fill<'a> {
    cache: &'a Cache,
    key: LinkKey,
    mark: Arc<()>,
}

const SHARDS: usize = 64;

impl Cache {
    /// An empty cache. Where this process alone writes to the store (`sole_writer`), links are believed until they
    /// are changed; elsewhere for the configured time, since a change may not be heard of.
    pub fn new(config: &crate::config::CacheConfig, sole_writer: bool) -> Self {
        // An estimate for the size of the tables, not a bound.
        let links_estimate = (config.bytes_max / (HELD_BYTES + 100)).max(16) as usize;
        Cache {
            links: WeightedCache::with_weighter(links_estimate, config.bytes_max, HeldWeight),
            missing: WeightedCache::new(config.missing_len_max),
            slots: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            hasher: RandomState::new(),
            ttl_seconds: (!sole_writer).then_some(config.ttl.as_secs() as i64),
            missing_ttl_seconds: config.missing_ttl.as_secs() as i64,
        }
    }

    /// What is known under `key`, if anything is and may still be believed.
    pub fn get(&self, key: &LinkKey, now: Timestamp) -> Option<Known> {
        if let Some(held) = self.links.get(key) {
            return (now < held.until).then_some(held.known);
        }
        let until = self.missing.get(key)?;
        (now < until).then_some(Known::Missing)
    }

    /// Begins a load of `key`, or joins the one that is under way.
    pub fn begin_load(&self, key: &LinkKey) -> Begun {
        let (sender, receiver) = watch::channel(None);
        let mark = Arc::new(());
        let lead = Load { key: key.clone(), mark: mark.clone(), sender };
        match self.slots(key).entry(key.clone()) {
            Entry::Vacant(place) => {
                place.insert(Slot::Load(mark, receiver));
                Begun::Lead(lead)
            }
            Entry::Occupied(slot) => match slot.get() {
                // A leader that went away without an answer has dropped its sender.
                Slot::Load(_, shared) if shared.has_changed().is_ok() || shared.borrow().is_some() => {
                    Begun::Follow(shared.clone())
                }
                Slot::Load(..) => {
                    *slot.into_mut() = Slot::Load(mark, receiver);
                    Begun::Lead(lead)
                }
                Slot::Fill(_) => Begun::Lead(lead),
            },
        }
    }

    /// Before a link is created under `key`: from here on no load of it is kept, since it may have come too early.
    pub fn begin_fill(&self, key: &LinkKey) -> Fill<'_> {
        let mark = Arc::new(());
        self.slots(key).insert(key.clone(), Slot::Fill(mark.clone()));
        Fill { cache: self, key: key.clone(), mark }
    }

    /// After the link under `key` was changed: drops what is known and detaches loads that began before.
    pub fn invalidate(&self, key: &LinkKey) {
        let mut slots = self.slots(key);
        slots.remove(key);
        self.forget(key);
    }

    /// Memory in use by links, in bytes, as it is counted against the bound.
    pub fn weight(&self) -> u64 {
        self.links.weight()
    }

    /// Links and unknown codes that are held.
    pub fn len(&self) -> (usize, usize) {
        (self.links.len(), self.missing.len())
    }

    fn slots(&self, key: &LinkKey) -> MutexGuard<'_, HashMap<LinkKey, Slot>> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        self.slots[shard].lock().expect("no code panics under this lock")
    }

    /// Keeps `known` if the slot under `key` is still the one of `mark`, and frees the slot.
    fn keep(&self, key: &LinkKey, mark: &Arc<()>, known: Option<Known>, now: Timestamp) -> bool {
        let mut slots = self.slots(key);
        if !slots.get(key).is_some_and(|slot| Arc::ptr_eq(slot.mark(), mark)) {
            return false;
        }
        slots.remove(key);
        self.forget(key);
        match known {
            None => {}
            Some(Known::Missing) => {
                self.missing.insert(key.clone(), now.plus_seconds(self.missing_ttl_seconds));
            }
            Some(known) => {
                let until = self.ttl_seconds.map_or(Timestamp::MAX, |seconds| now.plus_seconds(seconds));
                self.links.insert(key.clone(), Held { known, until });
            }
        }
        true
    }

    fn forget(&self, key: &LinkKey) {
        self.links.remove(key);
        self.missing.remove(key);
    }
}

impl Load {
    /// Where its outcome will be found.
    pub fn outcome(&self) -> watch::Receiver<Option<Loaded>> {
        self.sender.subscribe()
    }

    /// Hands the outcome to all who wait, and keeps it unless a change came in between.
    pub fn finish(self, cache: &Cache, loaded: Loaded, now: Timestamp) {
        cache.keep(&self.key, &self.mark, loaded.as_ref().ok().cloned(), now);
        self.sender.send_replace(Some(loaded));
    }
}

impl Fill<'_> {
    /// The link was committed: whoever asks from now on finds it at once.
    pub fn finish(self, known: Known, now: Timestamp) {
        if !self.cache.keep(&self.key, &self.mark, Some(known), now) {
            // Somebody else wrote under this key meanwhile, and theirs may be newer.
            self.cache.invalidate(&self.key);
        }
    }
}

impl Drop for Fill<'_> {
    fn drop(&mut self) {
        self.cache.keep(&self.key, &self.mark, None, Timestamp::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CacheConfig;
    use shuttle::sync::atomic::{AtomicU32, Ordering};
    use shuttle::thread;
    use std::time::Duration;
    use terse_model::code::ShortCode;
    use terse_model::domain::DomainId;
    use terse_model::link::{LinkSettings, Revision};
    use terse_model::target::TargetUrl;

    const NOW: i64 = 1_800_000_000_000;

    fn now() -> Timestamp {
        Timestamp::from_millis(NOW)
    }

    fn cache(bytes_max: u64) -> Cache {
        cache_of(bytes_max, false)
    }

    fn cache_of(bytes_max: u64, sole_writer: bool) -> Cache {
        let ttl = Duration::from_secs(30);
        let missing_ttl = Duration::from_secs(5);
        Cache::new(
            &CacheConfig { bytes_max, missing_len_max: 1000, ttl, missing_ttl, loads_len_max: 16 },
            sole_writer,
        )
    }

    fn key(code: &str) -> LinkKey {
        LinkKey { domain: DomainId::DEFAULT, code: ShortCode::parse(code).unwrap() }
    }

    /// A plain link whose target tells its version; version 0 is "not there".
    fn version(number: u32) -> Known {
        if number == 0 {
            return Known::Missing;
        }
        Known::of(Some(LinkRecord::Present(Link {
            id: LinkId(1),
            key: key("abc"),
            named: true,
            owner: None,
            manage_token: None,
            created_at: now(),
            updated_at: now(),
            revision: Revision(number),
            clicks_used: 0,
            settings: LinkSettings::plain(TargetUrl::parse(&format!("https://v.example/{number}")).unwrap()),
        })))
    }

    fn number(known: &Known) -> u32 {
        match known {
            Known::Missing => 0,
            Known::Plain(plain) => plain.location.rsplit('/').next().unwrap().parse().unwrap(),
            Known::Ruled(_) => panic!("a plain link"),
        }
    }

    /// A store of one link, by its version, with readers that load it as the resolver does.
    fn load(cache: &Cache, store: &AtomicU32) -> Option<u32> {
        if let Some(known) = cache.get(&key("abc"), now()) {
            return Some(number(&known));
        }
        match cache.begin_load(&key("abc")) {
            Begun::Lead(load) => {
                let found = store.load(Ordering::SeqCst);
                thread::yield_now();
                load.finish(cache, Ok(version(found)), now());
                Some(found)
            }
            Begun::Follow(shared) => shared.borrow().as_ref().map(|loaded| number(loaded.as_ref().unwrap())),
        }
    }

    /// Threads race; afterwards, and for whoever has seen a change answered, only the newest value may be found.
    fn explore(race: fn()) {
        shuttle::check_random(race, 3_000);
        shuttle::check_pct(race, 1_000, 3);
    }

    #[test]
    fn a_load_never_outlives_a_change() {
        explore(|| {
            let cache = Arc::new(cache(1 << 20));
            let store = Arc::new(AtomicU32::new(1));
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let (cache, store) = (cache.clone(), store.clone());
                    thread::spawn(move || {
                        load(&cache, &store);
                    })
                })
                .collect();
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    let (cache, store) = (cache.clone(), store.clone());
                    thread::spawn(move || {
                        let committed = store.fetch_add(1, Ordering::SeqCst) + 1;
                        cache.invalidate(&key("abc"));
                        // The change is answered: nobody may see an older value from here on.
                        if let Some(seen) = load(&cache, &store) {
                            assert!(seen >= committed, "saw {seen} after {committed}");
                        }
                    })
                })
                .collect();
            readers.into_iter().chain(writers).for_each(|thread| thread.join().unwrap());
            assert_eq!(load(&cache, &store), Some(3));
            assert!(cache.slots.iter().all(|shard| shard.lock().unwrap().is_empty()));
        });
    }

    #[test]
    fn a_load_never_hides_a_create() {
        explore(|| {
            let cache = Arc::new(cache(1 << 20));
            let store = Arc::new(AtomicU32::new(0));
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let (cache, store) = (cache.clone(), store.clone());
                    thread::spawn(move || {
                        load(&cache, &store);
                    })
                })
                .collect();
            let creator = {
                let (cache, store) = (cache.clone(), store.clone());
                thread::spawn(move || {
                    let fill = cache.begin_fill(&key("abc"));
                    store.store(1, Ordering::SeqCst);
                    thread::yield_now();
                    fill.finish(version(1), now());
                    assert_eq!(load(&cache, &store), Some(1));
                })
            };
            readers.into_iter().chain([creator]).for_each(|thread| thread.join().unwrap());
            assert_eq!(load(&cache, &store), Some(1));
        });
    }

    #[test]
    fn a_create_never_hides_the_change_that_follows_it() {
        explore(|| {
            let cache = Arc::new(cache(1 << 20));
            let store = Arc::new(AtomicU32::new(0));
            let fill_cache = cache.clone();
            let fill_store = store.clone();
            let creator = thread::spawn(move || {
                let fill = fill_cache.begin_fill(&key("abc"));
                fill_store.store(1, Ordering::SeqCst);
                thread::yield_now();
                fill.finish(version(1), now());
            });
            let changer = {
                let (cache, store) = (cache.clone(), store.clone());
                thread::spawn(move || {
                    // Whoever knows the alias may change the link as soon as it is committed.
                    if store.compare_exchange(1, 2, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                        cache.invalidate(&key("abc"));
                    }
                })
            };
            creator.join().unwrap();
            changer.join().unwrap();
            assert_eq!(load(&cache, &store), Some(store.load(Ordering::SeqCst)));
        });
    }

    #[test]
    fn a_leader_that_goes_away_is_replaced() {
        shuttle::check_random(
            || {
                let cache = cache(1 << 20);
                let Begun::Lead(first) = cache.begin_load(&key("abc")) else { panic!("nobody else loads") };
                assert!(matches!(cache.begin_load(&key("abc")), Begun::Follow(_)));
                drop(first);
                assert!(matches!(cache.begin_load(&key("abc")), Begun::Lead(_)));
            },
            1,
        );
    }

    #[test]
    fn entries_end_and_failures_are_not_kept() {
        shuttle::check_random(
            || {
                let cache = cache(1 << 20);
                let keep = |code: &str, loaded: Loaded| {
                    let Begun::Lead(load) = cache.begin_load(&key(code)) else { panic!("nobody else loads") };
                    load.finish(&cache, loaded, now());
                };
                keep("link", Ok(version(1)));
                keep("none", Ok(Known::Missing));
                keep("fail", Err(Arc::new(StoreError::Timeout)));
                let held = |code: &str, millis: i64| {
                    cache.get(&key(code), Timestamp::from_millis(NOW + millis)).is_some()
                };
                assert!(held("link", 29_999) && !held("link", 30_000));
                assert!(held("none", 4_999) && !held("none", 5_000));
                assert!(!held("fail", 0));
            },
            1,
        );
    }

    #[test]
    fn a_sole_writer_believes_a_link_until_it_is_changed() {
        shuttle::check_random(
            || {
                let cache = cache_of(1 << 20, true);
                cache.begin_fill(&key("abc")).finish(version(1), now());
                assert!(cache.get(&key("abc"), now().plus_seconds(1_000_000)).is_some());
                cache.invalidate(&key("abc"));
                assert!(cache.get(&key("abc"), now()).is_none());
            },
            1,
        );
    }

    #[test]
    fn memory_is_bounded() {
        shuttle::check_random(
            || {
                let cache = cache(1 << 20);
                for number in 0..20_000 {
                    let key = key(&format!("code{number}"));
                    cache.begin_fill(&key).finish(version(1), now());
                }
                for number in 0..5_000 {
                    let key = key(&format!("none{number}"));
                    let Begun::Lead(load) = cache.begin_load(&key) else { panic!("nobody else loads") };
                    load.finish(&cache, Ok(Known::Missing), now());
                }
                assert!(cache.weight() <= 1 << 20);
                let (links, missing) = cache.len();
                assert!(links > 1_000, "{links} links are held");
                assert!(missing <= 1_000, "{missing} unknown codes are held");
            },
            1,
        );
    }
}
