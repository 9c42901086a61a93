//! Passwords of links: Argon2id on threads of its own, and the cookie that proves that one was given.

use crate::redirect::Secrets;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use terse_model::link::{LinkRecord, Revision};
use terse_model::time::Timestamp;
use tokio::sync::oneshot;

/// Longest password, in characters: hashing is dear enough without long input.
pub const PASSWORD_LEN_MAX: usize = 64;
/// How long a given password is remembered by the browser.
pub const UNLOCKED_SECONDS: i64 = 600;
/// Name of the cookie, which is limited to the link's path.
pub const COOKIE: &str = "terse_unlock";

/// Checks that may wait for a thread.
const QUEUE_LEN_MAX: usize = 64;

/// Why a password could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many checks wait.
    #[error("too many passwords are being checked")]
    Busy,
    /// The stored hash is no Argon2 hash.
    #[error("the stored password hash is damaged")]
    Damaged,
}

/// A bounded pool that hashes, and the key of the cookies.
#[derive(Debug)]
pub struct Passwords {
    jobs: mpsc::SyncSender<Box<dyn FnOnce() + Send>>,
    secret: [u8; 32],
}

impl Passwords {
    /// Starts `threads` threads. `secret` keys the cookies.
    pub fn start(threads: usize, secret: [u8; 32]) -> Self {
        let (jobs, queue) = mpsc::sync_channel::<Box<dyn FnOnce() + Send>>(QUEUE_LEN_MAX);
        // Held only while a thread waits for a job, never while it hashes.
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = queue.clone();
            let work = move || {
                terse_backends::priority::give_way();
                loop {
                    let job = queue.lock().expect("no code panics under this lock").recv();
                    match job {
                        // Whoever waits learns of it, and the thread is there for the next one.
                        Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
                        Err(mpsc::RecvError) => return,
                    }
                }
            };
            std::thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(work)
                .expect("the system starts a thread");
        }
        Passwords { jobs, secret }
    }

    /// Hashes a password with Argon2id as OWASP advises (19 MiB, two passes), into a PHC string.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let hash = move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string());
        self.run(hash).await?.map_err(|_| PasswordError::Damaged)
    }

    /// Whether `password` is the one that was hashed.
    pub async fn verify(&self, password: String, hash: String) -> Result<bool, PasswordError> {
        let verify = move || {
            let hash = PasswordHash::new(&hash).map_err(|_| PasswordError::Damaged)?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        };
        self.run(verify).await?
    }

    /// What a browser shows for ten minutes to prove that it gave the password of this link in this revision.
    pub fn proof(&self, record: &LinkRecord, now: Timestamp) -> String {
        let until = now.plus_seconds(UNLOCKED_SECONDS).as_millis();
        format!("{until}.{}", super::keys::hex(&self.mac(record, until).finalize().into_bytes()))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || drop(reply.send(work())));
        self.jobs.try_send(job).map_err(|_| PasswordError::Busy)?;
        answer.await.map_err(|_| PasswordError::Busy)
    }

    fn mac(&self, record: &LinkRecord, until: i64) -> Hmac<Sha256> {
        let revision = match record {
            LinkRecord::Present(link) => link.revision,
            LinkRecord::Removed(link) => link.revision,
        };
        let Revision(revision) = revision;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(b"link password");
        mac.update(&record.id().0.to_be_bytes());
        mac.update(&revision.to_be_bytes());
        mac.update(&until.to_be_bytes());
        mac
    }

    fn is_proof(&self, record: &LinkRecord, proof: &str, now: Timestamp) -> bool {
        let Some((until, mac)) = proof.split_once('.') else { return false };
        let Ok(until) = until.parse::<i64>() else { return false };
        let Some(mac) = unhex(mac) else { return false };
        // In constant time.
        now.as_millis() < until && self.mac(record, until).verify_slice(&mac).is_ok()
    }
}

impl Secrets for Passwords {
    fn is_unlocked(&self, record: &LinkRecord, cookies: &[u8], now: Timestamp) -> bool {
        let Ok(cookies) = std::str::from_utf8(cookies) else { return false };
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == COOKIE && self.is_proof(record, value, now))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_panics_takes_no_thread_with_it() {
        let passwords = Passwords::start(1, [7; 32]);
        assert!(passwords.run(|| panic!("as asked")).await.is_err());
        let hash = passwords.hash("rice".to_owned()).await.unwrap();
        assert!(passwords.verify("rice".to_owned(), hash).await.unwrap());
    }
}
