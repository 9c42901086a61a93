//! Users, keys and domains as rows.

use super::links::insert_answer;
use super::schema::random;
use super::{SqliteStore, store_error};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use terse_model::domain::{Domain, DomainId, DomainName};
use terse_model::store::{AccountReceipt, AccountStore, Result, StoreError, UserSave};
use terse_model::tenant::{ApiKey, Role, Scopes, SecretHash, Tier, User, UserId, UserName};
use terse_model::time::Timestamp;

#[async_trait]
impl AccountStore for SqliteStore {
    async fn user_get(&self, name: &UserName) -> Result<Option<User>> {
        let name = name.clone();
        self.queries.run(move |connection| user_of_name(connection, &name)).await
    }

    async fn user_find(&self, id: UserId) -> Result<Option<User>> {
        self.queries.run(move |connection| user_of_id(connection, id)).await
    }

    async fn user_list(&self) -> Result<Vec<User>> {
        self.queries
            .run(|connection| {
                let sql = format!("SELECT {USER} FROM users ORDER BY id");
                let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
                let users = statement.query_map([], read_user).map_err(store_error)?;
                users.map(|user| user.map_err(store_error)).collect()
            })
            .await
    }

    async fn user_save(&self, save: UserSave, receipt: Option<AccountReceipt<User>>) -> Result<User> {
        self.writer
            .run(move |connection| {
                let user = save_user(connection, &save)?;
                keep(connection, receipt.as_ref(), &user)?;
                Ok(user)
            })
            .await
    }

    async fn key_find(&self, hash: &SecretHash) -> Result<Option<(ApiKey, User)>> {
        let hash = *hash;
        self.lookups
            .run(move |connection| {
                let key = connection
                    .prepare_cached(&format!("SELECT {KEY} FROM keys WHERE hash = ?1"))
                    .and_then(|mut select| select.query_row([&hash.0[..]], read_key).optional())
                    .map_err(store_error)?;
                let Some(key) = key else { return Ok(None) };
                match user_of_id(connection, key.user)? {
                    Some(user) => Ok(Some((key, user))),
                    None => Err(StoreError::Corrupt(format!("key {} has no user", key.id))),
                }
            })
            .await
    }

    async fn key_list(&self, user: Option<UserId>) -> Result<Vec<ApiKey>> {
        self.queries
            .run(move |connection| {
                let sql = format!("SELECT {KEY} FROM keys WHERE ?1 IS NULL OR user = ?1 ORDER BY id");
                let mut statement = connection.prepare_cached(&sql).map_err(store_error)?;
                let keys = statement.query_map([user.map(|id| id.0)], read_key).map_err(store_error)?;
                keys.map(|key| key.map_err(store_error)).collect()
            })
            .await
    }

    async fn key_insert(&self, key: ApiKey, receipt: Option<AccountReceipt<ApiKey>>) -> Result<ApiKey> {
        self.writer
            .run(move |connection| {
                let key = ApiKey { id: insert_key(connection, &key).map_err(store_error)?, ..key.clone() };
                keep(connection, receipt.as_ref(), &key)?;
                Ok(key)
            })
            .await
    }

    async fn key_delete(&self, id: u32) -> Result<Option<ApiKey>> {
        self.writer
            .run(move |connection| {
                connection
                    .query_row(&format!("DELETE FROM keys WHERE id = ?1 RETURNING {KEY}"), [id], read_key)
                    .optional()
                    .map_err(store_error)
            })
            .await
    }

    async fn key_touch(&self, id: u32, at: Timestamp) -> Result<()> {
        self.writer
            .run(move |connection| {
                connection
                    .execute("UPDATE keys SET last_used_at = ?2 WHERE id = ?1", params![id, at.as_millis()])
                    .map(drop)
                    .map_err(store_error)
            })
            .await
    }

    async fn domain_list(&self) -> Result<Vec<Domain>> {
        self.queries
            .run(|connection| {
                let mut statement = connection
                    .prepare_cached("SELECT id, name, created_at FROM domains ORDER BY id")
                    .map_err(store_error)?;
                let domains = statement.query_map([], read_domain).map_err(store_error)?;
                domains.map(|domain| domain.map_err(store_error)).collect()
            })
            .await
    }

    async fn domain_insert(
        &self,
        name: DomainName,
        now: Timestamp,
        receipt: Option<AccountReceipt<Option<Domain>>>,
    ) -> Result<Option<Domain>> {
        self.writer
            .run(move |connection| {
                let domain = connection
                    .query_row(
                        "INSERT INTO domains (name, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING \
                         RETURNING id, name, created_at",
                        params![name.as_str(), now.as_millis()],
                        read_domain,
                    )
                    .optional()
                    .map_err(store_error)?;
                keep(connection, receipt.as_ref(), &domain)?;
                Ok(domain)
            })
            .await
    }
}

const USER: &str = "id, name, role, tier, created_at";
const KEY: &str = "id, hash, user, name, scopes, creates_per_hour, created_at, expires_at, last_used_at";

fn user_of_name(connection: &Connection, name: &UserName) -> Result<Option<User>> {
    connection
        .prepare_cached(&format!("SELECT {USER} FROM users WHERE name = ?1"))
        .and_then(|mut select| select.query_row([name.as_str()], read_user).optional())
        .map_err(store_error)
}

fn user_of_id(connection: &Connection, id: UserId) -> Result<Option<User>> {
    connection
        .prepare_cached(&format!("SELECT {USER} FROM users WHERE id = ?1"))
        .and_then(|mut select| select.query_row([id.0], read_user).optional())
        .map_err(store_error)
}

fn save_user(connection: &Connection, save: &UserSave) -> Result<User> {
    let (role, tier) = (save.role.map(Role::as_str), save.tier.map(Tier::as_str));
    connection
        .query_row(
            &format!(
                "INSERT INTO users (name, role, tier, created_at) \
                 VALUES (?1, coalesce(?2, 'member'), coalesce(?3, 'free'), ?4) \
                 ON CONFLICT (name) DO UPDATE SET role = coalesce(?2, role), tier = coalesce(?3, tier) \
                 RETURNING {USER}"
            ),
            params![save.name.as_str(), role, tier, save.now.as_millis()],
            read_user,
        )
        .map_err(store_error)
}

fn insert_key(connection: &Connection, key: &ApiKey) -> rusqlite::Result<u32> {
    connection.query_row(
        "INSERT INTO keys (id, hash, user, name, scopes, creates_per_hour, created_at, expires_at, last_used_at) \
         VALUES (?9, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
        params![
            &key.hash.0[..],
            key.user.0,
            key.name,
            key.scopes.bits(),
            key.creates_per_hour,
            key.created_at.as_millis(),
            key.expires_at.map(Timestamp::as_millis),
            key.last_used_at.map(Timestamp::as_millis),
            u32::from_be_bytes(random::<4>()),
        ],
        |row| row.get(0),
    )
}

fn keep<T>(connection: &Connection, receipt: Option<&AccountReceipt<T>>, made: &T) -> Result<()> {
    let Some(receipt) = receipt else { return Ok(()) };
    let Some(answer) = (receipt.answer)(made) else { return Ok(()) };
    insert_answer(connection, &receipt.scope, 0, &receipt.fingerprint, receipt.at, &answer)
        .map_err(store_error)
}

fn read_user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: UserId(row.get(0)?),
        name: UserName::parse(&row.get::<_, String>(1)?).map_err(|error| damaged(1, error))?,
        role: Role::parse(&row.get::<_, String>(2)?).ok_or_else(|| damaged(2, UnknownValue))?,
        tier: Tier::parse(&row.get::<_, String>(3)?).ok_or_else(|| damaged(3, UnknownValue))?,
        created_at: Timestamp::from_millis(row.get(4)?),
    })
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        id: row.get(0)?,
        hash: SecretHash(row.get(1)?),
        user: UserId(row.get(2)?),
        name: row.get(3)?,
        scopes: Scopes::from_bits(row.get(4)?),
        creates_per_hour: row.get(5)?,
        created_at: Timestamp::from_millis(row.get(6)?),
        expires_at: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
        last_used_at: row.get::<_, Option<i64>>(8)?.map(Timestamp::from_millis),
    })
}

fn read_domain(row: &Row<'_>) -> rusqlite::Result<Domain> {
    Ok(Domain {
        id: DomainId(row.get(0)?),
        name: DomainName::parse(&row.get::<_, String>(1)?).map_err(|error| damaged(1, error))?,
        created_at: Timestamp::from_millis(row.get(2)?),
    })
}

/// A stored name that no version of terse writes.
#[derive(Debug, thiserror::Error)]
#[error("unknown value")]
struct UnknownValue;

fn damaged(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
