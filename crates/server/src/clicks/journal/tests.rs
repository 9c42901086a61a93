//! Interleavings of those who append, read and take back.

use super::record::{SHAPE_AT, padded};
use super::segment::{SegmentFile, SegmentHead};
use super::*;
use shuttle::thread;
use terse_model::click::{ClickId, Purpose, VisitorHash};
use terse_model::code_space::LinkId;
use terse_model::domain::DomainId;
use terse_model::time::Timestamp;

/// Room for a few records, so that segments end often.
const SEGMENT_LEN: usize = 256;

fn event(number: u64) -> Event<'static> {
    Event {
        at: Timestamp::from_millis(1_800_000_000_000),
        link: LinkId(number),
        domain: DomainId::DEFAULT,
        owner: None,
        tags: "",
        visitor: VisitorHash(!number),
        country: None,
        is_head: false,
        purpose: Purpose::Visit,
        language: "",
        user_agent: "",
        referrer: "",
    }
}

/// A segment that is ready to be appended to.
fn spare(number: u64) -> (Arc<Segment>, SegmentWriter) {
    SegmentFile::in_memory(SEGMENT_LEN).begin(SegmentHead { node: 1, lane: 0, number }).unwrap()
}

/// A journal of one lane with spares and nobody who makes more.
fn journal(spares: u64) -> (Journal, Reader) {
    let lane = Lane { spares: Mutex::new((1..=spares).map(spare).collect()), ..Lane::default() };
    let shared = Arc::new(Shared {
        lanes: vec![lane],
        writable: 1,
        wake: Wake::default(),
        first_segment: 1,
        bytes: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        is_dropping: AtomicBool::new(false),
    });
    (Journal { shared: shared.clone() }, Reader::new(shared, &[]))
}

fn explore(race: fn()) {
    shuttle::check_random(race, 2_000);
    shuttle::check_pct(race, 1_000, 3);
}

#[test]
fn a_reader_sees_whole_records_in_their_order_and_in_the_end_all() {
    explore(|| {
        let (segment, mut writer) = spare(1);
        let appender = thread::spawn(move || {
            let written = (0..10).take_while(|number| writer.append(&event(*number))).count();
            writer.seal();
            written
        });
        let (mut offset, mut seen) = (super::SEGMENT_HEAD_LEN, 0);
        loop {
            let is_sealed = segment.is_sealed();
            let committed = segment.committed();
            while offset < committed {
                let found = segment.event(offset, committed).expect("a whole record");
                assert_eq!((found.event(), found.index), (Some(event(seen)), seen as u32));
                offset += found.len as u32;
                seen += 1;
            }
            if is_sealed {
                break;
            }
            thread::yield_now();
        }
        assert_eq!(seen as usize, appender.join().unwrap());
    });
}

#[test]
fn every_event_is_read_once_while_segments_come_and_go() {
    explore(|| {
        let (journal, mut reader) = journal(6);
        let appenders: Vec<_> = (0..2)
            .map(|thread| {
                let journal = journal.clone();
                thread::spawn(move || {
                    (0..4).filter(|number| journal.append(&event(thread * 100 + number)).is_ok()).count()
                })
            })
            .collect();
        let releaser = {
            let journal = journal.clone();
            thread::spawn(move || {
                let mut seen: Vec<(ClickId, u64)> = Vec::new();
                for _ in 0..6 {
                    reader.read(2, |id, found| seen.push((id, found.link.0)));
                    journal.release(&reader.positions());
                    thread::yield_now();
                }
                (reader, seen)
            })
        };
        let appended: usize = appenders.into_iter().map(|thread| thread.join().unwrap()).sum();
        let (mut reader, mut seen) = releaser.join().unwrap();
        while reader.read(10, |id, found| seen.push((id, found.link.0))) > 0 {}
        assert_eq!(seen.len(), appended);
        assert_eq!(journal.appended(), appended as u64);
        let mut ids: Vec<ClickId> = seen.iter().map(|(id, _)| *id).collect();
        assert!(ids.is_sorted(), "in the order of the journal");
        ids.dedup();
        assert_eq!(ids.len(), appended, "no place twice");
        // Each thread's own events come in its order.
        for thread in 0..2 {
            let own: Vec<u64> =
                seen.iter().map(|(_, link)| *link).filter(|link| link / 100 == thread).collect();
            assert!(own.is_sorted());
        }
    });
}

#[test]
fn without_room_events_are_refused_and_what_is_there_stays() {
    shuttle::check_random(
        || {
            let (journal, mut reader) = journal(1);
            let appended = (0..10).filter(|number| journal.append(&event(*number)).is_ok()).count();
            let mut first = Vec::new();
            event(0).encode(&mut first);
            let rest = SEGMENT_LEN - SEGMENT_HEAD_LEN as usize - padded(first.len());
            assert_eq!(appended, 1 + rest / SHAPE_AT, "those behind the first one are like it");
            let mut seen = Vec::new();
            reader.read(100, |_, found| seen.push(found.link.0));
            assert_eq!(seen, (0..appended as u64).collect::<Vec<_>>());
            // Room again.
            let lane = &journal.shared.lanes[0];
            lane.spares.lock().unwrap().push_back(spare(7));
            journal.append(&event(77)).unwrap();
            reader.read(100, |id, found| assert_eq!((id.segment, found.link.0), (7, 77)));
        },
        1,
    );
}

#[test]
fn an_event_whose_shape_a_power_cut_took_is_lost_and_counted() {
    use std::os::unix::fs::FileExt;
    shuttle::check_random(
        || {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("segment");
            let head = SegmentHead { node: 1, lane: 0, number: 7 };
            let (segment, mut writer) = SegmentFile::create(&path, 4096).unwrap().begin(head).unwrap();
            let append = |writer: &mut SegmentWriter, number: u64, user_agent: &str| {
                assert!(writer.append(&Event { user_agent, ..event(number) }));
                segment.committed()
            };
            let second = append(&mut writer, 0, "a");
            let third = append(&mut writer, 1, "b");
            append(&mut writer, 2, "b");
            assert!(second - SEGMENT_HEAD_LEN > SHAPE_AT as u32 && third - second > SHAPE_AT as u32);
            append(&mut writer, 3, "a");
            let recovered = |from: u32| {
                let segment = SegmentFile::open(&path).unwrap().resume(head);
                let lost = segment.recover(from).lost;
                (segment.committed(), lost)
            };
            let end = segment.committed();
            assert_eq!(recovered(0), (end, 0));
            // The page with the first `a` never reached the disk, nor did a reader's position behind it.
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[0; 8], u64::from(SEGMENT_HEAD_LEN)).unwrap();
            assert_eq!(recovered(second), (end - SHAPE_AT as u32, 1));
            assert_eq!(recovered(0), (SEGMENT_HEAD_LEN, 3));
        },
        1,
    );
}
