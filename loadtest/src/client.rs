//! The clients: threads that send what is due when it is due, whatever became of the requests before.
//!
//! Each thread has its own runtime, connections and recorder; nothing of a request leaves its thread. A request is driven
//! together with its connection by one task, so that an answer wakes one task and not two.

mod answer;
mod behaviour;
mod connection;
mod control;
mod generator;
mod journal;
mod pool;
mod retry;
mod settings;
mod throttle;
mod timer;

pub(crate) use answer::{uuid, uuid_text};
pub(crate) use behaviour::Behaviours;
pub(crate) use connection::{NOT_CONNECTED, OUT_OF_FILES};
pub(crate) use control::Control;
pub(crate) use generator::Generator;
pub(crate) use journal::{Entry, Journal, client_id};
pub(crate) use retry::Retry;
pub(crate) use settings::{Settings, Target};
