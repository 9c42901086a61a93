//! Links, leases and kept answers as rows.

use super::{SqliteStore, store_error};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use terse_model::code::ShortCode;
use terse_model::code_space::{CodeSpace, LinkId};
use terse_model::domain::DomainId;
use terse_model::link::{
    Link, LinkKey, LinkRecord, LinkSettings, RedirectType, Removal, RemovedLink, Revision,
};
use terse_model::store::{
    ClickTaken, IdLease, KeptAnswer, LinkStore, LinkWrite, LinkWritten, ListPage, ListQuery, NewLink,
    Receipt, Result, StoreError,
};
use terse_model::target::TargetUrl;
use terse_model::tenant::{SecretHash, UserId};
use terse_model::time::Timestamp;

/// Rows that a page of a filtered list reads at most, so that a rare match costs no scan of everything at once.
const SCAN_LEN_MAX: usize = 10_000;

#[async_trait]
impl LinkStore for SqliteStore {
    fn surely_absent(&self, key: &LinkKey) -> bool {
        self.instance.codes.decode(key.code.as_str()).is_some_and(|id| self.known.is_unused(id.0))
    }

    async fn link_get(&self, key: &LinkKey) -> Result<Option<LinkRecord>> {
        if self.surely_absent(key) {
            return Ok(None);
        }
        let (codes, key) = (self.instance.codes.clone(), key.clone());
        self.lookups.run(move |connection| get(connection, &codes, &key)).await
    }

    async fn links_write(
        &self,
        writes: Vec<LinkWrite>,
        receipt: Option<Receipt>,
    ) -> Result<Vec<LinkWritten>> {
        let codes = self.instance.codes.clone();
        let statements = move |connection: &Connection| {
            let mut reserved = Vec::new();
            let written = writes
                .iter()
                .map(|write| apply(connection, &codes, write, &mut reserved))
                .collect::<Result<Vec<_>>>()?;
            if let Some(receipt) = &receipt {
                keep_answer(connection, receipt, &written)?;
            }
            Ok((written, reserved))
        };
        let known = self.known.clone();
        // On the writer thread: it must happen although the caller may have gone away.
        let note = move |(_, reserved): &(Vec<LinkWritten>, Vec<u64>)| known.note_reserved(reserved);
        self.writer.run_then(statements, note).await.map(|(written, _)| written)
    }

    async fn link_list(&self, query: &ListQuery) -> Result<ListPage> {
        let (codes, query) = (self.instance.codes.clone(), query.clone());
        self.queries.run(move |connection| list(connection, &codes, &query)).await
    }

    async fn click_take(&self, id: LinkId, revision: Revision) -> Result<ClickTaken> {
        let statements = move |connection: &Connection| {
            let row =
                get_by_id(connection, id)?.filter(|row| row.revision == revision && row.flags & REMOVED == 0);
            let Some(row) = row else { return Ok(ClickTaken::Changed) };
            if row.clicks_used >= row.extra.click_limit.unwrap_or(0) {
                return Ok(ClickTaken::NoneLeft);
            }
            connection
                .prepare_cached("UPDATE links SET clicks_used = clicks_used + 1 WHERE id = ?1")
                .and_then(|mut update| update.execute([id.0 as i64]))
                .map(|_| ClickTaken::Taken)
                .map_err(store_error)
        };
        self.writer.run(statements).await
    }

    async fn links_sweep(&self, before: Timestamp, now: Timestamp, limit: usize) -> Result<Vec<LinkKey>> {
        let codes = self.instance.codes.clone();
        self.writer.run(move |connection| sweep(connection, &codes, before, now, limit)).await
    }

    async fn ids_lease(&self, count: u64) -> Result<IdLease> {
        let known = self.known.clone();
        let note = move |lease: &IdLease| known.raise_mark(lease.ids.end);
        self.writer.run_then(move |connection| lease(connection, count), note).await
    }

    async fn answers_get(&self, scope: &[u8; 32]) -> Result<Vec<KeptAnswer>> {
        let scope = *scope;
        self.queries.run(move |connection| answers(connection, &scope).map_err(store_error)).await
    }

    async fn answers_sweep(&self, before: Timestamp, limit: usize) -> Result<usize> {
        // Parts of one answer have one time, and go together.
        let sql = "DELETE FROM answers WHERE at < ?1 AND scope IN (SELECT DISTINCT scope FROM answers WHERE at < ?1 LIMIT ?2)";
        self.writer
            .run(move |connection| {
                connection.execute(sql, params![before.as_millis(), limit as i64]).map_err(store_error)
            })
            .await
    }

    async fn ping(&self) -> Result<()> {
        let probe = |connection: &mut Connection| {
            connection.query_row("SELECT next FROM lease", [], |row| row.get::<_, i64>(0)).map(drop)
        };
        self.lookups.run(move |connection| probe(connection).map_err(store_error)).await?;
        // An empty transaction: the writer is alive and may take the lock.
        self.writer.run(|_| Ok(())).await
    }
}

/// Every id below this one is leased.
pub(super) fn read_mark(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT next FROM lease", [], |row| row.get::<_, i64>(0)).map(|next| next as u64)
}

pub(super) fn write_mark(connection: &Connection, next: u64) -> rusqlite::Result<()> {
    connection.execute("UPDATE lease SET next = ?1", [next as i64]).map(drop)
}

/// Reserved ids from `first` on, or `None` when there are more than `limit`.
pub(super) fn read_reserved_from(
    connection: &Connection,
    first: u64,
    limit: usize,
) -> rusqlite::Result<Option<HashSet<u64>>> {
    let mut statement = connection.prepare("SELECT id FROM reserved_ids WHERE id >= ?1 LIMIT ?2")?;
    let ids = statement
        .query_map(params![first as i64, limit as i64 + 1], |row| row.get::<_, i64>(0).map(|id| id as u64))?
        .collect::<rusqlite::Result<HashSet<u64>>>()?;
    Ok((ids.len() <= limit).then_some(ids))
}

const NAMED: i64 = 1;
const DISABLED: i64 = 2;
const REDIRECT_SHIFT: i64 = 2;
const REDIRECT_MASK: i64 = 0b11 << REDIRECT_SHIFT;
const FORWARD_QUERY: i64 = 16;
const DELETED: i64 = 32;
const SWEPT: i64 = 64;
/// Links with a fallback are never swept; the index of expiries leaves them out by this bit.
const HAS_FALLBACK: i64 = 128;
const REMOVED: i64 = DELETED | SWEPT;

const COLUMNS: &str = "id, domain, owner, flags, revision, created_at, updated_at, expires_at, target, name, \
                       clicks_used, equal_hash, manage_token, extra";

/// A link as its columns.
struct LinkRow {
    id: LinkId,
    domain: DomainId,
    owner: Option<UserId>,
    flags: i64,
    revision: Revision,
    created_at: Timestamp,
    updated_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    target: String,
    name: Option<String>,
    clicks_used: u32,
    equal_hash: Option<i64>,
    manage_token: Option<[u8; 32]>,
    extra: Extra,
}

/// What few links have, as JSON in one column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Extra {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<String>,
}

impl LinkRow {
    fn of(record: &LinkRecord) -> Self {
        match record {
            LinkRecord::Present(link) => LinkRow::of_present(link),
            LinkRecord::Removed(link) => LinkRow::of_removed(link),
        }
    }

    fn of_present(link: &Link) -> Self {
        let settings = &link.settings;
        let redirect_type = match settings.redirect_type {
            RedirectType::Found => 0,
            RedirectType::MovedPermanently => 1,
            RedirectType::TemporaryRedirect => 2,
            RedirectType::PermanentRedirect => 3,
        };
        let flag = |set: bool, bit: i64| if set { bit } else { 0 };
        LinkRow {
            id: link.id,
            domain: link.key.domain,
            owner: link.owner,
            flags: flag(link.named, NAMED)
                | flag(!settings.enabled, DISABLED)
                | flag(settings.forward_query, FORWARD_QUERY)
                | flag(settings.fallback.is_some(), HAS_FALLBACK)
                | redirect_type << REDIRECT_SHIFT,
            revision: link.revision,
            created_at: link.created_at,
            updated_at: (link.updated_at != link.created_at).then_some(link.updated_at),
            expires_at: settings.expires_at,
            target: settings.target.as_str().to_owned(),
            name: link.named.then(|| link.key.code.as_str().to_owned()),
            clicks_used: link.clicks_used,
            equal_hash: None,
            manage_token: link.manage_token.map(|hash| hash.0),
            extra: Extra {
                title: settings.title.clone(),
                tags: settings.tags.clone(),
                notes: settings.notes.clone(),
                password_hash: settings.password_hash.clone(),
                click_limit: settings.click_limit,
                starts_at: settings.starts_at.map(Timestamp::as_millis),
                fallback: settings.fallback.as_ref().map(|url| url.as_str().to_owned()),
            },
        }
    }

    fn of_removed(link: &RemovedLink) -> Self {
        let removal = match link.removal {
            Removal::Deleted => DELETED,
            Removal::Expired => SWEPT,
        };
        LinkRow {
            id: link.id,
            domain: link.key.domain,
            owner: link.owner,
            flags: removal | if link.named { NAMED } else { 0 },
            revision: link.revision,
            created_at: link.created_at,
            updated_at: Some(link.removed_at),
            expires_at: None,
            target: String::new(),
            name: link.named.then(|| link.key.code.as_str().to_owned()),
            clicks_used: 0,
            equal_hash: None,
            manage_token: link.manage_token.map(|hash| hash.0),
            extra: Extra::default(),
        }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let extra: Option<String> = row.get(13)?;
        let extra = match extra {
            None => Extra::default(),
            Some(json) => serde_json::from_str(&json).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(13, rusqlite::types::Type::Text, Box::new(error))
            })?,
        };
        let time = |millis: Option<i64>| millis.map(Timestamp::from_millis);
        Ok(LinkRow {
            id: LinkId(row.get::<_, i64>(0)? as u64),
            domain: DomainId(row.get(1)?),
            owner: row.get::<_, Option<u32>>(2)?.map(UserId),
            flags: row.get(3)?,
            revision: Revision(row.get(4)?),
            created_at: Timestamp::from_millis(row.get(5)?),
            updated_at: time(row.get(6)?),
            expires_at: time(row.get(7)?),
            target: row.get(8)?,
            name: row.get(9)?,
            clicks_used: row.get(10)?,
            equal_hash: row.get(11)?,
            manage_token: row.get(12)?,
            extra,
        })
    }

    fn into_record(self, codes: &CodeSpace) -> Result<LinkRecord> {
        let named = self.flags & NAMED != 0;
        let corrupt = |what: &str| StoreError::Corrupt(format!("the row of link {} {what}", self.id.0));
        let code = match (&self.name, named) {
            (Some(name), true) => ShortCode::parse(name).map_err(|_| corrupt("has a malformed name"))?,
            (None, false) => codes.encode(self.id),
            _ => return Err(corrupt("has a name and is not named, or the reverse")),
        };
        let key = LinkKey { domain: self.domain, code };
        let updated_at = self.updated_at.unwrap_or(self.created_at);
        let manage_token = self.manage_token.map(SecretHash);
        if self.flags & REMOVED != 0 {
            return Ok(LinkRecord::Removed(RemovedLink {
                id: self.id,
                key,
                named,
                owner: self.owner,
                manage_token,
                created_at: self.created_at,
                removed_at: updated_at,
                revision: self.revision,
                removal: if self.flags & DELETED != 0 { Removal::Deleted } else { Removal::Expired },
            }));
        }
        let redirect_type = match (self.flags & REDIRECT_MASK) >> REDIRECT_SHIFT {
            0 => RedirectType::Found,
            1 => RedirectType::MovedPermanently,
            2 => RedirectType::TemporaryRedirect,
            _ => RedirectType::PermanentRedirect,
        };
        let target =
            |text: String| TargetUrl::from_stored(text).ok_or_else(|| corrupt("has a malformed target"));
        Ok(LinkRecord::Present(Link {
            id: self.id,
            key,
            named,
            owner: self.owner,
            manage_token,
            created_at: self.created_at,
            updated_at,
            revision: self.revision,
            clicks_used: self.clicks_used,
            settings: LinkSettings {
                target: target(self.target)?,
                redirect_type,
                enabled: self.flags & DISABLED == 0,
                expires_at: self.expires_at,
                starts_at: self.extra.starts_at.map(Timestamp::from_millis),
                fallback: self.extra.fallback.map(target).transpose()?,
                forward_query: self.flags & FORWARD_QUERY != 0,
                click_limit: self.extra.click_limit,
                password_hash: self.extra.password_hash,
                title: self.extra.title,
                tags: self.extra.tags,
                notes: self.extra.notes,
            },
        }))
    }

    /// Writes all columns, over those of the same id or as a new row.
    fn write(&self, connection: &Connection, verb: Verb) -> rusqlite::Result<()> {
        let extra = (self.extra != Extra::default())
            .then(|| serde_json::to_string(&self.extra).expect("strings and numbers are JSON"));
        let mut statement = connection.prepare_cached(match verb {
            Verb::Insert => {
                "INSERT INTO links (id, domain, owner, flags, revision, created_at, updated_at, expires_at, target, name, \
                 clicks_used, equal_hash, manage_token, extra) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
            }
            Verb::Update => {
                "UPDATE links SET domain = ?2, owner = ?3, flags = ?4, revision = ?5, created_at = ?6, updated_at = ?7, \
                 expires_at = ?8, target = ?9, name = ?10, clicks_used = ?11, equal_hash = ?12, manage_token = ?13, \
                 extra = ?14 WHERE id = ?1"
            }
        })?;
        statement
            .execute(params![
                self.id.0 as i64,
                self.domain.0,
                self.owner.map(|owner| owner.0),
                self.flags,
                self.revision.0,
                self.created_at.as_millis(),
                self.updated_at.map(Timestamp::as_millis),
                self.expires_at.map(Timestamp::as_millis),
                self.target,
                self.name,
                self.clicks_used,
                self.equal_hash,
                self.manage_token.as_ref().map(|hash| &hash[..]),
                extra,
            ])
            .map(drop)
    }

    /// FNV-1a over everything that `is_equal` compares. It only narrows a search, so chance equality does no harm.
    fn hash_of_equals(&self) -> i64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        add(self.target.as_bytes());
        add(&self.domain.0.to_be_bytes());
        add(&self.owner.map_or(0, |owner| u64::from(owner.0) + 1).to_be_bytes());
        add(&self.flags.to_be_bytes());
        add(&self.expires_at.map_or(0, Timestamp::as_millis).to_be_bytes());
        add(&serde_json::to_vec(&self.extra).expect("strings and numbers are JSON"));
        hash as i64
    }

    fn is_equal(&self, other: &LinkRow) -> bool {
        self.target == other.target
            && self.domain == other.domain
            && self.owner == other.owner
            && self.flags == other.flags
            && self.expires_at == other.expires_at
            && self.extra == other.extra
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Insert,
    Update,
}

/// A generated code's row by its id, else a name's.
fn get(connection: &Connection, codes: &CodeSpace, key: &LinkKey) -> Result<Option<LinkRecord>> {
    find_row(connection, codes, key)?.map(|row| row.into_record(codes)).transpose()
}

fn find_row(connection: &Connection, codes: &CodeSpace, key: &LinkKey) -> Result<Option<LinkRow>> {
    if let Some(id) = codes.decode(key.code.as_str())
        && let Some(row) = get_by_id(connection, id)?
        && row.domain == key.domain
        && row.flags & NAMED == 0
    {
        return Ok(Some(row));
    }
    match id_of_name(connection, key).map_err(store_error)? {
        None => Ok(None),
        Some(id) => match get_by_id(connection, id)? {
            Some(row) => Ok(Some(row)),
            None => Err(StoreError::Corrupt(format!("the name of link {} has no row", id.0))),
        },
    }
}

fn get_by_id(connection: &Connection, id: LinkId) -> Result<Option<LinkRow>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM links WHERE id = ?1"))
        .and_then(|mut select| select.query_row([id.0 as i64], LinkRow::read).optional())
        .map_err(store_error)
}

fn id_of_name(connection: &Connection, key: &LinkKey) -> rusqlite::Result<Option<LinkId>> {
    connection
        .prepare_cached("SELECT id FROM names WHERE domain = ?1 AND name = ?2")?
        .query_row(params![key.domain.0, key.code.as_str()], |row| row.get::<_, i64>(0))
        .optional()
        .map(|id| id.map(|id| LinkId(id as u64)))
}

/// One write inside the open transaction. Whatever it refuses, it refuses before it writes.
fn apply(
    connection: &Connection,
    codes: &CodeSpace,
    write: &LinkWrite,
    reserved: &mut Vec<u64>,
) -> Result<LinkWritten> {
    match write {
        LinkWrite::Insert(new) => insert(connection, codes, new, reserved),
        LinkWrite::Change { key, apply } => {
            let Some(row) = find_row(connection, codes, key)? else { return Ok(LinkWritten::NotFound) };
            let reusable = row.equal_hash.is_some();
            let record = row.into_record(codes)?;
            match apply(&record) {
                Err(refused) => Ok(LinkWritten::Refused(refused)),
                Ok(None) => Ok(LinkWritten::Unchanged(Box::new(record))),
                Ok(Some(changed)) => {
                    let mut row = LinkRow::of(&changed);
                    if reusable && row.flags & REMOVED == 0 {
                        row.equal_hash = Some(row.hash_of_equals());
                    }
                    row.write(connection, Verb::Update).map_err(store_error)?;
                    Ok(LinkWritten::Changed(Box::new(changed)))
                }
            }
        }
    }
}

fn insert(
    connection: &Connection,
    codes: &CodeSpace,
    new: &NewLink,
    reserved: &mut Vec<u64>,
) -> Result<LinkWritten> {
    let link = &new.link;
    let mut row = LinkRow::of_present(link);
    if new.reuse_equal && !link.named && link.owner.is_some() {
        row.equal_hash = Some(row.hash_of_equals());
        if let Some(equal) = find_equal(connection, &row)? {
            return match equal.into_record(codes)? {
                LinkRecord::Present(link) => Ok(LinkWritten::Existing(Box::new(link))),
                LinkRecord::Removed(link) => {
                    Err(StoreError::Corrupt(format!("removed link {} was found by its target", link.id.0)))
                }
            };
        }
    }
    if link.named && !take_name(connection, codes, link, reserved)? {
        return Ok(LinkWritten::AliasTaken);
    }
    row.write(connection, Verb::Insert).map_err(store_error)?;
    Ok(LinkWritten::Inserted)
}

fn find_equal(connection: &Connection, wanted: &LinkRow) -> Result<Option<LinkRow>> {
    // Equal links don't pile up under one hash, since each makes the next one unnecessary; only expired ones do.
    let sql = format!("SELECT {COLUMNS} FROM links WHERE equal_hash = ?1 ORDER BY id DESC LIMIT 16");
    let find = || -> rusqlite::Result<Option<LinkRow>> {
        let mut statement = connection.prepare_cached(&sql)?;
        for row in statement.query_map([wanted.equal_hash], LinkRow::read)? {
            let row = row?;
            let expired = row.expires_at.is_some_and(|at| at <= wanted.created_at);
            if !expired && row.is_equal(wanted) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    };
    find().map_err(store_error)
}

/// Gives a name to `link`, unless it is taken or spells a generated code that is, or may come to be, in use.
fn take_name(
    connection: &Connection,
    codes: &CodeSpace,
    link: &Link,
    reserved: &mut Vec<u64>,
) -> Result<bool> {
    if id_of_name(connection, &link.key).map_err(store_error)?.is_some() {
        return Ok(false);
    }
    if let Some(id) = codes.decode(link.key.code.as_str())
        && !keep_off(connection, id, link.key.domain, reserved)?
    {
        return Ok(false);
    }
    connection
        .prepare_cached("INSERT INTO names (domain, name, id) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| {
            insert.execute(params![link.key.domain.0, link.key.code.as_str(), link.id.0 as i64])
        })
        .map_err(store_error)?;
    Ok(true)
}

/// Sees to it that no link of `domain` will ever have the generated code of `id`; `false` when that is too late.
fn keep_off(connection: &Connection, id: LinkId, domain: DomainId, reserved: &mut Vec<u64>) -> Result<bool> {
    if is_reserved(connection, id).map_err(store_error)? {
        return Ok(true);
    }
    if id.0 >= read_mark(connection).map_err(store_error)? {
        connection
            .execute("INSERT INTO reserved_ids (id) VALUES (?1)", [id.0 as i64])
            .map_err(store_error)?;
        reserved.push(id.0);
        return Ok(true);
    }
    // Leased. Only when the id's row is there do we know that this (domain, code) will never be its.
    let row = get_by_id(connection, id)?;
    Ok(row.is_some_and(|row| row.domain != domain || row.flags & NAMED != 0))
}

fn is_reserved(connection: &Connection, id: LinkId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM reserved_ids WHERE id = ?1)")?
        .query_row([id.0 as i64], |row| row.get(0))
}

fn lease(connection: &Connection, count: u64) -> Result<IdLease> {
    let start = read_mark(connection).map_err(store_error)?;
    let end = start
        .checked_add(count)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or_else(|| StoreError::Unavailable("all ids of this store are used up".into()))?;
    write_mark(connection, end).map_err(store_error)?;
    let mut statement = connection
        .prepare_cached("SELECT id FROM reserved_ids WHERE id >= ?1 AND id < ?2 ORDER BY id")
        .map_err(store_error)?;
    let reserved = statement
        .query_map(params![start as i64, end as i64], |row| row.get::<_, i64>(0).map(|id| id as u64))
        .and_then(Iterator::collect)
        .map_err(store_error)?;
    Ok(IdLease { ids: start..end, reserved })
}

fn list(connection: &Connection, codes: &CodeSpace, query: &ListQuery) -> Result<ListPage> {
    let before = query.before.map_or(i64::MAX, |id| id.0 as i64);
    let sql = match query.owner {
        Some(_) => {
            format!("SELECT {COLUMNS} FROM links WHERE id < ?1 AND owner = ?2 ORDER BY owner DESC, id DESC")
        }
        None => format!("SELECT {COLUMNS} FROM links WHERE id < ?1 AND ?2 IS NULL ORDER BY id DESC"),
    };
    let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
    let mut rows = statement.query(params![before, query.owner.map(|owner| owner.0)]).map_err(store_error)?;
    let mut page = ListPage { links: Vec::new(), next: None };
    let mut scanned = 0;
    while let Some(row) = rows.next().map_err(store_error)? {
        let record = LinkRow::read(row).map_err(store_error)?.into_record(codes)?;
        let id = record.id();
        if query.matches(&record) {
            page.links.push(record);
        }
        scanned += 1;
        if page.links.len() == query.limit || scanned == SCAN_LEN_MAX {
            page.next = Some(id);
            break;
        }
    }
    Ok(page)
}

fn sweep(
    connection: &Connection,
    codes: &CodeSpace,
    before: Timestamp,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<LinkKey>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM links \
         WHERE expires_at IS NOT NULL AND flags & 128 = 0 AND expires_at < ?1 ORDER BY expires_at LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
    let rows = statement
        .query_map(params![before.as_millis(), limit as i64], LinkRow::read)
        .and_then(Iterator::collect::<rusqlite::Result<Vec<LinkRow>>>)
        .map_err(store_error)?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let LinkRecord::Present(link) = row.into_record(codes)? else {
            return Err(StoreError::Corrupt("a removed link has an expiry".to_owned()));
        };
        keys.push(link.key.clone());
        let removed = link.remove(Removal::Expired, now);
        LinkRow::of_removed(&removed).write(connection, Verb::Update).map_err(store_error)?;
    }
    Ok(keys)
}

fn keep_answer(connection: &Connection, receipt: &Receipt, written: &[LinkWritten]) -> Result<()> {
    match (receipt.answer)(written) {
        None => Ok(()),
        Some(answer) => {
            insert_answer(connection, &receipt.scope, receipt.part, &receipt.fingerprint, receipt.at, &answer)
                .map_err(store_error)
        }
    }
}

/// Keeps an answer. Fails, and so undoes its transaction, when the request has been answered already.
pub(super) fn insert_answer(
    connection: &Connection,
    scope: &[u8; 32],
    part: u32,
    fingerprint: &[u8; 32],
    at: Timestamp,
    answer: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO answers (scope, part, fingerprint, at, answer) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![&scope[..], part, &fingerprint[..], at.as_millis(), answer])
        .map(drop)
}

fn answers(connection: &Connection, scope: &[u8; 32]) -> rusqlite::Result<Vec<KeptAnswer>> {
    connection
        .prepare_cached("SELECT fingerprint, part, at, answer FROM answers WHERE scope = ?1 ORDER BY part")?
        .query_map([&scope[..]], |row| {
            Ok(KeptAnswer {
                fingerprint: row.get(0)?,
                part: row.get(1)?,
                at: Timestamp::from_millis(row.get(2)?),
                answer: row.get(3)?,
            })
        })?
        .collect()
}
