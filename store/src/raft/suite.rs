//! openraft's own storage suite over our log and state machine: it runs on every bump of openraft.

use std::sync::Arc;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::{log::LogStore, machine::Machine, types::TypeConfig};
use crate::{
    model::GroupId,
    state::{self, State},
    wal::{self, Wal},
};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a directory");
        // Small, so that the suite's hundred stores do not write gigabytes of zeros.
        let options = wal::Options { segment_bytes: 64 << 10, spare_segments: 0, ..wal::Options::default() };
        let wal = Wal::open(&dir.path().join("wal"), options).expect("opens a log");
        let state = State::open(&dir.path().join("state"), GroupId::LEDGER, state::Options::default());
        let state = Arc::new(state.expect("opens a state"));
        let machine = Machine::new(state, Arc::default(), Arc::new(|_| Ok(())), Arc::new(|_| {}));
        Ok((dir, LogStore::new(wal, GroupId::LEDGER), machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_storage_suite_passes() {
    Suite::test_all(Builder).await.expect("every test of the suite passes");
}
