//! Rate limits: token buckets in bounded memory.
//!
//! A bucket is one number, the time at which it will be full again (GCRA, the virtual scheduling algorithm of ITU-T
//! I.371). A full bucket and no bucket are the same, so only full ones are ever dropped: no caller gains tokens by
//! pushing others out. When a table has no full bucket to drop, new callers share one bucket.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::Mutex;
use terse_model::time::Timestamp;

/// So many requests in such a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests, which may all come at once.
    pub count: u32,
    /// In this many seconds.
    pub per_seconds: u32,
}

impl Rate {
    /// `count` an hour.
    pub fn per_hour(count: u32) -> Self {
        Rate { count, per_seconds: 3600 }
    }

    /// `count` a minute.
    pub fn per_minute(count: u32) -> Self {
        Rate { count, per_seconds: 60 }
    }

    /// Microseconds that one request is worth.
    fn interval_micros(self) -> i64 {
        // A million a second is as fine as it gets.
        (i64::from(self.per_seconds) * 1_000_000 / i64::from(self.count.max(1))).max(1)
    }

    fn window_micros(self) -> i64 {
        self.interval_micros() * i64::from(self.count)
    }
}

/// What a limiter says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may go on.
    pub allowed: bool,
    /// The rate that it was measured by.
    pub rate: Rate,
    /// Requests that could follow at once.
    pub remaining: u32,
    /// Seconds until the bucket is full, or, after a refusal, be it of a part, until the next request is allowed;
    /// rounded up.
    pub wait_seconds: u64,
}

/// Buckets of one kind, found by caller.
#[derive(Debug)]
pub struct Limiter<K> {
    shards: Vec<Mutex<Shard<K>>>,
    hasher: RandomState,
    shard_len_max: usize,
}

#[derive(Debug)]
struct Shard<K> {
    /// When each bucket will be full, in microseconds since the epoch.
    full_at: HashMap<K, i64>,
    /// The bucket of callers who found no room.
    overflow_full_at: i64,
    /// A table without a full bucket isn't searched for one again before this time.
    search_at: i64,
}

const SHARDS: usize = 64;
/// After a search in vain.
const SEARCH_PAUSE_MICROS: i64 = 100_000;

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// A limiter that tells at most `len_max` callers apart.
    pub fn new(len_max: usize) -> Self {
        let shard =
            || Mutex::new(Shard { full_at: HashMap::new(), overflow_full_at: i64::MIN, search_at: i64::MIN });
        Limiter {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            shard_len_max: len_max.div_ceil(SHARDS).max(1),
        }
    }

    /// Takes up to `wanted` tokens of `caller`'s bucket; says how many it took.
    pub fn take(&self, caller: &K, rate: Rate, wanted: u32, now: Timestamp) -> (u32, Verdict) {
        let now = now.as_millis().saturating_mul(1000);
        let shard = &self.shards[self.hasher.hash_one(caller) as usize % SHARDS];
        let mut shard = shard.lock().expect("no code panics under this lock");
        shard.make_room(self.shard_len_max, caller, now);
        let Shard { full_at, overflow_full_at, .. } = &mut *shard;
        let has_room = full_at.len() < self.shard_len_max;
        match full_at.entry(caller.clone()) {
            Entry::Occupied(mut bucket) => take(bucket.get_mut(), rate, wanted, now),
            Entry::Vacant(place) if has_room => take(place.insert(now), rate, wanted, now),
            Entry::Vacant(_) => take(overflow_full_at, rate, wanted, now),
        }
    }

    /// Takes one token, or refuses.
    pub fn check(&self, caller: &K, rate: Rate, now: Timestamp) -> Verdict {
        self.take(caller, rate, 1, now).1
    }

    /// Callers that are told apart now.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().expect("no code panics under this lock").full_at.len())
            .sum()
    }

    /// Whether no caller is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Hash + Eq> Shard<K> {
    fn make_room(&mut self, len_max: usize, caller: &K, now: i64) {
        if self.full_at.len() < len_max || now < self.search_at || self.full_at.contains_key(caller) {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= len_max {
            self.search_at = now + SEARCH_PAUSE_MICROS;
        }
    }
}

fn take(full_at: &mut i64, rate: Rate, wanted: u32, now: i64) -> (u32, Verdict) {
    let (interval, window) = (rate.interval_micros(), rate.window_micros());
    // A clock that went back, or a rate that shrank, must not lock a caller out for longer than an empty bucket does.
    let at = (*full_at).clamp(now, now + window);
    let tokens = (now + window - at) / interval;
    let taken = i64::from(wanted).min(tokens);
    *full_at = at + taken * interval;
    let wait = if taken < i64::from(wanted) { *full_at + interval - window - now } else { *full_at - now };
    let verdict = Verdict {
        allowed: taken > 0 || wanted == 0,
        rate,
        remaining: (tokens - taken) as u32,
        wait_seconds: (wait.max(0) as u64).div_ceil(1_000_000),
    };
    (taken as u32, verdict)
}

/// What an address is counted as: an IPv6 address by its /64, which one customer has for themselves.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    #[test]
    fn a_bucket_gives_its_tokens_and_fills_again() {
        let limiter = Limiter::new(100);
        let rate = Rate::per_hour(10);
        for left in (0..10).rev() {
            let verdict = limiter.check(&"a", rate, at(0));
            assert!(verdict.allowed);
            assert_eq!(verdict.remaining, left);
            assert_eq!(verdict.wait_seconds, (10 - u64::from(left)) * 360);
        }
        let refused = limiter.check(&"a", rate, at(0));
        assert_eq!((refused.allowed, refused.remaining, refused.wait_seconds), (false, 0, 360));
        assert!(limiter.check(&"b", rate, at(0)).allowed);
        assert!(!limiter.check(&"a", rate, at(359_999)).allowed);
        assert_eq!(limiter.check(&"a", rate, at(359_500)).wait_seconds, 1);
        assert!(limiter.check(&"a", rate, at(360_000)).allowed);
        assert!(!limiter.check(&"a", rate, at(360_000)).allowed);
    }

    #[test]
    fn a_rate_beyond_measure_refuses_nobody() {
        let limiter = Limiter::new(10);
        let rate = Rate { count: u32::MAX, per_seconds: 1 };
        assert!((0..1000).all(|_| limiter.check(&1, rate, at(0)).allowed));
    }

    #[test]
    fn several_tokens_are_taken_as_far_as_they_go() {
        let limiter = Limiter::new(100);
        assert_eq!(limiter.take(&1, Rate::per_hour(100), 70, at(0)).0, 70);
        assert_eq!(limiter.take(&1, Rate::per_hour(100), 70, at(0)).0, 30);
        assert_eq!(limiter.take(&2, Rate::per_hour(100), 101, at(0)).1.wait_seconds, 36);
        let (taken, verdict) = limiter.take(&1, Rate::per_hour(100), 70, at(0));
        assert_eq!((taken, verdict.allowed, verdict.wait_seconds), (0, false, 36));
    }

    #[test]
    fn memory_is_bounded_and_only_full_buckets_go() {
        let limiter = Limiter::new(640);
        let rate = Rate::per_minute(2);
        for caller in 0..100_000u32 {
            limiter.check(&caller, rate, at(0));
        }
        assert_eq!(limiter.len(), 640);
        // Whoever found no room shares a bucket, which is empty by now.
        assert!(!limiter.check(&1_000_000, rate, at(0)).allowed);
        // Those who were there keep their own, with what they took.
        let known = (0..100_000u32).filter(|caller| limiter.check(caller, rate, at(0)).allowed).count();
        assert_eq!(known, 640);
        // When the buckets are full again, they make room.
        assert!(limiter.check(&1_000_000, rate, at(61_000)).allowed);
    }

    #[test]
    fn a_clock_that_jumps_locks_nobody_out() {
        let limiter = Limiter::new(10);
        let rate = Rate::per_minute(60);
        assert!(limiter.check(&1, rate, at(1_000_000_000)).allowed);
        let verdict = limiter.check(&1, rate, at(0));
        assert!(verdict.wait_seconds <= 60, "{verdict:?}");
        assert!(limiter.check(&1, rate, at(2_000)).allowed);
    }

    #[test]
    fn addresses() {
        let counted = |text: &str| counted_address(text.parse().unwrap()).to_string();
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    proptest! {
        #[test]
        fn no_window_gets_more_than_its_rate(steps in prop::collection::vec(0i64..2_000, 1..400), count in 1u32..50) {
            let limiter = Limiter::new(10);
            let rate = Rate { count, per_seconds: 10 };
            let mut now = 0;
            let mut allowed = Vec::new();
            for step in steps {
                now += step;
                if limiter.check(&(), rate, at(now)).allowed {
                    allowed.push(now);
                }
            }
            for (first, start) in allowed.iter().enumerate() {
                // The burst of a full bucket and what flows in meanwhile.
                let inside = allowed[first..].iter().take_while(|time| **time < start + 10_000).count();
                prop_assert!(inside <= 2 * count as usize);
            }
        }
    }
}
