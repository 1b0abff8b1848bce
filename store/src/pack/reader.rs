//! Reads frames out of packs, one or several adjacent ones in one call. What comes back is raw: the codec proves it.

use crate::codec::spare;
use crate::error::{Error, Result};
use crate::format::pack::FrameRef;
use crate::id::PackName;
use crate::limits::PACK_BYTES_MAX;
use crate::object::{Objects, get_exact};

/// Bytes of a pack that hold several frames.
#[derive(Debug, Clone, Default)]
pub struct Run {
    offset: u32,
    bytes: Vec<u8>,
}

impl Run {
    /// The bytes of a frame that the run was read for.
    pub fn frame(&self, at: FrameRef) -> Option<&[u8]> {
        let start = at.offset.checked_sub(self.offset)? as usize;
        self.bytes.get(start..start.checked_add(at.bytes as usize)?)
    }

    /// The buffer, to be used again.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The stored bytes of a frame, header and all.
pub fn read_frame(objects: &dyn Objects, name: PackName, at: FrameRef) -> Result<Vec<u8>> {
    read_run(objects, name, &[at], Vec::new()).map(Run::into_bytes)
}

/// Reads from the first of `frames` to the last in one call, and what lies between them. They stand in the order of the
/// pack; where gaps are too long to be worth it, the caller makes two runs.
pub fn read_run(
    objects: &dyn Objects,
    name: PackName,
    frames: &[FrameRef],
    mut buffer: Vec<u8>,
) -> Result<Run> {
    let key = name.key();
    let mut end = 0;
    for at in frames {
        at.check().map_err(|e| located(e, objects, name, *at))?;
        if at.offset < end {
            let why = "frames overlap or are out of order";
            return Err(located(
                Error::corrupt("reading frames", why),
                objects,
                name,
                *at,
            ));
        }
        end = at.end();
    }
    let offset = frames.first().map_or(0, |at| at.offset);
    // LIMIT: each place was checked to lie inside a pack.
    debug_assert!(end <= PACK_BYTES_MAX, "checked above");
    spare::fit(&mut buffer, (end.max(offset) - offset) as usize);
    get_exact(objects, &key, u64::from(offset), &mut buffer)?;
    Ok(Run {
        offset,
        bytes: buffer,
    })
}

/// Adds to an error about a frame where the frame is.
#[must_use]
pub fn located(error: Error, objects: &dyn Objects, name: PackName, at: FrameRef) -> Error {
    error
        .at(objects.describe(&name.key()))
        .offset(u64::from(at.offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_frame;
    use crate::error::ErrorKind;
    use crate::format::entry::PackKind;
    use crate::pack::shelf::{C, Shelf, cluster, pack};
    use crate::pack::table::Table;

    #[test]
    fn frames_read_alone_and_in_runs_hold_the_clusters() {
        let pack = pack(0, &[2, 5, 1]);
        let shelf = Shelf::of(&pack);
        let table = Table::read(&shelf, pack.name, &pack.record).unwrap();
        let frames: Vec<FrameRef> = table.frames().map(|f| f.at).collect();
        let run = read_run(&shelf, pack.name, &frames, vec![1; 9]).unwrap();
        let gap = read_run(&shelf, pack.name, &[frames[0], frames[2]], Vec::new()).unwrap();
        assert_eq!(gap.frame(frames[2]), run.frame(frames[2]));
        let mut n = 0;
        for at in frames {
            let alone = read_frame(&shelf, pack.name, at).unwrap();
            assert_eq!(run.frame(at), Some(&alone[..]));
            for item in decode_frame(PackKind::Clusters, C, &alone).unwrap().iter() {
                assert_eq!(item, cluster(n));
                n += 1;
            }
        }
        assert_eq!(n, 8);
    }

    #[test]
    fn a_frame_outside_the_run_or_the_pack_is_no_panic() {
        let pack = pack(0, &[2]);
        let shelf = Shelf::of(&pack);
        let good = FrameRef {
            offset: 64,
            bytes: 100,
        };
        let run = read_run(&shelf, pack.name, &[good], Vec::new()).unwrap();
        assert!(
            run.frame(FrameRef {
                offset: 63,
                bytes: 4
            })
            .is_none()
        );
        assert!(
            run.frame(FrameRef {
                offset: 64,
                bytes: 101
            })
            .is_none()
        );
        assert!(
            run.frame(FrameRef {
                offset: u32::MAX,
                bytes: u32::MAX
            })
            .is_none()
        );
        for at in [(0, 100), (64, u32::MAX), (u32::MAX, 100), (64, 4 << 20)] {
            let at = FrameRef {
                offset: at.0,
                bytes: at.1,
            };
            let error = read_frame(&shelf, pack.name, at).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{at:?}");
            assert!(error.path().is_some());
        }
        assert!(read_run(&shelf, pack.name, &[good, good], Vec::new()).is_err());
    }

    #[test]
    fn a_pack_that_is_gone_is_not_found() {
        let at = FrameRef {
            offset: 64,
            bytes: 100,
        };
        let error = read_frame(&Shelf::default(), pack(0, &[1]).name, at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
