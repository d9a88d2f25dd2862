//! What each call promises, one rule a test.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;

use super::{
    fault::FaultDisk,
    model::{DIR, Rig, contents, entry, ignore, open, small},
};
use crate::{
    model::GroupId,
    wal::{AppendError, GroupState, OpenError, Options, Record, Wal, frame, segment},
};

const G: GroupId = GroupId(7);

fn purge(index: u64) -> Record {
    Record::PurgeUpTo { index, mark: Bytes::from(format!("mark {index}")) }
}

#[test]
fn entries_are_readable_at_once_and_durable_after_the_step() {
    let mut rig = Rig::new();
    rig.append(7, vec![entry(0, "a"), entry(1, "b"), Record::Vote(Bytes::from_static(b"v"))]).unwrap();
    assert_eq!(rig.wal.read(G, 0, 9, usize::MAX).unwrap(), [(0, Bytes::from("a")), (1, Bytes::from("b"))]);
    assert_eq!((rig.wal.durable_index(G), rig.acknowledged()), (None, 0));
    assert!(!rig.wal.wait_durable(G, 1, Duration::ZERO).unwrap());
    assert!(rig.stepper.step());
    assert!(!rig.stepper.step());
    assert_eq!((rig.wal.durable_index(G), rig.acknowledged()), (Some(1), 1));
    assert!(rig.wal.wait_durable(G, 1, Duration::ZERO).unwrap());
    let vote = Some(Bytes::from_static(b"v"));
    assert_eq!(rig.wal.group(G), GroupState { vote, last_index: Some(1), ..GroupState::default() });
    assert_eq!(rig.wal.last_entry(G).unwrap(), Some((1, Bytes::from("b"))));
    assert_eq!(rig.wal.last_entry(GroupId(8)).unwrap(), None);
}

#[test]
fn all_that_waits_shares_one_sync() {
    let mut rig = Rig::new();
    for group in 0..100 {
        rig.append(group, vec![entry(0, "x")]).unwrap();
    }
    let before = rig.wal.stats().syncs;
    rig.settle();
    assert_eq!((rig.wal.stats().syncs - before, rig.acknowledged()), (1, 100));
}

#[test]
fn a_read_gives_at_least_one_entry_and_never_a_gap() {
    let mut rig = Rig::new();
    for index in 0..40 {
        rig.append(7, vec![entry(index, vec![index as u8; 100])]).unwrap();
        rig.settle();
    }
    let read = |from, to, max| rig.wal.read(G, from, to, max).unwrap().iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(read(3, 40, 0), [3]);
    assert_eq!(read(3, 40, 250), [3, 4]);
    assert_eq!(read(38, 50, 1 << 20), [38, 39]);
    assert_eq!(read(40, 50, 1 << 20), [0; 0]);
    assert_eq!(read(5, 5, 1 << 20), [0; 0]);
    assert_eq!(read(0, u64::MAX, usize::MAX).len(), 40);
    for (index, bytes) in rig.wal.read(G, 0, 40, usize::MAX).unwrap() {
        assert_eq!(bytes, vec![index as u8; 100]);
    }
    rig.append(7, vec![purge(9)]).unwrap();
    assert_eq!(rig.wal.read(G, 9, 40, 1 << 20).unwrap(), []);
    assert_eq!(rig.wal.read(G, 10, 11, 1 << 20).unwrap().len(), 1);
}

#[test]
fn entries_that_do_not_follow_are_refused_and_none_of_the_call_is_taken() {
    let mut rig = Rig::new();
    rig.append(7, vec![entry(5, "any first index")]).unwrap();
    let refused = rig.append(7, vec![entry(6, "fits"), entry(8, "does not")]);
    assert_eq!(refused, Err(AppendError::OutOfOrder { group: G, index: 8, expected: 7 }));
    assert_eq!(rig.wal.group(G).last_index, Some(5));
    assert!(rig.append(7, vec![entry(5, "again")]).is_err());
    rig.append(7, vec![Record::TruncateFrom { index: 5 }, entry(9, "any again: empty, never purged")]).unwrap();
    rig.append(7, vec![purge(20)]).unwrap();
    assert!(rig.append(7, vec![entry(20, "purged")]).is_err());
    assert!(rig.append(7, vec![entry(22, "gap")]).is_err());
    assert_eq!((rig.wal.group(G).first_index, rig.wal.group(G).last_index), (21, None));
    rig.append(7, vec![entry(21, "next")]).unwrap();
    assert!(rig.wal.append(G, vec![purge(u64::MAX)], ignore()).is_err());
    rig.append(7, vec![Record::TruncateFrom { index: u64::MAX }, purge(3)]).unwrap();
    rig.settle();
    rig.reopen();
    assert_eq!(rig.wal.group(G).purged, Some((20, Bytes::from("mark 20"))));
}

#[test]
fn truncated_entries_are_replaced_by_the_ones_appended_after() {
    let mut rig = Rig::new();
    rig.append(7, (0..10).map(|index| entry(index, format!("old {index}"))).collect()).unwrap();
    rig.settle();
    // Not written yet when it is truncated, and truncated again within one append.
    rig.append(7, vec![entry(10, "pending")]).unwrap();
    rig.append(7, vec![Record::TruncateFrom { index: 4 }, entry(4, "new 4"), entry(5, "wrong")]).unwrap();
    assert_eq!(rig.wal.durable_index(G), Some(3));
    rig.append(7, vec![Record::TruncateFrom { index: 5 }, entry(5, "new 5")]).unwrap();
    rig.settle();
    assert_eq!(rig.wal.durable_index(G), Some(5));
    rig.reopen();
    let read: Vec<_> = rig.wal.read(G, 3, 99, 99).unwrap().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(read, ["old 3", "new 4", "new 5"]);
}

#[test]
fn a_replaced_entry_is_never_read_from_where_the_old_one_was_written() {
    let mut rig = Rig::on(FaultDisk::default(), Options { cache_bytes: 0, ..small() });
    rig.append(7, vec![entry(0, "kept"), entry(1, "old")]).unwrap();
    rig.append(7, vec![Record::TruncateFrom { index: 1 }, entry(1, "new"), entry(2, "last")]).unwrap();
    rig.settle();
    assert_eq!(rig.wal.stats().cache_bytes, 0);
    let read: Vec<_> = rig.wal.read(G, 0, 9, 99).unwrap().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(read, ["kept", "new", "last"]);
}

#[test]
fn votes_and_entries_keep_their_order_across_groups() {
    // Each append alone in a frame; a crash after any of them finds exactly those before.
    for kept in 0..12_u64 {
        let mut rig = Rig::new();
        for at in 0..12 {
            let vote = Record::Vote(Bytes::from(at.to_string()));
            let records = if at % 2 == 0 { vec![vote] } else { vec![entry(at / 4, at.to_string()), vote] };
            rig.append((at % 4) as u32, records).unwrap();
            if at < kept {
                rig.settle();
            }
        }
        rig.disk.kill();
        rig.reopen();
        assert_eq!(rig.history.len() as u64 - 1, kept);
    }
}

#[test]
fn a_failed_sync_poisons_the_log_and_is_never_tried_again() {
    for fail_sync in [true, false] {
        let mut rig = Rig::new();
        rig.append(7, vec![entry(0, "kept")]).unwrap();
        rig.settle();
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        for index in 1..4 {
            let outcomes = Arc::clone(&outcomes);
            let done = Box::new(move |outcome: io::Result<()>| {
                outcomes.lock().unwrap().push(outcome.unwrap_err().to_string());
            });
            rig.wal.append(G, vec![entry(index, "lost")], done).unwrap();
        }
        if fail_sync {
            rig.disk.fail_syncs(true);
        } else {
            rig.disk.fail_writes(true);
        }
        rig.settle();
        rig.disk.fail_syncs(false);
        rig.disk.fail_writes(false);
        let verb = if fail_sync { "sync" } else { "write" };
        assert_eq!(*outcomes.lock().unwrap(), vec![format!("{verb} /wal/00000001.wal: injected"); 3]);
        assert!(rig.wal.is_poisoned().unwrap().contains(verb));
        let operations = rig.disk.operations();
        assert!(matches!(rig.wal.append(G, vec![entry(4, "no")], ignore()), Err(AppendError::Poisoned { .. })));
        assert!(rig.wal.wait_durable(G, 3, Duration::from_secs(60)).is_err());
        rig.stepper.idle();
        rig.settle();
        assert_eq!((rig.disk.operations(), rig.wal.stats().queue_bytes), (operations, 0));
        assert_eq!(rig.wal.read(G, 0, 1, 9).unwrap().len(), 1, "reading goes on");
    }
}

#[test]
fn a_full_disk_poisons_with_a_clear_message_and_loses_nothing_acknowledged() {
    let mut rig = Rig::new();
    rig.disk.fill_up(20_000);
    for index in 0..1000 {
        if rig.append(7, vec![entry(index, vec![1; 500])]).is_err() {
            break;
        }
        rig.settle();
    }
    let reason = rig.wal.is_poisoned().expect("poisoned");
    assert!(reason.starts_with("create a write-ahead log segment, /wal/spare-"), "{reason}");
    assert!(reason.ends_with("no storage space"), "{reason}");
    assert!(rig.acknowledged() > 10);
    let acknowledged = rig.acknowledged();
    rig.disk.crash(&mut super::fault::Rng(1));
    rig.reopen();
    assert_eq!(rig.wal.group(G).last_index, Some(acknowledged as u64 - 1));
    assert!(rig.disk.files().keys().all(|path| path.extension().is_some_and(|kind| kind == "wal")));
}

#[test]
fn the_queue_is_bounded_but_one_large_append_passes() {
    let disk = FaultDisk::default();
    let options = Options { queue_bytes: 1000, ..small() };
    let (wal, mut stepper) = Wal::open_stepped(Arc::new(disk), Path::new(DIR), options).unwrap();
    wal.append(G, vec![entry(0, vec![0; 30_000])], ignore()).unwrap();
    let refused = wal.append(G, vec![entry(1, "x")], ignore());
    assert!(matches!(refused, Err(AppendError::Full { queued: 30_021, limit: 1000 })), "{refused:?}");
    assert_eq!(wal.group(G).last_index, Some(0));
    stepper.step();
    wal.append(G, vec![entry(1, "x")], ignore()).unwrap();
    stepper.step();
    assert_eq!(wal.read(G, 0, 2, usize::MAX).unwrap().len(), 2);
    let large = vec![entry(2, vec![0; 256 << 20])];
    assert!(matches!(wal.append(G, large, ignore()), Err(AppendError::TooLarge { .. })));
}

#[test]
fn a_purge_gives_segments_back_so_that_a_long_load_needs_few_files() {
    let mut rig = Rig::new();
    let mut most = 0;
    for index in 0..2000_u64 {
        rig.append((index % 2) as u32, vec![entry(index / 2, vec![3; 300])]).unwrap();
        if index % 20 >= 18 {
            rig.append((index % 2) as u32, vec![purge(index / 2)]).unwrap();
        }
        rig.settle();
        most = most.max(rig.disk.files().len());
        rig.history.drain(..rig.history.len() - 1);
        rig.reset_acknowledged();
    }
    let stats = rig.wal.stats();
    assert!(most <= 5, "{most} files");
    assert!(stats.recycled > 70 && stats.created < stats.recycled / 4, "{stats:?}");
    assert_eq!(stats.segments + stats.spare_segments, rig.disk.files().len() as u64);
    rig.reopen();
}

#[test]
fn a_vote_outlives_the_segment_it_was_written_to() {
    let mut rig = Rig::new();
    rig.append(3, vec![Record::Vote(Bytes::from_static(b"term 1"))]).unwrap();
    rig.wal.set_committed(GroupId(3), Bytes::from_static(b"committed"));
    for index in 0..200 {
        rig.append(7, vec![entry(index, vec![3; 300]), purge(index)]).unwrap();
        rig.settle();
    }
    assert!(!rig.disk.files().contains_key(&Path::new(DIR).join("00000001.wal")));
    rig.reopen();
    assert_eq!(rig.wal.group(GroupId(3)).vote, Some(Bytes::from_static(b"term 1")));
    assert_eq!(rig.wal.group(GroupId(3)).committed, Some(Bytes::from_static(b"committed")));
    assert_eq!(rig.wal.group(G).first_index, 200);
    assert_eq!(rig.wal.durable_index(G), Some(199));
}

/// A barrier writes nothing; a segment that was begun just before a crash has no head yet that older ones could rely on.
#[test]
fn no_segment_goes_before_the_next_ones_head_is_durable() {
    for operations in 0..120 {
        let mut rig = Rig::new();
        rig.append(3, vec![Record::Vote(Bytes::from_static(b"term 1"))]).unwrap();
        rig.settle();
        rig.disk.die_after(operations);
        for index in 0..40 {
            if rig.append(7, vec![entry(index, vec![3; 600]), purge(index)]).is_err() {
                break;
            }
            rig.settle();
        }
        rig.disk.kill();
        rig.reopen();
        rig.append(7, vec![]).unwrap();
        rig.settle();
        rig.reopen();
        assert!(rig.wal.group(GroupId(3)).vote.is_some(), "after {operations} operations");
    }
}

#[test]
fn nothing_is_left_behind_the_recovered_end() {
    let mut rig = Rig::on(FaultDisk::default(), Options { segment_bytes: 32_768, ..small() });
    rig.append(7, vec![entry(0, "a")]).unwrap();
    rig.settle();
    let path = Path::new(DIR).join("00000001.wal");
    let whole = rig.disk.files().remove(&path).unwrap();
    rig.disk.edit(&path, |file| file[4400..30_000].fill(0xee));
    rig.reopen();
    assert!(rig.disk.files()[&path] == whole);
}

#[test]
fn entries_of_one_group_hold_the_segments_that_others_have_purged() {
    let mut rig = Rig::new();
    rig.append(3, vec![entry(0, "held")]).unwrap();
    for index in 0..100 {
        rig.append(7, vec![entry(index, vec![3; 300]), purge(index)]).unwrap();
        rig.settle();
    }
    assert_eq!(rig.wal.stats().recycled, 0);
    rig.append(3, vec![Record::TruncateFrom { index: 0 }]).unwrap();
    rig.settle();
    assert_eq!(rig.wal.stats().segments, 1);
    rig.reopen();
}

#[test]
fn frames_left_in_a_recycled_segment_are_never_read_as_new() {
    let mut stale = 0;
    for rounds in 80..120 {
        // The same append in every round, so that the old frames lie exactly where the new ones would.
        let mut rig = Rig::on(FaultDisk::default(), Options { segment_bytes: 32_768, ..small() });
        for _ in 0..rounds {
            rig.append(7, vec![Record::TruncateFrom { index: 0 }, entry(0, vec![9; 600])]).unwrap();
            rig.settle();
        }
        for bytes in rig.disk.files().into_values() {
            let Ok(header) = segment::Header::decode(&bytes) else { continue };
            let old = |at: &usize| {
                let of = |generation| frame::Header::decode(&bytes[*at..], frame::seed(generation)).is_some();
                (1..header.generation).any(of)
            };
            stale += (segment::HEADER_BYTES..bytes.len()).step_by(frame::ALIGN).filter(old).count();
        }
        rig.disk.crash(&mut super::fault::Rng(rounds));
        rig.reopen();
        assert_eq!(rig.history.len() as u64, rounds + 1);
    }
    assert!(stale > 40, "there are stale frames to be mistaken: {stale}");
}

#[test]
fn an_idle_log_records_its_frontier_once() {
    let mut rig = Rig::new();
    rig.append(7, vec![entry(0, "a")]).unwrap();
    rig.settle();
    let frames = rig.wal.stats().frames;
    rig.stepper.idle();
    rig.stepper.idle();
    assert_eq!((rig.wal.stats().frames, rig.wal.stats().frontier_frames), (frames + 1, 1));
    rig.wal.set_committed(G, Bytes::from_static(b"c"));
    rig.stepper.idle();
    assert!(!rig.stepper.step());
    assert_eq!(rig.wal.stats().frames, frames + 1, "a committed mark waits for company");
}

/// The frontier's frame once took the queue along and wrote none of it; the writer then slept on an empty queue.
#[test]
fn an_append_that_comes_while_the_frontier_is_recorded_is_not_forgotten() {
    let mut rig = Rig::new();
    rig.append(7, vec![entry(0, "a")]).unwrap();
    rig.settle();
    rig.append(7, vec![entry(1, "b")]).unwrap();
    rig.stepper.idle();
    assert_eq!(rig.wal.handle.shared.lock().queue.len(), 1);
    rig.settle();
    assert_eq!(rig.acknowledged(), 2);
}

#[test]
fn opening_and_closing_changes_nothing_after_the_first_time() {
    let mut rig = Rig::new();
    for _ in 0..30 {
        rig.append_any(&mut super::fault::Rng(5));
    }
    rig.settle();
    rig.stepper.idle();
    let mut files = None;
    for _ in 0..4 {
        rig.reopen();
        rig.stepper.idle();
        let now = rig.disk.files();
        assert!(files.replace(now.clone()).is_none_or(|before| before == now));
    }
}

#[test]
fn an_append_without_records_is_a_barrier() {
    let mut rig = Rig::new();
    rig.append(7, vec![]).unwrap();
    rig.settle();
    assert_eq!((rig.acknowledged(), rig.wal.stats().frames), (1, 0));
    rig.append(7, vec![entry(0, "a")]).unwrap();
    rig.append(7, vec![]).unwrap();
    rig.settle();
    assert_eq!((rig.acknowledged(), rig.wal.stats().frames), (3, 1));
}

#[test]
fn the_cache_is_bounded_and_what_left_it_is_read_from_the_files() {
    let disk = FaultDisk::default();
    let options = Options { cache_bytes: 10_000, segment_bytes: 1 << 16, ..small() };
    let (wal, mut stepper) = Wal::open_stepped(Arc::new(disk), Path::new(DIR), options).unwrap();
    for index in 0..1000_u64 {
        for group in 0..3 {
            wal.append(GroupId(group), vec![entry(index, vec![index as u8; 90])], ignore()).unwrap();
        }
        if index % 7 == 0 {
            stepper.step();
            assert!(wal.stats().cache_bytes <= 10_000);
        }
    }
    stepper.step();
    for group in 0..3 {
        let read = wal.read(GroupId(group), 0, 1000, usize::MAX).unwrap();
        assert!(read.len() == 1000 && read.iter().all(|(index, bytes)| *bytes == vec![*index as u8; 90]));
    }
    for group in 0..3 {
        wal.append(GroupId(group), vec![purge(999)], ignore()).unwrap();
    }
    assert_eq!(wal.stats().cache_bytes, 0);
    stepper.step();
}

#[test]
fn options_out_of_range_are_refused() {
    let options = Options { segment_bytes: 2 << 30, ..small() };
    let refused = Wal::open_stepped(Arc::new(FaultDisk::default()), Path::new(DIR), options).err();
    assert!(matches!(refused, Some(OpenError::Options(_))));
}

#[test]
fn another_segment_length_takes_effect_with_the_next_segment() {
    let mut rig = Rig::new();
    rig.append(7, vec![entry(0, vec![1; 3000])]).unwrap();
    rig.settle();
    let options = Options { segment_bytes: 32_768, ..small() };
    let (wal, mut stepper) = Wal::open_stepped(Arc::new(rig.disk.clone()), Path::new(DIR), options).unwrap();
    for index in 1..10 {
        wal.append(G, vec![entry(index, vec![2; 3000])], ignore()).unwrap();
        stepper.step();
    }
    assert_eq!((wal.stats().segments, wal.stats().bytes), (2, 8192 + 32_768));
    let before = contents(&wal);
    drop((wal, stepper));
    assert_eq!(contents(&open(&rig.disk).unwrap().0), before);
}

#[test]
fn a_closed_log_takes_nothing_and_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal::open(dir.path(), Options { segment_bytes: 1 << 16, ..Options::default() }).unwrap();
    wal.append(G, vec![entry(0, "a")], ignore()).unwrap();
    wal.close();
    wal.close();
    assert_eq!(wal.append(G, vec![entry(1, "b")], ignore()), Err(AppendError::Closed));
    assert_eq!((wal.durable_index(G), wal.read(G, 0, 1, 1).unwrap().len()), (Some(0), 1));
    assert_eq!(wal.stats().frontier_frames, 1);
}
