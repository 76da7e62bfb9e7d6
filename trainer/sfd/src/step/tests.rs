use super::*;
use crate::concept::{Override, Target};
use crate::testing::{largest, random_model};

const HALF: BatchShape = shape(5, 4, 0.3);
const SCORES: Matching<'static> = Matching { alpha: 1.2, gradient: Gradient::ScoreDistillation, judge: None };

const NONE: PartShares = PartShares { remain: 0.0, forget: 0.0 };

const fn shape(remain: i64, forget: i64, weight: f64) -> BatchShape {
    let weights = PartWeights { remain: 1.0, forget: weight };
    BatchShape {
        remain,
        forget,
        fake_score: weights,
        generator: weights,
        reentry: NONE,
        generator_range: 0.8,
        forget_warmup: 0,
    }
}

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
    in_double(Batch::draw(&nets.phi.form(), &concept(), shape, 9, 4, None))
}

fn in_double(batch: Batch) -> Batch {
    let double = |sample: Sample| Sample {
        latent: sample.latent.to_kind(Kind::Double),
        sigma: sample.sigma.to_kind(Kind::Double),
        noise: sample.noise.to_kind(Kind::Double),
        weight: sample.weight.to_kind(Kind::Double),
        reentry: sample.reentry.map(|reentry| Reentry {
            rows: reentry.rows,
            sigma: reentry.sigma.to_kind(Kind::Double),
            noise: reentry.noise.to_kind(Kind::Double),
        }),
    };
    Batch { fake_score: double(batch.fake_score), generator: double(batch.generator), ..batch }
}

/// psi's loss of a whole batch.
fn psi_loss(psi: &Denoiser, nets: &Nets, batch: &Batch) -> Loss {
    fake_score_loss(psi, &nets.theta, &batch.fake_score_piece(&all(batch)))
}

/// theta's loss of a whole batch.
fn theta_loss(nets: &Nets, batch: &Batch, matching: Matching<'_>) -> Loss {
    generator_loss(&nets.phi, &nets.psi, &nets.theta, &batch.generator_piece(&all(batch)), matching)
}

fn all(batch: &Batch) -> Range<i64> {
    0..batch.shown.size()[0]
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
    let value = |psi: &Denoiser| psi_loss(psi, &nets, &batch).total;
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
    let Sample { latent, sigma, noise, weight, .. } = &batch.generator;
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
    let value =
        |theta: &Denoiser| (undivided(theta).0 / &constant * weight).sum(None::<Kind>).double_value(&[]);

    let loss = theta_loss(&nets, &batch, SCORES).total;
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
    let fake = || psi_loss(&nets.psi, &nets, &batch);
    assert_eq!([&nets.phi, &nets.psi, &nets.theta].map(|net| reached(fake(), net)), [false, true, false]);
    let generated = || theta_loss(&nets, &batch, SCORES);
    assert_eq!(
        [&nets.phi, &nets.psi, &nets.theta].map(|net| reached(generated(), net)),
        [false, false, true]
    );
}

#[test]
fn a_label_overridden_by_itself_is_merely_kept() {
    let nets = nets();
    let (one, two) = (shape(8, 0, 0.0), shape(4, 4, 1.0));
    let kept = batch(&nets, one);
    let split = batch(&nets, one);
    let generator = Sample { weight: weights(two, two.generator), ..split.generator };
    let split = Batch { shape: two, generator, taught: kept.shown.copy(), ..split };
    let loss = |batch: &Batch| theta_loss(&nets, batch, SCORES).total.double_value(&[]);
    assert!((loss(&split) - 2.0 * loss(&kept)).abs() < 1e-5 * loss(&kept).abs());
}

#[test]
fn without_weight_the_forgotten_labels_do_not_count() {
    let nets = nets();
    let batch = batch(&nets, shape(5, 4, 0.0));
    let Loss { total, each } = theta_loss(&nets, &batch, SCORES);
    let [remain, forget] = batch.means(&each);
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

#[test]
fn a_gradient_owes_nothing_to_the_one_before() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let gradient = || nets.psi.params().gradient(&psi_loss(&nets.psi, &nets, &batch).total);
    assert!(gradient().equal(&gradient()));
}

#[test]
fn each_network_weighs_the_two_parts_in_its_own_way() {
    let nets = nets();
    let weights = |remain, forget| PartWeights { remain, forget };
    let shape = BatchShape { fake_score: weights(0.5, 0.25), generator: weights(2.0, 0.125), ..HALF };
    let batch = batch(&nets, shape);
    let weighted = |loss: &Loss, weights: PartWeights| {
        let [remain, forget] = batch.means(&loss.each).map(|mean| mean.double_value(&[]));
        remain * weights.remain + forget * weights.forget
    };
    let fake = psi_loss(&nets.psi, &nets, &batch);
    assert_close(fake.total.double_value(&[]), weighted(&fake, shape.fake_score));
    let moved = theta_loss(&nets, &batch, SCORES);
    assert_close(moved.total.double_value(&[]), weighted(&moved, shape.generator));
}

#[test]
fn a_part_that_weighs_nothing_is_not_learnt_from() {
    let nets = nets();
    let none = |remain, forget| {
        let weights = PartWeights { remain, forget };
        batch(&nets, BatchShape { fake_score: weights, generator: weights, ..HALF })
    };
    let gradients = |batch: &Batch| {
        let psi = nets.psi.params().gradient(&psi_loss(&nets.psi, &nets, batch).total);
        [psi, nets.theta.params().gradient(&theta_loss(&nets, batch, SCORES).total)]
    };
    let [remain, forget, both] =
        [none(1.0, 0.0), none(0.0, 1.0), none(1.0, 1.0)].map(|batch| gradients(&batch));
    for ((remain, forget), both) in remain.iter().zip(&forget).zip(&both) {
        assert!(largest(remain) > 0.0 && largest(forget) > 0.0);
        assert!(largest(&(remain + forget - both)) < 1e-9 * largest(both));
    }
    // The forget part's images may be anything.
    let mut other = none(1.0, 0.0);
    for sample in [&mut other.fake_score, &mut other.generator] {
        let _ = sample.latent.narrow(0, HALF.remain, HALF.forget).fill_(0.1);
    }
    for (found, alone) in gradients(&other).iter().zip(&remain) {
        assert!(largest(&(found - alone)) < 1e-12 * largest(alone));
    }
}

#[test]
fn while_it_warms_up_the_forget_part_alone_is_trained_at_nearly_every_level() {
    let nets = nets();
    let shape = shape(300, 400, 0.3);
    let draw = |forget_warmup, step| {
        let shape = BatchShape { forget_warmup, ..shape };
        let batch = Batch::draw(&nets.phi.form(), &concept(), shape, 9, step, None);
        [batch.fake_score.sigma, batch.generator.sigma]
    };
    for (wide, usual) in draw(5, 4).iter().zip(&draw(0, 4)) {
        assert!(wide.narrow(0, 0, 300).equal(&usual.narrow(0, 0, 300)));
        let (wide, usual) = (wide.narrow(0, 300, 400), usual.narrow(0, 300, 400));
        assert!(wide.max().double_value(&[]) > 60.0 && usual.max().double_value(&[]) < 30.0);
        assert!(wide.min().double_value(&[]) > 0.002);
    }
    for (after, usual) in draw(5, 5).iter().zip(&draw(0, 5)) {
        assert!(after.equal(usual));
    }
}

#[test]
fn the_generator_is_trained_in_the_range_that_is_asked_for() {
    let nets = nets();
    let draw = |generator_range| {
        let shape = BatchShape { generator_range, ..shape(300, 400, 0.3) };
        Batch::draw(&nets.phi.form(), &concept(), shape, 9, 4, None)
    };
    let [low, usual, whole] = [0.5, 0.8, 1.0].map(draw);
    let highest = |batch: &Batch| batch.generator.sigma.max().double_value(&[]);
    assert!(highest(&low) > 2.0 && highest(&low) < 2.516, "{}", highest(&low));
    assert!(highest(&usual) > 20.0 && highest(&usual) < 24.409, "{}", highest(&usual));
    assert!(highest(&whole) > 60.0 && highest(&whole) < 80.01, "{}", highest(&whole));
    assert!(low.fake_score.sigma.equal(&whole.fake_score.sigma), "the fake score's levels are its own");
}

/// The gradient of -(real - fake) / distance times the sample, with everything but the sample held constant.
#[test]
fn diff_instruct_moves_the_sample_along_the_score_difference() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let gradient_of = |loss: &Tensor| nets.theta.params().gradient(loss);
    let matching = Matching { gradient: Gradient::DiffInstruct, ..SCORES };
    let found = gradient_of(&theta_loss(&nets, &batch, matching).total);

    let Sample { latent, sigma, noise, weight, .. } = &batch.generator;
    let clean = generate_trainable(&nets.theta, latent, &batch.shown);
    let still = clean.detach();
    let noisy = loss::perturb(&still, noise, sigma);
    let real = nets.phi.denoise(&noisy, sigma, &batch.taught);
    let fake = nets.psi.denoise(&noisy, sigma, &batch.shown);
    let distance = (&real - &still).abs().mean_dim(1, true, None::<Kind>);
    let along = (&real - &fake) / distance * weight.view([-1, 1]);
    let expected = gradient_of(&-(along.detach() * clean).sum(None::<Kind>));
    assert!(largest(&(&found - expected)) < 1e-9 * largest(&found));

    let whole = gradient_of(&theta_loss(&nets, &batch, SCORES).total);
    assert!(largest(&(found - &whole)) > 1e-3 * largest(&whole));
}

#[test]
fn the_judge_chooses_by_what_the_fake_score_makes_of_the_sample() {
    let nets = nets();
    let judge = crate::testing::models().judge;
    let judged = Target { label: 1, replacement: Override::Classifier(crate::Choice::Likeliest) };
    let kept = Target { label: 2, replacement: Override::Fixed(3) };
    let concept = Concept::new(4, &[judged, kept], None).unwrap();
    let batch = in_double(Batch::draw(&nets.phi.form(), &concept, shape(5, 20, 1.0), 9, 4, None));
    let Sample { latent, sigma, noise, .. } = &batch.generator;
    let noisy = loss::perturb(&denoise_latent(&nets.theta, latent, &batch.shown), noise, sigma);
    let fake = nets.psi.denoise(&noisy, sigma, &batch.shown).to_kind(Kind::Float);
    let seen = judge.look(&fake).1;
    let [shown, taught] = [&batch.shown, &batch.taught].map(|labels| Vec::<i64>::try_from(labels).unwrap());
    let expected: Vec<i64> = (0_i64..)
        .zip(shown.iter().zip(&taught))
        .map(|(row, (&shown, &taught))| match shown {
            1 if seen.double_value(&[row, 0]) > seen.double_value(&[row, 3]) => 0,
            1 => 3,
            _ => taught,
        })
        .collect();
    assert!(shown.contains(&1) && shown.contains(&2) && expected.contains(&0));
    let total = |batch: &Batch, judge| {
        let matching = Matching { judge, ..SCORES };
        theta_loss(&nets, batch, matching).total.double_value(&[])
    };
    let chosen = total(&batch, Some(&judge));
    let told = Batch { taught: Tensor::from_slice(&expected), verdict: None, ..batch };
    assert_close(chosen, total(&told, None));
}

#[test]
fn the_gradients_of_pieces_add_up_to_the_gradient_of_the_batch() {
    let nets = nets();
    let batch = batch(&nets, HALF);
    let psi = |at: &Range<i64>| {
        let piece = batch.fake_score_piece(at).on(Device::Cpu);
        nets.psi.params().gradient(&fake_score_loss(&nets.psi, &nets.theta, &piece).total)
    };
    let theta = |at: &Range<i64>| {
        let piece = batch.generator_piece(at).on(Device::Cpu);
        let loss = generator_loss(&nets.phi, &nets.psi, &nets.theta, &piece, SCORES);
        nets.theta.params().gradient(&loss.total)
    };
    let pieces = batch.pieces(4);
    assert_eq!(pieces, [0..3, 3..6, 6..9]);
    let assert_equal = |whole: Tensor, parts: Vec<Tensor>| {
        let sum = parts.into_iter().reduce(|sum, part| sum + part).unwrap();
        assert!(largest(&(sum - &whole)) < 1e-12 * largest(&whole));
    };
    assert_equal(psi(&all(&batch)), pieces.iter().map(psi).collect());
    assert_equal(theta(&all(&batch)), pieces.iter().map(theta).collect());
}

#[test]
fn a_share_of_each_part_re_enters_from_an_image_of_its_own() {
    let nets = nets();
    let half = PartShares { remain: 0.5, forget: 0.5 };
    let reentered = batch(&nets, BatchShape { reentry: half, ..shape(4, 6, 1.0) });
    let Sample { latent, reentry, .. } = &reentered.generator;
    let Reentry { rows, sigma, noise } = reentry.as_ref().unwrap();
    assert_eq!(Vec::<i64>::try_from(rows).unwrap(), [0, 1, 4, 5, 6]);
    let first = denoise_latent(&nets.theta, latent, &reentered.shown).index_select(0, rows);
    let noisy = loss::perturb(&first, noise, sigma);
    let expected = nets.theta.denoise(&noisy, sigma, &reentered.shown.index_select(0, rows));
    let images = reentered.generator.images(&nets.theta, &reentered.shown);
    assert!(largest(&(images.index_select(0, rows) - expected)) < 1e-12);
    // The others, and all else about the batch, are as they would be.
    let plain = batch(&nets, shape(4, 6, 1.0));
    let others = Tensor::from_slice(&[2_i64, 3, 7, 8, 9]);
    let plainly = plain.generator.images(&nets.theta, &plain.shown);
    let [ours, theirs] = [&images, &plainly].map(|images| images.index_select(0, &others));
    assert!(largest(&(ours - theirs)) < 1e-12);
    assert!(plain.tensors().iter().zip(reentered.tensors()).all(|(one, other)| one.1.equal(other.1)));
    // The two networks' steps draw by themselves, and only the second evaluation is trained.
    assert!(!sigma.equal(&reentered.fake_score.reentry.as_ref().unwrap().sigma));
    let trained = reentered.generator.trainable_images(&nets.theta, &reentered.shown);
    assert!(trained.equal(&images) && trained.requires_grad() && !images.requires_grad());
    let (start, _) = reentry.as_ref().unwrap().start(&nets.theta, latent, &reentered.shown);
    assert!(!start.requires_grad());
    // Piece by piece the images are the same, whether a piece has such samples or none.
    let pieces = [0..2, 2..4, 4..5, 5..10].map(|at| {
        let Piece { shown, sample, .. } = reentered.generator_piece(&at).on(Device::Cpu);
        sample.images(&nets.theta, &shown)
    });
    assert!(largest(&(Tensor::cat(&pieces, 0) - images)) < 1e-12);
}

#[test]
fn without_a_share_nothing_re_enters() {
    let nets = nets();
    assert!(batch(&nets, HALF).generator.reentry.is_none());
    let few = PartShares { remain: 0.05, forget: 0.05 };
    assert!(batch(&nets, BatchShape { reentry: few, ..HALF }).generator.reentry.is_none());
    let forgotten = PartShares { forget: 0.5, ..NONE };
    let batch = batch(&nets, BatchShape { reentry: forgotten, ..HALF });
    assert_eq!(Vec::<i64>::try_from(&batch.generator.reentry.unwrap().rows).unwrap(), [5, 6]);
}

#[test]
fn samples_re_enter_at_all_levels_of_a_sampler() {
    let nets = nets();
    let half = PartShares { remain: 0.5, forget: 0.5 };
    let batch = batch(&nets, BatchShape { reentry: half, ..shape(2000, 2, 1.0) });
    let sigma = &batch.generator.reentry.as_ref().unwrap().sigma;
    let share = |above: f64| sigma.gt(above).mean(Kind::Double).double_value(&[]);
    assert!(sigma.min().double_value(&[]) >= 0.002 && sigma.max().double_value(&[]) <= 80.0);
    // Half of a sampler's levels lie above the one at which a one-step generator starts.
    assert!((share(2.515) - 0.5).abs() < 0.06, "{}", share(2.515));
    assert!(share(24.4) > 0.14 && share(0.02) < 0.96);
}
