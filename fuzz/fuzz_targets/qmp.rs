//! Bytes of a control client: framing and parsing never panic, and their memory is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| stillpoint_serve::qmp::swallow(bytes));
