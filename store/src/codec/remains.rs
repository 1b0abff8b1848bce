//! What is left of a damaged frame. Nothing is proved here: an item is good when it has the hash that somebody asks for.

use super::{DecodedFrame, Lengths, decompress_start};
use crate::format::entry::PackKind;
use crate::format::pack::{FRAME_HEADER_BYTES, FrameEncoding, FrameHeader};
use crate::limits::FRAME_BYTES_MAX;

/// LIMIT: the longest item of a node pack, a copy of a record. Bounds what is hashed of places that overlap.
const NODE_ITEM_BYTES_MAX: u32 = 64 << 10;

/// Decodes what comes out of a frame of which any byte may be wrong, or the end missing. `header` need not be the one in
/// `bytes`: a pack's table tells it again. Of a zstd frame comes what stands before the damage and rubble after that.
/// `None` where not even the lengths are there, or the cluster size is not known.
pub fn decode_remains(
    kind: PackKind,
    cluster_bytes: u32,
    header: &FrameHeader,
    bytes: &[u8],
) -> Option<DecodedFrame> {
    let body_at = FRAME_HEADER_BYTES + header.lengths_bytes(kind);
    let lengths = bytes.get(FRAME_HEADER_BYTES..body_at)?;
    let body = &bytes[body_at..];
    let (lengths, wanted) = match kind {
        PackKind::Clusters if cluster_bytes == 0 => return None,
        PackKind::Clusters => (Lengths::Equal(cluster_bytes as usize), header.decoded),
        PackKind::Nodes => node_lengths(lengths, header.decoded),
    };
    // LIMIT: what a frame decodes to, whatever its header says.
    let wanted = wanted.min(FRAME_BYTES_MAX) as usize;
    let mut data = Vec::new();
    match header.encoding {
        FrameEncoding::Raw => data.extend_from_slice(body.get(..wanted).unwrap_or(body)),
        FrameEncoding::Zstd => {
            data.reserve_exact(wanted);
            // What came before the error is in the buffer, zeros behind it.
            let _damaged = decompress_start(body, wanted, &mut data);
        }
    }
    Some(DecodedFrame { data, lengths })
}

/// Bytes of all items by the lengths in front of them.
pub(crate) fn sum_of_lengths(lengths: &[u8]) -> u32 {
    lengths_of(lengths).fold(0, u32::saturating_add)
}

fn lengths_of(bytes: &[u8]) -> impl DoubleEndedIterator<Item = u32> + '_ {
    let lengths = bytes.as_chunks::<4>().0.iter();
    lengths.map(|length| u32::from_le_bytes(*length))
}

/// Where the items are, and how many bytes they need.
///
/// Where the lengths do not add up one of them is wrong, and which is not known: an item before it is where the lengths
/// in front of it put it, one behind it where those that follow do, and the one itself is what is left between. So each
/// is told in all three places.
fn node_lengths(bytes: &[u8], decoded: u32) -> (Lengths, u32) {
    let sum = sum_of_lengths(bytes);
    let mut fronts = Vec::new();
    let mut at = 0u32;
    for length in lengths_of(bytes) {
        fronts.push((at, at.saturating_add(length)));
        at = at.saturating_add(length);
    }
    if sum == decoded {
        let ends = fronts.iter().map(|(_, end)| *end).collect();
        return (Lengths::Ends(ends), decoded);
    }
    let mut backs = Vec::new();
    let mut at = decoded;
    for length in lengths_of(bytes).rev() {
        backs.push((at.saturating_sub(length), at));
        at = at.saturating_sub(length);
    }
    let pairs = fronts.into_iter().zip(backs.into_iter().rev());
    let anywhere = pairs.flat_map(|(front, back)| [front, back, (front.0, back.1)]);
    let possible = |(from, to): &(u32, u32)| from < to && to - from <= NODE_ITEM_BYTES_MAX;
    let places = anywhere.filter(possible).collect();
    (Lengths::Anywhere(places), decoded.max(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{EncodedFrame, encode_frame};
    use crate::geometry::Compression;
    use crate::id::Hash;
    use proptest::prelude::*;

    const C: u32 = 4096;

    fn cluster(n: u32) -> Vec<u8> {
        let mut out = vec![0; C as usize];
        let half = out.len() / 2;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&n.to_le_bytes());
        hasher.finalize_xof().fill(&mut out[..half]);
        out
    }

    fn encoded(kind: PackKind, items: &[Vec<u8>], compression: Compression) -> EncodedFrame {
        let items: Vec<&[u8]> = items.iter().map(|i| &i[..]).collect();
        encode_frame(kind, &items, compression)
    }

    /// Which of the items still come out of these bytes.
    fn found(kind: PackKind, items: &[Vec<u8>], header: &FrameHeader, bytes: &[u8]) -> Vec<bool> {
        let Some(frame) = decode_remains(kind, C, header, bytes) else {
            return vec![false; items.len()];
        };
        let hashes: Vec<Hash> = frame.iter().map(Hash::of).collect();
        items
            .iter()
            .map(|i| hashes.contains(&Hash::of(i)))
            .collect()
    }

    fn lost(found: &[bool]) -> usize {
        found.iter().filter(|found| !**found).count()
    }

    #[test]
    fn a_flipped_byte_of_a_raw_frame_costs_one_cluster() {
        let items: Vec<Vec<u8>> = (0..8).map(cluster).collect();
        let mut bytes = encoded(PackKind::Clusters, &items, Compression::None).bytes;
        let header = FrameHeader::decode(&bytes).unwrap();
        for item in 0..8 {
            let at = FRAME_HEADER_BYTES + item * C as usize + 77;
            bytes[at] ^= 1;
            let found = found(PackKind::Clusters, &items, &header, &bytes);
            assert_eq!((found[item], lost(&found)), (false, 1));
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn of_a_compressed_frame_comes_what_stands_before_the_damage() {
        // Several blocks of zstd, 128 KiB each.
        let items: Vec<Vec<u8>> = (0..128).map(cluster).collect();
        let mut bytes = encoded(PackKind::Clusters, &items, Compression::Zstd(3)).bytes;
        let header = FrameHeader::decode(&bytes).unwrap();
        assert_eq!(header.encoding, FrameEncoding::Zstd);
        let at = bytes.len() * 3 / 4;
        bytes[at] ^= 0x10;
        let damaged = found(PackKind::Clusters, &items, &header, &bytes);
        assert!(damaged[..64].iter().all(|found| *found) && lost(&damaged) > 0);
        bytes[at] ^= 0x10;
        bytes.truncate(at);
        let cut = found(PackKind::Clusters, &items, &header, &bytes);
        assert!(cut[..64].iter().all(|found| *found) && lost(&cut) > 0);
    }

    #[test]
    fn a_flipped_length_of_a_node_costs_nothing() {
        let items: Vec<Vec<u8>> = (1..40u8).map(|n| vec![n; 10 + usize::from(n)]).collect();
        for compression in [Compression::None, Compression::Zstd(3)] {
            let frame = encoded(PackKind::Nodes, &items, compression);
            let header = FrameHeader::decode(&frame.bytes).unwrap();
            for at in 0..header.lengths_bytes(PackKind::Nodes) {
                for bit in 0..8 {
                    let mut bytes = frame.bytes.clone();
                    bytes[FRAME_HEADER_BYTES + at] ^= 1 << bit;
                    let found = found(PackKind::Nodes, &items, &header, &bytes);
                    assert_eq!(lost(&found), 0, "{compression:?}: byte {at} bit {bit}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300), items in 1u16..60,
            decoded in any::<u32>(), zstd in any::<bool>(),
        ) {
            let encoding = if zstd { FrameEncoding::Zstd } else { FrameEncoding::Raw };
            let header = FrameHeader { encoding, items, encoded: 0, decoded, checksum: [0; 8] };
            for (kind, cluster_bytes) in
                [(PackKind::Clusters, C), (PackKind::Clusters, 0), (PackKind::Nodes, C)]
            {
                if let Some(frame) = decode_remains(kind, cluster_bytes, &header, &bytes) {
                    prop_assert!(frame.data().len() <= FRAME_BYTES_MAX as usize);
                    frame.iter().for_each(|item| assert!(item.len() <= frame.data().len()));
                }
            }
        }
    }
}
