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

use std::process::{Command, Output};

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
/// Runs that are repeated because of that, before the machine is called too busy to test on.
const ATTEMPTS: usize = 6;

/// Does what a user does after an invalid run: runs it again, against a server that has forgotten the run before.
fn valid<T>(server: &Server, mut attempt: impl FnMut() -> (i32, T)) -> (i32, T) {
    for _ in 1..ATTEMPTS {
        let (code, told) = attempt();
        if code != INVALID {
            return (code, told);
        }
        server.forget();
    }
    attempt()
}
