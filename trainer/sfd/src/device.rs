//! From the host to a device.

use tch::{Device, Tensor};

/// A host tensor on `device`.
///
/// An ordinary copy to a CUDA device waits until the device has done all that it was told before. This one goes through
/// pinned memory and does not, so that a step can be put into the queue while the last one is still being computed.
pub(crate) fn upload(host: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() {
        // What is pinned must own each of its values; an expanded tensor does not.
        host.contiguous().internal_pin_memory(device).to_device_(device, host.kind(), true, false)
    } else {
        host.to_device(device)
    }
}
