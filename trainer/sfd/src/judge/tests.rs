use super::*;
use crate::config::ImageShape;
use crate::testing::{largest, models, never, tiny};

const SIDE: i64 = 12;

fn config() -> ModelConfig {
    ModelConfig { image: ImageShape { channels: 1, height: SIDE, width: SIDE }, ..tiny() }
}

/// Four 3x3 figures, each anywhere in the image: its pixels say nothing, their neighbourhood does. Images [n, pixels] and
/// labels [n].
fn figures(seed: u64, n: i64) -> (Tensor, Tensor) {
    const FIGURES: [&str; 4] = ["111101111", "010111010", "100010001", "000111000"];
    let places = Noise::new(seed, Stream::Label).below(0, 2 * n, (SIDE - 2) as usize);
    let mut pixels = vec![-1.0_f32; (n * SIDE * SIDE) as usize];
    for (index, place) in places.chunks(2).enumerate() {
        for (bit, _) in FIGURES[index % 4].bytes().enumerate().filter(|(_, set)| *set == b'1') {
            let at = (place[0] + bit / 3) * SIDE as usize + place[1] + bit % 3;
            pixels[index * (SIDE * SIDE) as usize + at] = 1.0;
        }
    }
    let labels: Vec<i64> = (0..n).map(|index| index % 4).collect();
    (Tensor::from_slice(&pixels).view([n, SIDE * SIDE]), Tensor::from_slice(&labels))
}

/// The share of fresh figures that a judge of these settings names, taught by two hundred.
fn recognised(settings: &JudgeSettings) -> f64 {
    let judge = Judge::fresh(&config(), settings, 1, Device::Cpu);
    let (images, labels) = figures(1, 200);
    judge.fit(&images, &labels, settings, 1, &never).unwrap();
    let (images, labels) = figures(2, 400);
    judge.look(&images).1.argmax(1, false).eq_tensor(&labels).mean(Kind::Float).double_value(&[])
}

#[test]
fn a_judge_that_sees_shapes_knows_them_wherever_they_are() {
    let usual = JudgeSettings { steps: 300, batch: 32, learning_rate: 3e-3, ..JudgeSettings::default() };
    let shapes = recognised(&JudgeSettings { sees_shapes: true, hidden: 8, features: 16, ..usual.clone() });
    let pixels = recognised(&JudgeSettings { hidden: 64, features: 16, ..usual });
    assert!(shapes >= 0.95 && pixels < 0.8, "by shape {shapes}, by pixel {pixels}");
}

#[test]
fn what_a_judge_of_shapes_sees_in_an_image_does_not_depend_on_the_others() {
    let settings = JudgeSettings { sees_shapes: true, hidden: 4, features: 6, ..JudgeSettings::default() };
    let judge = Judge::fresh(&config(), &settings, 1, Device::Cpu);
    let (images, _) = figures(1, AT_ONCE + 3);
    let (features, probabilities) = judge.look(&images);
    assert_eq!((features.size(), probabilities.size()), (vec![AT_ONCE + 3, 6], vec![AT_ONCE + 3, 4]));
    let last = judge.look(&images.narrow(0, AT_ONCE + 2, 1)).0;
    assert!(largest(&(features.get(AT_ONCE + 2) - last.get(0))) < 1e-5);
}

#[test]
fn a_judge_of_shapes_is_read_as_it_was_written_and_judges_no_other_images() {
    let settings = JudgeSettings { sees_shapes: true, hidden: 4, features: 6, ..JudgeSettings::default() };
    let bytes = Judge::fresh(&config(), &settings, 1, Device::Cpu).to_bytes();
    assert!(Judge::from_bytes(&config(), &bytes, Device::Cpu).unwrap().to_bytes() == bytes);
    // As many pixels, but not in these rows.
    let long = ImageShape { channels: 1, height: 2 * SIDE, width: SIDE / 2 };
    let refused =
        Judge::from_bytes(&ModelConfig { image: long, ..config() }, &bytes, Device::Cpu).unwrap_err();
    assert!(refused.to_string().contains("does not judge"), "{refused}");
}

/// What was stored before there were judges of shapes.
#[test]
fn a_judge_of_pixels_says_nothing_of_shapes_in_its_file() {
    let bytes = models().judge.to_bytes();
    assert!(!weights::read_header(FILE, &bytes).unwrap().contains("image"));
}

#[test]
fn images_that_take_convolutions_to_draw_are_judged_by_shape() {
    let of = |config: &ModelConfig| JudgeSettings::of(config);
    assert_eq!(of(&tiny()), JudgeSettings::default());
    let network = crate::config::NetworkConfig::SongUnet(crate::config::SongUnetConfig::small(8, &[1], &[]));
    let small = ModelConfig { network: network.clone(), ..config() };
    assert!(of(&small).sees_shapes && of(&small).steps == JudgeSettings::default().steps);
    let cifar = ImageShape { channels: 3, height: 32, width: 32 };
    let large = ModelConfig { network, image: cifar, ..config() };
    assert!(of(&large).samples_per_label > of(&small).samples_per_label);
    [small, large].iter().for_each(|config| of(config).validate().unwrap());
}
