use super::*;
use crate::concept::{Override, Target};
use crate::testing::{largest, random_model};

const HALF: BatchShape = BatchShape { remain: 5, forget: 4, forget_weight: 0.3 };

struct Nets {
    phi: Denoiser,
    psi: Denoiser,
    theta: Denoiser,
}

fn nets() -> Nets {
    Nets { phi: random_model(1), psi: random_model(2), theta: random_model(3) }
}

fn concept() -> Concept {
    let targets = [
        Target { label: 1, replacement: Override::Fixed(3) },
        Target { label: 2, replacement: Override::Random },
    ];
    Concept::new(4, &targets, None).unwrap()
}

/// A batch in double precision, for finite differences.
fn batch(nets: &Nets, shape: BatchShape) -> Batch {
    let batch = Batch::draw(&nets.phi, &concept(), shape, 9, 4);
    let double = |sample: Sample| Sample {
        latent: sample.latent.to_kind(Kind::Double),
        sigma: sample.sigma.to_kind(Kind::Double),
        noise: sample.noise.to_kind(Kind::Double),
    };
    Batch { fake_score: double(batch.fake_score), generator: double(batch.generator), ..batch }
}

/// Derivative of `value` along `direction` at the model's weights, by central differences.
fn slope(model: &Denoiser, direction: &Tensor, value: impl Fn(&Denoiser) -> f64) -> f64 {
    let step = 1e-5;
    let at = |h: f64| value(&model.with_flat(model.params().flat() + direction * h));
    (at(step) - at(-step)) / (2.0 * step)
}

fn direction(model: &Denoiser, seed: u64) -> Tensor {
    let len = model.params().flat().size()[0];
    Noise::new(seed, Stream::Label).normal(0, 1, len, Device::Cpu).view([-1]).to_kind(Kind::Double)
}

fn assert_close(analytic: f64, numeric: f64) {
    let scale = analytic.abs().max(numeric.abs()).max(1e-3);
    assert!(((analytic - numeric) / scale).abs() < 1e-5, "gradient {analytic}, finite difference {numeric}");
}

#[test]
fn the_fake_score_gradient_matches_finite_differences() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let value = |psi: &Denoiser| fake_score_loss(psi, &nets.theta, &batch).total;
    let gradient = nets.psi.params().gradient(&value(&nets.psi));
    for seed in 0..4 {
        let along = direction(&nets.psi, seed);
        let analytic = (&gradient * &along).sum(None::<Kind>).double_value(&[]);
        assert_close(analytic, slope(&nets.psi, &along, |psi| value(psi).double_value(&[])));
    }
}

#[test]
fn the_generator_gradient_through_teacher_and_fake_score_matches_finite_differences() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let Sample { latent, sigma, noise } = &batch.generator;
    // The loss divides by a distance that counts as a constant: the finite difference must hold it, so it is divided out.
    let undivided = |theta: &Denoiser| {
        let clean = denoise_latent(theta, latent, &batch.shown);
        let noisy = loss::perturb(&clean, noise, sigma);
        let real = nets.phi.denoise(&noisy, sigma, &batch.taught);
        let fake = nets.psi.denoise(&noisy, sigma, &batch.shown);
        let distance = (&real - &clean).abs().mean_dim(1, false, None::<Kind>);
        (loss::score_difference(&real, &fake, &clean, 1.2) * &distance, distance)
    };
    let (_, constant) = undivided(&nets.theta);
    let value = |theta: &Denoiser| {
        (undivided(theta).0 / &constant * &batch.weight).sum(None::<Kind>).double_value(&[])
    };

    let loss = generator_loss(&nets.phi, &nets.psi, &nets.theta, &batch, 1.2).total;
    let gradient = nets.theta.params().gradient(&loss);
    for seed in 0..4 {
        let along = direction(&nets.theta, seed);
        let analytic = (&gradient * &along).sum(None::<Kind>).double_value(&[]);
        assert_close(analytic, slope(&nets.theta, &along, value));
    }
}

#[test]
fn each_loss_leads_to_the_weights_of_one_network_only() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let reached = |loss: Loss, model: &Denoiser| {
        // A constant that touches every weight keeps libtorch from refusing inputs outside the graph.
        let touch = |weights: &Tensor| (weights * 0.0).sum(Kind::Double);
        let total = model.params().trainable().iter().map(touch).fold(loss.total, |sum, zero| sum + zero);
        largest(&model.params().gradient(&total)) > 0.0
    };
    let fake = || fake_score_loss(&nets.psi, &nets.theta, &batch);
    assert_eq!([&nets.phi, &nets.psi, &nets.theta].map(|net| reached(fake(), net)), [false, true, false]);
    let generated = || generator_loss(&nets.phi, &nets.psi, &nets.theta, &batch, 1.2);
    assert_eq!(
        [&nets.phi, &nets.psi, &nets.theta].map(|net| reached(generated(), net)),
        [false, false, true]
    );
}

#[test]
fn a_label_overridden_by_itself_is_merely_kept() {
    let nets = nets();
    let one = BatchShape { remain: 8, forget: 0, forget_weight: 0.0 };
    let two = BatchShape { remain: 4, forget: 4, forget_weight: 1.0 };
    let kept = batch(&nets, one);
    let split = batch(&nets, one);
    let split = Batch { shape: two, weight: weights(two), taught: kept.shown.copy(), ..split };
    let loss =
        |batch: &Batch| generator_loss(&nets.phi, &nets.psi, &nets.theta, batch, 1.2).total.double_value(&[]);
    assert!((loss(&split) - 2.0 * loss(&kept)).abs() < 1e-5 * loss(&kept).abs());
}

#[test]
fn without_weight_the_forgotten_labels_do_not_count() {
    let nets = nets();
    let batch = batch(&nets, BatchShape { forget_weight: 0.0, ..HALF });
    let Loss { total, parts: [remain, forget] } =
        generator_loss(&nets.phi, &nets.psi, &nets.theta, &batch, 1.2);
    assert!((total.double_value(&[]) - remain.double_value(&[])).abs() < 1e-6);
    assert!(forget.double_value(&[]).abs() > 1e-3);
}

#[test]
fn the_teacher_is_asked_for_the_replacement_and_the_fake_score_for_the_label() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let [shown, taught] = [&batch.shown, &batch.taught].map(|labels| Vec::<i64>::try_from(labels).unwrap());
    assert!(shown[..5].iter().all(|label| [0, 3].contains(label)));
    assert_eq!(shown[..5], taught[..5]);
    assert!(shown[5..].iter().all(|label| [1, 2].contains(label)));
    assert!(taught[5..].iter().all(|label| [0, 3].contains(label)));
    assert!(shown.iter().zip(&taught).all(|(shown, taught)| *shown != 1 || *taught == 3));
}

#[test]
fn no_sample_depends_on_the_rest_of_its_batch() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let Sample { latent, sigma, .. } = &batch.generator;
    let together = nets.phi.denoise(latent, sigma, &batch.shown);
    let alone =
        nets.phi.denoise(&latent.narrow(0, 6, 1), &sigma.narrow(0, 6, 1), &batch.shown.narrow(0, 6, 1));
    assert!(largest(&(together.narrow(0, 6, 1) - alone)) < 1e-12);
}
