//! Runs scenarios as the usual test harness does, but starts what they share once, and ends it with them.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Result, anyhow};
use futures::{FutureExt, future::LocalBoxFuture};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::wait;

/// What the scenarios of one binary share.
pub trait Tier: Sized + Send + Sync + 'static {
    /// What one scenario has for itself.
    type World: Send + Sync;

    /// How many scenarios run at once, if the command line does not say. They mostly wait.
    const PARALLEL: usize;

    /// How long anything that is waited for may take: far longer than it needs, since this machine may be busy.
    const PATIENCE: Duration;

    fn start() -> Result<Self>;

    fn world(self: &Arc<Self>, name: &str) -> impl Future<Output = Result<Self::World>> + Send;

    /// What a person needs to understand a failure.
    fn diagnose(world: &Self::World) -> impl Future<Output = String> + Send;
}

/// One scenario.
pub struct Scenario<T: Tier> {
    /// `module::function`.
    pub name: &'static str,
    pub body: for<'a> fn(&'a T::World) -> LocalBoxFuture<'a, Result<()>>,
}

/// Lists async functions that take a `&World` as scenarios: `scenarios![admission: a, b; lifecycle: c]`.
#[macro_export]
macro_rules! scenarios {
    ($($module:ident: $($name:ident),+ $(,)?);+ $(;)?) => {
        vec![$($($crate::Scenario {
            name: concat!(stringify!($module), "::", stringify!($name)),
            body: |world| Box::pin($module::$name(world)),
        }),+),+]
    };
}

/// The `main` of a test binary: the command line is that of the usual harness.
pub fn main<T: Tier>(scenarios: Vec<Scenario<T>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    wait::set_patience(T::PATIENCE);
    arguments.test_threads = arguments.test_threads.or(Some(T::PARALLEL));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Started by the first scenario: a list, or a filter that matches nothing, starts nothing.
    let shared: Arc<OnceLock<Result<Arc<T>, String>>> = Arc::default();
    let trials = scenarios.into_iter().map(|scenario| {
        let (handle, shared) = (runtime.handle().clone(), shared.clone());
        Trial::test(scenario.name, move || {
            let _guard = handle.enter();
            let tier = shared.get_or_init(|| T::start().map(Arc::new).map_err(|error| format!("{error:#}")));
            let tier =
                tier.clone().map_err(|error| Failed::from(format!("this tier does not start: {error}")))?;
            on_a_large_stack(|| {
                let _guard = handle.enter();
                handle.block_on(run(&tier, &scenario))
            })
            .map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // What is shared ends in here: it may need the runtime for that.
    let _guard = runtime.enter();
    drop(shared);
    conclusion.exit_code()
}

/// A long scenario is a large state machine, and without optimisation its parts are put together on the stack.
fn on_a_large_stack(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    const BYTES: usize = 32 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(BYTES).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| Err(anyhow!("{}", panic_message(&*panic))))
    })
}

async fn run<T: Tier>(tier: &Arc<T>, scenario: &Scenario<T>) -> Result<()> {
    let name = scenario.name.rsplit("::").next().unwrap_or(scenario.name);
    let world = tier.world(name).await?;
    let result = AssertUnwindSafe((scenario.body)(&world)).catch_unwind().await;
    let error = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(panic) => anyhow!("{}", panic_message(&*panic)),
    };
    Err(anyhow!("{error:#}\n\n{}", T::diagnose(&world).await))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the scenario panicked").to_owned()
}
