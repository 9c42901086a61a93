use super::*;
use proptest::prelude::*;
use std::fs;

const FILE: &[u8] = include_bytes!("../../../testdata/countries/GeoIP2-Country-Test.mmdb");

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
fn check(countries: &Countries, text: &str, expected: &str) {
    let country = countries.of(address(text));
    assert_eq!(country.as_ref().map_or("", Country::as_str), expected, "{text}");
}

#[test]
fn built_in() {
    let countries = Countries::built_in();
    check(&countries, "8.8.8.8", "US");
    check(&countries, "::ffff:8.8.8.8", "US");
    check(&countries, "193.0.6.139", "NL");
    check(&countries, "2001:4860:4860::8888", "US");
    assert!(!countries.reload_if_changed());
}

#[test]
fn special_addresses_are_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.mmdb");
    // This file says XK of every address.
    fs::write(&path, mmdb("Test", &[field("country", text("XK"))])).unwrap();
    let file = Countries::open(&path).unwrap();
    check(&file, "8.8.8.8", "XK");
    check(&file, "2a00::1", "XK");
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.1.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.1.2.3",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
    ] {
        check(&file, text, "");
        check(&Countries::built_in(), text, "");
    }
    for text in ["100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "3fff:1000::1"] {
        check(&file, text, "XK");
    }
}

#[test]
fn a_file_of_maxmind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countries.mmdb");
    fs::write(&path, FILE).unwrap();
    let countries = Countries::open(&path).unwrap();
    check(&countries, "81.2.69.160", "GB");
    check(&countries, "::ffff:81.2.69.160", "GB");
    check(&countries, "89.160.20.112", "SE");
    check(&countries, "2001:218::1", "JP");
    check(&countries, "8.8.8.8", "");
    assert!(format!("{countries:?}").len() < 4096, "the data is not for logs");
}

#[test]
fn the_ways_to_tell_a_country() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.mmdb");
    let check = |fields: &[Vec<u8>], expected: &str| {
        fs::write(&path, mmdb("Test", fields)).unwrap();
        check(&Countries::open(&path).unwrap(), "8.8.8.8", expected);
    };
    let nested = |key: &str, code: &str| {
        let names = field("names", map(&[field("en", text("Somewhere"))]));
        field(key, map(&[names, field("iso_code", text(code))]))
    };
    check(&[nested("country", "CH")], "CH");
    check(&[nested("registered_country", "AT")], "AT");
    check(&[nested("registered_country", "AT"), nested("country", "CH")], "CH");
    check(&[field("country", text("IS"))], "IS");
    check(&[field("country_code", text("is"))], "IS");
    check(&[field("country", text("Iceland")), field("country_code", text("IS"))], "IS");
    check(&[field("country_code", text("IS")), field("country", text("Iceland"))], "IS");
}

#[test]
fn what_is_no_file_of_countries_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countries.mmdb");
    let message = || Countries::open(&path).unwrap_err().to_string();
    assert!(message().starts_with("cannot read the file of countries"), "{}", message());
    for bytes in [&b""[..], b"garbage", &FILE[..FILE.len() / 2], &FILE[FILE.len() / 2..]] {
        fs::write(&path, bytes).unwrap();
        assert!(message().ends_with("is no sound file of MaxMind's format (.mmdb)"), "{}", message());
    }
    let asn = field("autonomous_system_organization", text("Example"));
    fs::write(&path, mmdb("GeoLite2-ASN", &[asn])).unwrap();
    assert!(message().ends_with("holds no countries: it is of the type \"GeoLite2-ASN\""), "{}", message());
    assert!(matches!(Countries::open(folder.path()), Err(CountryError::Read { .. })));
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countries.mmdb");
    let file = |code: &str| mmdb("Test", &[field("country", text(code))]);
    let replace = |bytes: &[u8]| {
        fs::write(folder.path().join("new"), bytes).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
    };
    fs::write(&path, file("AA")).unwrap();
    let countries = Countries::open(&path).unwrap();
    let check = |is_reloaded: bool, expected: &str| {
        assert_eq!(countries.reload_if_changed(), is_reloaded);
        // What was tried once is not tried again.
        assert!(!countries.reload_if_changed());
        check(&countries, "8.8.8.8", expected);
    };
    check(false, "AA");
    replace(&file("BB"));
    check(true, "BB");
    // Written in place, as some tools do: cut off first.
    fs::write(&path, b"").unwrap();
    check(false, "BB");
    fs::write(&path, &file("CC")[..100]).unwrap();
    check(false, "BB");
    fs::write(&path, file("CC")).unwrap();
    check(true, "CC");
    replace(b"garbage");
    check(false, "CC");
    replace(&mmdb("GeoLite2-ASN", &[field("organization", text("Example"))]));
    check(false, "CC");
    fs::remove_file(&path).unwrap();
    check(false, "CC");
    replace(&file("DD"));
    check(true, "DD");
}

#[test]
fn lookups_go_on_while_the_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("countries.mmdb");
    let file = |code: &str| mmdb("Test", &[field("country", text(code))]);
    fs::write(&path, file("AA")).unwrap();
    let countries = Countries::open(&path).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..20_000 {
                let country = countries.of(address("8.8.8.8")).unwrap();
                assert!(matches!(country.as_str(), "AA" | "BB"));
            }
        });
        for round in 0.. {
            fs::write(&path, file(if round % 2 == 0 { "AA" } else { "BB" })).unwrap();
            countries.reload_if_changed();
            if reader.is_finished() {
                break;
            }
        }
    });
}

#[test]
fn headers() {
    let check = |value: &[u8], expected: &str| {
        let country = of_header(value);
        assert_eq!(country.as_ref().map_or("", Country::as_str), expected, "{value:?}");
    };
    check(b"DE", "DE");
    check(b"de", "DE");
    check(b" DE ", "DE");
    check(b"XX", "");
    check(b"xx", "");
    check(b"T1", "");
    check(b"", "");
    check(b"DEU", "");
    check(b"D", "");
    check(b"\xff\xfe", "");
}

proptest! {
    #[test]
    fn any_address_can_be_asked_for(v4 in any::<u32>(), v6 in any::<u128>()) {
        let countries = Countries::built_in();
        countries.of(IpAddr::V4(v4.into()));
        countries.of(IpAddr::V6(v6.into()));
        countries.of(IpAddr::V6((v6 >> 3 | 0x2000 << 112).into()));
    }

    #[test]
    fn a_damaged_file_does_no_harm(place in 0..FILE.len(), byte in any::<u8>(), v4 in any::<u32>()) {
        let mut bytes = FILE.to_vec();
        bytes[place] = byte;
        if let Ok(reader) = Reader::from_source(bytes) {
            let _ = knows_countries(&reader);
            let _ = country_in(&reader, IpAddr::V4(v4.into()));
        }
    }

    #[test]
    fn any_header_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
        of_header(&bytes);
    }
}

/// The smallest file of the format: an entry of these fields for all addresses.
fn mmdb(kind: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    // A tree of one node, both of whose branches lead to the entry: 24 bits each, counted past the node and the 16 bytes
    // that part the tree from the entries.
    let mut bytes = vec![0, 0, 17, 0, 0, 17];
    bytes.extend([0; 16]);
    bytes.extend(map(fields));
    bytes.extend(b"\xab\xcd\xefMaxMind.com");
    bytes.extend(map(&[
        field("binary_format_major_version", number(5, 2)),
        field("binary_format_minor_version", number(5, 0)),
        // Of an extended type: so many bytes, then the type less seven.
        field("build_epoch", vec![1, 2, 1]),
        field("database_type", text(kind)),
        field("description", map(&[field("en", text("For tests"))])),
        field("ip_version", number(5, 6)),
        field("languages", vec![0, 4]),
        field("node_count", number(6, 1)),
        field("record_size", number(5, 24)),
    ]));
    bytes
}

fn map(fields: &[Vec<u8>]) -> Vec<u8> {
    [vec![7 << 5 | fields.len() as u8], fields.concat()].concat()
}

fn text(text: &str) -> Vec<u8> {
    let len = text.len() as u8;
    let head = if len < 29 { vec![2 << 5 | len] } else { vec![2 << 5 | 29, len - 29] };
    [head, text.as_bytes().to_vec()].concat()
}

fn field(key: &str, value: Vec<u8>) -> Vec<u8> {
    [text(key), value].concat()
}

/// An unsigned number of one byte, of the type 5 or 6 by its width.
fn number(kind: u8, value: u8) -> Vec<u8> {
    vec![kind << 5 | 1, value]
}
