//! `store.json`, as it comes and with its checksum made right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_store::format::store::StoreFile;

fuzz_target!(|data: &[u8]| {
    if let Ok(file) = StoreFile::decode(data) {
        let again = StoreFile::decode(&file.encode()).expect("what was read can be written");
        assert_eq!(again, file);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // In the order of the format and without white space, the checksum is over what stands before it.
    if let Some((body, _)) = text.split_once(r#","checksum":"#) {
        let sum = blake3::hash(format!("{body}}}").as_bytes()).to_hex();
        let signed = format!(r#"{body},"checksum":"{sum}"}}"#);
        if let Ok(file) = StoreFile::decode(signed.as_bytes()) {
            file.geometry.check().expect("was checked");
        }
    }
});
