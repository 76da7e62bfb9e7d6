//! Lets the program and its tests find libtorch at run time.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let lib = std::path::Path::new(&libtorch).join("lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.canonicalize().unwrap_or(lib).display());
    }
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // As the trainer does (trainer/cli/build.rs).
        println!("cargo::rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo::rustc-link-arg=-ltorch");
        println!("cargo::rustc-link-arg=-Wl,--as-needed");
    }
}
