//! Images in and out of the real program, judged by the real qemu-img. 100 random images; 3000 with `STILL_ROUNDS=full`, any
//! number with `STILL_ROUNDS=<n>`.

mod chains;
mod formats;
mod hostile;
mod random;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod tools;
