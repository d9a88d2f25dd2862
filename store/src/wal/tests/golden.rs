//! The format, frozen: today's code writes these bytes and reads them.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use bytes::Bytes;

use super::{
    fault::FaultDisk,
    model::{DIR, Rig, contents, entry, open},
};
use crate::{model::GroupId, wal::Record};

const GOLDEN: &str = include_str!("../testdata/golden.hex");

/// Every kind of record, two groups, two segments, a frontier.
fn golden_log() -> Rig {
    let mut rig = Rig::new();
    rig.append(0, vec![Record::Vote(Bytes::from_static(b"vote 1")), entry(0, "first"), entry(1, "second")]).unwrap();
    rig.append(258, vec![entry(77, "another group")]).unwrap();
    rig.settle();
    rig.wal.set_committed(GroupId(0), Bytes::from_static(b"committed 1"));
    rig.append(0, vec![Record::TruncateFrom { index: 1 }, entry(1, "instead"), entry(2, "")]).unwrap();
    rig.settle();
    rig.append(0, vec![Record::PurgeUpTo { index: 0, mark: Bytes::from_static(b"mark 0") }]).unwrap();
    rig.settle();
    rig.stepper.idle();
    rig.append(258, vec![entry(78, vec![b'x'; 3800])]).unwrap();
    rig.settle();
    rig
}

/// Lines of file, offset and 32 bytes; lines of zeros are left out.
fn dump(files: &BTreeMap<std::path::PathBuf, Vec<u8>>) -> String {
    let mut text = String::new();
    for (path, bytes) in files {
        writeln!(text, "{} {}", path.file_name().unwrap().to_str().unwrap(), bytes.len()).unwrap();
        for (line, bytes) in bytes.chunks(32).enumerate().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            writeln!(text, "{:05x} {hex}", line * 32).unwrap();
        }
    }
    text
}

#[test]
fn the_log_is_written_in_the_frozen_format() {
    let dumped = dump(&golden_log().disk.files());
    if std::env::var_os("TOLLGATE_WRITE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wal/testdata/golden.hex"), &dumped).unwrap();
        return;
    }
    assert_eq!(dumped, GOLDEN, "the format changed: raise its version and keep reading this one");
}

#[test]
fn the_frozen_log_is_read() {
    let disk = FaultDisk::default();
    let mut file = (Path::new(DIR).join("none"), Vec::new());
    for line in GOLDEN.lines().chain(["end 0"]) {
        let (first, second) = line.split_once(' ').unwrap();
        if first.contains("wal") || first == "end" {
            let done = std::mem::replace(&mut file, (Path::new(DIR).join(first), vec![0; second.parse().unwrap()]));
            if !done.1.is_empty() {
                disk.put_file(&done.0, done.1);
            }
            continue;
        }
        let offset = usize::from_str_radix(first, 16).unwrap();
        for at in 0..second.len() / 2 {
            file.1[offset + at] = u8::from_str_radix(&second[2 * at..2 * at + 2], 16).unwrap();
        }
    }
    let (wal, _stepper) = open(&disk).unwrap();
    let rig = golden_log();
    assert_eq!(contents(&wal), *rig.history.last().unwrap());
    assert_eq!(wal.group(GroupId(0)).committed, Some(Bytes::from_static(b"committed 1")));
    assert_eq!(wal.groups(), [GroupId(0), GroupId(258)]);
}
