//! What a later version writes is refused by its number, in every structure that has one, alone and in a store. Frames and
//! blocks of a table have none: they are of their pack's version.

use super::{files, fixture, open};
use std::fs;
use std::path::Path;
use stillpoint_api::store::format::envelope::{self, EnvelopeKind};
use stillpoint_api::store::format::manifest::Node;
use stillpoint_api::store::format::pack::{PackHeader, Trailer};
use stillpoint_api::store::format::store::StoreFile;
use stillpoint_api::store::id::PackName;
use stillpoint_api::{Error, ErrorKind};

/// Of the golden store's files, the first below a folder.
fn first(folder: &str) -> (String, Vec<u8>) {
    let mut files = files(&fixture()).into_iter();
    files
        .find(|(key, _)| key.starts_with(folder))
        .expect("the fixture has one")
}

fn pack_name(key: &str) -> PackName {
    let parts: Vec<&str> = key.split('/').collect();
    PackName {
        session: parts[1].parse().expect("a session"),
        n: parts[2].parse().expect("a number"),
    }
}

/// The bytes with version 2 at `at` and the checksum that belongs to that, over what comes before it and `more`.
fn newer(bytes: &[u8], at: usize, sum_at: usize, sum: usize, more: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    assert_eq!(bytes[at], 1, "the version is not there");
    bytes[at] = 2;
    let hash = blake3::hash(&[&bytes[..sum_at], more].concat());
    bytes[sum_at..sum_at + sum].copy_from_slice(&hash.as_bytes()[..sum]);
    bytes
}

#[track_caller]
fn names_both(why: &str) {
    assert!(
        why.contains("format version 2, this program knows"),
        "{why}"
    );
}

#[test]
fn store_json() {
    let text = String::from_utf8(first("store.json").1).unwrap();
    let text = text.replace("\"version\": 1", "\"version\": 2");
    let e = StoreFile::decode(text.as_bytes()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    names_both(&e.to_string());
}

#[test]
fn envelopes() {
    for (kind, magic) in [
        (EnvelopeKind::Entry, "log/"),
        (EnvelopeKind::Checkpoint, "checkpoint/"),
    ] {
        let (_, bytes) = first(magic);
        let bytes = newer(&bytes, 8, 64, 32, &bytes[96..]);
        names_both(&envelope::open(kind, &bytes).unwrap_err().to_string());
    }
}

#[test]
fn pack_headers_and_trailers() {
    let (key, bytes) = first("packs/");
    let header = newer(&bytes[..64], 8, 56, 8, &[]);
    names_both(&PackHeader::decode(&header).unwrap_err().to_string());
    let trailer = newer(&bytes[bytes.len() - 64..], 8, 48, 16, &bytes[16..36]);
    names_both(
        &Trailer::decode(&pack_name(&key), &trailer)
            .unwrap_err()
            .to_string(),
    );
}

#[test]
fn manifest_nodes() {
    let mut node = b"SMAN\0\x01\0\0\x01\0\0\0".to_vec();
    assert!(Node::decode(&node).is_ok());
    node[5] = 2;
    names_both(&Node::decode(&node).unwrap_err().to_string());
}

/// The golden store with one file changed, opened and verified.
fn changed(key: &str, bytes: &[u8]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    for (name, old) in files(&fixture()) {
        let path = folder.path().join(&name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, if name == key { bytes } else { &old }).unwrap();
    }
    open(folder.path()).map(|_| ()).expect_err("it is refused")
}

#[test]
fn a_store_with_a_later_description_or_entry_is_not_opened() {
    let text = String::from_utf8(first("store.json").1).unwrap();
    let text = text.replace("\"version\": 1", "\"version\": 2");
    names_both(&changed("store.json", text.as_bytes()).to_string());

    // Entries up to the checkpoint are not read: one after it is.
    let key = "log/00000000000000000009";
    let bytes = files(&fixture())[key].clone();
    let bytes = newer(&bytes, 8, 64, 32, &bytes[96..]);
    names_both(&changed(key, &bytes).to_string());
}
