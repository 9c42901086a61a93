//! The journal on disk: restarts, torn files, power cuts, and bounds.

use proptest::prelude::*;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use terse::clicks::journal::{Event, Journal, JournalConfig, Reader};
use terse_model::click::{ClickId, Purpose, VisitorHash};
use terse_model::click_store::Position;
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::time::Timestamp;

const PAGE: usize = 4096;
const SEGMENT_LEN: u32 = 64 << 10;
/// An agent that makes a record of 120 bytes or so.
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn event(number: u64) -> Event<'static> {
    Event {
        at: Timestamp::from_millis(1_800_000_000_000),
        link: LinkId(number),
        domain: DomainId::DEFAULT,
        owner: None,
        tags: "",
        visitor: VisitorHash(number),
        country: None,
        is_head: false,
        purpose: Purpose::Visit,
        language: "de",
        user_agent: AGENT,
        referrer: "",
    }
}

fn config(folder: &Path) -> JournalConfig {
    JournalConfig {
        folder: folder.to_owned(),
        node: 7,
        lanes: 1,
        above: 0,
        segment_len: SEGMENT_LEN,
        bytes_max: 1 << 30,
        // Only when it is closed.
        flush_interval: Duration::from_secs(3600),
    }
}

/// Appends events; waits while a new segment is made.
fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in numbers {
        while journal.append(&event(number)).is_err() {
            assert!(Instant::now() < deadline, "no room for event {number}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn read_all(reader: &mut Reader) -> Vec<(ClickId, u64)> {
    let mut seen = Vec::new();
    while reader.read(1000, |id, found| seen.push((id, found.link.0))) > 0 {}
    seen
}

fn links(seen: &[(ClickId, u64)]) -> Vec<u64> {
    seen.iter().map(|(_, link)| *link).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn segments(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_restart_goes_on_where_the_reader_stood() {
    let folder = tempfile::tempdir().unwrap();
    let mut positions: Vec<Position> = Vec::new();
    let (mut next, mut seen, mut places) = (0, Vec::new(), HashSet::new());
    for round in 0..12 {
        let (journal, mut reader, keeper) = Journal::open(&config(folder.path()), &positions).unwrap();
        // Some rounds go over several segments, some append nothing, some read nothing.
        let more = [700, 0, 30, 1500][round % 4];
        append(&journal, next..next + more);
        next += more;
        if round % 3 != 1 {
            let read = read_all(&mut reader);
            places.extend(read.iter().map(|(id, _)| *id));
            seen.extend(links(&read));
            positions = reader.positions();
            journal.release(&positions);
        }
        drop((journal, reader, keeper));
    }
    let (_journal, mut reader, _keeper) = Journal::open(&config(folder.path()), &positions).unwrap();
    seen.extend(links(&read_all(&mut reader)));
    assert_eq!(seen.len(), next as usize);
    assert!(seen.is_sorted(), "each once and in order");
    assert!(places.len() > 5000, "no place was used twice");
}

#[test]
fn segments_are_used_again_and_their_old_bytes_count_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, mut reader, keeper) = Journal::open(&config(folder.path()), &[]).unwrap();
    let mut seen = Vec::new();
    for round in 0..60 {
        append(&journal, round * 400..(round + 1) * 400);
        seen.extend(links(&read_all(&mut reader)));
        journal.release(&reader.positions());
    }
    assert_eq!(seen, (0..60 * 400).collect::<Vec<_>>());
    assert!(segments(folder.path()) < 12, "{} files for some 50 segments", segments(folder.path()));
    let positions = reader.positions();
    drop((journal, reader, keeper));
    // Nothing of the earlier uses comes up again, whoever forgets how far it was read.
    for from in [positions, Vec::new()] {
        let copied = tempfile::tempdir().unwrap();
        copy(folder.path(), copied.path());
        let (journal, mut reader, _keeper) = Journal::open(&config(copied.path()), &from).unwrap();
        let again = links(&read_all(&mut reader));
        assert!(again.is_sorted() && again.iter().collect::<HashSet<_>>().len() == again.len());
        assert!(again.iter().all(|link| seen.contains(link)));
        assert_eq!(from.is_empty(), !again.is_empty());
        assert_eq!(journal.lost(), 0);
    }
}

#[test]
fn at_its_bound_new_events_are_refused_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let bound = JournalConfig { bytes_max: 5 * u64::from(SEGMENT_LEN), ..config(folder.path()) };
    let (journal, mut reader, _keeper) = Journal::open(&bound, &[]).unwrap();
    let mut appended = 0;
    let deadline = Instant::now() + Duration::from_secs(2);
    // The bound is reached when it stays so.
    while Instant::now() < deadline {
        if journal.append(&event(appended)).is_ok() {
            appended += 1;
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(journal.append(&event(appended)).is_err());
    assert!(journal.bytes() <= bound.bytes_max);
    assert!(appended > 1000);
    let seen = links(&read_all(&mut reader));
    assert_eq!(seen, (0..appended).collect::<Vec<_>>());
    journal.release(&reader.positions());
    append(&journal, appended..appended + 1500);
    assert_eq!(links(&read_all(&mut reader)), (appended..appended + 1500).collect::<Vec<_>>());
}

#[test]
fn files_that_are_no_segments_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("00000000.seg", Vec::new()),
        ("00000001.seg", vec![0xff; 100]),
        ("00000002.seg", vec![0; SEGMENT_LEN as usize]),
        ("00000003.seg", vec![0x61; SEGMENT_LEN as usize]),
        ("notes.txt", b"mine".to_vec()),
        ("x.seg", b"x".to_vec()),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let (journal, mut reader, _keeper) = Journal::open(&config(folder.path()), &[]).unwrap();
    append(&journal, 0..1000);
    assert_eq!(read_all(&mut reader).len(), 1000);
    assert_eq!(fs::read(folder.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn restarts_without_clicks_take_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let bound = JournalConfig { bytes_max: 4 * u64::from(SEGMENT_LEN), ..config(folder.path()) };
    let mut positions = Vec::new();
    for round in 0..20 {
        let (journal, mut reader, keeper) = Journal::open(&bound, &positions).unwrap();
        assert!(journal.bytes() <= bound.bytes_max);
        if round % 7 == 3 {
            append(&journal, 0..10);
            assert_eq!(read_all(&mut reader).len(), 10, "in round {round}");
            positions = reader.positions();
        }
        drop((journal, reader, keeper));
    }
    assert!(segments(folder.path()) <= 4);
}

#[test]
fn without_lanes_what_is_there_is_read_and_no_room_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, reader, keeper) = Journal::open(&config(folder.path()), &[]).unwrap();
    append(&journal, 0..700);
    drop((journal, reader, keeper));
    let before = segments(folder.path());
    let quiet = JournalConfig { lanes: 0, ..config(folder.path()) };
    let (journal, mut reader, _keeper) = Journal::open(&quiet, &[]).unwrap();
    assert_eq!(read_all(&mut reader).len(), 700);
    assert!(journal.append(&event(1)).is_err());
    assert_eq!(segments(folder.path()), before);
}

#[test]
fn new_segments_lie_above_every_position_that_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let high = JournalConfig { above: 1000, ..config(folder.path()) };
    let (journal, mut reader, _keeper) = Journal::open(&high, &[]).unwrap();
    append(&journal, 0..10);
    assert!(read_all(&mut reader).iter().all(|(id, _)| id.segment > 1000));
}

#[test]
fn a_lane_that_nobody_appends_to_any_more_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let wide = JournalConfig { lanes: 4, ..config(folder.path()) };
    let (journal, reader, keeper) = Journal::open(&wide, &[]).unwrap();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let journal = journal.clone();
            std::thread::spawn(move || {
                journal.enter(worker);
                append(&journal, worker as u64 * 1000..worker as u64 * 1000 + 500);
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    drop((journal, reader, keeper));
    let (journal, mut reader, keeper) = Journal::open(&config(folder.path()), &[]).unwrap();
    append(&journal, 9000..9100);
    // The first lane has come to new events long before the others have given all their old ones.
    let (first_new, mut seen) = (journal.first_segment(), Vec::new());
    while !reader.has_passed(first_new) {
        assert!(reader.read(8, |id, found| seen.push((id, found.link.0))) > 0);
    }
    assert_eq!(seen.iter().filter(|(id, _)| id.segment < first_new).count(), 2000);
    seen.extend(read_all(&mut reader));
    let mut seen = links(&seen);
    seen.sort_unstable();
    let expected = (0..4).flat_map(|worker| worker * 1000..worker * 1000 + 500).chain(9000..9100);
    assert_eq!(seen, expected.collect::<Vec<_>>());
    let positions = reader.positions();
    assert_eq!(positions.len(), 4);
    drop((journal, reader, keeper));
    let (_journal, mut reader, _keeper) = Journal::open(&config(folder.path()), &positions).unwrap();
    assert_eq!(read_all(&mut reader), []);
}

/// A disk after the power failed: of pages that were written since the last flush some are there and some are not.
fn cut_power(flushed: &Path, now: &Path, torn: &Path, keep: &mut impl FnMut() -> bool) {
    fs::create_dir_all(torn).unwrap();
    for entry in fs::read_dir(now).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        let new = fs::read(&path).unwrap();
        // A file that was made since is there, with zeros and its head: the keeper waits for that.
        let mut bytes = fs::read(flushed.join(name)).unwrap_or_else(|_| vec![0; new.len()]);
        bytes[..64].copy_from_slice(&new[..64]);
        for (own, written) in bytes.chunks_mut(PAGE).zip(new.chunks(PAGE)) {
            if own != written && keep() {
                own.copy_from_slice(written);
            }
        }
        fs::write(torn.join(name), bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever reaches the disk and however far the databases say that they are: what was flushed is read, nothing
    /// is read twice, what is lost was appended since the last flush, and the journal goes on.
    #[test]
    fn a_power_cut_takes_no_more_than_what_was_not_flushed(
        before in 1_u64..1200,
        after in 0_u64..1200,
        read_before in any::<bool>(),
        committed_after in any::<bool>(),
        pages in proptest::collection::vec(any::<bool>(), 1..64),
    ) {
        let place = tempfile::tempdir().unwrap();
        let [live, flushed, torn] = ["live", "flushed", "torn"].map(|name| place.path().join(name));
        let (journal, mut reader, keeper) = Journal::open(&config(&live), &[]).unwrap();
        append(&journal, 0..before);
        let mut counted = HashSet::new();
        let mut positions = Vec::new();
        if read_before {
            counted.extend(links(&read_all(&mut reader)));
            positions = reader.positions();
        }
        drop((journal, reader, keeper));
        copy(&live, &flushed);
        let (journal, mut reader, keeper) = Journal::open(&config(&live), &positions).unwrap();
        append(&journal, before..before + after);
        // The databases are ahead of the journal, or they are not.
        if committed_after {
            counted.extend(links(&read_all(&mut reader)));
            positions = reader.positions();
        }
        let mut page = pages.iter().cycle();
        cut_power(&flushed, &live, &torn, &mut || *page.next().unwrap());
        drop((journal, reader, keeper));

        let (journal, mut reader, keeper) = Journal::open(&config(&torn), &positions).unwrap();
        let read = links(&read_all(&mut reader));
        let lost_known = journal.lost();
        for link in &read {
            prop_assert!(counted.insert(*link), "{link} is counted twice");
        }
        for link in 0..before {
            prop_assert!(counted.contains(&link), "{link} was flushed, and is lost");
        }
        prop_assert!(counted.iter().all(|link| *link < before + after));
        let lost = before + after - counted.len() as u64;
        prop_assert!(lost_known <= lost, "{lost_known} are said to be lost, of {lost}");
        // It goes on, and another start finds what follows.
        append(&journal, 5000..5100);
        let positions = if lost.is_multiple_of(2) { reader.positions() } else { positions };
        drop((journal, reader, keeper));
        let (_journal, mut reader, _keeper) = Journal::open(&config(&torn), &positions).unwrap();
        let again = links(&read_all(&mut reader));
        prop_assert!(again.ends_with(&(5000..5100).collect::<Vec<_>>()));
    }
}
