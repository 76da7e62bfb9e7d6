//! A batch in pieces, on one device or several, in f32 or bf16.

use super::*;

fn tiny_unet() -> ModelConfig {
    let network = NetworkConfig::SongUnet(SongUnetConfig::small(8, &[1, 1], &[4]));
    ModelConfig { image: ImageShape { channels: 1, height: 8, width: 8 }, network, ..tiny() }
}

/// Pieces of five samples or four.
fn forgetting_in_pieces(precision: Precision) -> Forgetting {
    let model = |seed| {
        let fresh = Denoiser::init(&tiny_unet(), seed, Device::Cpu).unwrap();
        let noise = Noise::new(seed, Stream::FakeNoise).normal(0, 1, fresh.weights(), Device::Cpu);
        fresh.with_flat(fresh.params().flat() + noise.view([-1]) * 0.05)
    };
    let settings = ForgetSettings {
        steps: 12,
        remain_batch: 9,
        forget_batch: 5,
        optimiser: SfdOptimiser { precision, ..Default::default() },
        ..Default::default()
    };
    let target = Target { label: 1, replacement: Override::Fixed(2) };
    let start = Baseline { generator: model(2), fake_score: model(3) };
    let concept = Concept::new(4, &[target], None).unwrap();
    let mut training = Forgetting::new(model(1), start, concept, settings, 5).unwrap();
    training.iteration.most_at_once = 5;
    assert_eq!(training.iteration.batch().pieces(5).len(), 3);
    training
}

#[test]
fn two_replicas_come_to_what_one_device_comes_to() {
    for precision in [Precision::F32, Precision::Bf16] {
        let run_on = |others: &[Device]| {
            let mut training = forgetting_in_pieces(precision);
            training.share_with(others);
            run(&mut training, 2);
            training
        };
        let alone = run_on(&[]);
        let mut together = run_on(&[Device::Cpu]);
        assert!(alone.checkpoint().unwrap() == together.checkpoint().unwrap());
        // A replica that went its own way would show only now and then.
        let replica = &together.iteration.replicas()[0];
        assert!(replica.generator.to_bytes() == together.iteration.nets.generator.to_bytes());
        assert!(replica.fake_score.to_bytes() == together.iteration.nets.fake_score.to_bytes());

        // And after a resume the replica stands where the first device does.
        let mut resumed = forgetting_in_pieces(precision);
        resumed.share_with(&[Device::Cpu]);
        resumed.resume(&alone.checkpoint().unwrap()).unwrap();
        run(&mut resumed, 1);
        run(&mut together, 1);
        assert!(resumed.checkpoint().unwrap() == together.checkpoint().unwrap());
    }
}

#[test]
fn in_bf16_the_losses_follow_those_in_f32_and_the_weights_stay_in_f32() {
    let losses = |precision| {
        let mut training = forgetting_in_pieces(precision);
        let steps: Vec<Vec<f64>> = (0..4)
            .map(|_| {
                training.advance();
                training.report().unwrap().losses.into_iter().map(|(_, loss)| loss).collect()
            })
            .collect();
        let Nets { fake_score, generator, .. } = &training.iteration.nets;
        for network in [fake_score, generator, &training.iteration.average] {
            assert_eq!(network.params().flat().kind(), Kind::Float);
        }
        let end = training.finish_with_fake_score().unwrap();
        // What is left behind computes in f32 again.
        assert_eq!(end.fake_score.params().frozen()[0].kind(), Kind::Float);
        steps
    };
    let (exact, rounded) = (losses(Precision::F32), losses(Precision::Bf16));
    for loss in 0..4 {
        let size = exact.iter().map(|step| step[loss].abs()).fold(0.0, f64::max);
        let off = exact.iter().zip(&rounded).map(|(a, b)| (a[loss] - b[loss]).abs() / size);
        let off = off.fold(0.0, f64::max);
        assert!(off < 0.05, "loss {loss} is {off} of its size away");
        assert!(off > 1e-6, "loss {loss} is as good as equal: nothing was rounded");
    }
}

#[test]
fn a_batch_that_was_drawn_ahead_is_the_batch_of_its_step() {
    let plain = |ahead| {
        let mut training = forgetting(&teacher(), &[2]).unwrap();
        training.iteration.draws_ahead = ahead;
        run(&mut training, 3);
        let saved = training.checkpoint().unwrap();
        run(&mut training, 3);
        // What was drawn for the seventh step is of no use for the fourth.
        training.resume(&saved).unwrap();
        run(&mut training, 2);
        training.checkpoint().unwrap()
    };
    assert!(plain(true) == plain(false));
}
