//! The command line of `still qemu-img`.
