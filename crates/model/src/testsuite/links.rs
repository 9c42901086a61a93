//! What [`LinkStore`] promises.

use super::{answers, at, join_all};
use crate::code::{BUILT_IN_WORDS, CODE_LEN_MAX, ShortCode};
use crate::code_space::{CodeSpace, Generator, LinkId};
use crate::domain::DomainId;
use crate::link::{Link, LinkKey, LinkRecord, LinkSettings, LinkState, RedirectType, Removal, Revision};
use crate::store::{
    ChangeRefused, ChangeRule, ClickTaken, IdLease, Instance, KeptAnswer, LinkStore, LinkWrite, LinkWritten,
    ListPage, ListQuery, NewLink, Receipt,
};
use crate::target::TargetUrl;
use crate::tenant::{SecretHash, UserId};
use crate::time::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Runs every case of [`LinkStore`], each on a store of its own and under both kinds of generator.
///
/// `open` makes a new, empty store with this generator, and says what it was initialised with.
pub async fn link_store_suite(open: impl AsyncFn(Generator) -> (Arc<dyn LinkStore>, Instance)) {
    macro_rules! run {
        ($($case:ident)+) => {
            for generator in [Generator::DEFAULT, Generator::Counter] {
                $(
                    eprintln!("{} ({generator})", stringify!($case));
                    let (store, instance) = open(generator).await;
                    $case(&Links { store, codes: instance.codes }).await;
                )+
            }
        };
    }
    run! {
        the_store_answers_a_ping
        an_unknown_code_is_nothing
        a_generated_link_is_found_by_the_code_of_its_id
        a_code_belongs_to_its_domain
        a_named_link_has_no_generated_code
        a_link_is_kept_as_it_is
        a_removed_link_is_kept_as_it_is
        a_change_replaces_everything
        an_id_is_never_written_twice
        a_taken_alias_is_refused
        a_racing_alias_has_one_winner
        a_removed_name_stays_taken
        the_code_of_an_id_to_come_is_stepped_over
        the_code_of_a_leased_id_is_taken
        the_code_of_a_generated_link_is_taken
        a_code_in_use_elsewhere_is_free
        a_code_that_is_stepped_over_is_free
        the_code_of_a_named_links_id_is_free
        leases_follow_each_other
        concurrent_leases_are_disjoint
        reserved_words_are_stepped_over
        a_batch_keeps_its_order
        concurrent_changes_lose_nothing
        a_receipt_keeps_what_its_rule_makes
        a_repeated_receipt_undoes_its_writes
        twin_requests_write_once
        old_answers_are_swept
        an_equal_link_is_reused
        an_unequal_link_is_not_reused
        a_link_is_reused_as_it_is_now
        racing_equal_links_are_one
        a_list_goes_from_new_to_old
        a_list_is_complete_while_links_are_made
        a_list_is_filtered
        a_click_limit_is_exact
        a_click_needs_a_limited_link
        clicks_and_changes_keep_each_other
        expired_links_are_swept
        a_swept_name_stays_taken
    }
}

/// A link store under test, and what the cases ask of it.
struct Links {
    store: Arc<dyn LinkStore>,
    codes: CodeSpace,
}

const HOME: DomainId = DomainId::DEFAULT;
const AWAY: DomainId = DomainId(1);
const FAR: DomainId = DomainId(2);
// Owners and domains are numbers to a link store: no account need be there.
const ANN: Option<UserId> = Some(UserId(1));
const BOB: Option<UserId> = Some(UserId(2));

impl Links {
    async fn get(&self, key: &LinkKey) -> Option<LinkRecord> {
        let record = self.store.link_get(key).await.expect("link_get answers");
        let denied = record.is_some() && self.store.surely_absent(key);
        assert!(!denied, "what is there is not surely absent: {key:?}");
        record
    }

    /// Checks that a link is found under its key, just as it is.
    async fn check(&self, link: &Link, promise: &str) {
        assert_eq!(self.get(&link.key).await, Some(LinkRecord::Present(link.clone())), "{promise}");
    }

    async fn lease(&self, count: u64) -> IdLease {
        self.store.ids_lease(count).await.expect("ids_lease answers")
    }

    /// New ids in ascending order.
    async fn ids<const N: usize>(&self) -> [LinkId; N] {
        let mut ids = Vec::new();
        while ids.len() < N {
            let IdLease { ids: leased, reserved } = self.lease((N - ids.len()) as u64).await;
            ids.extend(leased.filter(|id| !reserved.contains(id)).map(LinkId));
        }
        ids.try_into().expect("no more ids are leased than asked for")
    }

    async fn id(&self) -> LinkId {
        let [id] = self.ids().await;
        id
    }

    /// The lowest id that is not leased yet.
    async fn mark(&self) -> u64 {
        self.lease(1).await.ids.end
    }

    fn key_of(&self, id: LinkId, domain: DomainId) -> LinkKey {
        LinkKey { domain, code: self.codes.encode(id) }
    }

    /// A link of Ann's with the code of its id.
    fn generated(&self, id: LinkId) -> Link {
        Link {
            id,
            key: self.key_of(id, HOME),
            named: false,
            owner: ANN,
            manage_token: None,
            created_at: at(0),
            updated_at: at(0),
            revision: Revision::FIRST,
            clicks_used: 0,
            settings: LinkSettings::plain(url("https://example.com/")),
        }
    }

    /// A link of Ann's with a chosen code.
    fn named(&self, id: LinkId, key: LinkKey) -> Link {
        Link { key, named: true, ..self.generated(id) }
    }

    async fn write(&self, write: LinkWrite) -> LinkWritten {
        let written = self.store.links_write(vec![write], None).await.expect("links_write answers");
        let [written] = written.try_into().expect("one write has one outcome");
        written
    }

    async fn insert(&self, link: &Link) -> LinkWritten {
        self.write(insert(link)).await
    }

    /// Inserts a link that nothing is in the way of.
    async fn make(&self, link: Link) -> Link {
        assert_eq!(
            self.insert(&link).await,
            LinkWritten::Inserted,
            "nothing is in the way of {:?}",
            link.key
        );
        link
    }

    async fn reuse(&self, link: &Link) -> LinkWritten {
        self.write(insert_or_reuse(link)).await
    }

    async fn change(&self, key: &LinkKey, apply: ChangeRule) -> LinkWritten {
        self.write(LinkWrite::Change { key: key.clone(), apply }).await
    }

    async fn page(&self, query: &ListQuery) -> ListPage {
        let page = self.store.link_list(query).await.expect("link_list answers");
        assert!(page.links.len() <= query.limit, "a page holds at most {} links", query.limit);
        if let (Some(next), Some(before)) = (page.next, query.before) {
            assert!(next < before, "the next page begins further down");
        }
        page
    }

    /// All pages of a list in one.
    async fn list(&self, query: &ListQuery) -> Vec<LinkRecord> {
        let mut query = query.clone();
        let mut links = Vec::new();
        loop {
            let page = self.page(&query).await;
            links.extend(page.links);
            query.before = page.next;
            if query.before.is_none() {
                return links;
            }
        }
    }

    /// The revision of a link that is there.
    async fn revision(&self, key: &LinkKey) -> Revision {
        match self.store.link_get(key).await {
            Ok(Some(LinkRecord::Present(link))) => link.revision,
            other => panic!("a link is there: {other:?}"),
        }
    }

    /// Takes `count` clicks of a link in this revision at the same time; returns how many were granted.
    async fn take_clicks(&self, id: LinkId, revision: Revision, count: usize) -> usize {
        let taken = join_all((0..count).map(|_| self.store.click_take(id, revision))).await;
        let granted = |taken: &crate::store::Result<ClickTaken>| {
            *taken.as_ref().expect("click_take answers") == ClickTaken::Taken
        };
        taken.iter().filter(|taken| granted(taken)).count()
    }
}

async fn the_store_answers_a_ping(links: &Links) {
    links.store.ping().await.expect("an open store is well");
}

async fn an_unknown_code_is_nothing(links: &Links) {
    let leased = links.id().await;
    let ahead = LinkId(links.mark().await + 100);
    for key in [links.key_of(leased, HOME), links.key_of(ahead, HOME), key(HOME, "promo"), key(HOME, "-")] {
        assert_eq!(links.get(&key).await, None, "nothing was ever made under {key:?}");
        let written = links.change(&key, edit(|_| ())).await;
        assert_eq!(written, LinkWritten::NotFound, "what is not there can't be changed");
    }
}

async fn a_generated_link_is_found_by_the_code_of_its_id(links: &Links) {
    let link = links.make(links.generated(links.id().await)).await;
    links.check(&link, "the code finds its link").await;
}

async fn a_code_belongs_to_its_domain(links: &Links) {
    let [first, second] = links.ids().await;
    let generated = links.make(Link { key: links.key_of(first, AWAY), ..links.generated(first) }).await;
    let named = links.make(links.named(second, key(AWAY, "promo"))).await;
    for link in [generated, named] {
        for domain in [HOME, FAR] {
            let elsewhere = LinkKey { domain, ..link.key.clone() };
            assert_eq!(
                links.get(&elsewhere).await,
                None,
                "a link is unknown to other domains: {elsewhere:?}"
            );
            let written = links.change(&elsewhere, edit(|_| ())).await;
            assert_eq!(written, LinkWritten::NotFound, "nobody changes a link through another domain");
        }
        links.check(&link, "its own domain knows it").await;
    }
}

async fn a_named_link_has_no_generated_code(links: &Links) {
    let link = links.make(links.named(links.id().await, key(HOME, "promo"))).await;
    assert_eq!(links.get(&links.key_of(link.id, HOME)).await, None, "the code of its id finds nothing");
    links.check(&link, "its name finds it").await;
}

async fn a_link_is_kept_as_it_is(links: &Links) {
    let ids: [LinkId; 9] = links.ids().await;
    let link = |index: usize| links.generated(ids[index]);
    let redirect =
        |redirect_type| LinkSettings { redirect_type, ..LinkSettings::plain(url("https://example.com/")) };
    let samples = [
        link(0),
        Link { settings: rich(), ..link(1) },
        Link { settings: redirect(RedirectType::MovedPermanently), ..link(2) },
        Link { settings: redirect(RedirectType::TemporaryRedirect), ..link(3) },
        Link { settings: redirect(RedirectType::PermanentRedirect), ..link(4) },
        Link {
            // An empty text is not a missing one.
            settings: LinkSettings {
                title: Some(String::new()),
                tags: vec![String::new()],
                notes: Some(String::new()),
                password_hash: Some(String::new()),
                click_limit: Some(0),
                ..rich()
            },
            ..link(5)
        },
        Link {
            key: key(DomainId(u32::MAX), &"x".repeat(CODE_LEN_MAX)),
            named: true,
            owner: Some(UserId(u32::MAX)),
            revision: Revision(u32::MAX),
            clicks_used: u32::MAX,
            updated_at: Timestamp::MAX,
            ..link(6)
        },
        Link { key: key(HOME, "-"), named: true, created_at: Timestamp::from_millis(-1), ..link(7) },
        Link { owner: None, manage_token: Some(SecretHash([0xa5; 32])), updated_at: at(1), ..link(8) },
    ];
    for link in samples {
        let link = links.make(link).await;
        links.check(&link, "what goes in comes out").await;
    }
}

async fn a_removed_link_is_kept_as_it_is(links: &Links) {
    let ids: [LinkId; 3] = links.ids().await;
    let rich = Link { settings: rich(), clicks_used: 3, revision: Revision(8), ..links.generated(ids[0]) };
    let named = links.named(ids[1], key(AWAY, "promo"));
    let anonymous =
        Link { owner: None, manage_token: Some(SecretHash([0x5a; 32])), ..links.generated(ids[2]) };
    for (link, reason) in [(rich, Removal::Deleted), (named, Removal::Expired), (anonymous, Removal::Deleted)]
    {
        let key = links.make(link.clone()).await.key;
        let removed = LinkRecord::Removed(link.remove(reason, at(5)));
        let written = links.change(&key, removal(reason)).await;
        assert_eq!(written, LinkWritten::Changed(Box::new(removed.clone())), "a change tells what it made");
        assert_eq!(links.get(&key).await, Some(removed), "what is left of a link stays for ever");
        let written = links.change(&key, edit(|_| ())).await;
        assert_eq!(written, LinkWritten::Refused(ChangeRefused::Gone(reason)), "the rule sees what is left");
    }
}

async fn a_change_replaces_everything(links: &Links) {
    let plain = links.make(links.named(links.id().await, key(HOME, "promo"))).await;
    let rich = Link {
        owner: BOB,
        manage_token: Some(SecretHash([0x5a; 32])),
        created_at: at(1),
        updated_at: at(2),
        revision: Revision(7),
        clicks_used: 9,
        settings: rich(),
        ..plain.clone()
    };
    for link in [&rich, &plain] {
        let record = LinkRecord::Present(link.clone());
        let replacement = link.clone();
        let apply = edit(move |stored| *stored = replacement.clone());
        let written = links.change(&link.key, apply).await;
        assert_eq!(written, LinkWritten::Changed(Box::new(record.clone())), "a change tells what it made");
        assert_eq!(links.get(&link.key).await, Some(record.clone()), "each field is the changed one");
        for owner in [ANN, BOB] {
            let listed = links.list(&ListQuery { owner, ..everything() }).await;
            let expected = (owner == link.owner).then(|| record.clone());
            assert_eq!(listed, Vec::from_iter(expected), "a link is in the list of its owner alone");
        }
    }
}

async fn an_id_is_never_written_twice(links: &Links) {
    let first = links.make(links.generated(links.id().await)).await;
    let second = links.named(first.id, key(HOME, "promo"));
    let other = links.generated(links.id().await);
    let written = links.store.links_write(vec![insert(&other), insert(&second)], None).await;
    assert!(written.is_err(), "an id that has a link is an error, not {written:?}");
    links.check(&first, "the first link stays").await;
    assert_eq!(links.get(&second.key).await, None, "the second link is not there");
    assert_eq!(links.get(&other.key).await, None, "an error undoes the writes before it");
}

async fn a_taken_alias_is_refused(links: &Links) {
    let [first, second, third, fourth] = links.ids().await;
    let made = links.make(links.named(first, key(HOME, "promo"))).await;
    let late = Link { owner: BOB, ..links.named(second, key(HOME, "promo")) };
    assert_eq!(links.insert(&late).await, LinkWritten::AliasTaken, "the first who asks gets the name");
    let listed = links.list(&everything()).await;
    assert_eq!(listed, [LinkRecord::Present(made.clone())], "who asks too late writes nothing");
    let written = links.insert(&links.generated(second)).await;
    assert_eq!(written, LinkWritten::Inserted, "who asks too late leaves the id alone");

    let away = links.make(links.named(third, key(AWAY, "promo"))).await;
    let upper = links.make(links.named(fourth, key(HOME, "Promo"))).await;
    for link in [made, away, upper] {
        links.check(&link, "domains and letter cases tell names apart").await;
    }
}

async fn a_racing_alias_has_one_winner(links: &Links) {
    let rivals = links.ids::<100>().await.map(|id| links.named(id, key(HOME, "promo")));
    let written = join_all(rivals.iter().map(|link| links.insert(link))).await;
    let losers = written.iter().filter(|written| **written == LinkWritten::AliasTaken).count();
    assert_eq!(losers, 99, "the name is taken for all but one");
    let winner = written.iter().position(|written| *written == LinkWritten::Inserted);
    let winner = &rivals[winner.expect("one gets the name")];
    links.check(winner, "the name is the winner's").await;
    let listed = links.list(&everything()).await;
    assert_eq!(listed, [LinkRecord::Present(winner.clone())], "the losers wrote nothing");
}

async fn a_removed_name_stays_taken(links: &Links) {
    let [first, second] = links.ids().await;
    let link = links.make(links.named(first, key(HOME, "promo"))).await;
    links.change(&link.key, removal(Removal::Deleted)).await;
    let again = links.named(second, link.key.clone());
    assert_eq!(links.insert(&again).await, LinkWritten::AliasTaken, "a name is given once and for all");
}

async fn the_code_of_an_id_to_come_is_stepped_over(links: &Links) {
    let id = links.id().await;
    let spelled = LinkId(links.mark().await + 5);
    let link = links.make(links.named(id, links.key_of(spelled, HOME))).await;
    for (count, expected) in [(5, vec![]), (5, vec![spelled.0]), (5, vec![])] {
        links.check(&link, "the name finds its link at any time").await;
        let IdLease { ids, reserved } = links.lease(count).await;
        assert_eq!(reserved, expected, "a lease reports what a name spells: {ids:?}, {spelled:?}");
    }
}

async fn the_code_of_a_leased_id_is_taken(links: &Links) {
    let [id, leased] = links.ids().await;
    for domain in [HOME, AWAY] {
        let link = links.named(id, links.key_of(leased, domain));
        let written = links.insert(&link).await;
        assert_eq!(written, LinkWritten::AliasTaken, "a server may be about to give this code to a link");
    }
    let link = links.make(links.generated(leased)).await;
    links.check(&link, "the code is that of its id").await;
}

async fn the_code_of_a_generated_link_is_taken(links: &Links) {
    let [first, second] = links.ids().await;
    let link = links.make(links.generated(first)).await;
    let rival = links.named(second, link.key.clone());
    assert_eq!(links.insert(&rival).await, LinkWritten::AliasTaken, "a generated code is no free name");
    links.change(&link.key, removal(Removal::Deleted)).await;
    assert_eq!(links.insert(&rival).await, LinkWritten::AliasTaken, "that of a removed link is none either");
    let left = links.get(&link.key).await;
    assert_eq!(left, Some(LinkRecord::Removed(link.remove(Removal::Deleted, at(5)))), "the code is its own");
}

async fn a_code_in_use_elsewhere_is_free(links: &Links) {
    let [first, second, third] = links.ids().await;
    let generated = links.make(Link { key: links.key_of(first, AWAY), ..links.generated(first) }).await;
    let named = links.make(links.named(second, links.key_of(first, HOME))).await;
    for link in [generated, named] {
        let rival = links.named(third, link.key.clone());
        assert_eq!(links.insert(&rival).await, LinkWritten::AliasTaken, "each domain gives its code once");
        links.check(&link, "each domain has its own link").await;
    }
    assert_eq!(links.get(&links.key_of(first, FAR)).await, None, "a third domain has none");
}

async fn a_code_that_is_stepped_over_is_free(links: &Links) {
    let [first, second, third] = links.ids().await;
    let spelled = LinkId(links.mark().await);
    let home = links.make(links.named(first, links.key_of(spelled, HOME))).await;
    let away = links.make(links.named(second, links.key_of(spelled, AWAY))).await;
    assert_eq!(links.lease(1).await.reserved, [spelled.0], "it is stepped over once");
    let far = links.make(links.named(third, links.key_of(spelled, FAR))).await;
    for link in [home, away, far] {
        links.check(&link, "each domain has its own link").await;
    }
}

async fn the_code_of_a_named_links_id_is_free(links: &Links) {
    let [first, second, third] = links.ids().await;
    let named = links.make(links.named(first, key(HOME, "promo"))).await;
    let home = links.make(links.named(second, links.key_of(first, HOME))).await;
    let away = links.make(links.named(third, links.key_of(first, AWAY))).await;
    for link in [named, home, away] {
        links.check(&link, "each name finds its own link").await;
    }
}

async fn leases_follow_each_other(links: &Links) {
    let mut end = links.codes.first_id().0;
    for count in [1, 10, 10_000, 3] {
        let IdLease { ids, .. } = links.lease(count).await;
        assert_eq!(ids, end..end + count, "a lease is the next {count} ids");
        end = ids.end;
    }
}

async fn concurrent_leases_are_disjoint(links: &Links) {
    let mut leases = join_all((1..=50).map(|count| links.lease(count))).await;
    leases.sort_by_key(|lease| lease.ids.start);
    let disjoint = leases.windows(2).all(|pair| pair[0].ids.end <= pair[1].ids.start);
    assert!(disjoint, "no id is leased twice: {leases:?}");
}

async fn reserved_words_are_stepped_over(links: &Links) {
    let ids = BUILT_IN_WORDS.iter().filter_map(|word| links.codes.decode(word));
    let expected: BTreeSet<u64> = ids.map(|id| id.0).collect();
    let last = expected.last().expect("some words have the shape of a code");
    let lease = links.lease(last + 1).await;
    let reserved: BTreeSet<u64> = lease.reserved.into_iter().collect();
    assert_eq!(reserved, expected, "no generated code is one of terse's own words");
}

async fn a_batch_keeps_its_order(links: &Links) {
    let ids: [LinkId; 3] = links.ids().await;
    let named = links.named(ids[0], key(HOME, "promo"));
    let rival = links.named(ids[1], named.key.clone());
    let generated = links.generated(ids[2]);
    let changed = LinkRecord::Present(Link { revision: Revision(2), ..named.clone() });
    let removed =
        LinkRecord::Removed(Link { revision: Revision(2), ..named.clone() }.remove(Removal::Deleted, at(5)));
    let change = |apply| LinkWrite::Change { key: named.key.clone(), apply };
    let conflict = ChangeRefused::RevisionConflict { current: Revision(2) };
    let refuse = {
        let conflict = conflict.clone();
        change(Arc::new(move |_| Err(conflict.clone())))
    };
    let nowhere = LinkWrite::Change { key: key(HOME, "nowhere"), apply: edit(|_| ()) };
    let steps = [
        (change(edit(next_revision)), LinkWritten::NotFound),
        (insert(&named), LinkWritten::Inserted),
        (insert(&rival), LinkWritten::AliasTaken),
        (change(edit(next_revision)), LinkWritten::Changed(Box::new(changed.clone()))),
        (refuse, LinkWritten::Refused(conflict)),
        (change(Arc::new(|_| Ok(None))), LinkWritten::Unchanged(Box::new(changed))),
        (nowhere, LinkWritten::NotFound),
        (insert(&generated), LinkWritten::Inserted),
        (change(removal(Removal::Deleted)), LinkWritten::Changed(Box::new(removed.clone()))),
        (change(edit(|_| ())), LinkWritten::Refused(ChangeRefused::Gone(Removal::Deleted))),
    ];
    let (writes, expected): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    let written = links.store.links_write(writes, None).await.expect("links_write answers");
    assert_eq!(written, expected, "each write sees what those before it did, and stops none behind it");
    assert_eq!(links.get(&named.key).await, Some(removed), "the last change stands");
    links.check(&generated, "all of it is there").await;
    let written = links.store.links_write(Vec::new(), None).await.expect("links_write answers");
    assert_eq!(written, [], "no write has no outcome");
}

async fn concurrent_changes_lose_nothing(links: &Links) {
    let link = links.make(links.generated(links.id().await)).await;
    join_all((0..50).map(|_| links.change(&link.key, edit(next_revision)))).await;
    let expected = Link { revision: Revision(51), ..link.clone() };
    links.check(&expected, "each change builds on the one before").await;
}

async fn a_receipt_keeps_what_its_rule_makes(links: &Links) {
    let ids: [LinkId; 3] = links.ids().await;
    let mut expected = Vec::new();
    for (part, id) in [(1, ids[0]), (0, ids[1]), (u32::MAX, ids[2])] {
        let writes = vec![insert(&links.generated(id)), insert(&links.named(id, links.key_of(id, HOME)))];
        let written = links.store.links_write(writes, Some(receipt(1, part, at(2)))).await;
        let answer = format!("{:?}", written.expect("links_write answers")).into_bytes();
        expected.push(KeptAnswer { fingerprint: [1; 32], part, at: at(2), answer });
    }
    expected.sort_by_key(|kept| kept.part);
    assert_eq!(answers(&*links.store, 1).await, expected, "answers come back in the order of their parts");
    assert_eq!(answers(&*links.store, 2).await, [], "another request has no answer");

    let silent = Receipt { answer: Arc::new(|_| None), ..receipt(3, 0, at(2)) };
    let link = links.generated(links.id().await);
    for write in [insert(&link), LinkWrite::Change { key: link.key, apply: edit(next_revision) }] {
        links.store.links_write(vec![write], Some(silent.clone())).await.expect("links_write answers");
        assert_eq!(answers(&*links.store, 3).await, [], "a rule may decide to keep nothing");
    }
}

async fn a_repeated_receipt_undoes_its_writes(links: &Links) {
    let ids: [LinkId; 3] = links.ids().await;
    let first = links.generated(ids[0]);
    let written = links.store.links_write(vec![insert(&first)], Some(receipt(1, 0, at(2)))).await;
    written.expect("a first receipt is kept");
    let kept = answers(&*links.store, 1).await;

    let ahead = LinkId(links.mark().await + 1);
    let generated = links.generated(ids[1]);
    let named = links.named(ids[2], links.key_of(ahead, HOME));
    let change = LinkWrite::Change { key: first.key.clone(), apply: edit(next_revision) };
    let writes = vec![insert(&generated), insert(&named), change];
    let repeated = Receipt { fingerprint: [9; 32], ..receipt(1, 0, at(3)) };
    let written = links.store.links_write(writes, Some(repeated)).await;
    assert!(written.is_err(), "a second answer to one request is an error, not {written:?}");
    assert_eq!(answers(&*links.store, 1).await, kept, "the first answer stays");
    assert_eq!(links.get(&generated.key).await, None, "a generated link is undone");
    assert_eq!(links.get(&named.key).await, None, "a name is undone");
    links.check(&first, "a change is undone").await;
    assert_eq!(links.lease(2).await.reserved, [], "a reserved id is undone");

    let silent = Receipt { answer: Arc::new(|_| None), ..receipt(1, 0, at(3)) };
    let written = links.store.links_write(vec![insert(&generated)], Some(silent)).await;
    let written = written.expect("links_write answers");
    assert_eq!(written, [LinkWritten::Inserted], "who keeps nothing repeats nothing");
}

async fn twin_requests_write_once(links: &Links) {
    let all = links.ids::<20>().await.map(|id| links.generated(id));
    // Every other request bears the same receipt; those between them have nothing to do with it.
    let written = join_all(all.iter().enumerate().map(|(index, link)| {
        let receipt = (index % 2 == 0).then(|| receipt(1, 0, at(2)));
        links.store.links_write(vec![insert(link)], receipt)
    }))
    .await;
    let mut expected = Vec::new();
    let mut twins = 0;
    for (index, (link, written)) in all.into_iter().zip(written).enumerate() {
        if let Ok(written) = written {
            assert_eq!(written, [LinkWritten::Inserted], "nothing is in the way of {:?}", link.key);
            twins += usize::from(index % 2 == 0);
            expected.push(LinkRecord::Present(link));
        } else {
            assert!(index % 2 == 0, "the failure of one request is not that of another");
        }
    }
    assert_eq!(twins, 1, "one of ten twins is answered");
    assert_eq!(answers(&*links.store, 1).await.len(), 1, "one answer is kept");
    expected.reverse();
    let listed = links.list(&everything()).await;
    assert_eq!(listed, expected, "what failed wrote nothing, what succeeded is there");
}

async fn old_answers_are_swept(links: &Links) {
    let keep = async |scope: u8| {
        let receipt = receipt(scope, 0, at(i64::from(scope)));
        let written = links.store.links_write(Vec::new(), Some(receipt)).await;
        assert_eq!(written.expect("links_write answers"), [], "who writes nothing is answered, too");
    };
    for scope in 0..5 {
        keep(scope).await;
    }
    for expected in [2, 1, 0] {
        let swept = links.store.answers_sweep(at(3), 2).await.expect("answers_sweep answers");
        assert_eq!(swept, expected, "what is older is forgotten, two at a time");
    }
    for scope in 0..5 {
        let kept = answers(&*links.store, scope).await.len();
        assert_eq!(kept, usize::from(scope >= 3), "what is older is forgotten: {scope}");
    }
    keep(0).await;
}

async fn an_equal_link_is_reused(links: &Links) {
    // All of the same target: telling such links apart must not depend on how many there are.
    let settings: Vec<LinkSettings> = (0..40)
        .map(|number| LinkSettings { title: Some(format!("title {number}")), ..rich() })
        .chain([rich(), LinkSettings::plain(url("https://example.com/"))])
        .collect();
    let mut made = Vec::new();
    for settings in settings {
        let link = Link { settings, ..links.generated(links.id().await) };
        assert_eq!(links.reuse(&link).await, LinkWritten::Inserted, "the first of its kind is made");
        made.push(link);
    }
    for link in &made {
        let again = Link { created_at: at(60), updated_at: at(60), ..links.generated(links.id().await) };
        let again = Link { settings: link.settings.clone(), ..again };
        let existing = LinkWritten::Existing(Box::new(link.clone()));
        assert_eq!(links.reuse(&again).await, existing, "the equal link is the answer");
        assert_eq!(links.get(&again.key).await, None, "and no other is made");
    }

    let twins = links.ids::<2>().await.map(|id| Link { owner: BOB, ..links.generated(id) });
    let writes = twins.iter().map(insert_or_reuse).collect();
    let written = links.store.links_write(writes, None).await.expect("links_write answers");
    let expected = [LinkWritten::Inserted, LinkWritten::Existing(Box::new(twins[0].clone()))];
    assert_eq!(written, expected, "a batch finds what it made itself");
}

async fn an_unequal_link_is_not_reused(links: &Links) {
    let plain = LinkSettings::plain(url("https://example.com/"));
    for base in [plain, rich()] {
        for settings in [vec![base.clone()], variations(&base)].concat() {
            let link = Link { settings, ..links.generated(links.id().await) };
            assert_eq!(links.reuse(&link).await, LinkWritten::Inserted, "each setting makes a difference");
        }
    }
    let ids: [LinkId; 12] = links.ids().await;
    // Two links of one target each.
    let link = |index: usize| {
        let target = url(&format!("https://{}.example/", index / 2));
        Link { settings: LinkSettings::plain(target), ..links.generated(ids[index]) }
    };
    let pairs = [
        ("another owner's", link(0), Link { owner: BOB, ..link(1) }),
        ("another domain's", link(2), Link { key: links.key_of(ids[3], AWAY), ..link(3) }),
        ("nobody's", Link { owner: None, ..link(4) }, Link { owner: None, ..link(5) }),
        ("a named one", Link { key: key(HOME, "first"), named: true, ..link(6) }, link(7)),
        ("a nameless one", link(8), Link { key: key(HOME, "second"), named: true, ..link(9) }),
    ];
    for (whose, first, second) in pairs {
        assert_eq!(links.reuse(&first).await, LinkWritten::Inserted, "the first of its kind is made");
        assert_eq!(links.reuse(&second).await, LinkWritten::Inserted, "{whose} is not shared");
    }
    links.make(link(10)).await;
    assert_eq!(
        links.reuse(&link(11)).await,
        LinkWritten::Inserted,
        "a link is shared if it was made for that"
    );
}

async fn a_link_is_reused_as_it_is_now(links: &Links) {
    let settings =
        LinkSettings { expires_at: Some(at(100)), ..LinkSettings::plain(url("https://a.example/")) };
    let [first, second, third, probe] =
        links.ids().await.map(|id| Link { settings: settings.clone(), ..links.generated(id) });
    let existing = |link: &Link| LinkWritten::Existing(Box::new(link.clone()));

    assert_eq!(links.reuse(&first).await, LinkWritten::Inserted, "the first of its kind is made");
    let retarget = |link: &mut Link| {
        link.settings.target = url("https://b.example/");
        next_revision(link);
    };
    let mut changed = first.clone();
    retarget(&mut changed);
    links.change(&first.key, edit(retarget)).await;
    assert_eq!(links.reuse(&second).await, LinkWritten::Inserted, "the first one is no longer equal");
    let alike = Link { settings: changed.settings.clone(), ..probe.clone() };
    assert_eq!(links.reuse(&alike).await, existing(&changed), "but it is equal to what it has become");

    let just_before = Link { created_at: Timestamp::from_millis(at(100).as_millis() - 1), ..probe.clone() };
    assert_eq!(links.reuse(&just_before).await, existing(&second), "it has not expired yet");
    links.change(&second.key, removal(Removal::Deleted)).await;
    assert_eq!(links.reuse(&third).await, LinkWritten::Inserted, "a removed link is not reused");
    let expired = Link { created_at: at(100), ..probe };
    assert_eq!(links.reuse(&expired).await, LinkWritten::Inserted, "an expired link is not reused");
}

async fn racing_equal_links_are_one(links: &Links) {
    let rivals = links.ids::<20>().await.map(|id| links.generated(id));
    let written = join_all(rivals.iter().map(|link| links.reuse(link))).await;
    let listed = links.list(&everything()).await;
    let [LinkRecord::Present(winner)] = &listed[..] else { panic!("one of 20 is made, not {listed:?}") };
    for (link, written) in rivals.iter().zip(written) {
        let expected = if link.id == winner.id {
            LinkWritten::Inserted
        } else {
            LinkWritten::Existing(Box::new(winner.clone()))
        };
        assert_eq!(written, expected, "the one that is made is everybody's answer");
    }
}

async fn a_list_goes_from_new_to_old(links: &Links) {
    assert_eq!(links.list(&everything()).await, [], "a new store is empty");
    let ids: [LinkId; 9] = links.ids().await;
    let owner_of = |index: usize| if index.is_multiple_of(3) { BOB } else { ANN };
    // Servers write the ids of their leases in any order.
    for index in [4, 0, 8, 2, 6, 1, 7, 3, 5] {
        links.make(Link { owner: owner_of(index), ..links.generated(ids[index]) }).await;
    }
    let check = async |owner: Option<UserId>, before: Option<LinkId>, limit| {
        let query = ListQuery { owner, before, limit, ..everything() };
        let listed: Vec<LinkId> = links.list(&query).await.iter().map(LinkRecord::id).collect();
        let expected: Vec<LinkId> = (0..ids.len())
            .rev()
            .filter(|index| owner.is_none() || owner == owner_of(*index))
            .map(|index| ids[index])
            .filter(|id| before.is_none_or(|before| *id < before))
            .collect();
        assert_eq!(listed, expected, "the pages of {query:?} hold each link once, the newest first");
    };
    for limit in [1, 2, 3, 9, 1000] {
        for owner in [None, ANN, BOB, Some(UserId(3))] {
            check(owner, None, limit).await;
            check(owner, Some(ids[5]), limit).await;
        }
    }
}

async fn a_list_is_complete_while_links_are_made(links: &Links) {
    let ids: [LinkId; 24] = links.ids().await;
    let (old, new): (Vec<_>, Vec<_>) = ids.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    for (_, id) in &old {
        links.make(links.generated(*id)).await;
    }
    let mut query = ListQuery { limit: 2, ..everything() };
    let mut listed = Vec::new();
    let mut new = new.into_iter().map(|(_, id)| id);
    loop {
        let page = links.page(&query).await;
        listed.extend(page.links.iter().map(LinkRecord::id));
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
        // One on a page that was read, one on a page to come.
        for id in [new.next_back(), new.next()].into_iter().flatten() {
            links.make(links.generated(id)).await;
        }
    }
    assert!(listed.is_sorted_by(|a, b| a > b), "no link comes twice: {listed:?}");
    let complete = old.iter().all(|(_, id)| listed.contains(id));
    assert!(complete, "no link that was there all the time is missing: {listed:?}");
}

async fn a_list_is_filtered(links: &Links) {
    let ids: [LinkId; 9] = links.ids().await;
    let plain = LinkSettings::plain(url("https://example.com/Path"));
    let settings = [
        LinkSettings { title: Some("100%_Größe".into()), ..plain.clone() },
        LinkSettings { notes: Some("for the Sale".into()), ..plain.clone() },
        LinkSettings { tags: vec!["news".into(), "sale".into()], ..plain.clone() },
        LinkSettings { enabled: false, ..plain.clone() },
        LinkSettings { starts_at: Some(at(11)), ..plain.clone() },
        LinkSettings { expires_at: Some(at(10)), ..plain.clone() },
        LinkSettings { click_limit: Some(1), ..plain.clone() },
        LinkSettings { expires_at: Some(at(2)), tags: vec!["sale".into()], ..plain.clone() },
        plain,
    ];
    for (index, settings) in settings.into_iter().enumerate() {
        links.make(Link { settings, ..links.generated(ids[index]) }).await;
    }
    assert_eq!(links.take_clicks(ids[6], Revision::FIRST, 1).await, 1, "the click is taken");
    links.store.links_sweep(at(3), at(4), 10).await.expect("links_sweep answers");
    let deleted = links.key_of(ids[8], HOME);
    links.change(&deleted, removal(Removal::Deleted)).await;

    let check = async |query: ListQuery, expected: &[usize]| {
        for limit in [2, 100] {
            let query = ListQuery { limit, now: at(10), ..query.clone() };
            let listed: Vec<LinkId> = links.list(&query).await.iter().map(LinkRecord::id).collect();
            let expected: Vec<LinkId> = expected.iter().map(|index| ids[*index]).collect();
            assert_eq!(listed, expected, "{query:?} lists what it matches");
        }
    };
    let text = |text: &str| ListQuery { text: Some(text.into()), ..everything() };
    check(text("%_"), &[0]).await;
    check(text("gRöSSE"), &[]).await;
    check(text("gRößE"), &[0]).await;
    check(text("SALE"), &[1]).await;
    check(text("COM/path"), &[6, 5, 4, 3, 2, 1, 0]).await;
    let code = links.key_of(ids[4], HOME).code;
    check(ListQuery { state: Some(LinkState::Scheduled), ..text(code.as_str()) }, &[4]).await;
    check(ListQuery { state: Some(LinkState::Deleted), ..text(deleted.code.as_str()) }, &[8]).await;

    let tag = |tag: &str| ListQuery { tag: Some(tag.into()), ..everything() };
    check(tag("sale"), &[2]).await;
    check(tag("sal"), &[]).await;
    check(tag("Sale"), &[]).await;

    let state = |state| ListQuery { state: Some(state), ..everything() };
    check(everything(), &[6, 5, 4, 3, 2, 1, 0]).await;
    check(state(LinkState::Active), &[2, 1, 0]).await;
    check(state(LinkState::Disabled), &[3]).await;
    check(state(LinkState::Scheduled), &[4]).await;
    check(state(LinkState::Expired), &[7, 5]).await;
    check(state(LinkState::Exhausted), &[6]).await;
    check(state(LinkState::Deleted), &[8]).await;
    check(ListQuery { owner: ANN, ..state(LinkState::Deleted) }, &[8]).await;
    check(ListQuery { owner: BOB, ..state(LinkState::Deleted) }, &[]).await;
    check(ListQuery { owner: ANN, tag: Some("news".into()), ..text("https") }, &[2]).await;
}

async fn a_click_limit_is_exact(links: &Links) {
    let id = links.id().await;
    let mut link = links.generated(id);
    link.settings.click_limit = Some(10);
    let link = links.make(link).await;
    assert_eq!(
        links.take_clicks(id, Revision::FIRST, 40).await,
        10,
        "10 of 40 concurrent clicks are granted"
    );
    assert_eq!(links.take_clicks(id, Revision::FIRST, 1).await, 0, "none is left");
    let elsewhere = links.store.click_take(id, Revision::FIRST.next()).await.expect("click_take answers");
    assert_eq!(elsewhere, ClickTaken::Changed, "a click is taken of the revision that was decided about");
    let expected = Link { clicks_used: 10, ..link.clone() };
    links.check(&expected, "clicks are counted, and are no change of the link").await;
}

async fn a_click_needs_a_limited_link(links: &Links) {
    let ids: [LinkId; 4] = links.ids().await;
    let limited = |limit, id| {
        let mut link = links.generated(id);
        link.settings.click_limit = Some(limit);
        link
    };
    let unlimited = links.make(links.generated(ids[0])).await;
    let removed = links.make(limited(5, ids[1])).await;
    links.change(&removed.key, removal(Removal::Deleted)).await;
    links.make(limited(0, ids[2])).await;
    for id in ids {
        assert_eq!(
            links.take_clicks(id, Revision::FIRST, 1).await,
            0,
            "a click needs a link that has some left: {id:?}"
        );
    }
    links.check(&unlimited, "without a limit nothing is counted").await;
}

async fn clicks_and_changes_keep_each_other(links: &Links) {
    let id = links.id().await;
    let mut link = links.generated(id);
    link.settings.click_limit = Some(30);
    let link = links.make(link).await;
    join_all((0..60).map(async |number| {
        if number % 2 == 0 {
            // As many clicks are granted as there are, if not in this revision then in the next.
            while links.take_clicks(id, links.revision(&link.key).await, 1).await == 0 {}
        } else {
            links.change(&link.key, edit(next_revision)).await;
        }
    }))
    .await;
    let expected = Link { clicks_used: 30, revision: Revision(31), ..link.clone() };
    links.check(&expected, "neither undoes the other").await;
    links.change(&link.key, edit(|link| link.settings.click_limit = Some(32))).await;
    assert_eq!(links.take_clicks(id, Revision(31), 5).await, 2, "a raised limit grants the difference");
}

async fn expired_links_are_swept(links: &Links) {
    let ids: [LinkId; 9] = links.ids().await;
    let expiring = |index: usize, second| {
        let mut link = links.generated(ids[index]);
        link.settings.expires_at = Some(at(second));
        link
    };
    let mut disabled = expiring(1, 15);
    disabled.settings.enabled = false;
    let mut exhausted = expiring(2, 19);
    exhausted.settings.click_limit = Some(0);
    let due = [expiring(0, 10), disabled, exhausted];
    let mut fallback = expiring(3, 10);
    fallback.settings.fallback = Some(url("https://example.com/over"));
    let stay = [fallback, expiring(4, 20), expiring(5, 21), links.generated(ids[6])];
    for link in due.iter().chain(&stay) {
        links.make(link.clone()).await;
    }
    let deleted = links.make(expiring(7, 10)).await;
    links.change(&deleted.key, removal(Removal::Deleted)).await;
    let extended = links.make(expiring(8, 10)).await;
    links.change(&extended.key, edit(|link| link.settings.expires_at = None)).await;

    let mut swept = Vec::new();
    for expected in [2, 1, 0] {
        let keys = links.store.links_sweep(at(20), at(30), 2).await.expect("links_sweep answers");
        assert_eq!(keys.len(), expected, "what expired before is swept, two at a time: {keys:?}");
        swept.extend(keys);
    }
    let swept: BTreeSet<LinkKey> = swept.into_iter().collect();
    assert_eq!(swept, due.iter().map(|link| link.key.clone()).collect(), "the keys are those of the swept");
    for link in due {
        let (key, removed) = (link.key.clone(), link.remove(Removal::Expired, at(30)));
        assert_eq!(
            links.get(&key).await,
            Some(LinkRecord::Removed(removed)),
            "what is left says why and when"
        );
    }
    for link in stay {
        links.check(&link, "what is not due or has a fallback stays").await;
    }
    let left = links.get(&deleted.key).await;
    let removed = deleted.remove(Removal::Deleted, at(5));
    assert_eq!(left, Some(LinkRecord::Removed(removed)), "what is gone already keeps its reason");
    let found = links.get(&extended.key).await;
    assert!(matches!(found, Some(LinkRecord::Present(_))), "an expiry that was taken back counts no more");
}

async fn a_swept_name_stays_taken(links: &Links) {
    let [first, second] = links.ids().await;
    let mut link = links.named(first, key(HOME, "promo"));
    link.settings.expires_at = Some(at(1));
    let link = links.make(link).await;
    let swept = links.store.links_sweep(at(2), at(3), 10).await.expect("links_sweep answers");
    assert_eq!(swept, [key(HOME, "promo")], "a named link is swept by its name");
    let again = links.named(second, link.key.clone());
    assert_eq!(links.insert(&again).await, LinkWritten::AliasTaken, "a name is given once and for all");
    let found = links.get(&key(HOME, "promo")).await;
    let removed = link.remove(Removal::Expired, at(3));
    assert_eq!(found, Some(LinkRecord::Removed(removed)), "the name still says what became of its link");
}

fn url(text: &str) -> TargetUrl {
    TargetUrl::parse(text).expect("the suite's targets are valid")
}

fn key(domain: DomainId, code: &str) -> LinkKey {
    LinkKey { domain, code: ShortCode::parse(code).expect("the suite's codes are valid") }
}

/// Settings with nothing left out.
fn rich() -> LinkSettings {
    LinkSettings {
        target: url("https://bücher.example/größe?q=1&r=%20#ende"),
        redirect_type: RedirectType::PermanentRedirect,
        enabled: false,
        expires_at: Some(Timestamp::from_millis(1_999_999_999_999)),
        starts_at: Some(Timestamp::from_millis(1_234_567_890_001)),
        fallback: Some(url("https://example.com/over")),
        forward_query: true,
        click_limit: Some(u32::MAX),
        password_hash: Some("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA".into()),
        title: Some("Größe 🦀 \"'\\".into()),
        tags: vec!["späti".into(), "a,b".into(), "a b".into(), "A".into()],
        notes: Some("one\ntwo\t\u{1F468}\u{200D}\u{1F469} ".into()),
    }
}

/// `base` with one setting changed, once for each setting.
fn variations(base: &LinkSettings) -> Vec<LinkSettings> {
    // Whoever adds a setting stumbles here, and varies it below.
    let LinkSettings {
        target: _,
        redirect_type: _,
        enabled: _,
        expires_at: _,
        starts_at: _,
        fallback: _,
        forward_query: _,
        click_limit: _,
        password_hash: _,
        title: _,
        tags: _,
        notes: _,
    } = base;
    let changes: [fn(&mut LinkSettings); 12] = [
        |settings| settings.target = url("https://example.com/another"),
        |settings| settings.redirect_type = RedirectType::TemporaryRedirect,
        |settings| settings.enabled = !settings.enabled,
        |settings| settings.expires_at = Some(at(1000)),
        |settings| settings.starts_at = Some(at(1000)),
        |settings| settings.fallback = Some(url("https://example.com/another")),
        |settings| settings.forward_query = !settings.forward_query,
        |settings| settings.click_limit = Some(1000),
        |settings| settings.password_hash = Some("another".into()),
        |settings| settings.title = Some("another".into()),
        |settings| settings.tags.push("another".into()),
        |settings| settings.notes = Some("another".into()),
    ];
    let vary = |change: fn(&mut LinkSettings)| {
        let mut settings = base.clone();
        change(&mut settings);
        settings
    };
    changes.map(vary).into()
}

fn insert(link: &Link) -> LinkWrite {
    LinkWrite::Insert(Box::new(NewLink { link: Arc::new(link.clone()), reuse_equal: false }))
}

fn insert_or_reuse(link: &Link) -> LinkWrite {
    LinkWrite::Insert(Box::new(NewLink { link: Arc::new(link.clone()), reuse_equal: true }))
}

/// Edits a link that is there, and refuses when only its remains are.
fn edit(edit: impl Fn(&mut Link) + Send + Sync + 'static) -> ChangeRule {
    Arc::new(move |record| match record {
        LinkRecord::Present(link) => {
            let mut link = link.clone();
            edit(&mut link);
            Ok(Some(LinkRecord::Present(link)))
        }
        LinkRecord::Removed(removed) => Err(ChangeRefused::Gone(removed.removal)),
    })
}

fn next_revision(link: &mut Link) {
    link.revision = link.revision.next();
}

/// Removes a link at second 5.
fn removal(removal: Removal) -> ChangeRule {
    Arc::new(move |record| match record {
        LinkRecord::Present(link) => Ok(Some(LinkRecord::Removed(link.clone().remove(removal, at(5))))),
        LinkRecord::Removed(removed) => Err(ChangeRefused::Gone(removed.removal)),
    })
}

/// A receipt that keeps the outcomes as text.
fn receipt(scope: u8, part: u32, at: Timestamp) -> Receipt {
    Receipt {
        scope: [scope; 32],
        fingerprint: [scope; 32],
        part,
        at,
        answer: Arc::new(|written| Some(format!("{written:?}").into_bytes())),
    }
}
/// All that is not removed, as of second 0.
fn everything() -> ListQuery {
    ListQuery { owner: None, before: None, text: None, tag: None, state: None, now: at(0), limit: 3 }
}
