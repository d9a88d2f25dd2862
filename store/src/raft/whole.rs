//! Whether the parts of a data directory belong together: a node that forgot its vote must not vote again, and rows that
//! only its log had would be gone without a word.

use std::{ffi::OsString, path::Path};

use super::node::StartError;
use crate::{
    model::GroupId,
    state::Applied,
    wal::{Disk, GroupState},
};

/// Refuses a directory with groups and without a log: the log is there before the first group is.
pub(super) fn check_files(disk: &dyn Disk, data_dir: &Path) -> Result<(), StartError> {
    let path = data_dir.join("wal");
    let is_segment = |name: &OsString| Path::new(name).extension().is_some_and(|extension| extension == "wal");
    let has_segments = disk.list(&path).is_ok_and(|names| names.iter().any(is_segment));
    let has_groups = std::fs::read_dir(data_dir.join("groups"))
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().is_dir()));
    if !has_segments && has_groups {
        return Err(StartError::Lost { path, lacks: "has no log, but the data directory has groups".into() });
    }
    Ok(())
}

/// Refuses a group whose log or state is not the one that the other was written with.
pub(super) fn check_group(
    data_dir: &Path,
    group: GroupId,
    log: &GroupState,
    state: &Applied,
) -> Result<(), StartError> {
    let applied = state.last.map(|last| last.index);
    if let (Some(applied), None) = (applied, &log.vote) {
        let lacks =
            format!("knows no vote of group {group}, whose state has entry {applied}: a part of the log is lost");
        return Err(StartError::Lost { path: data_dir.join("wal"), lacks });
    }
    if let Some((purged, _)) = log.purged.as_ref().filter(|(purged, _)| applied.is_none_or(|applied| applied < *purged))
    {
        let has = applied.map_or("is empty".into(), |applied| format!("ends at entry {applied}"));
        let lacks = format!("{has}, and the log has given up the entries up to {purged}: a part of the state is lost");
        return Err(StartError::Lost { path: data_dir.join("groups").join(group.to_string()), lacks });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::RealDisk;

    #[test]
    fn a_directory_without_its_log_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        check_files(&RealDisk, dir.path()).expect("an empty directory is a new node's");
        std::fs::create_dir_all(dir.path().join("wal")).expect("creates");
        check_files(&RealDisk, dir.path()).expect("killed before the log's first segment");
        std::fs::create_dir_all(dir.path().join("groups/0")).expect("creates");
        let error = check_files(&RealDisk, dir.path()).expect_err("the log is lost").to_string();
        assert!(error.contains("has no log") && error.contains("from a backup"), "{error}");
        std::fs::write(dir.path().join("wal/00000001.wal"), b"").expect("writes");
        check_files(&RealDisk, dir.path()).expect("what the segment holds is the log's to judge");
    }
}
