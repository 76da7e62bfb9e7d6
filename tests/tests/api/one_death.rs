//! Whichever write it dies after, it comes to the same end: the scenarios of an operator that dies all the time, once for each of their
//! writes with one that dies after that write alone. A death after a read leaves the API server as one after the write before it.

use anyhow::{Context, Result, ensure};
use futures::future::LocalBoxFuture;
use lethe_tests::{Server, Tier, World, deaths::Dies};

use crate::{canaries, crash, deaths, evidence};

/// `name: life, writes`: no less than so many. (Those of one life are a few more or less than those of another: a status that
/// changed twice before anybody looked is written once.)
macro_rules! lives {
    ($($name:ident: $life:path, $least:literal);+ $(;)?) => {
        $(pub async fn $name(world: &World) -> Result<()> {
            after_each_write_alone(world, $least, |alone| Box::pin($life(alone))).await
        })+
    };
}

lives! {
    it_forgets_three: crash::an_operator_that_dies_after_every_write_comes_to_the_same_end, 45;
    it_holds_what_leaks: deaths::dying_all_the_time_it_holds_what_leaks, 38;
    it_turns_back_a_roll_out_that_stalls: deaths::dying_all_the_time_it_turns_back_a_roll_out_that_stalls, 46;
    it_lets_two_requests_share_a_run: deaths::dying_all_the_time_it_lets_two_requests_share_a_run, 88;
    it_lets_go_of_what_is_deleted: deaths::dying_all_the_time_it_lets_go_of_what_is_deleted, 58;
    it_has_the_live_server_asked: deaths::dying_all_the_time_it_has_the_live_server_asked, 92;
    it_tries_again: deaths::dying_all_the_time_it_tries_again, 88;
    it_says_what_an_audit_exposes: deaths::dying_all_the_time_it_says_what_an_audit_on_a_schedule_exposes, 13;
    it_publishes_what_somebody_promotes: deaths::dying_all_the_time_it_publishes_what_somebody_promotes, 40;
    it_gets_another_base: deaths::dying_all_the_time_it_gets_another_base, 72;
    it_signs_what_it_rolls_out: evidence::dying_all_the_time_it_signs_what_it_rolls_out, 47;
    it_tries_a_candidate_beside_the_target: canaries::dying_all_the_time_it_tries_a_candidate_beside_the_target, 77;
}

type Life = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>;

/// Until a life is over before the write after which the operator would have died.
async fn after_each_write_alone(world: &World, least: usize, life: Life) -> Result<()> {
    let mut writes = Vec::new();
    loop {
        let write = writes.len() + 1;
        // No namespace has a longer name than 63 characters.
        let name: String = world.namespace.chars().take(58).collect();
        let mut alone = World::new(world.server.clone(), &format!("{name}-{write}")).await?;
        alone.fate.dies = Dies::Once(write);
        if let Err(error) = life(&alone).await {
            let died = format!("it died after write {write}, {:?}", alone.fate.deaths());
            return Err(error).context(format!("{died}\n{}", Server::diagnose(&alone).await));
        }
        match alone.fate.deaths().pop() {
            Some(death) => writes.push(death),
            None => break,
        }
    }
    ensure!(writes.len() >= least, "it ended after {} writes, not after {least}: {writes:#?}", writes.len());
    println!("{}: the same end after each of {} writes", world.namespace, writes.len());
    Ok(())
}
