//! Threads and device: set once, before any tensor exists.

use std::thread::available_parallelism;

use lethe_api::contract::Device as Wanted;
use lethe_sfd::Device;

use crate::{
    cli::DeviceArg,
    failure::{Failed, Result},
};

/// Sets libtorch's threads and picks the device. Call it once, first: the inter-operator threads of
/// libtorch can be set only before it did anything.
pub(crate) fn init(threads: u32, wanted: Wanted) -> Result<Device> {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    tch::set_num_interop_threads(1);
    device(wanted, tch::Cuda::is_available())
}

/// As many threads as this process may use.
pub(crate) fn all_threads() -> u32 {
    available_parallelism().map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(1))
}

/// The contract's word for a device.
pub(crate) fn name(device: Device) -> Wanted {
    if device.is_cuda() { Wanted::Cuda } else { Wanted::Cpu }
}

fn device(wanted: Wanted, cuda: bool) -> Result<Device> {
    match (wanted, cuda) {
        (Wanted::Cpu, _) => Ok(Device::Cpu),
        (Wanted::Auto | Wanted::Cuda, true) => Ok(Device::Cuda(0)),
        (Wanted::Auto, false) => {
            tracing::warn!("no CUDA device is visible: running on the CPU");
            Ok(Device::Cpu)
        }
        (Wanted::Cuda, false) => Err(Failed::bad_configuration(
            "device cuda was asked for, but no CUDA device is visible: check the pod's nvidia.com/gpu limit \
             and that the image has the CUDA libraries, or ask for device auto",
        )),
    }
}

impl From<DeviceArg> for Wanted {
    fn from(device: DeviceArg) -> Self {
        match device {
            DeviceArg::Auto => Wanted::Auto,
            DeviceArg::Cpu => Wanted::Cpu,
            DeviceArg::Cuda => Wanted::Cuda,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::contract::Failure;

    #[test]
    fn only_auto_falls_back_to_the_cpu() {
        assert_eq!(device(Wanted::Auto, false).unwrap(), Device::Cpu);
        assert_eq!(device(Wanted::Auto, true).unwrap(), Device::Cuda(0));
        assert_eq!(device(Wanted::Cpu, true).unwrap(), Device::Cpu);
        assert_eq!(device(Wanted::Cuda, false).unwrap_err().failure, Failure::BadConfiguration);
    }
}
