//! Threads, the real disk, the real writer.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    fault::FaultDisk,
    model::{DIR, contents, entry, ignore, small},
};
use crate::{
    model::GroupId,
    wal::{Options, Record, Wal},
};

fn value(group: u32, index: u64) -> Vec<u8> {
    vec![(index as u8) ^ group as u8; 20 + (index as usize * 37 + group as usize) % 400]
}

#[test]
fn appenders_readers_and_purges_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, cache_bytes: 20_000, ..Options::default() };
    let wal = Wal::open(dir.path(), options.clone()).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for group in 0..4_u32 {
            let (wal, over) = (&wal, &over);
            scope.spawn(move || {
                let id = GroupId(group);
                let last_done = Arc::new(Mutex::new(None));
                for index in 0..1500_u64 {
                    let mut records = vec![entry(index, value(group, index))];
                    if index % 100 == 99 {
                        records.push(Record::PurgeUpTo { index: index - 60, mark: Bytes::from(index.to_string()) });
                    }
                    let last_done = Arc::clone(&last_done);
                    let done = Box::new(move |outcome: std::io::Result<()>| {
                        outcome.unwrap();
                        assert_eq!(last_done.lock().unwrap().replace(index), index.checked_sub(1));
                    });
                    wal.append(id, records, done).unwrap();
                    if index % 16 == 0 {
                        assert!(wal.wait_durable(id, index, Duration::from_secs(60)).unwrap());
                    }
                }
            });
            scope.spawn(move || {
                let id = GroupId(group);
                let mut read = 0_u64;
                while !over.load(SeqCst) || read == 0 {
                    let state = wal.group(id);
                    for (index, bytes) in wal.read(id, state.first_index, u64::MAX, 10_000).unwrap() {
                        assert_eq!(bytes, value(group, index));
                        read += 1;
                    }
                }
            });
        }
        scope.spawn(|| {
            for group in 0..4 {
                while !wal.wait_durable(GroupId(group), 1499, Duration::from_secs(1)).unwrap() {}
            }
            over.store(true, SeqCst);
        });
    });
    wal.close();
    let stats = wal.stats();
    assert!(stats.recycled > 5 && stats.queue_bytes == 0, "{stats:?}");
    assert_eq!(stats.sync_histogram.iter().sum::<u64>(), stats.syncs);
    let before = contents(&wal);
    drop(wal);
    let wal = Wal::open(dir.path(), options).unwrap();
    assert_eq!(contents(&wal), before);
    assert_eq!(wal.group(GroupId(2)).purged, Some((1439, Bytes::from("1499"))));
}

#[test]
fn an_idle_log_writes_its_frontier_by_itself() {
    let disk = FaultDisk::default();
    let wal = Wal::open_on(Arc::new(disk), Path::new(DIR), small()).unwrap();
    wal.append(GroupId(1), vec![entry(0, "a")], ignore()).unwrap();
    let began = Instant::now();
    while wal.stats().frontier_frames == 0 {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::yield_now();
    }
    assert_eq!(wal.stats().frames, 2);
}

#[test]
fn the_last_handle_may_be_dropped_by_a_callback() {
    let wal = Wal::open_on(Arc::new(FaultDisk::default()), Path::new(DIR), small()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let held = wal.clone();
    let gate = Arc::new(Mutex::new(()));
    let (closed, inner) = (gate.lock().unwrap(), Arc::clone(&gate));
    wal.append(
        GroupId(1),
        vec![entry(0, "a")],
        Box::new(move |outcome| {
            drop(inner.lock());
            drop(held);
            sender.send(outcome.is_ok()).unwrap();
        }),
    )
    .unwrap();
    drop(wal);
    drop(closed);
    assert!(receiver.recv_timeout(Duration::from_secs(30)).unwrap());
}

#[test]
fn closing_answers_everyone_who_waits() {
    let wal = Wal::open_on(Arc::new(FaultDisk::default()), Path::new(DIR), small()).unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    for index in 0..500 {
        let answered = Arc::clone(&answered);
        let done = Box::new(move |outcome: std::io::Result<()>| {
            outcome.unwrap();
            answered.fetch_add(1, SeqCst);
        });
        wal.append(GroupId(1), vec![entry(index, "a")], done).unwrap();
    }
    wal.close();
    assert_eq!(answered.load(SeqCst), 500);
}
