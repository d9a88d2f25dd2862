//! Connections between peers: the kernel's TCP, or a simulated network's.

#[cfg(feature = "simulation")]
pub(crate) mod simulated;

#[cfg(feature = "simulation")]
pub(crate) use simulated::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream};
#[cfg(not(feature = "simulation"))]
pub(crate) use tokio::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};
