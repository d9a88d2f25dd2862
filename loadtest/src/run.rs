//! One run: from an order to a result.

mod conduct;
mod dry;
mod engine;
mod fleet;
mod order;
mod signals;

pub(crate) use conduct::{Ends, conduct};
pub(crate) use dry::dry_run;
pub(crate) use engine::{Engine, LEAD};
pub(crate) use fleet::{Fleet, Status, is_usage};
pub(crate) use order::{Order, RequestLine, RetryName};
