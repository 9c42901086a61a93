//! Tells visitors of one day apart without keeping who they are.
//!
//! A visitor is a keyed hash of address and user agent. The key, the day's salt, lives in memory and in a file of its
//! own with mode 0600, so that it survives a restart; it is in no database and no backup. At the end of the UTC day it
//! is removed, and then nobody can tell any more which address a hash came from.

use crate::data_dir::private_file;
use crate::limit::counted_address;
use arc_swap::ArcSwap;
use siphasher::sip::SipHasher13;
use std::fmt;
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use terse_model::click::{Day, VisitorHash};

/// Makes visitor hashes.
#[derive(Debug)]
pub struct Visitors {
    salt: ArcSwap<Salt>,
    /// Held while a new day's salt is drawn, which takes microseconds, and while the file is written.
    change: Mutex<()>,
    path: PathBuf,
}

#[derive(Clone, PartialEq, Eq)]
struct Salt {
    day: Day,
    key: [u8; 16],
    is_saved: bool,
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salt").field("day", &self.day).finish_non_exhaustive()
    }
}

impl Salt {
    fn draw(day: Day) -> Self {
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("the system has random numbers");
        Salt { day, key, is_saved: false }
    }
}

impl Visitors {
    /// Takes today's salt from its file, or draws a new one. One of another day is removed.
    pub fn open(path: &Path, today: Day) -> io::Result<Self> {
        let salt = read(path)?.filter(|salt| salt.day == today).unwrap_or_else(|| Salt::draw(today));
        let visitors =
            Visitors { salt: ArcSwap::from_pointee(salt), change: Mutex::new(()), path: path.to_owned() };
        visitors.keep(today)?;
        Ok(visitors)
    }

    /// The hash of a visitor on `day`. Never touches the disk.
    pub fn hash(&self, day: Day, address: IpAddr, user_agent: &[u8]) -> VisitorHash {
        let salt = self.salt.load();
        if salt.day == day {
            return hash(&salt.key, address, user_agent);
        }
        drop(salt);
        hash(&self.renew(day).key, address, user_agent)
    }

    /// Sees to it that the file holds the salt of `today` and no other. Call it every second or so.
    pub fn keep(&self, today: Day) -> io::Result<()> {
        if self.salt.load().day != today {
            self.renew(today);
        }
        let _change = self.change.lock().expect("no code panics under this lock");
        let salt = self.salt.load_full();
        if salt.is_saved {
            return Ok(());
        }
        write(&self.path, &salt)?;
        self.salt.store(Arc::new(Salt { is_saved: true, ..(*salt).clone() }));
        Ok(())
    }

    fn renew(&self, day: Day) -> Arc<Salt> {
        let _change = self.change.lock().expect("no code panics under this lock");
        let current = self.salt.load_full();
        if current.day == day {
            return current;
        }
        let new = Arc::new(Salt::draw(day));
        self.salt.store(new.clone());
        new
    }
}

/// SipHash-1-3 (Aumasson and Bernstein, 2012): made for short inputs and a secret key, which here lives for a day.
fn hash(key: &[u8; 16], address: IpAddr, user_agent: &[u8]) -> VisitorHash {
    let mut hasher = SipHasher13::new_with_key(key);
    // An IPv6 customer has a /64 and changes addresses in it all day.
    match counted_address(address) {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.write(user_agent);
    VisitorHash(hasher.finish())
}

/// The salt in a file: the day as text, a space, the key in hexadecimal. Anything else is as good as none.
fn read(path: &Path) -> io::Result<Option<Salt>> {
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => match file.take(64).read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            other => other?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let parsed = text.trim_end().split_once(' ').and_then(|(day, key)| {
        let is_key = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = if is_key { u128::from_str_radix(key, 16).ok()? } else { return None };
        Some(Salt { day: Day(day.parse().ok()?), key: key.to_be_bytes(), is_saved: true })
    });
    Ok(parsed)
}

fn write(path: &Path, salt: &Salt) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = private_file().truncate(true).open(&new)?;
    writeln!(file, "{} {:032x}", salt.day.0, u128::from_be_bytes(salt.key))?;
    // Takes the old day's place, and with it the old salt is gone.
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const TODAY: Day = Day(20_000);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn visitors_are_told_apart_for_a_day_and_not_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("salt");
        let visitors = Visitors::open(&path, TODAY).unwrap();
        let hash = |day: Day, from: &str, agent: &str| visitors.hash(day, address(from), agent.as_bytes());
        let first = hash(TODAY, "192.0.2.1", "a");
        assert_eq!(hash(TODAY, "192.0.2.1", "a"), first);
        assert_ne!(hash(TODAY, "192.0.2.2", "a"), first);
        assert_ne!(hash(TODAY, "192.0.2.1", "b"), first);
        // One customer of IPv6.
        assert_eq!(hash(TODAY, "2001:db8::1", "a"), hash(TODAY, "2001:db8::ffff:2", "a"));
        assert_ne!(hash(TODAY, "2001:db8:0:1::1", "a"), hash(TODAY, "2001:db8::1", "a"));
        let tomorrow = hash(TODAY.next(), "192.0.2.1", "a");
        assert_ne!(tomorrow, first);
        // The old salt is gone for good, even if the clock goes back.
        assert_ne!(hash(TODAY, "192.0.2.1", "a"), first);
    }

    #[test]
    fn the_salt_survives_a_restart_and_not_the_day() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("salt");
        let hash = |day: Day| Visitors::open(&path, day).unwrap().hash(day, address("192.0.2.1"), b"a");
        let first = hash(TODAY);
        assert_eq!(hash(TODAY), first);
        let before = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(hash(TODAY.next()), first);
        assert_ne!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        // While it runs.
        let visitors = Visitors::open(&path, TODAY).unwrap();
        let before = std::fs::read(&path).unwrap();
        visitors.keep(TODAY).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        visitors.keep(TODAY.next()).unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("salt");
        for content in [&b""[..], b"20000", b"20000 12", b"x y", b"\xff\xfe", &[b'9'; 5000]] {
            std::fs::write(&path, content).unwrap();
            Visitors::open(&path, TODAY).unwrap();
            assert!(read(&path).unwrap().is_some());
        }
    }
}
