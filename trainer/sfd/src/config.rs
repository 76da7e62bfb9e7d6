//! What a model is: its images, its labels, its noise levels and its network. Travels with the weights as `model.json`.

use crate::error::{Error, Result, WeightsError};
use serde::{Deserialize, Serialize};

mod network;
mod parametrisation;

pub use network::{AdmUnetConfig, DdpmUnetConfig, MlpConfig, NetworkConfig, SongUnetConfig};
pub use parametrisation::{Betas, DiscreteConfig, Parametrisation};

/// Everything needed to rebuild a model around its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ModelConfig {
    pub image: ImageShape,
    /// Names of the labels; a label's index here is its index everywhere in this crate.
    pub labels: Vec<String>,
    #[serde(default)]
    pub noise: NoiseConfig,
    #[serde(default)]
    pub parametrisation: Parametrisation,
    #[serde(default)]
    pub network: NetworkConfig,
}

/// Shape of one image. Pixels lie in [-1, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ImageShape {
    pub channels: i64,
    pub height: i64,
    pub width: i64,
}

/// Noise levels, in units of pixel standard deviations (EDM, arXiv 2206.00364, table 1; SiD, arXiv 2404.04057).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NoiseConfig {
    /// Standard deviation of the data that the preconditioning assumes.
    pub sigma_data: f64,
    /// The one level at which the one-step generator denoises.
    pub sigma_init: f64,
    /// Lowest level of the sampler and of the generator's training.
    pub sigma_min: f64,
    /// Highest level of the sampler.
    pub sigma_max: f64,
}

/// `model.json`. What the model has forgotten is for those who serve it, not for its form.
#[derive(Deserialize)]
struct Description {
    schema: String,
    model: ModelConfig,
}

impl Description {
    const SCHEMA: &str = "lethe.dev/model/v1";
}

impl Default for NoiseConfig {
    fn default() -> Self {
        Self { sigma_data: 0.5, sigma_init: 2.5, sigma_min: 0.002, sigma_max: 80.0 }
    }
}

impl ImageShape {
    /// Values per image.
    pub fn pixels(&self) -> i64 {
        self.channels * self.height * self.width
    }
}

impl ModelConfig {
    /// The model that a bundle's `model.json` describes, validated.
    ///
    /// # Errors
    /// If it is no such description, or of a model that cannot be.
    pub fn read(description: &[u8]) -> Result<Self> {
        const FILE: &str = "model.json";
        let refuse = |problem: String| Error::Weights { file: FILE, source: WeightsError::Header(problem) };
        let read: Description =
            serde_json::from_slice(description).map_err(|error| refuse(error.to_string()))?;
        if read.schema != Description::SCHEMA {
            return Err(refuse(format!("its schema is {:?}, not {:?}", read.schema, Description::SCHEMA)));
        }
        read.model.validate()?;
        Ok(read.model)
    }

    /// Number of labels.
    pub fn classes(&self) -> i64 {
        self.labels.len() as i64
    }

    /// Index of a label's name.
    pub fn label(&self, name: &str) -> Option<i64> {
        self.labels.iter().position(|label| label == name).map(|index| index as i64)
    }

    /// Refuses what no model can be, before anything is allocated.
    pub fn validate(&self) -> Result<()> {
        let image = &self.image;
        for (field, value) in
            [("image.channels", image.channels), ("image.height", image.height), ("image.width", image.width)]
        {
            within(field, value, 1, 1 << 14)?;
        }
        within("image pixels", image.pixels(), 1, 1 << 20)?;
        self.validate_labels()?;
        self.noise.validate()?;
        self.parametrisation.validate(&self.noise)?;
        self.network.validate(*image)
    }

    fn validate_labels(&self) -> Result<()> {
        within("number of labels", self.classes(), 2, 1 << 14)?;
        for (index, label) in self.labels.iter().enumerate() {
            if label.is_empty() || self.labels[..index].contains(label) {
                return Err(config("labels", format!("{label:?}"), "labels must be non-empty and different"));
            }
        }
        Ok(())
    }
}

impl NoiseConfig {
    fn validate(&self) -> Result<()> {
        let all = [self.sigma_data, self.sigma_init, self.sigma_min, self.sigma_max];
        if !all.iter().all(|sigma| sigma.is_finite() && *sigma > 0.0) {
            return Err(config("noise", format!("{self:?}"), "every level must be a positive number"));
        }
        if !(self.sigma_min < self.sigma_init && self.sigma_init < self.sigma_max) {
            let problem = "levels must be ordered sigmaMin < sigmaInit < sigmaMax";
            return Err(config("noise", format!("{self:?}"), problem));
        }
        Ok(())
    }
}

pub(crate) fn config(field: &'static str, value: impl ToString, problem: &'static str) -> Error {
    Error::Config { field, value: value.to_string(), problem }
}

pub(crate) fn within(field: &'static str, value: i64, least: i64, most: i64) -> Result<()> {
    if value < least {
        return Err(config(field, value, "too small"));
    }
    if value > most {
        return Err(config(field, value, "too large"));
    }
    Ok(())
}

pub(crate) fn positive(field: &'static str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(config(field, value, "must be a positive number"))
}

/// `value` lies in [least, most).
pub(crate) fn fraction(field: &'static str, value: f64, least: f64, most: f64) -> Result<()> {
    if value >= least && value < most {
        return Ok(());
    }
    Err(config(field, value, "out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny;

    fn refusal(change: impl Fn(&mut ModelConfig)) -> String {
        let mut config = tiny();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_field_and_its_value() {
        assert_eq!(refusal(|config| config.image.height = 0), "image.height is 0: too small");
        let wide = MlpConfig { width: 1 << 20, ..MlpConfig::default() };
        assert_eq!(refusal(|config| config.network = wide.into()), "network.width is 1048576: too large");
        assert!(
            refusal(|config| config.image = ImageShape { channels: 4096, height: 4096, width: 1 })
                .contains("pixels")
        );
        assert!(refusal(|config| config.labels.truncate(1)).contains("number of labels is 1"));
        assert!(refusal(|config| config.labels[2] = "a".into()).contains("\"a\""));
        assert!(refusal(|config| config.noise.sigma_data = f64::NAN).contains("positive"));
        assert!(
            refusal(|config| config.noise.sigma_init = 100.0).contains("sigmaMin < sigmaInit < sigmaMax")
        );
    }

    #[test]
    fn a_config_is_its_json_and_a_typo_is_refused() {
        let json = serde_json::to_value(tiny()).unwrap();
        assert_eq!(serde_json::from_value::<ModelConfig>(json.clone()).unwrap(), tiny());
        let mut typo = json;
        typo["network"]["widht"] = 12.into();
        let message = serde_json::from_value::<ModelConfig>(typo).unwrap_err().to_string();
        assert!(message.contains("widht"), "{message}");
    }

    #[test]
    fn the_description_in_a_bundle_is_read_and_checked() {
        let description = |schema: &str, model: ModelConfig| {
            serde_json::json!({"schema": schema, "model": model, "forgotten": []}).to_string()
        };
        let read = |text: String| ModelConfig::read(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(read(description("lethe.dev/model/v1", tiny())).unwrap(), tiny());
        let other = read(description("lethe.dev/model/v2", tiny())).unwrap_err();
        assert!(other.contains("model.json") && other.contains("lethe.dev/model/v2"), "{other}");
        let mut flat = tiny();
        flat.image.height = 0;
        assert_eq!(
            read(description("lethe.dev/model/v1", flat)).unwrap_err(),
            "image.height is 0: too small"
        );
        assert!(read("{}".into()).is_err());
    }

    #[test]
    fn labels_are_found_by_name() {
        assert_eq!((tiny().label("c"), tiny().label("e")), (Some(2), None));
    }
}
