//! Directories that cannot be opened, and stored values that must not change.

use std::fs;

use super::*;
use crate::{
    model::{Charge, Profile, Reservation},
    state::{OpenError, ReadError, RowQuery, codec, index::BlockMeta, storage::Storage, tables::Table},
};

fn refused(dir: &Path, group: u32) -> OpenError {
    State::open(dir, GroupId(group), Options::default()).expect_err("refused")
}

fn closed() -> TempDir {
    let mut rig = Rig::new(GroupId::LEDGER);
    rig.rows(1, &[row(1, at(0))]);
    rig.checkpoint();
    let Rig { dir, .. } = rig;
    dir
}

#[test]
fn a_directory_serves_one_process() {
    let rig = Rig::new(GroupId::LEDGER);
    assert!(matches!(refused(rig.dir.path(), 1), OpenError::Locked { path } if path.ends_with("LOCK")));
}

#[test]
fn another_groups_directory_is_refused() {
    let dir = closed();
    assert!(matches!(refused(dir.path(), 2), OpenError::OtherGroup { found: 1, expected: 2, .. }));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let dir = closed();
    fs::write(dir.path().join("state_1/FORMAT"), "tollgate state, format 2\ngroup 1\n").expect("written");
    let error = refused(dir.path(), 1);
    assert!(matches!(error, OpenError::Newer { found: 2, newest: 1, .. }));
    assert!(error.to_string().contains("start the newer build"), "{error}");
}

#[test]
fn newer_values_are_refused_by_name() {
    let dir = closed();
    let storage = Storage::open(&dir.path().join("state_1"), &Options::default()).expect("opens");
    let newer = |txn: &redb::WriteTransaction| {
        let mut table = txn.open_table(Table::Vars.definition()).expect("the table");
        table.insert(&b"state"[..], &[9u8, 0xa0][..]).expect("written");
        Ok(())
    };
    storage.write_main(redb::Durability::Immediate, newer).expect("committed");
    drop(storage);
    let error = refused(dir.path(), 1).to_string();
    assert!(error.contains("version 9") && error.contains("main.redb"), "{error}");
}

#[test]
fn a_format_that_is_empty_or_missing_is_damage_and_not_a_new_state() {
    let dir = closed();
    let format = dir.path().join("state_1/FORMAT");
    let told = |what: &str| {
        let error = refused(dir.path(), 1);
        assert!(matches!(&error, OpenError::Damaged { path, .. } if *path == format), "{error}");
        let text = error.to_string();
        assert!(text.contains(what) && text.contains("restore the data directory from a backup"), "{text}");
    };
    fs::write(&format, "").expect("written");
    told("it is empty");
    fs::write(&format, [0xff, 0xfe]).expect("written");
    told("it says");
    fs::remove_file(&format).expect("removed");
    told("it is missing");
    assert!(!dir.path().join("state_2").exists());
}

#[test]
fn damaged_files_are_refused_by_name() {
    let dir = closed();
    let format = dir.path().join("state_1/FORMAT");
    let whole = fs::read(&format).expect("read");
    fs::write(&format, "?").expect("written");
    assert!(matches!(refused(dir.path(), 1), OpenError::Damaged { path, .. } if path == format));
    fs::write(&format, whole).expect("written");
    let main = dir.path().join("state_1/main.redb");
    let bytes = fs::read(&main).expect("read");
    for (from, to) in [(0, 64), (0, bytes.len()), (64, 512)] {
        let mut bent = bytes.clone();
        bent[from..to].fill(0x55);
        fs::write(&main, &bent).expect("written");
        let error = refused(dir.path(), 1);
        assert!(matches!(&error, OpenError::Damaged { path, .. } if *path == main), "{from}..{to}: {error}");
        assert!(error.to_string().contains("join them"), "{error}");
    }
}

/// A node with a file of rows that is gone, cut short, or of before its newest rows came up "ready" and could not answer for them.
#[test]
fn a_file_of_rows_that_is_missing_cut_or_older_is_refused_by_name() {
    let mut rig = Rig::new(GroupId::LEDGER);
    rig.rows(1, &[row(1, at(0))]);
    rig.checkpoint();
    rig.restart();
    let path = rig.dir.path().join("state_1").join(format!("rows_{DAY}_0.redb"));
    rig.state = None;
    let older = fs::read(&path).expect("read");
    rig.restart();
    rig.rows(2, &[row(2, at(1))]);
    rig.checkpoint();
    rig.state = None;
    let dir = &rig.dir;
    let whole = fs::read(&path).expect("read");
    let found = || match refused(dir.path(), 1) {
        error @ OpenError::Damaged { .. } => error.to_string(),
        error => panic!("{error}"),
    };
    let cut = |bytes: usize| whole[..bytes].to_vec();
    for (bytes, what) in [
        (Some(older), "lacks the rows of entry 2"),
        (Some(cut(whole.len() / 2)), "truncated"),
        (Some(cut(4_096)), ""),
        (Some(Vec::new()), ""),
        (None, "is missing, and main.redb knows of 2 blocks"),
    ] {
        match &bytes {
            Some(bytes) => fs::write(&path, bytes).expect("written"),
            None => fs::remove_file(&path).expect("removed"),
        }
        let told = found();
        assert!(told.contains(path.to_str().expect("text")), "{told}");
        assert!(told.contains(what) && told.contains("join them with an empty one"), "{told}");
        assert_eq!(fs::read(&path).ok(), bytes, "nothing was changed");
    }
    fs::write(&path, &whole).expect("written");
    let state = State::open(dir.path(), GroupId::LEDGER, Options::default()).expect("opens");
    assert_eq!(state.rows(&all()).expect("a page").rows.len(), 2);
}

/// Streamed requests looked unfinished for ever where a day's settling records were lost, and nothing said so.
#[test]
fn a_file_of_settling_records_that_is_missing_or_older_is_refused_by_name() {
    let settles = |number| Row { settles: true, ..row(number, at(0)) };
    let open = |number| Row { completion: Completion::Open, ..row(number, at(0)) };
    let mut rig = Rig::new(GroupId::LEDGER);
    rig.rows(1, &[open(1), open(2)]);
    rig.rows(2, &[settles(1)]);
    rig.checkpoint();
    rig.state = None;
    let name = format!("rows_{DAY}_{}.redb", u16::MAX);
    let path = rig.dir.path().join("state_1").join(&name);
    let older = fs::read(&path).expect("read");
    rig.restart();
    rig.rows(3, &[settles(2)]);
    rig.checkpoint();
    let mut stream = Vec::new();
    rig.state().export(&mut stream).expect("exported");
    rig.state = None;
    let refused_at = |dir: &Path, path: &Path, what: &str| {
        let error = refused(dir, 1);
        assert!(matches!(&error, OpenError::Damaged { path: told, .. } if told == path), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    fs::write(&path, older).expect("written");
    refused_at(rig.dir.path(), &path, "lacks the settling record");
    fs::remove_file(&path).expect("removed");
    refused_at(rig.dir.path(), &path, "is missing, and main.redb knows of settling records");
    // What a snapshot brought is known as well.
    let taken = tempfile::tempdir().expect("a directory");
    let state = State::open(taken.path(), GroupId::LEDGER, Options::default()).expect("opens");
    state.import(&mut &stream[..]).expect("taken in");
    drop(state);
    let path = taken.path().join("state_2").join(&name);
    fs::remove_file(&path).expect("there, and removed");
    refused_at(taken.path(), &path, "is missing, and main.redb knows of settling records");
}

#[test]
fn damage_that_a_read_meets_names_the_file() {
    let dir = closed();
    let path = dir.path().join("state_1").join(format!("rows_{DAY}_0.redb"));
    let state = State::open(dir.path(), GroupId::LEDGER, Options::default()).expect("opens");
    fs::remove_file(&path).expect("removed");
    let told = |state: &State| match state.rows(&all()).expect_err("damaged") {
        ReadError::State(error) => (error.file(), error.to_string()),
        error => panic!("{error}"),
    };
    let name = Some(format!("rows_{DAY}_0.redb"));
    let (file, text) = told(&state);
    assert!(file == name && text.contains("join them with an empty one"), "{file:?} {text}");
    fs::write(&path, [0x55; 10_000]).expect("written");
    let (file, text) = told(&state);
    assert!(file == name && text.contains("join them with an empty one"), "{file:?} {text}");
}

fn all() -> RowQuery {
    RowQuery { limit: 10, ..RowQuery::default() }
}

#[test]
fn a_path_that_is_no_directory_says_what_was_tried() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let error = refused(&file, 1);
    assert!(matches!(error, OpenError::Io { action: "make", .. }), "{error}");
}

#[test]
fn leftovers_of_a_cut_import_or_first_opening_are_cleared_away() {
    let dir = closed();
    fs::create_dir(dir.path().join("new")).expect("made");
    fs::write(dir.path().join("new/main.redb"), "half").expect("written");
    let state = State::open(dir.path(), GroupId::LEDGER, Options::default()).expect("opens");
    assert_eq!(state.stats().rows, 1);
    assert!(!dir.path().join("new").exists());
}

/// Changing what is stored needs a new version of the envelope: these bytes are on disks.
#[test]
fn stored_values_are_frozen() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = State::open(dir.path(), GroupId::META, Options::default()).expect("opens");
    let write = MetaWrite {
        at: at(0),
        actor: "tok_1".into(),
        request_id: "r".into(),
        ops: vec![tier("t"), put_account("a", "t"), put_key(key("key_1", "a", "s"))],
        ..MetaWrite::default()
    };
    let payload = Payload::Command(Command::Cold(ColdCommand::Meta(write)).encode());
    state.apply(&[Entry { id: LogId { term: 1, index: 7 }, payload }]).expect("applied");
    state.checkpoint(&mut |_| Ok(())).expect("checkpoint");
    let main = state.read().storage.read_main().expect("read");
    let hex = |table, key: &[u8]| text(&main.get(table, key).expect("read").expect("there"));
    let found = [
        hex(Table::Tiers, b"t"),
        hex(Table::Accounts, b"a"),
        hex(Table::TierAccounts, b"\0\x01ta"),
        hex(Table::AccountKeys, b"\0\x01akey_1"),
        hex(Table::Keys, b"key_1"),
        hex(Table::Audit, &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1])[..80].to_owned(),
        hex(Table::Vars, b"state"),
    ];
    assert_eq!(found.join("\n"), include_str!("golden_meta.txt").trim_end());
    // As they were before accounts had resets and keys policies of their own.
    let older: Account = codec::decode(&from_text("01886161617400608280801b000660be0ac502406007")).expect("reads");
    assert_eq!(Account { revision: 7, ..account("a", "t") }, older);
    let older: Key = codec::decode(&from_text(
        "018e656b65795f3161615820043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89600064616263648080f6001b\
         000660be0ad44480f6f607",
    ))
    .expect("reads");
    assert_eq!(Key { revision: 7, ..key("key_1", "a", "s") }, older);
    // As it was before the audit's head was kept.
    let (older, _) =
        crate::state::vars::Vars::decode(&[1, 0x87, 1, 0x82, 1, 7, 0xf6, 0, 0x80, 0x80, 0x80]).expect("reads");
    assert!(older.audit_head.is_empty() && older.applied.last.is_some_and(|last| last.index == 7));
    assert!(codec::decode::<Account>(&[2, 0x80]).expect_err("newer").contains("upgrade this node"));
}

#[test]
fn a_ledgers_stored_values_are_frozen() {
    let mut rig = Rig::new(GroupId::LEDGER);
    let charges = vec![Charge { quota: "q".into(), period_start: 0, units: 3 }];
    let settles = Row { settles: true, charges, ..row(1, at(0)) };
    let (node, account, quota, limit) = (NodeId(1), "acme".into(), "q".into(), 10);
    let demand = Reservation {
        node,
        incarnation: 1,
        account,
        quota,
        period_start: 0,
        units: 5,
        limit,
        watch: None,
        look_at: None,
    };
    rig.payload(Payload::Membership(Bytes::from_static(b"m")));
    rig.cold(ColdCommand::NodeStarted { node, incarnation: 1 });
    rig.cold(ColdCommand::Reserve(vec![demand]));
    let (account, stage, published) = ("acme".into(), "s".to_owned(), String::new());
    rig.cold(ColdCommand::StageProfile { account, stage, published, profile: Profile::default() });
    rig.rows(1, &[row(2, at(1)), settles]);
    rig.cold(ColdCommand::DropBefore { day: 1, class: 0 });
    rig.checkpoint();
    let replica = rig.state().read();
    let main = replica.storage.read_main().expect("read");
    let mut found = Vec::new();
    for table in [Table::Profiles, Table::Blocks, Table::Usage, Table::Quotas, Table::Vars] {
        for row in main.table(table).expect("open").range::<&[u8]>(..).expect("read") {
            let (key, value) = row.expect("read");
            let value = match table {
                // Its length is the compression library's.
                Table::Blocks => {
                    let meta: BlockMeta = codec::decode(value.value()).expect("a summary");
                    codec::encode(&BlockMeta { bytes: 0, ..meta })
                }
                _ => value.value().to_vec(),
            };
            found.push(format!("{} {} {}", table.name(), text(key.value()), text(&value)));
        }
    }
    let settled = replica
        .storage
        .read_rows((DAY, crate::state::ledger::SETTLED_CLASS))
        .expect("read")
        .expect("there")
        .settled(id(at(0), 1));
    found.push(text(&codec::encode(&settled.expect("read").expect("there"))));
    assert_eq!(found.join("\n"), include_str!("golden_ledger.txt").trim_end());
}

fn from_text(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
