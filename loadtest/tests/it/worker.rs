//! A generator that a coordinator sends for.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// Its process, and the address that it listens on; ended when dropped.
pub(crate) struct Worker(Child, pub(crate) String);

impl Worker {
    /// Starts the load tester as one.
    pub(crate) fn start(mut tool: Command, token: &str) -> Self {
        let mut child = tool
            .args(["worker", "--listen", "127.0.0.1:0"])
            .env("TOLLGATE_LOADTEST_TOKEN", token)
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a worker");
        let mut line = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("its first line");
        let addr = line.trim().strip_prefix("worker on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self(child, addr)
    }
}

impl Worker {
    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}
