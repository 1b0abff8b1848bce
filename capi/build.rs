//! Gives the shared library the name that programs look for it under.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libstillpoint.so.0");
    println!("cargo:rerun-if-changed=build.rs");
}
