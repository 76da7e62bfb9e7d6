//! The raw network F(x, told, label), whatever its kind.
//!
//! A network holds the places of its parameters; the parameters themselves are kept apart and passed in. Images are rows
//! of pixels outside of this file and [B, C, H, W] inside of the U-Nets.

mod adm_unet;
mod ddpm_unet;
mod edm_block;
mod edm_unet;
mod mlp;
mod song_unet;
#[cfg(test)]
mod tests;

use self::{adm_unet::AdmUnet, ddpm_unet::DdpmUnet, mlp::Mlp, song_unet::SongUnet};
use crate::config::{ImageShape, ModelConfig, NetworkConfig};
use crate::params::Layout;
use tch::Tensor;

#[derive(Debug, Clone)]
pub(crate) struct Network {
    image: ImageShape,
    classes: i64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Mlp(Mlp),
    Ddpm(Box<DdpmUnet>),
    Song(SongUnet),
    Adm(AdmUnet),
}

impl Network {
    /// Builds the network of a valid `config` and adds its parameters to `layout`.
    pub(crate) fn new(config: &ModelConfig, layout: &mut Layout) -> Self {
        let kind = match &config.network {
            NetworkConfig::Mlp(net) => Kind::Mlp(Mlp::new(config, net, layout)),
            NetworkConfig::DdpmUnet(net) => Kind::Ddpm(Box::new(DdpmUnet::new(config, net, layout))),
            NetworkConfig::SongUnet(net) => Kind::Song(SongUnet::new(config, net, layout)),
            NetworkConfig::AdmUnet(net) => Kind::Adm(AdmUnet::new(config, net, layout)),
        };
        Self { image: config.image, classes: config.classes(), kind }
    }

    /// Whether discrete time is told to the network as the timestep. Otherwise it is told ln(sigma) / 4 in any case.
    pub(crate) fn counts_timesteps(&self) -> bool {
        !matches!(self.kind, Kind::Mlp(_))
    }

    /// The label that stands for none, in networks that can be asked without a condition.
    pub(crate) fn null_label(&self) -> Option<i64> {
        (!matches!(self.kind, Kind::Mlp(_))).then_some(self.classes)
    }

    /// # Shapes
    /// x: [B, pixels]; told: [B, 1], or [1, 1] for all; label: [B] whole numbers -> [B, pixels]
    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor, told: &Tensor, label: &Tensor) -> Tensor {
        let image = x.view([-1, self.image.channels, self.image.height, self.image.width]);
        let each = told.expand([image.size()[0], 1], false);
        match &self.kind {
            Kind::Mlp(net) => net.forward(weights, x, told, label),
            Kind::Ddpm(net) => net.forward(weights, &image, &each, label),
            Kind::Song(net) => net.forward(weights, &image, &each, label),
            Kind::Adm(net) => net.forward(weights, &image, &each, label),
        }
        .flatten(1, -1)
    }
}
