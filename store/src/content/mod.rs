//! From hashes to bytes: where a cluster is, and reading it verified. Everything here takes locations from pack tables;
//! the index is asked only for hints.

pub mod fetch;
pub mod frames;
pub mod known;
pub mod nodes;
mod places;
pub mod resolve;
pub mod suspects;
pub mod tables;
