//! `internal_snapshot_opts`: the options `snapshot.id` and `snapshot.name`, from 2.0 on.

use crate::compat::failure::Failure;
use crate::compat::release::Release;

/// `SNAPSHOT_OPT_BASE`.
pub const SNAPSHOT_OPT_BASE: &str = "snapshot.";
/// `SNAPSHOT_OPT_ID`.
pub const SNAPSHOT_OPT_ID: &str = "snapshot.id";
/// `SNAPSHOT_OPT_NAME`.
pub const SNAPSHOT_OPT_NAME: &str = "snapshot.name";

/// Which snapshot `convert -l`, `measure -l` and `qemu-nbd -l` mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotArgument {
    /// Options: what is given must fit.
    Options {
        /// `snapshot.id`.
        id: Option<Vec<u8>>,
        /// `snapshot.name`.
        name: Option<Vec<u8>>,
    },
    /// Anything else: an id, or else a name.
    IdOrName(Vec<u8>),
}

/// Reads the argument of `-l`. What begins with `snapshot.` is options, `snapshot.id=3,snapshot.name=a`, with `,,` for a
/// comma in a value; the last of two equal ones counts, and one without a value has the value `on`. -EINVAL for an
/// option that there is not.
pub fn parse_snapshot_argument(
    release: Release,
    argument: &[u8],
) -> Result<SnapshotArgument, Failure> {
    let is_options = argument.starts_with(SNAPSHOT_OPT_BASE.as_bytes());
    if !release.flags().options || !is_options {
        return Ok(SnapshotArgument::IdOrName(argument.to_vec()));
    }
    let (mut id, mut name) = (None, None);
    for option in split(argument) {
        let at = option.iter().position(|b| *b == b'=');
        let (key, value) = match at {
            Some(at) => (&option[..at], option[at + 1..].to_vec()),
            None => option
                .strip_prefix(b"no")
                .map_or((&option[..], b"on".to_vec()), |key| (key, b"off".to_vec())),
        };
        match key {
            key if key == SNAPSHOT_OPT_ID.as_bytes() => id = Some(value),
            key if key == SNAPSHOT_OPT_NAME.as_bytes() => name = Some(value),
            key => return Err(invalid(key)),
        }
    }
    Ok(SnapshotArgument::Options { id, name })
}

/// At single commas; doubled ones are commas. Behind one at the end there is no option.
fn split(argument: &[u8]) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = argument.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte == b',' && bytes.next_if(|b| **b == b',').is_none() {
            options.push(Vec::new());
        } else if let Some(option) = options.last_mut() {
            option.push(*byte);
        }
    }
    if options.last().is_some_and(Vec::is_empty) {
        options.pop();
    }
    options
}

fn invalid(key: &[u8]) -> Failure {
    Failure::new(
        crate::compat::errno::EINVAL,
        [b"Invalid parameter '", key, b"'"].concat(),
    )
}
