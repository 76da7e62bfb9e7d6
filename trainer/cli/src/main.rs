//! `lethe-trainer`: teach, prepare, forget, evaluate and serve diffusion models in pods.
//!
//! A pod gets a plan or a few flags, talks to the content-addressed store, and says how it went in its
//! termination message and its exit code. It holds no Kubernetes token and decides nothing.

mod artifacts;
mod audit;
mod bar;
mod cli;
mod curves;
mod evaluate;
mod failure;
mod forget;
mod grid;
mod hygiene;
mod images;
mod import;
mod job;
mod live;
mod logging;
mod membership;
mod model;
mod prepare;
mod probe;
mod probing;
mod report;
mod runtime;
mod serve;
mod show;
mod sidecar;
mod teach;
mod termination;
mod train;
mod watch;

use lethe_api::contract::TaskKind;

use cli::Command;

fn main() {
    lethe_sfd::process::settle();
    let command = cli::read().command;
    logging::init();
    failure::log_panics();
    std::process::exit(match command {
        Command::Teach(args) => teach::main(&args),
        Command::Prepare(args) => job::main(TaskKind::Prepare, &args, Ok),
        Command::Forget(args) => job::main(TaskKind::Forget, &args, Ok),
        Command::Evaluate(args) => job::main(TaskKind::Evaluate, &args.job, |plan| args.more.ask(plan)),
        Command::Audit(args) => job::main(TaskKind::Audit, &args, Ok),
        Command::Serve(args) => serve::main(&args),
        Command::Probe(args) => probe::main(&args),
        Command::Membership(args) => membership::main(&args),
        Command::Show(args) => show::main(&args),
        Command::Report(args) => report::main(&args),
        Command::Import(args) => import::main(&args),
    });
}
