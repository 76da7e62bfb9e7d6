//! A network other than the perceptron, all the way.

use lethe_api::contract::RecordBody;
use lethe_sfd::{DiscreteConfig, ModelConfig, NetworkConfig, NoiseConfig, Parametrisation, SongUnetConfig};

use crate::{
    serving::Server,
    world::{World, fixed, taught, tiny},
};

/// DDPM's timesteps, and the levels that they cover.
fn discrete() -> (Parametrisation, NoiseConfig) {
    let noise = NoiseConfig { sigma_min: 0.01, sigma_max: 157.0, ..NoiseConfig::default() };
    (Parametrisation::Epsilon(DiscreteConfig::default()), noise)
}

#[test]
fn a_u_net_that_predicts_noise_is_prepared_forgets_is_measured_and_served() {
    let (parametrisation, noise) = discrete();
    let network = NetworkConfig::SongUnet(SongUnetConfig::small(8, &[1, 1], &[]));
    let base = taught(&ModelConfig { parametrisation, noise, network, ..tiny() });
    let world = World::prepared_from(&base);
    let targets = [("three", fixed("one"))];
    let candidate = world.candidate(&targets);
    let RecordBody::Evaluate(record) = world.record(&world.evaluate(&candidate, &targets)) else {
        panic!("not the record of an evaluation")
    };
    assert!(record.hygiene.iter().all(|check| check.passed), "{:?}", record.hygiene);
    let images = Server::ready(&world, &candidate).infer(&["zero", "three"], &[1, 2]);
    assert_eq!(images.len(), 2 * 64);
    assert!(images.iter().all(|pixel| (-1.0..=1.0).contains(pixel)));
}
