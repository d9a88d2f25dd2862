//! The data plane over real sockets, with a double of the ledger and an upstream that does as it is told.

mod answers;
mod double;
mod ends;
mod framing;
mod harness;
mod measure;
mod proxying;
mod streaming;
mod tls;
