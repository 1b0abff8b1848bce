//! What is said of images beside numbers: checksums of their states, and what is not carried over.

use crate::output::escape::escape;
use crate::report::{Checksum, LeftOut};
use stillpoint_api::{Kept, Output, System};
use stillpoint_store::Result;
use stillpoint_store::format::entry::Content;
use stillpoint_store::progress::Progress;

/// The checksums of states in the store, which are read, and so verified, for it.
pub fn checksums(system: &System, kept: &[Kept], progress: &Progress) -> Result<Vec<Checksum>> {
    let of = |content: Content| {
        let mut hasher = blake3::Hasher::new();
        let output = Output::Stream(&mut hasher);
        system.export_content(content, output, progress)?;
        Ok(hasher.finalize().to_hex().to_string())
    };
    let one = |kept: &Kept| {
        Ok(Checksum {
            state: kept.name.clone(),
            blake3: of(kept.disk)?,
            vm_state_blake3: kept.vm_state.map(of).transpose()?,
        })
    };
    kept.iter().map(one).collect()
}

/// As `b3sum` prints them.
pub fn lines_of_checksums(checksums: &[Checksum]) -> String {
    let line = |c: &Checksum| {
        let name = escape(&c.state);
        let vm_state = c.vm_state_blake3.iter();
        let vm_state = vm_state.map(|hash| format!("{hash}  VM state of {name}\n"));
        format!("{}  {name}\n{}", c.blake3, vm_state.collect::<String>())
    };
    checksums.iter().map(line).collect()
}

/// A line each.
pub fn lines_of_left_out(left_out: &[LeftOut]) -> String {
    let line = |l: &LeftOut| format!("not carried over: {}: {}\n", l.what, escape(&l.why));
    left_out.iter().map(line).collect()
}
