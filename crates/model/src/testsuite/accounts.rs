//! What [`AccountStore`] promises.

use super::{answers, at, join_all};
use crate::domain::{Domain, DomainId, DomainName};
use crate::store::{AccountReceipt, AccountStore, KeptAnswer, LinkStore, UserSave};
use crate::tenant::{ApiKey, Role, Scope, Scopes, SecretHash, Tier, User, UserId, UserName};
use crate::time::Timestamp;
use std::fmt::Debug;
use std::sync::Arc;

/// Runs every case of [`AccountStore`], each on a store of its own.
///
/// `open` makes a new, empty store and hands out both its faces: [`LinkStore::answers_get`] reads accounts' receipts.
pub async fn account_store_suite(open: impl AsyncFn() -> (Arc<dyn AccountStore>, Arc<dyn LinkStore>)) {
    macro_rules! run {
        ($($case:ident)+) => {
            $(
                eprintln!("{}", stringify!($case));
                let (store, links) = open().await;
                $case(&Accounts { store, links }).await;
            )+
        };
    }
    run! {
        a_new_store_knows_nobody
        a_new_user_is_a_member_on_the_free_tier
        saving_a_user_sets_what_it_says
        racing_saves_make_one_user
        a_key_is_kept_as_it_is
        a_key_comes_with_its_user_of_today
        a_deleted_key_is_gone
        a_touched_key_says_when
        a_hash_has_one_key
        a_domain_is_registered_once
        racing_domains_have_one_winner
        receipts_keep_what_was_made
        repeated_receipts_undo_what_was_made
    }
}

/// An account store under test, with the other face of the same store.
struct Accounts {
    store: Arc<dyn AccountStore>,
    links: Arc<dyn LinkStore>,
}

impl Accounts {
    async fn save(&self, save: UserSave) -> User {
        self.store.user_save(save, None).await.expect("user_save answers")
    }

    async fn user(&self, name: &str) -> User {
        self.save(user(name)).await
    }

    async fn users(&self) -> Vec<User> {
        self.store.user_list().await.expect("user_list answers")
    }

    async fn key(&self, key: ApiKey) -> ApiKey {
        self.store.key_insert(key, None).await.expect("key_insert answers")
    }

    async fn keys(&self, user: Option<UserId>) -> Vec<ApiKey> {
        self.store.key_list(user).await.expect("key_list answers")
    }

    async fn find(&self, hash: &SecretHash) -> Option<(ApiKey, User)> {
        self.store.key_find(hash).await.expect("key_find answers")
    }

    async fn domains(&self) -> Vec<Domain> {
        self.store.domain_list().await.expect("domain_list answers")
    }
}

async fn a_new_store_knows_nobody(accounts: &Accounts) {
    let by_name = accounts.store.user_get(&user("ann").name).await.expect("user_get answers");
    assert_eq!(by_name, None, "nobody has this name");
    let by_id = accounts.store.user_find(UserId(1)).await.expect("user_find answers");
    assert_eq!(by_id, None, "nobody has this identity");
    assert_eq!(accounts.users().await, [], "a new store has no users");
    assert_eq!(accounts.find(&SecretHash([0; 32])).await, None, "no key has this hash");
    assert_eq!(accounts.keys(None).await, [], "a new store has no keys");
    assert_eq!(accounts.domains().await, [], "a new store has no domains");
}

async fn a_new_user_is_a_member_on_the_free_tier(accounts: &Accounts) {
    let ann = accounts.user("ann").await;
    let expected =
        User { id: ann.id, name: user("ann").name, role: Role::Member, tier: Tier::Free, created_at: at(0) };
    assert_eq!(ann, expected, "a new user is what nothing else was said of");
    let upper =
        accounts.save(UserSave { role: Some(Role::Admin), tier: Some(Tier::Bulk), ..user("Ann") }).await;
    assert_eq!((upper.role, upper.tier), (Role::Admin, Tier::Bulk), "a new user is what was said");
    assert_ne!(ann.id, upper.id, "letter case tells users apart");
    for user in [&ann, &upper] {
        let found = accounts.store.user_get(&user.name).await.expect("user_get answers");
        assert_eq!(found.as_ref(), Some(user), "a user is found by name");
        let found = accounts.store.user_find(user.id).await.expect("user_find answers");
        assert_eq!(found.as_ref(), Some(user), "a user is found by identity");
    }
    let mut expected = [ann, upper];
    expected.sort_by_key(|user| user.id);
    assert_eq!(accounts.users().await, expected, "users are listed in the order of their identities");
}

async fn saving_a_user_sets_what_it_says(accounts: &Accounts) {
    let mut expected = accounts.user("ann").await;
    for (role, tier) in [
        (Some(Role::Admin), None),
        (None, Some(Tier::Unlimited)),
        (None, None),
        (Some(Role::Member), Some(Tier::Premium)),
    ] {
        expected.role = role.unwrap_or(expected.role);
        expected.tier = tier.unwrap_or(expected.tier);
        let saved = accounts.save(UserSave { role, tier, now: at(9), ..user("ann") }).await;
        assert_eq!(saved, expected, "what is not said stays");
        assert_eq!(accounts.users().await, [saved], "no other user is made");
    }
}

async fn racing_saves_make_one_user(accounts: &Accounts) {
    let saved = join_all((0..20).map(|_| accounts.user("ann"))).await;
    let users = accounts.users().await;
    assert_eq!(users.len(), 1, "one name is one user");
    assert!(saved.iter().all(|user| *user == users[0]), "all callers hear of the same user: {saved:?}");
}

async fn a_key_is_kept_as_it_is(accounts: &Accounts) {
    let (ann, bob) = (accounts.user("ann").await, accounts.user("bob").await);
    let plain = api_key(&bob, 1);
    let rich = ApiKey {
        name: "Schlüssel 🔑 \"'\\\n".into(),
        scopes: Scopes::ALL,
        creates_per_hour: Some(u32::MAX),
        expires_at: Some(Timestamp::MAX),
        last_used_at: Some(at(1)),
        ..api_key(&ann, 2)
    };
    let mut made = Vec::new();
    for key in [plain, rich, api_key(&bob, 3)] {
        let inserted = accounts.key(key.clone()).await;
        assert_eq!(inserted, ApiKey { id: inserted.id, ..key }, "a key gets an identity and keeps the rest");
        let owner = if inserted.user == ann.id { &ann } else { &bob };
        let found = accounts.find(&inserted.hash).await;
        assert_eq!(found, Some((inserted.clone(), owner.clone())), "a key is found by its hash");
        made.push(inserted);
    }
    made.sort_by_key(|key| key.id);
    assert_eq!(accounts.keys(None).await, made, "keys are listed in the order of their identities");
    for user in [&ann, &bob] {
        let expected: Vec<ApiKey> = made.iter().filter(|key| key.user == user.id).cloned().collect();
        assert_eq!(accounts.keys(Some(user.id)).await, expected, "{} has these keys", user.name);
    }
    assert_eq!(accounts.find(&SecretHash([4; 32])).await, None, "another secret finds no key");
}

async fn a_key_comes_with_its_user_of_today(accounts: &Accounts) {
    let key = accounts.key(api_key(&accounts.user("ann").await, 1)).await;
    let admin = accounts.save(UserSave { role: Some(Role::Admin), ..user("ann") }).await;
    assert_eq!(accounts.find(&key.hash).await, Some((key, admin)), "the user is as last saved");
}

async fn a_deleted_key_is_gone(accounts: &Accounts) {
    let ann = accounts.user("ann").await;
    let first = accounts.key(api_key(&ann, 1)).await;
    let last = accounts.key(api_key(&ann, 2)).await;
    let given = [first.id, last.id];
    for expected in [Some(&last), None] {
        let deleted = accounts.store.key_delete(last.id).await.expect("key_delete answers");
        assert_eq!(deleted.as_ref(), expected, "what was deleted is told, once");
    }
    assert_eq!(accounts.find(&last.hash).await, None, "a deleted key opens nothing");
    assert_eq!(accounts.keys(None).await, [first], "the other key stays");
    let next = accounts.key(api_key(&ann, 2)).await;
    assert!(!given.contains(&next.id), "an identity is given once: {next:?}");
}

async fn a_touched_key_says_when(accounts: &Accounts) {
    let ann = accounts.user("ann").await;
    let (key, other) = (accounts.key(api_key(&ann, 1)).await, accounts.key(api_key(&ann, 2)).await);
    for second in [7, 8] {
        accounts.store.key_touch(key.id, at(second)).await.expect("key_touch answers");
        let touched = ApiKey { last_used_at: Some(at(second)), ..key.clone() };
        let mut expected = [touched, other.clone()];
        expected.sort_by_key(|key| key.id);
        assert_eq!(accounts.keys(None).await, expected, "one key was used at {second}");
    }
    let unknown = key.id ^ other.id;
    accounts.store.key_touch(unknown, at(9)).await.expect("a key may be deleted while it is in use");
}

async fn a_hash_has_one_key(accounts: &Accounts) {
    let key = accounts.key(api_key(&accounts.user("ann").await, 1)).await;
    let bob = accounts.user("bob").await;
    let second = accounts.store.key_insert(api_key(&bob, 1), None).await;
    assert!(second.is_err(), "a secret that is in use is an error, not {second:?}");
    assert_eq!(accounts.keys(None).await, [key], "the first key stays");
}

async fn a_domain_is_registered_once(accounts: &Accounts) {
    let register = async |name: &str| {
        let made = accounts.store.domain_insert(domain_name(name), at(3), None).await;
        made.expect("domain_insert answers")
    };
    let mut made = Vec::new();
    for name in ["go.example.com", "xn--bcher-kva.example"] {
        let domain = register(name).await.expect("the name is free");
        assert_eq!((&domain.name, domain.created_at), (&domain_name(name), at(3)), "it is as registered");
        assert_ne!(domain.id, DomainId::DEFAULT, "the default domain is not registered");
        assert!(made.iter().all(|other: &Domain| other.id != domain.id), "identities differ");
        made.push(domain);
    }
    assert_eq!(register("go.example.com").await, None, "the name is taken");
    let mut listed = accounts.domains().await;
    listed.sort_by_key(|domain| domain.id);
    made.sort_by_key(|domain| domain.id);
    assert_eq!(listed, made, "all domains are listed");
}

async fn racing_domains_have_one_winner(accounts: &Accounts) {
    let register = || accounts.store.domain_insert(domain_name("go.example.com"), at(3), None);
    let made = join_all((0..20).map(|_| register())).await;
    let winners: Vec<_> = made.into_iter().filter_map(|made| made.expect("domain_insert answers")).collect();
    assert_eq!(winners.len(), 1, "one caller registers the name");
    assert_eq!(accounts.domains().await, winners, "the domain is the winner's");
}

async fn receipts_keep_what_was_made(accounts: &Accounts) {
    let store = &accounts.store;
    let ann = store.user_save(user("ann"), Some(made_receipt(1))).await.expect("user_save answers");
    let key = store.key_insert(api_key(&ann, 1), Some(made_receipt(2))).await.expect("key_insert answers");
    let register =
        |scope| store.domain_insert(domain_name("go.example.com"), at(3), Some(made_receipt(scope)));
    let domain = register(3).await.expect("domain_insert answers");
    assert_eq!(register(4).await.expect("domain_insert answers"), None, "the name is taken");
    let made = [format!("{ann:?}"), format!("{key:?}"), format!("{domain:?}"), "None".to_owned()];
    for (scope, made) in (1..).zip(made) {
        let expected = KeptAnswer { fingerprint: [scope; 32], part: 0, at: at(2), answer: made.into_bytes() };
        assert_eq!(answers(&*accounts.links, scope).await, [expected], "what was made is what is kept");
    }
    let silent = AccountReceipt { answer: Box::new(|_| None), ..made_receipt(5) };
    store.user_save(user("bob"), Some(silent)).await.expect("user_save answers");
    assert_eq!(answers(&*accounts.links, 5).await, [], "a rule may decide to keep nothing");
}

async fn repeated_receipts_undo_what_was_made(accounts: &Accounts) {
    let store = &accounts.store;
    let ann = store.user_save(user("ann"), Some(made_receipt(1))).await.expect("a first receipt is kept");
    let kept = answers(&*accounts.links, 1).await;
    for name in ["ann", "bob"] {
        let save = UserSave { role: Some(Role::Admin), ..user(name) };
        let saved = store.user_save(save, Some(made_receipt(1))).await;
        assert!(saved.is_err(), "a second answer to one request is an error, not {saved:?}");
    }
    let key = store.key_insert(api_key(&ann, 1), Some(made_receipt(1))).await;
    assert!(key.is_err(), "a second answer to one request is an error, not {key:?}");
    let domain = store.domain_insert(domain_name("go.example.com"), at(3), Some(made_receipt(1))).await;
    assert!(domain.is_err(), "a second answer to one request is an error, not {domain:?}");
    assert_eq!(answers(&*accounts.links, 1).await, kept, "the first answer stays");
    assert_eq!(accounts.users().await, [ann], "users are as they were");
    assert_eq!(accounts.keys(None).await, [], "no key was made");
    assert_eq!(accounts.domains().await, [], "no domain was made");
}

/// The same for what an account store makes.
fn made_receipt<T: Debug>(scope: u8) -> AccountReceipt<T> {
    AccountReceipt {
        scope: [scope; 32],
        fingerprint: [scope; 32],
        at: at(2),
        answer: Box::new(|made| Some(format!("{made:?}").into_bytes())),
    }
}

fn user(name: &str) -> UserSave {
    let name = UserName::parse(name).expect("the suite's user names are valid");
    UserSave { name, role: None, tier: None, now: at(0) }
}

/// A key of `user` that the secret number `secret` opens.
fn api_key(user: &User, secret: u8) -> ApiKey {
    ApiKey {
        id: 0,
        hash: SecretHash([secret; 32]),
        user: user.id,
        name: "laptop".into(),
        scopes: Scopes::of(&[Scope::LinksRead]),
        creates_per_hour: None,
        created_at: at(0),
        expires_at: None,
        last_used_at: None,
    }
}

fn domain_name(name: &str) -> DomainName {
    DomainName::parse(name).expect("the suite's domain names are valid")
}
