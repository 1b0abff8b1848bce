//! Packs: written once, read by ranges, proved by their own tables. See FORMAT.md 7.

pub mod reader;
pub mod scan;
pub mod table;
pub mod writer;

#[cfg(test)]
mod shelf;
