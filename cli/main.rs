//! The program `still`.
fn main() {}
