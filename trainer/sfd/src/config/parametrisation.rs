//! What a model's network predicts, and how it is told the noise level.

use super::{NoiseConfig, config, within};
use crate::error::Result;
use crate::timesteps::Timesteps;
use serde::{Deserialize, Serialize};

/// How the raw network becomes a denoiser D(x; sigma, label).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", from = "Read")]
pub enum Parametrisation {
    /// EDM's preconditioning (arXiv 2206.00364, table 1). The network is told ln(sigma) / 4.
    #[default]
    Edm,
    /// The network predicts the noise, and is told the timestep (DDPM, arXiv 2006.11239).
    Epsilon(DiscreteConfig),
    /// The network predicts the velocity sqrt(abar) noise - sqrt(1 - abar) clean, and is told the timestep
    /// (arXiv 2202.00512).
    V(DiscreteConfig),
}

/// How it is read: serde lets any field stand beside a variant that has none.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
enum Read {
    Edm {},
    Epsilon(DiscreteConfig),
    V(DiscreteConfig),
}

impl From<Read> for Parametrisation {
    fn from(read: Read) -> Self {
        match read {
            Read::Edm {} => Self::Edm,
            Read::Epsilon(config) => Self::Epsilon(config),
            Read::V(config) => Self::V(config),
        }
    }
}

/// A discrete-time noise schedule. Defaults: DDPM's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DiscreteConfig {
    pub betas: Betas,
    pub beta_start: f64,
    pub beta_end: f64,
    /// Number of timesteps.
    pub steps: i64,
    /// Lowest level at which SFD trains both networks (SFD, arXiv 2409.11219), in sigma.
    pub training_min: f64,
    /// Highest, exclusive.
    pub training_max: f64,
}

/// How beta moves from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Betas {
    /// beta is evenly spaced.
    Linear,
    /// The square root of beta is evenly spaced.
    ScaledLinear,
}

impl Default for DiscreteConfig {
    fn default() -> Self {
        Self {
            betas: Betas::Linear,
            beta_start: 1e-4,
            beta_end: 0.02,
            steps: 1000,
            training_min: 0.137,
            training_max: 13.1,
        }
    }
}

impl Parametrisation {
    /// The schedule, if time is discrete.
    pub fn discrete(&self) -> Option<&DiscreteConfig> {
        match self {
            Self::Edm => None,
            Self::Epsilon(discrete) | Self::V(discrete) => Some(discrete),
        }
    }

    pub(super) fn validate(&self, noise: &NoiseConfig) -> Result<()> {
        let Some(discrete) = self.discrete() else { return Ok(()) };
        within("parametrisation.steps", discrete.steps, 2, 100_000)?;
        // A comparison with a NaN is false: all three must hold.
        if !(0.0 < discrete.beta_start && discrete.beta_start <= discrete.beta_end && discrete.beta_end < 1.0)
        {
            let betas = format!("{} to {}", discrete.beta_start, discrete.beta_end);
            return Err(config(
                "parametrisation.betaStart to betaEnd",
                betas,
                "must rise within 0 to 1, exclusive",
            ));
        }
        let (lowest, highest) = Timesteps::new(discrete).range();
        let covered =
            |sigma: f64| sigma >= lowest * (1.0 - TOLERANCE) && sigma <= highest * (1.0 + TOLERANCE);
        for (field, sigma) in [
            ("noise.sigmaMin", noise.sigma_min),
            ("noise.sigmaInit", noise.sigma_init),
            ("noise.sigmaMax", noise.sigma_max),
            ("parametrisation.trainingMin", discrete.training_min),
            ("parametrisation.trainingMax", discrete.training_max),
        ] {
            if !covered(sigma) {
                let value = format!("{sigma}, and the timesteps reach from {lowest:.4} to {highest:.4}");
                return Err(config(field, value, "no timestep has this level"));
            }
        }
        match discrete.training_min < discrete.training_max {
            true => Ok(()),
            false => {
                Err(config("parametrisation.trainingMin", discrete.training_min, "must be below trainingMax"))
            }
        }
    }
}

/// Levels at the ends of the schedule may be rounded by whoever writes them down.
const TOLERANCE: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use crate::config::ModelConfig;
    use crate::testing::tiny;
    use serde_json::{Value, json};

    fn refusal(parametrisation: Value) -> String {
        let mut model = serde_json::to_value(tiny()).unwrap();
        model["noise"] = json!({"sigmaMin": 0.01, "sigmaMax": 157.0});
        model["parametrisation"] = parametrisation;
        match serde_json::from_value::<ModelConfig>(model) {
            Err(error) => error.to_string(),
            Ok(model) => model.validate().map_or_else(|error| error.to_string(), |()| String::new()),
        }
    }

    #[test]
    fn both_published_schedules_are_valid() {
        assert_eq!(refusal(json!({"kind": "epsilon"})), "");
        let scaled = json!({"kind": "v", "betas": "scaledLinear", "betaStart": 0.00085, "betaEnd": 0.012});
        // Stable Diffusion's levels reach from 0.029 to 14.6.
        assert!(
            refusal(scaled)
                .contains("noise.sigmaMin is 0.01, and the timesteps reach from 0.0292 to 14.6146")
        );
        assert_eq!(refusal(json!({"kind": "edm"})), "");
    }

    #[test]
    fn a_field_of_another_parametrisation_is_refused() {
        assert!(refusal(json!({"kind": "edm", "trainingMin": 3})).contains("trainingMin"));
        assert!(refusal(json!({"kind": "epsilon", "sigmaData": 0.5})).contains("sigmaData"));
    }

    #[test]
    fn a_schedule_that_is_none_is_refused_by_name() {
        assert!(refusal(json!({"kind": "x0"})).contains("x0"));
        assert!(refusal(json!({"kind": "epsilon", "betas": "cosine"})).contains("cosine"));
        assert!(refusal(json!({"kind": "epsilon", "betaBegin": 0.1})).contains("betaBegin"));
        assert_eq!(refusal(json!({"kind": "epsilon", "steps": 1})), "parametrisation.steps is 1: too small");
        let falling = refusal(json!({"kind": "epsilon", "betaStart": 0.5, "betaEnd": 0.1}));
        assert!(falling.contains("parametrisation.betaStart to betaEnd is 0.5 to 0.1"), "{falling}");
        assert!(refusal(json!({"kind": "epsilon", "betaEnd": 1.0})).contains("0.0001 to 1"));
        let backwards = refusal(json!({"kind": "epsilon", "trainingMin": 14.0}));
        assert!(backwards.contains("must be below trainingMax"), "{backwards}");
        let outside = refusal(json!({"kind": "epsilon", "trainingMin": 0.001}));
        assert!(outside.contains("parametrisation.trainingMin is 0.001"), "{outside}");
    }
}
