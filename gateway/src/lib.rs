//! The gateway: the data plane, the admin API, the command line and what ties them together.
//!
//! The rooms meet only in [`app`]: it opens the store, starts the data plane and the admin listener, and ends them.

pub mod admin;
pub mod app;
pub mod config;
pub mod operator;
pub mod stack;
