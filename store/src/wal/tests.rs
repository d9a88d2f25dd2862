//! The log against a disk that forgets, rots, fills up and fails.

mod concurrent;
mod crash;
mod damage;
mod fault;
mod golden;
mod model;
mod random_bytes;
mod rules;
