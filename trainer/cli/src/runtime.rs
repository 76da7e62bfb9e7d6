//! Threads and device: set once, before any tensor exists.

use std::thread::available_parallelism;

use lethe_api::contract::{self, Device as Wanted};
use lethe_sfd::{Device, Precision};

use crate::{
    cli::{DeviceArg, DevicesArg, PrecisionArg},
    failure::{Failed, Result},
};

/// Sets libtorch's threads and picks the device. Call it once, first: the inter-operator threads of
/// libtorch can be set only before it did anything.
pub(crate) fn init(threads: u32, wanted: Wanted) -> Result<Device> {
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    tch::set_num_interop_threads(1);
    device(wanted, tch::Cuda::is_available())
}

/// The devices that share a training's steps with the first, if it is a CUDA device.
pub(crate) fn others(first: Device, devices: DevicesArg) -> Vec<Device> {
    let others = further(first, tch::Cuda::device_count(), devices);
    if !others.is_empty() {
        tracing::info!(devices = 1 + others.len(), "trainings are shared between CUDA devices");
    }
    others
}

fn further(first: Device, visible: i64, devices: DevicesArg) -> Vec<Device> {
    let Device::Cuda(first) = first else { return Vec::new() };
    let visible = (0..usize::try_from(visible).unwrap_or(0)).filter(|&index| index != first);
    let most = devices.most.map_or(usize::MAX, |most| most.saturating_sub(1) as usize);
    visible.take(most).map(Device::Cuda).collect()
}

/// In what a training computes, from the contract's word for it.
pub(crate) fn precision(precision: contract::Precision) -> Precision {
    match precision {
        contract::Precision::F32 => Precision::F32,
        contract::Precision::Bf16 => Precision::Bf16,
    }
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

impl From<PrecisionArg> for contract::Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
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

    #[test]
    fn all_visible_cuda_devices_share_a_training_unless_told_otherwise() {
        let further = |first, most| super::further(first, 3, DevicesArg { most });
        assert_eq!(further(Device::Cuda(0), None), [Device::Cuda(1), Device::Cuda(2)]);
        assert_eq!(further(Device::Cuda(0), Some(2)), [Device::Cuda(1)]);
        assert_eq!(further(Device::Cuda(0), Some(9)), [Device::Cuda(1), Device::Cuda(2)]);
        assert_eq!(further(Device::Cuda(0), Some(1)), []);
        assert_eq!(further(Device::Cpu, None), []);
    }
}
