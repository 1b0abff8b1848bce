//! How the shared library is linked: the name that programs look for it under, and that it stays.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libstillpoint.so.0");
    // Its threads wait for work as long as the process lives: dlclose must leave their code where it is.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
