//! Tells the binary where libtorch lies, so that it runs without `LD_LIBRARY_PATH`.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    // In an image the libraries lie beside the binary's folder.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    // Absent with the feature `doc-only`: nothing is linked then.
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else { return };
    // libtorch finds its own libraries relative to the path by which it was opened: it must be the real one.
    let lib = fs::canonicalize(&lib).unwrap_or(lib);
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if lib.join("libtorch_cuda.so").exists() {
        // No symbol of it is named by the code: without this the linker drops it, and no device is found.
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo::rustc-link-arg=-ltorch_cuda");
        println!("cargo::rustc-link-arg=-Wl,--as-needed");
    }
}
