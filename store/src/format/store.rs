//! `store.json`: what a store is and how it cuts disks. Written once by `init`; the only stored text. See FORMAT.md 2.

use crate::error::{Error, ErrorKind, Result};
use crate::geometry::{Compression, Geometry};
use crate::id::{Hash, Uid, parse_hex};
use serde::{Deserialize, Serialize};

/// Key of the object.
pub const STORE_KEY: &str = "store.json";
/// Bytes that the document has at most.
pub const STORE_BYTES_MAX: u64 = 64 << 10;
/// The version that this program writes, and the only one that it reads.
pub const STORE_VERSION: u32 = 1;

const MAGIC: &str = "stillpoint store";
const DOING: &str = "reading the store's description";

/// The contents of `store.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFile {
    /// Random name of the store, repeated in every pack.
    pub id: Uid,
    /// How disks are cut and frames compressed.
    pub geometry: Geometry,
}

/// The members that the checksum covers, in its order.
#[derive(Serialize)]
struct Body<'a> {
    magic: &'a str,
    version: u32,
    id: String,
    cluster_bytes: u32,
    frame_bytes: u32,
    compression: Compression,
}

#[derive(Serialize)]
struct Signed<'a> {
    #[serde(flatten)]
    body: Body<'a>,
    checksum: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    magic: String,
    version: u32,
    id: String,
    cluster_bytes: u32,
    frame_bytes: u32,
    compression: Compression,
    checksum: String,
}

/// What every version, also a later one, can be asked for.
#[derive(Deserialize)]
struct Probe {
    magic: String,
    version: u64,
}

impl StoreFile {
    /// The document.
    ///
    /// # Panics
    /// Never: numbers and strings are always JSON.
    pub fn encode(&self) -> Vec<u8> {
        let signed = Signed {
            body: self.body(),
            checksum: self.checksum().to_string(),
        };
        let mut bytes =
            serde_json::to_vec_pretty(&signed).expect("numbers and strings are always JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads the document; says apart what is no store, a newer store and a damaged one.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        check_version(version_of(bytes)?)?;
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|e| Error::corrupt(DOING, "members are missing or unknown").source(e))?;
        document.check()
    }

    fn body(&self) -> Body<'static> {
        let Geometry {
            cluster_bytes,
            frame_bytes,
            compression,
        } = self.geometry;
        let id = self.id.to_string();
        Body {
            magic: MAGIC,
            version: STORE_VERSION,
            id,
            cluster_bytes,
            frame_bytes,
            compression,
        }
    }

    fn checksum(&self) -> Hash {
        let bytes = serde_json::to_vec(&self.body()).expect("numbers and strings are always JSON");
        Hash::of(&bytes)
    }
}

impl Document {
    fn check(self) -> Result<StoreFile> {
        if self.magic != MAGIC || self.version != STORE_VERSION {
            return Err(not_a_store("its magic or version is another"));
        }
        let Some(id) = parse_hex(&self.id) else {
            return Err(Error::corrupt(DOING, "the id is not 32 hex digits"));
        };
        let Self {
            cluster_bytes,
            frame_bytes,
            compression,
            ..
        } = self;
        let geometry = Geometry {
            cluster_bytes,
            frame_bytes,
            compression,
        };
        let file = StoreFile {
            id: Uid(id),
            geometry,
        };
        if parse_hex(&self.checksum) != Some(file.checksum().0) {
            let why = "the checksum does not fit: the file was damaged or edited";
            return Err(Error::corrupt(DOING, why)
                .hint("put the file back as it was; what it says can not be changed after init"));
        }
        geometry
            .check()
            .map_err(|e| Error::corrupt(DOING, "the geometry cannot be").source(e))?;
        Ok(file)
    }
}

/// The version of the document, also one that this program does not read.
pub fn version_of(bytes: &[u8]) -> Result<u64> {
    if bytes.len() as u64 > STORE_BYTES_MAX {
        return Err(not_a_store(&format!("{} bytes are too many", bytes.len())));
    }
    let probe: Probe = serde_json::from_slice(bytes)
        .map_err(|e| not_a_store("this is not the JSON that init writes").source(e))?;
    if probe.magic != MAGIC {
        return Err(not_a_store("its magic is another"));
    }
    Ok(probe.version)
}

fn check_version(version: u64) -> Result<()> {
    if version > u64::from(STORE_VERSION) {
        let why = format!("format version {version}, this program knows up to {STORE_VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .detail(why)
            .hint("use a newer version of this program"));
    }
    if version < u64::from(STORE_VERSION) {
        return Err(Error::corrupt(
            DOING,
            format!("there was never a format version {version}"),
        ));
    }
    Ok(())
}

fn not_a_store(why: &str) -> Error {
    Error::corrupt(DOING, format!("not a stillpoint store: {why}"))
        .hint("check the path of the store, or make a store with init")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> StoreFile {
        StoreFile {
            id: Uid([7; 16]),
            geometry: Geometry {
                cluster_bytes: 16384,
                frame_bytes: 262_144,
                compression: Compression::Zstd(3),
            },
        }
    }

    fn text() -> String {
        String::from_utf8(file().encode()).unwrap()
    }

    fn refused(text: &str) -> Error {
        StoreFile::decode(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(StoreFile::decode(&file().encode()).unwrap(), file());
        let geometry = Geometry {
            compression: Compression::None,
            ..Geometry::DEFAULT
        };
        let plain = StoreFile { geometry, ..file() };
        assert_eq!(StoreFile::decode(&plain.encode()).unwrap(), plain);
        assert!(
            String::from_utf8(plain.encode())
                .unwrap()
                .contains(r#""compression": "none""#)
        );
    }

    #[test]
    fn the_checksum_covers_the_compact_document_in_the_order_of_the_format() {
        let compact = concat!(
            r#"{"magic":"stillpoint store","version":1,"id":"07070707070707070707070707070707","#,
            r#""cluster_bytes":16384,"frame_bytes":262144,"compression":{"zstd":3}}"#
        );
        assert!(text().contains(&Hash::of(compact.as_bytes()).to_string()));
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number_whatever_else_it_holds() {
        let error = refused(r#"{"magic":"stillpoint store","version":7,"moon":true}"#);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("version 7"), "{error}");
    }

    #[test]
    fn what_is_no_store_is_called_so() {
        for text in [
            "",
            "hello",
            "{}",
            r#"{"magic":"other","version":1}"#,
            "[1,2]",
        ] {
            let error = refused(text);
            assert!(
                error.to_string().contains("not a stillpoint store"),
                "{text}: {error}"
            );
            assert!(error.what_next().is_some());
        }
        assert!(StoreFile::decode(&vec![b' '; 70_000]).is_err());
    }

    #[test]
    fn an_edited_document_is_refused() {
        let edited = text().replace("16384", "32768");
        assert!(refused(&edited).to_string().contains("checksum"));
        let unknown = text().replace("\"version\": 1,", "\"version\": 1, \"more\": 2,");
        assert!(refused(&unknown).to_string().contains("unknown"));
        let twice = text().replace("\"version\": 1,", "\"version\": 1, \"version\": 1,");
        refused(&twice);
    }

    #[test]
    fn a_geometry_that_cannot_be_is_refused_though_its_checksum_fits() {
        let geometry = Geometry {
            cluster_bytes: 5000,
            ..Geometry::DEFAULT
        };
        let error = StoreFile::decode(&StoreFile { geometry, ..file() }.encode()).unwrap_err();
        assert!(error.to_string().contains("geometry"), "{error}");
    }

    #[test]
    fn a_flipped_bit_is_found_or_changes_nothing() {
        let good = file().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // White space and the case of hex digits mean nothing.
            if let Ok(read) = StoreFile::decode(&bad) {
                assert_eq!(read, file(), "bit {bit}");
            }
        }
    }
}
