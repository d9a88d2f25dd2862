//! Cuts, flips, missing and foreign files: the log comes back whole or is refused by name; nothing is lost in silence.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{
    fault::FaultDisk,
    model::{self, Contents, DIR, Rig, contents, entry},
};
use crate::{
    model::GroupId,
    wal::{OpenError, Record, segment},
};

/// Three segments, three groups, all kinds of records.
fn small_log() -> Rig {
    let mut rig = Rig::new();
    let mut next = [0; 3];
    for round in 0..26_u64 {
        let group = round % 3;
        let index = &mut next[group as usize];
        let mut records = vec![entry(*index, vec![round as u8; 250 + 7 * round as usize])];
        *index += 1;
        if round % 5 == 0 {
            records.push(Record::Vote(Bytes::from(format!("vote {round}"))));
        }
        if round % 7 == 6 {
            records.push(Record::TruncateFrom { index: *index - 1 });
            records.push(entry(*index - 1, format!("instead, in round {round}")));
        }
        rig.wal.set_committed(GroupId(1), Bytes::from(round.to_string()));
        rig.append(group as u32, records).unwrap();
        rig.settle();
    }
    rig.append(0, vec![Record::PurgeUpTo { index: 0, mark: Bytes::from_static(b"mark") }]).unwrap();
    rig.settle();
    assert_eq!(rig.wal.stats().segments, 3);
    rig
}

fn segments(disk: &FaultDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().filter(|(path, _)| !path.to_str().unwrap().contains("spare")).collect()
}

/// The damaged log is refused by a message that names `file`, or holds one of `allowed`.
fn check(disk: &FaultDisk, file: &Path, allowed: &[Contents], what: &str) -> bool {
    match model::open(disk) {
        Ok((wal, _)) => {
            assert!(allowed.contains(&contents(&wal)), "{what}: opened with other contents");
            true
        }
        Err(refusal) => {
            let message = refusal.to_string();
            assert!(matches!(refusal, OpenError::Damaged { .. }), "{what}: {message}");
            assert!(message.contains(file.to_str().unwrap()) && message.contains("offset"), "{what}: {message}");
            assert!(message.contains("move it aside"), "{what}: {message}");
            false
        }
    }
}

/// Every byte that means something, and some of the zeros.
fn places(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let frames = segment::HEADER_BYTES..bytes.iter().rposition(|byte| *byte != 0).unwrap() + 40;
    let matters = move |at: &usize| *at < 64 || frames.contains(at) || at.is_multiple_of(61);
    (0..bytes.len()).filter(matters)
}

#[test]
fn every_flipped_byte_below_the_frontier_is_refused_or_harmless() {
    let mut rig = small_log();
    rig.stepper.idle(); // the frontier covers everything now
    let whole = [rig.history.last().unwrap().clone()];
    let (mut refused, mut opened) = (0, 0);
    for (path, bytes) in segments(&rig.disk) {
        for at in places(&bytes) {
            for flip in [0xff, 1 << (at % 8)] {
                let disk = rig.disk.image();
                disk.edit(&path, |file| file[at] ^= flip);
                let what = format!("byte {at} of {} xor {flip:#x}", path.display());
                if check(&disk, &path, &whole, &what) { opened += 1 } else { refused += 1 }
            }
        }
    }
    assert!(refused > 10_000 && opened > 500, "{refused} refused, {opened} opened");
}

#[test]
fn every_flipped_byte_of_the_newest_frame_takes_at_most_that_frame() {
    let rig = small_log();
    let allowed = &rig.history[rig.history.len() - 2..];
    let (path, bytes) = segments(&rig.disk).pop().unwrap();
    let mut torn = 0;
    for at in places(&bytes) {
        let disk = rig.disk.image();
        disk.edit(&path, |file| file[at] ^= 0x55);
        if let Ok((wal, _)) = model::open(&disk) {
            torn += usize::from(contents(&wal) == allowed[0]);
        }
        check(&disk, &path, allowed, &format!("byte {at}"));
    }
    assert!(torn > 32, "the limit that the README states: rot in the newest frame looks like a tear ({torn})");
}

#[test]
fn every_cut_is_refused_or_harmless() {
    for frontier in [false, true] {
        let mut rig = small_log();
        if frontier {
            rig.stepper.idle();
        }
        let whole = [rig.history.last().unwrap().clone()];
        let (mut refused, mut opened) = (0, 0);
        for (path, bytes) in segments(&rig.disk) {
            for at in places(&bytes) {
                let disk = rig.disk.image();
                disk.edit(&path, |file| file.truncate(at));
                let what = format!("{} cut at {at}", path.display());
                if check(&disk, &path, &whole, &what) {
                    opened += 1;
                    // The zeros are back, so that it opens and is written as before.
                    assert_eq!(
                        disk.files()[&path].len(),
                        if path == segments(&disk).pop().unwrap().0 { 8192 } else { at }
                    );
                } else {
                    refused += 1;
                }
            }
        }
        assert!(refused > 5000 && opened > 20, "{refused} refused, {opened} opened");
    }
}

#[test]
fn zeroed_sectors_below_the_frontier_are_refused() {
    let mut rig = small_log();
    rig.stepper.idle();
    for (path, bytes) in segments(&rig.disk) {
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for sector in (segment::HEADER_BYTES..used - 512).step_by(512) {
            let disk = rig.disk.image();
            disk.edit(&path, |file| file[sector..sector + 512].fill(0));
            assert!(!check(&disk, &path, &[], &format!("{} sector {sector}", path.display())));
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let rig = small_log();
    let all = segments(&rig.disk);
    for (at, missing) in ["00000001.wal", "00000002.wal"].into_iter().enumerate() {
        let disk = FaultDisk::default();
        for (path, bytes) in &all {
            if !path.ends_with(missing) {
                disk.put_file(path, bytes.clone());
            }
        }
        let refusal = model::open(&disk).err().expect("refused").to_string();
        let expected =
            ["were in a segment before, which is missing", "00000002.wal at offset 0: the segment is missing"];
        assert!(refusal.contains(expected[at]), "{refusal}");
    }
}

#[test]
fn a_log_whose_newest_segments_are_missing_is_refused_if_a_spare_remembers_them() {
    let mut rig = Rig::new();
    for index in 0..100 {
        rig.append(1, vec![entry(index, vec![7; 1000]), Record::PurgeUpTo { index, mark: Bytes::new() }]).unwrap();
        rig.settle();
    }
    let disk = FaultDisk::default();
    let spares = rig.disk.files().into_iter().filter(|(path, _)| path.to_str().unwrap().contains("spare"));
    spares.for_each(|(path, bytes)| disk.put_file(&path, bytes));
    let refusal = model::open(&disk).err().expect("refused").to_string();
    assert!(refusal.contains("the segment or a later one is missing"), "{refusal}");
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let rig = small_log();
    let (path, _) = segments(&rig.disk).remove(1);
    rig.disk.edit(&path, |file| {
        file[8] = 9;
        let crc = crc32c::crc32c(&file[..40]).to_le_bytes();
        file[40..44].copy_from_slice(&crc);
    });
    let refusal = model::open(&rig.disk).err().expect("refused").to_string();
    assert!(refusal.contains("written by a newer version (log format 9, this version reads 1)"), "{refusal}");
}

#[test]
fn foreign_files_are_left_alone_and_unfinished_spares_are_removed() {
    let rig = small_log();
    let foreign = ["lost+found", "1.wal", "00000001.wal.bak", "spare-00000001.log", "0000000A.wal", "+0000001.wal"];
    for name in foreign {
        rig.disk.put_file(&Path::new(DIR).join(name), b"not ours".to_vec());
    }
    rig.disk.put_file(&Path::new(DIR).join("spare-000000aa.tmp"), vec![0; 100]);
    rig.disk.put_file(&Path::new(DIR).join("spare-000000ab.wal"), vec![0; 100]);
    let (wal, _stepper) = model::open(&rig.disk).unwrap();
    assert_eq!(contents(&wal), *rig.history.last().unwrap());
    let files = rig.disk.files();
    assert!(foreign.iter().all(|name| files[&Path::new(DIR).join(name)] == b"not ours"));
    assert!(!files.keys().any(|path| path.to_str().unwrap().contains("000000a")));
}

#[test]
fn rot_under_a_reader_is_an_error_that_names_file_and_entry() {
    let rig = small_log();
    let (path, bytes) = segments(&rig.disk).remove(0);
    // The first entry's bytes are 250 times its round, 0; the second group's are 1.
    let at = bytes.windows(100).position(|window| window == [1; 100]).unwrap();
    rig.disk.edit(&path, |file| file[at] ^= 4);
    let error = rig.wal.read(GroupId(1), 0, 1, 1).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("entry 0 of group 1") && error.to_string().contains("00000001.wal"), "{error}");
}
