//! `still serve` and the clients that people have: libnbd's tools, qemu-img, and our own.

#[path = "../support/mod.rs"]
mod support;

mod contexts;
mod control;
mod exports;
mod life;
mod model;
mod server;
mod volumes;
