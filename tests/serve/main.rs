//! `still serve` and the clients that people have: libnbd's tools, qemu-img, and our own.

#[path = "../support/mod.rs"]
mod support;

mod contexts;
mod exports;
mod life;
mod server;
