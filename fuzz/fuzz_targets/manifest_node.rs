//! A manifest node alone, and as the root of a disk that is walked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_store::format::manifest::Node;
use stillpoint_store::id::Hash;
use stillpoint_store::manifest::memory::MemoryNodes;
use stillpoint_store::manifest::walk::Walker;

fuzz_target!(|data: &[u8]| {
    let Ok(node) = Node::decode(data) else { return };
    assert_eq!(node.encode(), data);
    assert_eq!(
        node.children().filter(|c| !c.is_uniform()).count(),
        node.hashes().len()
    );
    let (nodes, root) = (MemoryNodes::default(), Hash::of(data));
    nodes.insert(root, data).expect("it decodes");
    let clusters = 1 << (4 * u32::from(node.level().min(12)) + 3);
    if let Ok(mut walker) = Walker::new(&nodes, root, clusters) {
        // Children are missing; the walk gets past them.
        assert!(walker.by_ref().count() <= 16);
        assert_eq!(walker.position(), clusters);
    }
});
