use super::*;
use rusqlite::OpenFlags;
use std::ops::ControlFlow;
use std::sync::Arc;
use tempfile::TempDir;
use terse_model::testsuite::{ClickCounts, SampleClick};

fn clicks(from: u32, count: u32) -> Vec<SampleClick> {
    let start = Timestamp::parse("2030-01-01").unwrap();
    let sample = |number: u32| {
        let at = start.plus_seconds(i64::from(number) % 3000);
        SampleClick::new(number, at, u64::from(number % 5000))
    };
    (from..from + count).map(sample).collect()
}

fn block(clicks: &[SampleClick]) -> ClickBlock {
    let mut block = ClickBlock::default();
    clicks.iter().for_each(|click| block.push(&click.click()));
    block
}

fn open() -> (TempDir, SqliteClickStore) {
    let dir = TempDir::new().unwrap();
    let options = SqliteClickOptions::new(Timestamp::parse("2030-01-01").unwrap());
    let store = SqliteClickStore::open(&dir.path().join("clicks.db"), &options).unwrap();
    (dir, store)
}

async fn count(store: &SqliteClickStore) -> u64 {
    let range = Timestamp::from_millis(0)..Timestamp::MAX;
    let (told, counted) = std::sync::mpsc::channel();
    let visit = Box::new(move |_: &Click<'_>| {
        told.send(()).unwrap();
        ControlFlow::Continue(())
    });
    let scan = ClickScan { subject: Subject::Everything, range, after: None, cancelled: Default::default() };
    store.clicks_scan(scan, visit).await.unwrap();
    counted.into_iter().count() as u64
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_done() {
    let (_dir, store) = open();
    store.clicks_add(Arc::new(block(&clicks(0, 100))), Vec::new()).await.unwrap();
    let limit = |pages: i64| {
        store.writer.run(move |connection| {
            let used: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
            let max = format!("PRAGMA max_page_count = {}", used + pages);
            connection.query_row(&max, [], |_| Ok(())).map_err(store_error)
        })
    };
    limit(2).await.unwrap();
    let position = Position { lane: 1, segment: 2, offset: 3 };
    let many = clicks(100, 20_000);
    let full = store.clicks_add(Arc::new(block(&many)), vec![position]).await;
    assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
    let batch = |number| RollupBatch {
        number,
        changes: Arc::new(ClickCounts::of(many.iter().map(SampleClick::click))),
        positions: vec![position],
    };
    let full = store.rollups_add(batch(1)).await;
    assert!(matches!(full, Err(StoreError::Unavailable(_))), "{full:?}");
    assert_eq!(store.positions().await.unwrap(), Positions::default());
    assert_eq!(store.totals_get(vec![Subject::Everything]).await.unwrap().1[0], Totals::default());
    assert_eq!(count(&store).await, 100);
    limit(100_000).await.unwrap();
    store.clicks_add(Arc::new(block(&many)), vec![position]).await.unwrap();
    store.rollups_add(batch(1)).await.unwrap();
    assert_eq!(count(&store).await, 20_100, "it goes on as soon as there is room");
}

#[tokio::test]
async fn a_locked_file_is_unavailable() {
    let (dir, store) = open();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let other = Connection::open_with_flags(dir.path().join("clicks.db"), flags).unwrap();
    store
        .writer
        .run(|connection| connection.busy_timeout(std::time::Duration::ZERO).map_err(store_error))
        .await
        .unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = store.clicks_add(Arc::new(block(&clicks(0, 10))), Vec::new()).await;
    assert!(matches!(locked, Err(StoreError::Unavailable(_))), "{locked:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(count(&store).await, 0);
    store.clicks_add(Arc::new(block(&clicks(0, 10))), Vec::new()).await.unwrap();
    assert_eq!(count(&store).await, 10);
}

/// Reading an hour in parts gives the same events as reading it at once.
#[tokio::test]
async fn an_hour_of_many_events_is_read_in_parts() {
    let (_dir, store) = open();
    let total = 2 * scan::PART_LEN as u32 + 1000;
    for from in (0..total).step_by(100_000) {
        store
            .clicks_add(Arc::new(block(&clicks(from, 100_000.min(total - from)))), Vec::new())
            .await
            .unwrap();
    }
    let (told, found) = std::sync::mpsc::channel();
    let visit = Box::new(move |click: &Click<'_>| {
        told.send((click.at, click.id)).unwrap();
        ControlFlow::Continue(())
    });
    let range = Timestamp::from_millis(0)..Timestamp::MAX;
    let scan = ClickScan { subject: Subject::Everything, range, after: None, cancelled: Default::default() };
    store.clicks_scan(scan, visit).await.unwrap();
    let found: Vec<_> = found.into_iter().collect();
    assert!(found.is_sorted_by(|a, b| a < b));
    assert_eq!(found.len(), total as usize);
}

/// However its blocks came, an hour ends as one run of full blocks, and then there is nothing more to do.
#[tokio::test]
async fn merging_comes_to_an_end() {
    let (_dir, store) = open();
    let late = Timestamp::parse("2030-01-03").unwrap();
    let mut from = 0;
    for len in [1, 5000, 40_000, 9, 4096, 300, 2047, 1] {
        store.clicks_add(Arc::new(block(&clicks(from, len))), Vec::new()).await.unwrap();
        from += len;
    }
    let blocks = || {
        store.query(|connection| {
            numbers(connection, "SELECT events FROM blocks WHERE hour >= ?1 ORDER BY events", [0])
        })
    };
    let mut steps = 0;
    while store.upkeep(None, late).await.unwrap() {
        steps += 1;
        assert!(steps < 100);
    }
    let sizes = blocks().await.unwrap();
    assert_eq!(sizes.iter().sum::<i64>(), i64::from(from));
    assert!(sizes.iter().filter(|size| **size < 2048).count() <= 1, "{sizes:?}");
    for _ in 0..5 {
        store.clicks_add(Arc::new(block(&clicks(from, 1))), Vec::new()).await.unwrap();
        from += 1;
        while store.upkeep(None, late).await.unwrap() {}
    }
    let sizes = blocks().await.unwrap();
    assert!(sizes.iter().filter(|size| **size < 2048).count() <= 1, "late events gather: {sizes:?}");
    assert_eq!(count(&store).await, u64::from(from));
}
