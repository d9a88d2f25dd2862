//! Rounds of faults on real processes: three nodes in network namespaces, clients that never rest, one fault a round, and
//! after each round the laws.
//!
//! `cargo run -p tests --bin rounds -- --rounds 200` plays them; the seed chooses faults, victims and moments (what the
//! processes make of them is theirs).

mod fault;
mod laws;
mod random;
mod round;
mod wal;
mod world;

pub use fault::{Fault, Kind};
pub use laws::{at_once, rate, rows};
pub use random::Random;
pub use round::{Clients, Outcome};
pub use world::World;
