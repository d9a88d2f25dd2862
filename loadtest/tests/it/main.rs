//! The binary from outside: real processes, real sockets.

mod audited;
mod cluster;
mod http2;
mod refused;
mod run;
mod selftest;
mod server;
mod traces;
mod worker;

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use server::Server;

/// The binary, without the caller's own settings.
fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadtest"));
    for name in ["TOLLGATE_KEY", "TOLLGATE_ADMIN_TOKEN", "TOLLGATE_LOADTEST_TOKEN", "TOLLGATE_TRACE_SALT"] {
        command.env_remove(name);
    }
    command
}

/// Runs it; its exit code and what it said.
fn run(arguments: &[&str]) -> (i32, String) {
    let output: Output = tool().args(arguments).output().expect("run tollgate-loadtest");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

/// The exit code of a run whose generator was late: it says nothing about its target.
const INVALID: i32 = 12;
/// How long runs are repeated because of that, before the machine is called too busy to test on; and the pause before each,
/// in which the tests that keep it busy may end.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(1);

/// Does what a user does after an invalid run: runs it again, against a server that has forgotten the run before.
fn valid<T>(server: &Server, mut attempt: impl FnMut() -> (i32, T)) -> (i32, T) {
    let started = Instant::now();
    loop {
        let (code, told) = attempt();
        if code != INVALID || started.elapsed() > PATIENCE {
            return (code, told);
        }
        std::thread::sleep(PAUSE);
        server.forget();
    }
}
