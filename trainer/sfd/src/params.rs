//! The parameters of one network, in one flat buffer.
//!
//! Adam, the moving average and the finite check then cost a handful of tensor operations however many layers there are.
//! Every named parameter is a view of the buffer, seen in two ways: `trainable` views are leaves that collect
//! gradients; `frozen` views let gradients pass through the network to its input only.
//!
//! In bf16 the network sees a twin of the buffer, which follows it after each change; the buffer itself stays in f32.

use crate::noise::{Noise, Stream};
use crate::product;
use crate::settings::Precision;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, no_grad};

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    Zeros,
    Ones,
    /// Uniform in (-bound, bound).
    Uniform(f64),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    init: Init,
    /// Stays in f32 whatever the precision.
    exact: bool,
    offset: i64,
    len: i64,
}

/// Names, shapes and places of a network's parameters. The names are a public format: they are the keys in the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Layout {
    entries: Vec<Entry>,
    constants: Vec<Constant>,
}

/// A tensor that belongs to the architecture: checkpoints hold it, and every value of it is the same in all of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constant {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) value: f32,
}

impl Layout {
    /// Adds a parameter and returns its position.
    pub(crate) fn add(&mut self, name: String, shape: &[i64], init: Init) -> usize {
        self.push(name, shape, init, false)
    }

    /// The same for a parameter of a layer that computes in f32 whatever the precision.
    pub(crate) fn add_exact(&mut self, name: String, shape: &[i64], init: Init) -> usize {
        self.push(name, shape, init, true)
    }

    fn push(&mut self, name: String, shape: &[i64], init: Init, exact: bool) -> usize {
        let (shape, len) = (shape.to_vec(), shape.iter().product());
        self.entries.push(Entry { name, shape, init, exact, offset: self.len(), len });
        self.entries.len() - 1
    }

    pub(crate) fn add_constant(&mut self, name: String, shape: &[i64], value: f32) {
        self.constants.push(Constant { name, shape: shape.to_vec(), value });
    }

    pub(crate) fn constants(&self) -> &[Constant] {
        &self.constants
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of values of all parameters together.
    pub(crate) fn len(&self) -> i64 {
        self.entries.last().map_or(0, |last| last.offset + last.len)
    }

    /// Views in the order of the entries: of one flat buffer for the exact ones, of the other for the rest.
    fn views(&self, exact: &Tensor, rest: &Tensor) -> Views {
        let view = |entry: &Entry| {
            let flat = if entry.exact { exact } else { rest };
            flat.narrow(0, entry.offset, entry.len).view(&entry.shape[..])
        };
        let frozen: Vec<Tensor> = self.entries.iter().map(view).collect();
        let trainable = frozen.iter().map(|view| view.detach().set_requires_grad(true)).collect();
        Views { trainable, frozen }
    }
}

/// All parameters, as leaves that collect gradients and as constants.
#[derive(Debug)]
struct Views {
    trainable: Vec<Tensor>,
    frozen: Vec<Tensor>,
}

#[derive(Debug)]
pub(crate) struct Params {
    layout: Arc<Layout>,
    flat: Tensor,
    views: Views,
    twin: Option<Twin>,
}

/// The same values in bf16.
#[derive(Debug)]
struct Twin {
    flat: Tensor,
    /// Of the original where a parameter is exact.
    views: Views,
}

impl Params {
    /// Fresh weights: a function of the seed alone.
    pub(crate) fn init(layout: Arc<Layout>, seed: u64, device: Device) -> Self {
        let noise = Noise::new(seed, Stream::Weights);
        let parts: Vec<Tensor> = layout
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| match entry.init {
                Init::Zeros => Tensor::zeros([entry.len], (Kind::Float, Device::Cpu)),
                Init::Ones => Tensor::ones([entry.len], (Kind::Float, Device::Cpu)),
                Init::Uniform(bound) => noise.signed(index as u64, entry.len, Kind::Float) * bound,
            })
            .collect();
        Self::from_flat(layout, Tensor::cat(&parts, 0).to_device(device))
    }

    /// Takes a buffer of exactly `layout.len()` values.
    pub(crate) fn from_flat(layout: Arc<Layout>, flat: Tensor) -> Self {
        assert_eq!(flat.size(), [layout.len()], "a flat buffer must match its layout");
        let views = layout.views(&flat, &flat);
        Self { layout, flat, views, twin: None }
    }

    /// The same buffer, seen in another precision.
    pub(crate) fn in_precision(self, precision: Precision) -> Self {
        let twin = (precision == Precision::Bf16).then(|| {
            let flat = self.flat.to_kind(Kind::BFloat16);
            Twin { views: self.layout.views(&self.flat, &flat), flat }
        });
        Self { twin, ..self }
    }

    /// An independent copy of the same values in f32.
    pub(crate) fn duplicate(&self) -> Self {
        Self::from_flat(self.layout.clone(), self.flat.copy())
    }

    /// The same parameters with something else in the place of one of them. Gradients of what is made of it lead to the
    /// original.
    pub(crate) fn with(&self, index: usize, change: impl Fn(&Tensor) -> Tensor) -> Self {
        let changed = |views: &[Tensor]| {
            let mut views: Vec<Tensor> = views.iter().map(Tensor::shallow_clone).collect();
            views[index] = change(&views[index]);
            views
        };
        let changed = |Views { trainable, frozen }: &Views| Views {
            trainable: changed(trainable),
            frozen: changed(frozen),
        };
        let twin = |Twin { flat, views }: &Twin| Twin { flat: flat.shallow_clone(), views: changed(views) };
        Self {
            layout: self.layout.clone(),
            flat: self.flat.shallow_clone(),
            views: changed(&self.views),
            twin: self.twin.as_ref().map(twin),
        }
    }

    /// The same on another device, or an independent copy on the same one.
    pub(crate) fn on(&self, device: Device) -> Self {
        let precision = if self.twin.is_some() { Precision::Bf16 } else { Precision::F32 };
        let flat = self.flat.to_device_(device, self.flat.kind(), false, true);
        Self::from_flat(self.layout.clone(), flat).in_precision(precision)
    }

    /// Takes over values [P] from wherever they are.
    pub(crate) fn set(&self, flat: &Tensor) {
        no_grad(|| self.flat.shallow_clone().copy_(flat));
        self.settle();
    }

    /// To be called when the flat buffer was written to: the twin follows.
    pub(crate) fn settle(&self) {
        if let Some(twin) = &self.twin {
            no_grad(|| twin.flat.shallow_clone().copy_(&self.flat));
        }
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// All values: [P]. Writing to it in place (without gradients) changes the network, once it is settled.
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }

    pub(crate) fn trainable(&self) -> &[Tensor] {
        &self.seen().trainable
    }

    pub(crate) fn frozen(&self) -> &[Tensor] {
        &self.seen().frozen
    }

    /// What the network computes with.
    fn seen(&self) -> &Views {
        self.twin.as_ref().map_or(&self.views, |twin| &twin.views)
    }

    /// Names and values, in the order of the layout.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.layout.entries.iter().map(|entry| entry.name.as_str()).zip(&self.views.frozen)
    }

    /// The gradient of a scalar loss with respect to these parameters only: [P], of the buffer's kind. Leaves nothing in
    /// `.grad`.
    pub(crate) fn gradient(&self, loss: &Tensor) -> Tensor {
        let gradients = Tensor::run_backward(&[loss], self.trainable(), false, false);
        let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.flatten(0, -1)).collect();
        Tensor::cat(&flat, 0).to_kind(self.flat.kind())
    }

    /// Name of the first parameter that holds a value that is not finite.
    pub(crate) fn first_not_finite(&self) -> Option<&str> {
        self.first_not_finite_in(&self.flat)
    }

    /// Name of the first parameter at which a buffer like this one holds a value that is not finite: [P].
    pub(crate) fn first_not_finite_in(&self, flat: &Tensor) -> Option<&str> {
        let finite = |tensor: &Tensor| no_grad(|| tensor.isfinite().all().int64_value(&[]) == 1);
        if finite(flat) {
            return None;
        }
        let index = self.layout.views(flat, flat).frozen.iter().position(|tensor| !finite(tensor))?;
        Some(&self.layout.entries[index].name)
    }
}

/// An affine layer's place among the parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    weight: usize,
    bias: Option<usize>,
}

impl Linear {
    /// Uniform in plus or minus 1 / sqrt(inputs), the usual start of an affine layer.
    pub(crate) fn new(layout: &mut Layout, name: &str, inputs: i64, outputs: i64) -> Self {
        Self::with_init(layout, name, inputs, outputs, Init::Uniform(1.0 / (inputs as f64).sqrt()))
    }

    /// Starts as the zero function.
    pub(crate) fn zeros(layout: &mut Layout, name: &str, inputs: i64, outputs: i64) -> Self {
        Self::with_init(layout, name, inputs, outputs, Init::Zeros)
    }

    /// Starts with these weights and no bias.
    pub(crate) fn with_init(layout: &mut Layout, name: &str, inputs: i64, outputs: i64, init: Init) -> Self {
        let bare = Self::without_bias(layout, name, inputs, outputs, init);
        let bias = layout.add(format!("{name}.bias"), &[outputs], Init::Zeros);
        Self { bias: Some(bias), ..bare }
    }

    pub(crate) fn without_bias(
        layout: &mut Layout,
        name: &str,
        inputs: i64,
        outputs: i64,
        init: Init,
    ) -> Self {
        Self { weight: layout.add(format!("{name}.weight"), &[outputs, inputs], init), bias: None }
    }

    /// # Shapes
    /// x: [B, inputs] -> [B, outputs], of the weights' kind
    pub(crate) fn forward(&self, weights: &[Tensor], x: &Tensor) -> Tensor {
        let weight = &weights[self.weight];
        product::affine(&x.to_kind(weight.kind()), weight, self.bias.map(|bias| &weights[bias]))
    }
}
