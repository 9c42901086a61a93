//! Finds countries of addresses: by data that is built in, or by a file that the operator keeps up to date.
//!
//! The built-in data tells to which country a registry assigned an address, which is right for about nineteen in twenty
//! IPv4 addresses. A file of MaxMind, DB-IP or IPinfo knows more.

use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, Reader};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use terse_model::click::Country;

/// A larger file is refused. The largest that tell countries, those of all cities, are a tenth of it.
const FILE_LEN_MAX: u64 = 1 << 30;
/// So many networks are read to see whether a file is sound and knows countries.
const SAMPLE_LEN: usize = 100_000;

/// Finds countries of addresses.
#[derive(Debug)]
pub struct Countries {
    /// `None` for what is built in.
    database: Option<Database>,
}

/// Why a file of countries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CountryError {
    /// It cannot be read.
    #[error("cannot read the file of countries \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It isn't in the format, or is damaged.
    #[error("\"{}\" is no sound file of MaxMind's format (.mmdb)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: MaxMindDbError,
    },
    /// It is about something else.
    #[error("\"{}\" holds no countries: it is of the type {kind:?}", path.display())]
    NoCountries {
        /// The file.
        path: PathBuf,
        /// What it says to hold.
        kind: String,
    },
}

impl Countries {
    /// By the data that is built in.
    pub fn built_in() -> Self {
        Countries { database: None }
    }

    /// By a file of MaxMind's format, which is read into memory.
    pub fn open(path: &Path) -> Result<Self, CountryError> {
        let (reader, stamp) = read(path)?;
        let database = Database {
            path: path.to_owned(),
            reader: ArcSwap::from_pointee(reader),
            tried: Mutex::new(Some(stamp)),
        };
        Ok(Countries { database: Some(database) })
    }

    /// The country of an address. `None` for those that are nowhere, as private ones are.
    pub fn of(&self, address: IpAddr) -> Option<Country> {
        let address = address.to_canonical();
        if !is_public(address) {
            return None;
        }
        match &self.database {
            None => iptocc::country_code(address).and_then(parse),
            Some(database) => country_in(&database.reader.load(), address).ok().flatten(),
        }
    }

    /// Reads the file again if it is another than before, and says whether that was done. A file that cannot be used
    /// changes nothing but gives a warning. Takes as long as reading takes, so no thread that answers requests should
    /// call it.
    pub fn reload_if_changed(&self) -> bool {
        self.database.as_ref().is_some_and(Database::reload_if_changed)
    }
}

/// Reads a header by which a proxy tells the country, such as CF-IPCountry.
pub fn of_header(value: &[u8]) -> Option<Country> {
    // Tor is T1 there, which is no country by its digit.
    parse(std::str::from_utf8(value).ok()?.trim_ascii())
}

/// Two letters, other than those for "unknown".
fn parse(code: &str) -> Option<Country> {
    Country::parse(code).filter(|country| !matches!(country.as_str(), "XX" | "ZZ"))
}

struct Database {
    path: PathBuf,
    /// The file's bytes. They are in memory because a file that is mapped would change under a lookup when it is
    /// written in place, and end the process when it is cut. Lookups take them without a lock.
    reader: ArcSwap<Reader<Vec<u8>>>,
    /// The file that was last read, whether it was of use or not: each change is tried, and warned of, once. `None`
    /// when it wasn't there. Only those who reload take this lock.
    tried: Mutex<Option<Stamp>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    fn reload_if_changed(&self) -> bool {
        let mut tried = self.tried.lock().expect("no code panics under this lock");
        let stamp = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp == *tried {
            return false;
        }
        match read(&self.path) {
            Ok((reader, stamp)) => {
                self.reader.store(reader.into());
                *tried = Some(stamp);
                tracing::info!("Read the changed file of countries");
                true
            }
            Err(error) => {
                *tried = stamp;
                let error: &dyn std::error::Error = &error;
                let source = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::warn!("{error}: {source}. The countries of the file before it stay in use");
                false
            }
        }
    }
}

/// What changes when a file does, be it written in place or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    changed_at: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            // Unlike the time of modification, nobody sets it back.
            changed_at: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn read(path: &Path) -> Result<(Reader<Vec<u8>>, Stamp), CountryError> {
    let path = || path.to_owned();
    let unreadable = |source| CountryError::Read { path: path(), source };
    let (bytes, stamp) = read_bytes(&path()).map_err(unreadable)?;
    let broken = |source| CountryError::Format { path: path(), source };
    let reader = Reader::from_source(bytes).map_err(broken)?;
    if knows_countries(&reader).map_err(broken)? {
        Ok((reader, stamp))
    } else {
        Err(CountryError::NoCountries { path: path(), kind: reader.metadata().database_type.clone() })
    }
}

fn read_bytes(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > FILE_LEN_MAX {
        return Err(io::Error::other("it is larger than 1 GiB"));
    }
    let stamp = Stamp::of(&metadata);
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.by_ref().take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    // One that is being written gives a mixture of two, which may look sound.
    if Stamp::of(&file.metadata()?) != stamp {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok((bytes, stamp))
}

/// Whether a file knows countries; an error if it is damaged where it was looked at.
fn knows_countries(reader: &Reader<Vec<u8>>) -> Result<bool, MaxMindDbError> {
    let mut knows = false;
    for network in reader.networks(Default::default())?.take(SAMPLE_LEN) {
        knows |= network?.decode::<Entry>()?.is_some_and(|entry| entry.country().is_some());
    }
    Ok(knows)
}

fn country_in(reader: &Reader<Vec<u8>>, address: IpAddr) -> Result<Option<Country>, MaxMindDbError> {
    Ok(reader.lookup(address)?.decode::<Entry>()?.and_then(|entry| entry.country()))
}

/// What a file says of a network, in any of the ways that are in use:
///
/// - `country.iso_code`, and `registered_country.iso_code` where that is missing: MaxMind, DB-IP;
/// - `country_code`, or `country` for the code: IPinfo, which has the name in `country` of some files.
#[derive(Default)]
struct Entry {
    country: Option<Country>,
    country_code: Option<Country>,
    registered_country: Option<Country>,
}

impl Entry {
    fn country(&self) -> Option<Country> {
        self.country_code.or(self.country).or(self.registered_country)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let mut entry = Entry::default();
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "country" => entry.country = map.next_value::<Code>()?.0,
                        "country_code" => entry.country_code = map.next_value::<Code>()?.0,
                        "registered_country" => entry.registered_country = map.next_value::<Code>()?.0,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(entry)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A country as its code, or as a map with the code.
struct Code(Option<Country>);

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Code;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a map")
            }

            fn visit_str<E>(self, text: &str) -> Result<Code, E> {
                Ok(Code(parse(text)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Code, A::Error> {
                let mut code = None;
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "iso_code" => code = parse(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Code(code))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Whether an address is somewhere: no private, local or otherwise special one.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        // This network; carrier-grade NAT; protocol assignments; benchmarks; reserved and broadcast.
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => true,
        _ => {
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
                || address.is_multicast()
        }
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Documentation.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Everything that is routed is in 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
