//! One gradient from several devices.
//!
//! A batch is cut into pieces whose losses add up, so their gradients do too. Pieces are dealt to the devices in turn and
//! summed in the order of the pieces, so that the sum does not depend on how many devices there are.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use tch::{Device, Tensor};

/// Gradients that a device may be ahead of the one that sums.
const AHEAD: usize = 1;
/// Most bytes of one activation of a piece, in f32. On a CPU more does not stay in the caches; on an accelerator it keeps
/// every unit busy, and leaves other devices something to do.
const CPU_BYTES: i64 = 4 << 20;
const ACCELERATOR_BYTES: i64 = 32 << 20;

/// What is known of a piece: the gradient of its share of the loss, [P] in f32, and its samples' losses, [b].
pub(crate) struct Part {
    pub(crate) gradient: Tensor,
    pub(crate) each: Tensor,
}

/// Most samples of a piece, for a network whose widest activation has so many values for a sample. It does not depend on
/// the number of devices or the machine: the sizes of pieces change a result by rounding.
pub(crate) fn most_at_once(values: i64, device: Device) -> i64 {
    let bytes = if device == Device::Cpu { CPU_BYTES } else { ACCELERATOR_BYTES };
    (bytes / (4 * values)).max(1)
}

/// `samples` cut into as few pieces of at most `most` as there can be, all of one size but for one sample.
pub(crate) fn pieces(samples: i64, most: i64) -> impl Iterator<Item = Range<i64>> {
    let count = (samples + most - 1) / most;
    (0..count).map(move |piece| piece * samples / count..(piece + 1) * samples / count)
}

/// Those of the devices beside the first that a batch has pieces for.
pub(crate) fn useful(others: &[Device], samples: i64, most: i64) -> &[Device] {
    let spare = pieces(samples, most).count().saturating_sub(1);
    &others[..others.len().min(spare)]
}

/// Does the pieces by `work`, the first, and every so many after it, with `first`, whose device gets the sum; the others
/// with `others` in turn. The sum of the gradients, and the losses in the order of the pieces.
pub(crate) fn sum<N, P, W>(first: &N, others: &mut [N], device: Device, pieces: Vec<P>, work: W) -> Part
where
    N: Send,
    P: Send,
    W: Fn(&N, P) -> Part + Copy + Send,
{
    let (count, hands) = (pieces.len(), 1 + others.len());
    let mut dealt: Vec<Vec<P>> = (0..hands).map(|_| Vec::new()).collect();
    pieces.into_iter().enumerate().for_each(|(index, piece)| dealt[index % hands].push(piece));
    let mut dealt = dealt.into_iter();
    let mut own = dealt.next().unwrap_or_default().into_iter();
    thread::scope(|scope| {
        let mut others: Vec<Hand<'_>> = others
            .iter_mut()
            .zip(dealt)
            .map(|(other, pieces)| {
                let (sender, parts) = sync_channel(AHEAD);
                let thread = scope.spawn(move || {
                    // Nobody listens any more if the first device has failed.
                    let _ = pieces.into_iter().try_for_each(|piece| sender.send(work(other, piece)));
                });
                Hand { parts, thread: Some(thread) }
            })
            .collect();
        add((0..count).map(|index| match index % hands {
            0 => work(first, own.next().expect("every hand has its pieces")),
            hand => others[hand - 1].next(device),
        }))
    })
}

/// A further device at work.
struct Hand<'scope> {
    parts: Receiver<Part>,
    thread: Option<ScopedJoinHandle<'scope, ()>>,
}

impl Hand<'_> {
    /// The next part, on `device`. If the other thread has panicked, this one does so too, with the same words.
    fn next(&mut self, device: Device) -> Part {
        let Ok(Part { gradient, each }) = self.parts.recv() else {
            let outcome = self.thread.take().map(ScopedJoinHandle::join);
            match outcome {
                Some(Err(panic)) => resume_unwind(panic),
                _ => unreachable!("a hand sends as many parts as it has pieces"),
            }
        };
        Part { gradient: gradient.to_device(device), each: each.to_device(device) }
    }
}

fn add(parts: impl Iterator<Item = Part>) -> Part {
    let (mut sum, mut each) = (None::<Tensor>, Vec::new());
    for part in parts {
        sum = Some(match sum {
            Some(mut sum) => sum.g_add_(&part.gradient),
            None => part.gradient,
        });
        each.push(part.each);
    }
    Part { gradient: sum.expect("a batch has at least one sample"), each: Tensor::cat(&each, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use tch::Kind;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn part(value: f64) -> Part {
        Part { gradient: Tensor::full([2], value, CPU), each: Tensor::full([1], value, CPU) }
    }

    #[test]
    fn pieces_are_even_and_cover_every_sample_once() {
        let cut = |samples, most| pieces(samples, most).collect::<Vec<_>>();
        assert_eq!(cut(7, 3), [0..2, 2..4, 4..7]);
        assert_eq!(cut(6, 3), [0..3, 3..6]);
        assert_eq!(cut(5, 100).len(), 1);
        assert_eq!(cut(3, 1), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn a_piece_has_at_least_one_sample_and_more_where_images_are_small() {
        assert_eq!(most_at_once(i64::MAX >> 3, Device::Cpu), 1);
        let small = most_at_once(32 * 28 * 28, Device::Cpu);
        assert!(small > most_at_once(128 * 32 * 32, Device::Cpu));
        assert!(small < most_at_once(32 * 28 * 28, Device::Cuda(3)));
    }

    /// One large number and many small ones: their sum in f32 is another in any other order.
    #[test]
    fn the_sum_is_in_the_order_of_the_pieces_whoever_did_them() {
        let values: Vec<f64> =
            (0..7).map(|i| if i == 0 { 16_777_216.0 } else { 0.6 * f64::from(i) }).collect();
        let of = |others: usize| {
            sum(&(), &mut vec![(); others], Device::Cpu, values.clone(), |(), value| part(value))
        };
        let alone = of(0);
        assert_eq!(alone.each.size(), [7]);
        for others in [1, 2, 9] {
            let together = of(others);
            assert!(alone.gradient.equal(&together.gradient));
            assert!(alone.each.equal(&together.each));
        }
    }

    #[test]
    fn a_panic_on_another_device_is_a_panic_here_with_its_words() {
        let fail = || {
            sum(&1, &mut [2], Device::Cpu, vec![0.0; 4], |&device, value| {
                assert!(device == 1, "device {device} is out of memory");
                part(value)
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(fail)).err().expect("it panics");
        let words = panic.downcast_ref::<String>().expect("a formatted message");
        assert!(words.contains("device 2 is out of memory"), "{words}");
    }
}
