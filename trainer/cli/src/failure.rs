//! Everything that ends a command early, sorted into the classes of the contract.

use std::{
    any::Any,
    fmt,
    io::{self, Write},
    panic,
};

use lethe_api::contract::{Failure, PlanError};

use crate::{bar, logging};

pub(crate) type Result<T, E = Failed> = std::result::Result<T, E>;

/// A class, which decides the exit code, and one line for people.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

impl Failed {
    pub(crate) fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }

    pub(crate) fn bad_plan(message: impl Into<String>) -> Self {
        Self::new(Failure::BadPlan, message)
    }

    pub(crate) fn bad_artifact(message: impl Into<String>) -> Self {
        Self::new(Failure::BadArtifact, message)
    }

    pub(crate) fn bad_configuration(message: impl Into<String>) -> Self {
        Self::new(Failure::BadConfiguration, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Failure::Internal, message)
    }

    /// Work that is short enough to do again was told to stop.
    pub(crate) fn stopped() -> Self {
        Self::new(Failure::Interrupted, "interrupted by SIGTERM; a new pod does it again")
    }

    /// Says which artifact an error is about.
    pub(crate) fn of(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<PlanError> for Failed {
    fn from(error: PlanError) -> Self {
        Self::bad_plan(error.to_string())
    }
}

impl From<lethe_store::Error> for Failed {
    fn from(error: lethe_store::Error) -> Self {
        use lethe_store::Error::{Another, Corrupt, NotFound, Refused, TooLarge, Unavailable, Unusable, Uri};
        let failure = match error {
            NotFound { .. } | Corrupt { .. } | Another { .. } | TooLarge { .. } | Refused { .. } => {
                Failure::BadArtifact
            }
            Uri { .. } | Unusable { .. } => Failure::BadConfiguration,
            Unavailable { .. } => Failure::StoreUnavailable,
        };
        Self::new(failure, error.to_string())
    }
}

impl From<lethe_sfd::Error> for Failed {
    fn from(error: lethe_sfd::Error) -> Self {
        use lethe_sfd::Error::{
            Concept, Config, Diverged, Images, Label, Resume, Settings, Stopped, TooFewSamples, Weights,
        };
        let failure = match error {
            Weights { .. } | Images(_) | Resume { .. } => Failure::BadArtifact,
            Config { .. } | Settings(_) | Concept(_) | Label { .. } | TooFewSamples { .. } => {
                Failure::BadPlan
            }
            Diverged { .. } => Failure::Diverged,
            Stopped => return Self::stopped(),
        };
        Self::new(failure, error.to_string())
    }
}

impl Failed {
    /// Says it on stderr, plainly to a person at a terminal and as a line of the log to whoever else reads it, and gives the
    /// exit code that goes with it.
    pub(crate) fn tell(&self) -> i32 {
        if logging::is_terminal() {
            // A terminal that went away is no reason to end otherwise.
            let _ = writeln!(io::stderr(), "{}error: {}", bar::CLEAR, self.message);
        } else {
            tracing::error!(failure = ?self.failure, "{self}");
        }
        self.failure.exit_code()
    }
}

/// Makes panics one line in the log. The default would print libtorch's C++ stack.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "panic: {}", first_line(info.payload()));
    }));
}

/// Runs `work`; a panic inside it, which is how libtorch reports its errors, becomes a failure too.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Whatever `work` was changing is dropped with it, so nothing broken can be seen afterwards.
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    result.unwrap_or_else(|panic| Err(from_panic(panic.as_ref())))
}

fn from_panic(panic: &(dyn Any + Send)) -> Failed {
    let line = first_line(panic);
    if is_out_of_memory(&line) {
        let advice =
            "give the pod more memory (resources.limits of the policy), or the task a device that has it";
        return Failed::new(Failure::OutOfMemory, format!("out of memory: {line}; {advice}"));
    }
    Failed::internal(format!("a defect of the trainer, please report it: {line}"))
}

/// libtorch says what happened in the first line and where, in C++, in the many that follow.
fn first_line(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
    // In the debug form of an error its line ends are escaped.
    text.split(['\n', '\r']).next().unwrap_or_default().split("\\n").next().unwrap_or_default().to_owned()
}

fn is_out_of_memory(text: &str) -> bool {
    let lower = text.to_lowercase();
    ["out of memory", "not enough memory", "can't allocate memory", "bad_alloc"]
        .iter()
        .any(|phrase| lower.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_a_defect() {
        for text in [
            "Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB\")\nframe #0",
            "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
            "std::bad_alloc",
        ] {
            let failed = caught::<()>(|| panic!("{text}")).unwrap_err();
            assert_eq!(failed.failure, Failure::OutOfMemory, "{text}");
            assert!(!failed.message.contains('\n'));
        }
        let failed = caught::<()>(|| panic!("shape mismatch")).unwrap_err();
        assert_eq!(failed.failure, Failure::Internal);
    }

    #[test]
    fn a_shape_error_of_libtorch_is_a_failure_of_one_line() {
        let failed = caught(|| {
            let kind = (tch::Kind::Float, tch::Device::Cpu);
            Ok(tch::Tensor::ones([2, 3], kind).matmul(&tch::Tensor::ones([2, 3], kind)))
        });
        let failed = failed.unwrap_err();
        assert_eq!(failed.failure, Failure::Internal);
        assert!(failed.message.contains("mat1 and mat2"), "{failed}");
    }
}
