use super::*;
use crate::config::{AdmUnetConfig, DdpmUnetConfig, SongUnetConfig};
use crate::denoiser::Denoiser;
use crate::noise::{Noise, Stream};
use crate::testing::tiny;
use tch::{Device, Kind as Type};

/// The names, shapes and counts of a network with ten labels (or `classes`) and three channels.
fn layout(network: NetworkConfig, side: i64, classes: usize) -> Layout {
    let config = ModelConfig {
        image: ImageShape { channels: 3, height: side, width: side },
        labels: (0..classes).map(|label| label.to_string()).collect(),
        network,
        ..tiny()
    };
    config.validate().unwrap();
    let mut layout = Layout::default();
    Network::new(&config, &mut layout);
    layout
}

/// Number of weights, and of tensors in a file.
fn counts(layout: &Layout) -> (i64, usize) {
    (layout.len(), layout.entries().len() + layout.constants().len())
}

fn shape(layout: &Layout, name: &str) -> Option<Vec<i64>> {
    let weight = layout.entries().iter().find(|entry| entry.name == name).map(|entry| entry.shape.clone());
    weight.or_else(|| {
        layout.constants().iter().find(|fixed| fixed.name == name).map(|fixed| fixed.shape.clone())
    })
}

#[test]
fn the_ddpm_u_nets_are_the_published_ones() {
    let cifar = layout(NetworkConfig::DdpmUnet(DdpmUnetConfig::default()), 32, 10);
    assert_eq!(counts(&cifar), (38_632_323, 334));
    let multipliers = vec![1, 2, 2, 2, 4];
    let stl = DdpmUnetConfig { multipliers, ..DdpmUnetConfig::default() };
    assert_eq!(counts(&layout(NetworkConfig::DdpmUnet(stl), 64, 10)), (83_159_683, 396));
    for (name, expected) in [
        ("classes_emb.weight", vec![10, 128]),
        ("null_classes_emb", vec![128]),
        ("temb.dense.0.weight", vec![512, 128]),
        ("cemb.dense.1.bias", vec![512]),
        ("down.1.block.0.nin_shortcut.weight", vec![256, 128, 1, 1]),
        ("down.1.attn.1.proj_out.weight", vec![256, 256, 1, 1]),
        ("down.2.downsample.conv.weight", vec![256, 256, 3, 3]),
        ("mid.block_1.temb_cemb_proj.weight", vec![256, 1024]),
        ("mid.attn_1.q.bias", vec![256]),
        ("up.0.block.2.conv1.weight", vec![128, 256, 3, 3]),
        ("up.1.block.2.norm1.weight", vec![384]),
        ("up.1.attn.2.k.weight", vec![256, 256, 1, 1]),
        ("up.3.upsample.conv.bias", vec![256]),
        ("norm_out.weight", vec![128]),
        ("conv_out.weight", vec![3, 128, 3, 3]),
    ] {
        assert_eq!(shape(&cifar, name), Some(expected), "{name}");
    }
    for name in ["down.3.downsample.conv.weight", "up.0.upsample.conv.weight", "down.0.attn.0.q.weight"] {
        assert_eq!(shape(&cifar, name), None, "{name}");
    }
}

#[test]
fn the_song_u_net_is_the_published_one() {
    let cifar = layout(NetworkConfig::SongUnet(SongUnetConfig::default()), 32, 10);
    assert_eq!(counts(&cifar), (55_735_299, 427));
    for (name, expected) in [
        ("model.map_label.weight", vec![128, 10]),
        ("model.map_augment.weight", vec![128, 9]),
        ("model.map_layer1.bias", vec![512]),
        ("model.enc.32x32_conv.weight", vec![128, 3, 3, 3]),
        ("model.enc.32x32_block0.skip.weight", vec![256, 128, 1, 1]),
        ("model.enc.16x16_down.conv0.resample_filter", vec![1, 1, 2, 2]),
        ("model.enc.16x16_down.skip.weight", vec![256, 256, 1, 1]),
        ("model.enc.16x16_block3.qkv.weight", vec![768, 256, 1, 1]),
        ("model.dec.8x8_in0.proj.bias", vec![256]),
        ("model.dec.8x8_block4.affine.weight", vec![256, 512]),
        ("model.dec.16x16_up.skip.resample_filter", vec![1, 1, 2, 2]),
        ("model.dec.16x16_block4.norm2.weight", vec![256]),
        ("model.dec.32x32_block4.conv0.weight", vec![256, 384, 3, 3]),
        ("model.dec.32x32_aux_norm.weight", vec![256]),
        ("model.dec.32x32_aux_conv.weight", vec![3, 256, 3, 3]),
    ] {
        assert_eq!(shape(&cifar, name), Some(expected), "{name}");
    }
    for name in
        ["model.map_augment.bias", "model.dec.16x16_block0.qkv.weight", "model.dec.8x8_in1.qkv.weight"]
    {
        assert_eq!(shape(&cifar, name), None, "{name}");
    }
}

#[test]
fn the_adm_u_net_is_the_published_one() {
    let imagenet = layout(NetworkConfig::AdmUnet(AdmUnetConfig::default()), 64, 1000);
    assert_eq!(counts(&imagenet), (295_899_267, 553));
    for (name, expected) in [
        ("model.map_label.weight", vec![768, 1000]),
        ("model.enc.64x64_block0.affine.weight", vec![384, 768]),
        ("model.enc.32x32_down.skip.resample_filter", vec![1, 1, 2, 2]),
        ("model.enc.32x32_block0.qkv.weight", vec![1152, 384, 1, 1]),
        ("model.dec.32x32_block1.qkv.weight", vec![1152, 384, 1, 1]),
        ("model.out_norm.weight", vec![192]),
        ("model.out_conv.weight", vec![3, 192, 3, 3]),
    ] {
        assert_eq!(shape(&imagenet, name), Some(expected), "{name}");
    }
    for name in
        ["model.map_label.bias", "model.enc.32x32_down.skip.weight", "model.enc.64x64_block0.qkv.weight"]
    {
        assert_eq!(shape(&imagenet, name), None, "{name}");
    }
}

#[test]
fn names_are_unique() {
    for (network, side) in [
        (NetworkConfig::DdpmUnet(DdpmUnetConfig::default()), 32),
        (NetworkConfig::SongUnet(SongUnetConfig::default()), 32),
        (NetworkConfig::AdmUnet(AdmUnetConfig::default()), 64),
    ] {
        let layout = layout(network, side, 10);
        let mut names: Vec<&str> = layout.entries().iter().map(|entry| entry.name.as_str()).collect();
        names.extend(layout.constants().iter().map(|fixed| fixed.name.as_str()));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

/// Of a U-Net of each kind for 4x4 images, with the label that stands for none among those that are asked for.
#[test]
fn gradients_match_finite_differences() {
    let ddpm = DdpmUnetConfig { channels: 32, multipliers: vec![1, 2], blocks: 1, attention: vec![4] };
    let song = SongUnetConfig { augmentations: 3, ..SongUnetConfig::small(4, &[1, 2], &[2]) };
    let (channels, blocks, head_channels) = (8, 1, 4);
    let multipliers = vec![1, 2];
    let adm =
        AdmUnetConfig { channels, multipliers, blocks, attention: vec![4], augmentations: 2, head_channels };
    for network in [NetworkConfig::DdpmUnet(ddpm), NetworkConfig::SongUnet(song), NetworkConfig::AdmUnet(adm)]
    {
        let image = ImageShape { channels: 1, height: 4, width: 4 };
        let fresh = Denoiser::init(&ModelConfig { image, network, ..tiny() }, 3, Device::Cpu).unwrap();
        let len = fresh.weights();
        let normal = |stream, rows, columns| {
            Noise::new(1, stream).normal(0, rows, columns, Device::Cpu).to_kind(Type::Double)
        };
        let flat = fresh.params().flat() + normal(Stream::FakeNoise, 1, len).view([-1]) * 0.05;
        let model = fresh.with_flat(flat);
        let (x, sigma) = (normal(Stream::FakeLatent, 3, 16), normal(Stream::FakeSigma, 3, 1).exp());
        let label = Tensor::from_slice(&[0, 3, model.null_label().unwrap()]);
        let value = |model: &Denoiser| model.denoise_trainable(&x, &sigma, &label).square().sum(Type::Double);
        let gradient = model.params().gradient(&value(&model));
        let along = normal(Stream::Label, 1, len).view([-1]);
        let at = |step: f64| value(&model.with_flat(model.params().flat() + &along * step)).double_value(&[]);
        let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
        let analytic = (gradient * &along).sum(Type::Double).double_value(&[]);
        assert!((analytic / numeric - 1.0).abs() < 1e-5, "gradient {analytic}, finite difference {numeric}");
    }
}
