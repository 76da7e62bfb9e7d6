//! What a process that computes should find in its environment. Both libraries that look there do so once, before `main`.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Says that a process was started again, so that it is never started a third time.
const MARK: &str = "LETHE_ENVIRONMENT";

/// How OpenMP's threads wait for each other. They sleep instead of spinning: on two cores that others use too, two
/// threads that spin were measured at a tenth of the speed of two that sleep.
const WAIT_POLICY: (&str, &str) = ("OMP_WAIT_POLICY", "PASSIVE");
/// A step touches some hundred megabytes of tensors that are made anew every time. On pages of 4 KiB the processor keeps
/// looking up where they lie: on a virtual machine a third of the time was spent on that.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Names of all that [`settle`] sets: what a program of another kind should not inherit.
pub const VARIABLES: [&str; 3] = [WAIT_POLICY.0, HUGE_PAGES.0, MARK];

/// Starts this program again, as the same process, with the environment that suits libtorch. A variable for which
/// somebody has chosen a value stays as it is. Call it first in `main`. If it fails, everything works as it is, only
/// slower.
pub fn settle() {
    if env::var_os(MARK).is_some() {
        return;
    }
    let lacking: Vec<_> =
        [WAIT_POLICY, HUGE_PAGES].into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
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
