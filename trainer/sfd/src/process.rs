//! What a process that computes should find in its environment. Both libraries that look there do so once, before `main`.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Says that a process was started again, so that it is never started a third time.
const MARK: &str = "LETHE_ENVIRONMENT";

/// How long OpenMP's threads spin before they sleep, in turns of a loop: some microseconds. A step of a perceptron is
/// hundreds of short operations, and threads that sleep at once double its time on two idle cores. Threads that spin for
/// milliseconds, which is libgomp's default, take a tenth of the speed where others use the cores too.
const SPIN: (&str, &str) = ("GOMP_SPINCOUNT", "2000");
/// A step touches hundreds of megabytes of tensors that are made anew every time. On pages of 4 KiB the processor keeps
/// looking up where they lie: on a virtual machine a third of the time was spent on that. And memory that is given back to
/// the kernel has to be zeroed before it is used again, a fifth of a U-Net's time: large blocks too come from the heap, and up to
/// a quarter of a GiB of it is kept free.
const MEMORY: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=268435456",
);

/// Names of all that [`settle`] sets: what a program of another kind should not inherit.
pub const VARIABLES: [&str; 3] = [SPIN.0, MEMORY.0, MARK];

/// Starts this program again, as the same process, with the environment that suits libtorch. A variable for which
/// somebody has chosen a value stays as it is. Call it first in `main`. If it fails, everything works as it is, only
/// slower.
pub fn settle() {
    if env::var_os(MARK).is_some() {
        return;
    }
    let lacking: Vec<_> =
        [SPIN, MEMORY].into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
    if lacking.is_empty() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    again.arg0(arguments.next().unwrap_or_else(|| OsString::from("lethe")));
    // Returns only if it failed.
    let _ = again.args(arguments).envs(lacking).env(MARK, "set").exec();
}
