//! Which domain a host is. From memory: the redirect path asks for every request.

use crate::config::BaseUrl;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use terse_model::domain::{Domain, DomainId, DomainName};
use terse_model::store::{AccountReceipt, AccountStore, Result};
use terse_model::time::Timestamp;

/// The registered domains.
#[derive(Debug)]
pub struct Domains {
    store: Arc<dyn AccountStore>,
    base_url: BaseUrl,
    strict: bool,
    known: ArcSwap<Known>,
    // Held from reading the domains until they are known, so that an older list can't replace a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<String, DomainId>,
    by_id: HashMap<DomainId, DomainName>,
}

impl Domains {
    /// The domains of `store`, beside the default one of `base_url`.
    pub async fn load(store: Arc<dyn AccountStore>, base_url: BaseUrl, strict: bool) -> Result<Self> {
        let (known, refreshing) = Default::default();
        let domains = Domains { store, base_url, strict, known, refreshing };
        domains.refresh().await?;
        Ok(domains)
    }

    /// The domain that a Host header names. `None` for an unknown one when hosts are strict.
    pub fn of_host(&self, host: Option<&str>) -> Option<DomainId> {
        let known = self.known.load();
        if known.by_name.len() == 1 && !self.strict {
            return Some(DomainId::DEFAULT);
        }
        let fallback = (!self.strict).then_some(DomainId::DEFAULT);
        let Some(name) = host.map(without_port) else { return fallback };
        match known.by_name.get(name) {
            Some(id) => Some(*id),
            None => match DomainName::parse(name) {
                Ok(name) => known.by_name.get(name.as_str()).copied().or(fallback),
                Err(_) => fallback,
            },
        }
    }

    /// The registered domain of that name.
    pub fn find(&self, name: &DomainName) -> Option<DomainId> {
        self.known.load().by_name.get(name.as_str()).copied()
    }

    /// Whether links are served under this Host header's name.
    pub fn is_known_host(&self, host: &str) -> bool {
        DomainName::parse(without_port(host)).is_ok_and(|name| self.find(&name).is_some())
    }

    /// The name of a domain.
    pub fn name(&self, id: DomainId) -> DomainName {
        // A domain that another process registered a moment ago shows as the default one until the next refresh.
        self.known.load().by_id.get(&id).unwrap_or(&self.base_url.host).clone()
    }

    /// What short links of a domain begin with, without a slash at the end.
    pub fn base_of(&self, id: DomainId) -> String {
        self.base_url.on(&self.name(id))
    }

    /// What short links of the default domain begin with.
    pub fn base_url(&self) -> &BaseUrl {
        &self.base_url
    }

    /// All registered domains.
    pub async fn list(&self) -> Result<Vec<Domain>> {
        self.store.domain_list().await
    }

    /// Registers a domain; `None` when it is registered already.
    pub async fn add(
        &self,
        name: DomainName,
        now: Timestamp,
        receipt: Option<AccountReceipt<Option<Domain>>>,
    ) -> Result<Option<Domain>> {
        if name == self.base_url.host {
            return Ok(None);
        }
        let added = self.store.domain_insert(name, now, receipt).await?;
        self.refresh().await?;
        Ok(added)
    }

    async fn refresh(&self) -> Result<()> {
        let _turn = self.refreshing.lock().await;
        let mut known = Known::default();
        for domain in self.store.domain_list().await? {
            known.by_name.insert(domain.name.as_str().to_owned(), domain.id);
            known.by_id.insert(domain.id, domain.name);
        }
        // The base URL wins: a domain that became the default one keeps its own links out of reach, not these.
        known.by_name.insert(self.base_url.host.as_str().to_owned(), DomainId::DEFAULT);
        known.by_id.insert(DomainId::DEFAULT, self.base_url.host.clone());
        self.known.store(Arc::new(known));
        Ok(())
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}
