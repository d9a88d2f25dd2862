//! The whole product from outside: real binaries, real sockets, real disks. One binary, so that it links once.

#![allow(missing_docs, reason = "tests say what they say in their names")]

mod admin;
mod architecture;
mod bad_input;
mod build;
mod contract;
mod crash;
mod disk;
mod groups;
mod http2;
mod idempotency;
mod in_force;
mod input;
mod keys;
mod limits;
mod logs;
mod membership;
mod metrics;
mod otlp;
mod quotas;
mod readme;
mod replay;
mod retention;
mod rolling;
mod rounds;
mod secrets;
mod sign_in;
mod smoke;
mod split;
mod start;
mod story;
mod streaming;
mod table;
mod tiers;
mod tls;
mod writers;
// The load tester's own tests have the same.
#[path = "../../loadtest/tests/it/worker.rs"]
mod worker;
