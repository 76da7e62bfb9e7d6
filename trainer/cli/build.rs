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
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // libtorch.so needs libtorch_cuda.so, and no symbol of either is named by the code: without this the linker drops
        // it, and no device is found. The libraries of CUDA are needed where the program runs, not where it is built.
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo::rustc-link-arg=-ltorch");
        println!("cargo::rustc-link-arg=-Wl,--as-needed");
    }
}
