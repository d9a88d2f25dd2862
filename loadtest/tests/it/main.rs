//! The binary from outside: real processes, real sockets.

mod cluster;
mod run;
mod selftest;
mod server;
mod traces;

use std::process::{Command, Output};

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
