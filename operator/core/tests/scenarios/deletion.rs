//! Things that go away: requests, models, runs, Jobs.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use lethe_api::v1alpha1::{ConditionType, InitialServing, Reason, RequestPhase, RunPhase, Stage};
use lethe_core::names;

use crate::{
    bases::{NEW, base_is, forgotten},
    script::{MODEL, crashes, everywhere, fixed, model, play},
    world::World,
};

fn asks(world: &mut World) {
    world.ready();
    world.ask("forget-three", &["3"], fixed("8"));
}

fn has_passed(world: &World) -> bool {
    world.run_for("forget-three").and_then(|run| run.status.as_ref()).is_some_and(|s| s.verdict.is_some())
}

#[test]
fn a_request_that_is_deleted_before_its_run_starts_nothing() {
    let world = everywhere(|world| {
        world.with_model();
        world.ask("forget-three", &["3"], fixed("8"));
        world.until("it is prepared", |world| world.audit.runs_created.len() == 1);
        world.delete_request("forget-three");
    });
    assert_eq!(world.audit.runs_created.len(), 1);
    assert!(world.ledger().is_empty());
}

#[test]
fn a_request_that_is_deleted_during_its_run_stops_it_and_its_job() {
    for stage in [Stage::Forget, Stage::Evaluate] {
        let world = everywhere(|world| {
            asks(world);
            world.until("it is worked for", |world| world.is_running("forget-three", stage));
            world.delete_request("forget-three");
        });
        let run = world.run_for("forget-three").unwrap().status.as_ref().unwrap();
        assert_eq!(run.phase, Some(RunPhase::Failed));
        let ready = ConditionType::Ready.find(&run.conditions).unwrap();
        assert!(ready.reason == "Superseded" && ready.message.contains("forget-three"), "{ready:?}");
        assert!(world.job_for("forget-three", stage).is_none(), "no GPU works for nobody");
        assert_eq!(world.named_bundle(), Some(world.baseline()));
        assert!(world.ledger().is_empty());
    }
}

#[test]
fn a_request_that_is_deleted_after_its_gates_is_not_rolled_out() {
    let world = everywhere(|world| {
        asks(world);
        world.until("it passed", has_passed);
        world.delete_request("forget-three");
    });
    let run = world.run_for("forget-three").unwrap().status.as_ref().unwrap();
    assert_eq!(ConditionType::Promoted.find(&run.conditions).unwrap().reason, "Superseded");
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.ledger().is_empty() && world.model_is(ConditionType::Ready));
}

#[test]
fn a_request_that_is_deleted_during_its_roll_out_or_later_stays_in_the_ledger() {
    let world = everywhere(|world| {
        asks(world);
        world.until("it is rolled out", World::is_rolling_out);
        world.delete_request("forget-three");
    });
    assert_eq!(world.ledger(), ["3->8"]);
    let world = everywhere(|world| {
        asks(world);
        world.until("it is fulfilled", |world| world.phase("forget-three") == Some(RequestPhase::Fulfilled));
        world.delete_request("forget-three");
    });
    assert_eq!(world.ledger(), ["3->8"]);
    assert_ne!(world.named_bundle(), Some(world.baseline()));
}

#[test]
fn the_others_of_a_shared_run_go_on_without_a_request_that_is_deleted() {
    let world = play(
        &|world| {
            world.with_model();
            world.ask("forget-three", &["3"], fixed("8"));
            world.ask("forget-five", &["5"], fixed("8"));
            world.until("they are worked for", |world| world.is_running("forget-five", Stage::Forget));
            world.delete_request("forget-three");
        },
        |_| {},
    );
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8"]);
}

#[test]
fn a_request_that_is_created_anew_under_the_same_name_is_another_request() {
    let world = everywhere(|world| {
        asks(world);
        world.until("it is worked for", |world| world.is_running("forget-three", Stage::Forget));
        world.delete_request("forget-three");
        world.ask("forget-three", &["5"], fixed("8"));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["5->8"]);
}

/// The archive of a model that has forgotten three, and a model prepared anew that has not read it.
pub fn archive_found_late(world: &mut World) -> ConfigMap {
    asks(world);
    world.until("it is fulfilled", |world| world.phase("forget-three") == Some(RequestPhase::Fulfilled));
    world.settle();
    let archive = world.cluster.config_maps[&names::ledger_archive(MODEL)].clone();
    // Prepared anew, as far as anybody knows: of the request, nobody knows any more either.
    world.delete_request("forget-three");
    world.settle();
    world.audit.ledgers.clear();
    world.change(|cluster| {
        cluster.config_maps.remove(&names::ledger_archive(MODEL));
        let status = cluster.models.get_mut(MODEL).and_then(|model| model.status.as_mut()).unwrap();
        status.ledger.clear();
        (status.rollout, status.served) = (None, None);
    });
    archive
}

#[test]
fn an_archive_that_is_found_after_the_preparation_is_restored() {
    let mut world = World::new();
    let archive = archive_found_late(&mut world);
    world.change(|cluster| cluster.config_maps.insert(archive.name_any(), archive.clone()));
    world.ask("forget-five", &["5"], fixed("8"));
    world.settle();
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8", "5->8"]);
}

#[test]
fn what_was_made_before_an_archive_was_found_is_not_rolled_out() {
    let mut world = World::new();
    let archive = archive_found_late(&mut world);
    world.ask("forget-five", &["5"], fixed("8"));
    world.until("it is measured", |world| world.is_running("forget-five", Stage::Evaluate));
    let first = world.run_for("forget-five").expect("a run works for it").name_any();
    world.change(|cluster| cluster.config_maps.insert(archive.name_any(), archive.clone()));
    world.settle();
    let status = world.cluster.runs[&first].status.as_ref().unwrap();
    let promoted = ConditionType::Promoted.find(&status.conditions).expect("it passed its gates");
    assert_eq!((promoted.status.as_str(), promoted.reason.as_str()), ("False", "LedgerMoved"));
    let candidate = status.candidate.clone();
    assert!(
        !world.audit.served.contains(&candidate),
        "it was never asked for three: {:?}",
        world.audit.served
    );
    // It is worked for again.
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8", "5->8"]);
}

/// It knows as many entries: only what honours them is older.
#[test]
fn a_status_from_before_another_base_does_not_bring_the_old_one_back() {
    let mut world = World::new();
    forgotten(&mut world);
    let before = world.model().status.clone();
    world.edit_base(NEW);
    world.until("it is in service", |world| base_is(world, NEW) && world.model_is(ConditionType::Ready));
    world.settle();
    let (served, times) = (world.named_bundle(), world.audit.served.len());
    world.change(|cluster| cluster.models.get_mut(MODEL).unwrap().status = before.clone());
    world.settle();
    assert!(base_is(&world, NEW) && world.model_is(ConditionType::Ready), "{}", world.summary());
    assert_eq!((world.named_bundle(), world.audit.served.len()), (served, times), "{:?}", world.audit.served);
}

#[test]
fn an_archive_that_is_another_ledger_is_never_written_over() {
    let mut world = World::new();
    asks(&mut world);
    world.until("it is fulfilled", |world| world.phase("forget-three") == Some(RequestPhase::Fulfilled));
    world.settle();
    let name = names::ledger_archive(MODEL);
    let foreign = world.change(|cluster| {
        let archive = cluster.config_maps.get_mut(&name).expect("written when three was forgotten");
        for text in archive.data.iter_mut().flat_map(|data| data.values_mut()) {
            *text = text.replace("\"3\"", "\"9\"");
        }
        archive.clone()
    });
    world.ask("forget-five", &["5"], fixed("8"));
    world.settle();
    let (status, reason, message) = world.model_condition(ConditionType::Prepared);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "LedgerConflict"), "{message}");
    assert_eq!(world.cluster.config_maps[&name].data, foreign.data);
}

/// It is deleted while its archive holds this: it goes all the same, what it had forgotten is kept, and a model of its name does
/// nothing before somebody has chosen.
fn a_model_goes_beside(spoil: fn(&str) -> String) {
    let name = names::ledger_archive(MODEL);
    let delete = |world: &mut World| {
        asks(world);
        world.until("it is fulfilled", |world| world.phase("forget-three") == Some(RequestPhase::Fulfilled));
        world.until("its ledger is kept", |world| world.cluster.config_maps.contains_key(&name));
        world.change(|cluster| {
            let archive = cluster.config_maps.get_mut(&name).expect("written when three was forgotten");
            for text in archive.data.iter_mut().flat_map(|data| data.values_mut()) {
                *text = spoil(text);
            }
        });
        world.delete_model();
        world.until("it is gone", |world| world.cluster.models.is_empty());
    };
    let mut world = everywhere(|world| {
        delete(world);
        // It comes back without one until somebody has chosen: that is what the condition says.
        world.audit.ledgers.clear();
        world.apply_model(model(InitialServing::Baseline));
    });
    let kept = world.cluster.config_maps[&name].data.clone().unwrap();
    let aside: Vec<_> = kept.keys().filter(|key| key.starts_with("ledger-of-")).collect();
    assert!(kept.len() == 2 && aside.len() == 1, "{kept:?}");
    let (status, reason, message) = world.model_condition(ConditionType::Prepared);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "LedgerUnreadable"), "{message}");
    assert!(message.contains(aside[0]) && world.ledger().is_empty(), "{message}");
    let right = kept[aside[0]].clone();
    let choose = |cluster: &mut crate::cluster::Cluster| {
        let archive = cluster.config_maps.get_mut(&name).expect("it is still there");
        archive.data = Some([("ledger.json".to_owned(), right.clone())].into());
    };
    world.change(choose);
    world.settle();
    assert_eq!(world.ledger(), ["3->8"]);
    assert!(world.model_is(ConditionType::Compliant), "{}", world.summary());
}

#[test]
fn a_model_whose_archive_is_another_ledger_can_be_deleted_and_leaves_both() {
    a_model_goes_beside(|text| text.replace("\"3\"", "\"9\""));
}

#[test]
fn a_model_whose_archive_cannot_be_read_can_be_deleted_and_leaves_its_ledger_beside_it() {
    a_model_goes_beside(|text| text[..text.len() / 2].to_owned());
}

#[test]
fn a_deleted_model_leaves_its_ledger_and_gets_it_back() {
    let delete = |world: &mut World| {
        asks(world);
        world.until("it is fulfilled", |world| world.phase("forget-three") == Some(RequestPhase::Fulfilled));
        world.delete_model();
        world.until("it is gone", |world| world.cluster.models.is_empty());
    };
    let world = everywhere(delete);
    assert!(world.cluster.config_maps.contains_key(&names::ledger_archive(MODEL)));
    assert!(world.cluster.runs.is_empty() && world.cluster.jobs.is_empty());
    let served = world.named_bundle();
    assert!(served.is_some() && served != Some(world.baseline()), "a deleted model is served as before");

    let world = everywhere(|world| {
        delete(world);
        world.apply_model(model(InitialServing::Baseline));
    });
    assert_eq!(world.ledger(), ["3->8"]);
    assert_eq!(world.named_bundle(), served, "nothing that was forgotten is served");
    assert!(world.model_is(ConditionType::Compliant) && world.model_is(ConditionType::Ready));

    let world = everywhere(|world| {
        delete(world);
        world.apply_model(model(InitialServing::Baseline));
        world.ask("forget-five", &["5"], fixed("8"));
    });
    assert_eq!(world.ledger(), ["3->8", "5->8"]);
    world.ended("forget-five", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}

#[test]
fn a_ledger_survives_the_loss_of_every_status() {
    let mut world = World::new();
    asks(&mut world);
    world.settle();
    let served = world.named_bundle();
    // A backup or a repository brings specs back, and nobody deleted anything in an orderly way.
    world.cluster.models.clear();
    world.cluster.runs.clear();
    world.cluster.jobs.clear();
    world.apply_model(model(InitialServing::Baseline));
    world.settle();
    assert_eq!(world.ledger(), ["3->8"]);
    assert_eq!(world.named_bundle(), served, "nothing that was forgotten is served");
}

#[test]
fn a_model_that_comes_back_does_not_wait_for_its_preparation_to_honour_the_ledger() {
    let mut world = World::new();
    asks(&mut world);
    world.settle();
    world.delete_model();
    world.settle();
    let forgetful = world.baseline();
    world.drift(Some(forgetful.as_str()));
    world.trainer = Box::new(|_, _| crate::trainer::Fate::Hangs);
    world.apply_model(model(InitialServing::Baseline));
    world.until("what was forgotten is not served", |world| world.named_bundle() != Some(world.baseline()));
    assert!(!world.model_is(ConditionType::Prepared));
}

#[test]
fn a_model_can_be_deleted_and_come_back_at_any_time() {
    type Moment = (&'static str, fn(&World) -> bool);
    let moments: [Moment; 6] = [
        ("it is prepared", |world| world.cluster.jobs.values().any(|work| work.is_running())),
        ("it is asked", |world| world.cluster.requests.contains_key("forget-three")),
        ("it is trained", |world| world.is_running("forget-three", Stage::Forget)),
        ("it is evaluated", |world| world.is_running("forget-three", Stage::Evaluate)),
        ("it passed", has_passed),
        ("it is rolled out", World::is_rolling_out),
    ];
    for (what, reached) in moments {
        let world = everywhere(|world| {
            world.with_model();
            world.ask("forget-three", &["3"], fixed("8"));
            world.until(what, reached);
            world.delete_model();
            world.until("it is gone", |world| {
                world.cluster.models.is_empty() && world.cluster.runs.is_empty()
            });
            world.apply_model(model(InitialServing::Baseline));
        });
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert_eq!(world.ledger(), ["3->8"], "{what}");
    }
}

#[test]
fn nothing_of_a_finished_run_is_made_again_when_it_vanishes() {
    let mut world = World::new();
    asks(&mut world);
    world.settle();
    let (jobs, answers) = (world.audit.jobs_created.clone(), world.answers());
    world.now += SignedDuration::from_hours(24 * 7);
    world.settle();
    assert!(world.cluster.jobs.is_empty(), "their time is over");
    world.change(|cluster| cluster.runs.clear());
    world.settle();
    assert_eq!(world.audit.jobs_created, jobs);
    assert_eq!(world.answers(), answers);
}

#[test]
fn a_run_that_somebody_deletes_is_made_again() {
    for stage in [Stage::Forget, Stage::Evaluate] {
        let world = crashes(&|world: &mut World| {
            asks(world);
            world.until("it is worked for", |world| world.is_running("forget-three", stage));
            world.change(|cluster| cluster.runs.retain(|_, run| run.spec.requests.is_empty()));
        });
        world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
        assert_eq!(world.ledger(), ["3->8"]);
    }
}

#[test]
fn a_run_that_is_deleted_during_its_roll_out_is_rolled_back_and_made_again() {
    let delete = |world: &mut World| {
        asks(world);
        world.until("it is rolled out", World::is_rolling_out);
        world.change(|cluster| cluster.runs.retain(|_, run| run.spec.requests.is_empty()));
    };
    let world = crashes(&delete);
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
    assert_eq!(world.ledger(), ["3->8"]);
    // Nobody asks any more: what cannot be put into the ledger is not served.
    let world = crashes(&|world: &mut World| {
        delete(world);
        world.delete_request("forget-three");
    });
    assert!(world.ledger().is_empty());
    assert_eq!(world.named_bundle(), Some(world.baseline()));
    assert!(world.model_is(ConditionType::Ready), "{}", world.summary());
}

#[test]
fn a_run_that_is_deleted_after_its_roll_out_failed_gets_another_chance() {
    let world = crashes(&|world: &mut World| {
        world.comes_up =
            Box::new(|named| named.is_none_or(|named| *named == crate::trainer::digest("baseline")));
        asks(world);
        world.until("it goes back", |world| {
            let rollout = world.model().status.as_ref().and_then(|status| status.rollout.as_ref());
            rollout.is_some_and(|r| r.state == lethe_api::v1alpha1::RolloutState::RollingBack)
        });
        world.comes_up = Box::new(|_| true);
        world.change(|cluster| cluster.runs.retain(|_, run| run.spec.requests.is_empty()));
    });
    world.ended("forget-three", RequestPhase::Fulfilled, Reason::Fulfilled, "");
}
