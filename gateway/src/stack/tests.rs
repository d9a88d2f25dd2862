//! The data plane over real sockets, with a double of the ledger and an upstream that does as it is told.

mod answers;
mod connecting;
mod double;
mod edges;
mod ends;
mod framing;
mod grpc;
mod harness;
mod http2_upstream;
mod proxying;
mod resilience;
mod streaming;
mod tls;
