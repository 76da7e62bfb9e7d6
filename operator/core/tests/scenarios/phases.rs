//! A request that is deleted in whatever phase it is.

use kube::ResourceExt;
use lethe_api::{
    contract::exit,
    v1alpha1::{ConditionType, GateFailureAction, RequestPhase, Stage, annotations},
};
use lethe_core::run;

use crate::{
    cluster::Work,
    script::{everywhere, fixed, request},
    trainer::{Fate, honest, measures},
    world::World,
};

const NAME: &str = "forget-three";

/// A request in this phase. How it gets to be [`RequestPhase::Reexposed`] is in `refuted.rs`.
fn comes_to(world: &mut World, phase: RequestPhase) {
    match phase {
        RequestPhase::Pending => world.with_model(),
        _ => world.ready(),
    }
    match phase {
        RequestPhase::AwaitingApproval => world.edit_policy(|policy| policy.approvals.required = 1),
        RequestPhase::Queued => {
            world.ask("forget-five", &["5"], fixed("8"));
            world.until("another is worked for", |world| world.is_running("forget-five", Stage::Forget));
        }
        RequestPhase::Held => {
            world.edit_policy(|policy| policy.on_gate_failure.action = GateFailureAction::Hold);
            world.trainer = Box::new(|plan, _| measures(plan, |record| record.targets[0].leak.hits = 40));
        }
        RequestPhase::Failed => {
            world.trainer = Box::new(|_, _| Fate::Exits { code: exit::BAD_PLAN, message: String::new() });
        }
        _ => {}
    }
    let target = if phase == RequestPhase::Denied { "eleven" } else { "3" };
    let mut asked = request(NAME, &[target], fixed("8"));
    asked.spec.requested_by = Some("alice".into());
    if phase == RequestPhase::Tried {
        asked.spec.mode = lethe_api::v1alpha1::Mode::Pilot;
    }
    world.apply_request(asked);
    if phase == RequestPhase::Aborted {
        world.until("it trains", |world| world.is_running(NAME, Stage::Forget));
        world.annotate(NAME, annotations::ABORT, "stop");
    }
    world.until("it is so far", |world| world.phase(NAME) == Some(phase));
}

#[test]
fn whatever_its_phase_nothing_works_for_a_request_that_was_deleted_and_what_was_forgotten_stays_so() {
    for phase in RequestPhase::ALL.into_iter().filter(|phase| *phase != RequestPhase::Reexposed) {
        let mut world = everywhere(|world| {
            comes_to(world, phase);
            world.delete_request(NAME);
            // Nobody spoils what others ask for.
            world.trainer = Box::new(|plan, _| honest(plan));
        });
        assert!(!world.cluster.jobs.values().any(Work::is_running), "{phase:?}: a GPU works for nobody");
        let open: Vec<_> = world.cluster.runs.values().filter(|run| !run::is_over(run)).collect();
        assert!(
            open.is_empty(),
            "{phase:?}: {:?}",
            open.iter().map(|run| run.name_any()).collect::<Vec<_>>()
        );
        use RequestPhase::{Fulfilled, Queued, RollingOut};
        let forgotten: &[&str] = match phase {
            RollingOut | Fulfilled => &["3->8"],
            Queued => &["5->8"],
            _ => &[],
        };
        assert_eq!(world.ledger(), forgotten, "{phase:?}");
        assert!(world.model_is(ConditionType::Ready), "{phase:?}\n{}", world.summary());
        // It is nobody's answer any more: whoever asks anew is answered.
        world.edit_policy(|policy| policy.approvals.required = 0);
        world.ask(NAME, &["3"], fixed("8"));
        world.settle();
        assert_eq!(world.phase(NAME), Some(Fulfilled), "after {phase:?}\n{}", world.summary());
    }
}
