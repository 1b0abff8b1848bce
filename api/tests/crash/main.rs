//! The whole engine on a disk that crashes, lies, fills up and fails: what was acknowledged is there afterwards, what was
//! not is wholly there or wholly absent, and wrong bytes are never returned.
//!
//! Every test runs on one thread of its own, so that the mutating calls of a workload are the same in every run and a
//! failure names a point that can be gone back to. `STILL_ROUNDS=full` visits every point, `STILL_SEED=N` other ones.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]

mod bench;
mod birth;
mod check;
mod damage;
mod exporting;
mod faults;
mod gone;
mod hearsay;
mod hook;
mod lies;
mod points;
mod space;
mod steps;
mod volume_chain;
mod volume_faults;
mod volumes;
mod watch;
