//! What travels between stores: a chain of checksummed messages, the same in a file and over a pipe. See FORMAT.md 1.

pub mod ahead;
mod consent;
mod draft;
pub mod edits;
pub mod intake;
pub mod message;
pub mod outcome;
pub mod outgoing;
pub mod plan;
pub mod stream;

pub use consent::Consent;
pub use intake::Intake;
pub use message::Message;
pub use outcome::{Outcome, Taken};
pub use stream::{Incoming, Outgoing, Preamble, Purpose, Side};
