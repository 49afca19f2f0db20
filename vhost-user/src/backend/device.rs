// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Requests about the device as a whole: features, status, MTU, configuration space.

use vhost::vhost_user::message::FrontendReq;

use super::action::Action;
use super::config::ConfigRefusal;
use super::error::ProtocolError;
use super::machine::{Backend, Progress};
use super::pending::Then;
use crate::features::{VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_VERSION_1};
use crate::wire::{ConfigAccess, Reply};

/// Smallest MTU that virtio allows, in bytes.
const MIN_MTU: u16 = 68;

impl<F> Backend<F> {
    pub(super) fn set_features(&mut self, bits: u64, actions: &mut Vec<Action<F>>) -> Result<Progress, ProtocolError> {
        let surplus = bits & !self.offer.all_features();
        if surplus != 0 {
            return Err(ProtocolError::FeaturesNotOffered { bits: surplus });
        }
        // QEMU repeats SET_FEATURES for each queue pair while earlier pairs run.
        if self.features == Some(bits) {
            return Ok(Progress::Done);
        }
        let from = self.features.unwrap_or(0);
        // Migration begins and ends on a live device.
        let only_logging = self.features.is_some() && from & !VHOST_F_LOG_ALL == bits & !VHOST_F_LOG_ALL;
        if !only_logging && self.features.is_some() && self.vrings.iter().any(|vring| vring.running) {
            return Err(ProtocolError::FeaturesWhileRunning { from, to: bits });
        }
        self.features = Some(bits);
        if (from ^ bits) & VHOST_F_LOG_ALL != 0 {
            actions.push(Action::SetLogging(bits & VHOST_F_LOG_ALL != 0));
        }
        if only_logging {
            return Ok(Progress::Done);
        }
        if bits & VHOST_USER_F_PROTOCOL_FEATURES == 0 {
            // Without them there is no SET_VRING_ENABLE: every ring is enabled now.
            for vring in &mut self.vrings {
                vring.enabled = true;
            }
        }
        actions.push(Action::FeaturesChanged(bits & !VHOST_USER_F_PROTOCOL_FEATURES & !VHOST_F_LOG_ALL));
        self.start_complete(actions)?;
        Ok(Progress::Done)
    }

    pub(super) fn set_protocol_features(&mut self, bits: u64) -> Result<Progress, ProtocolError> {
        let surplus = bits & !self.offer.protocol_features;
        if surplus != 0 {
            return Err(ProtocolError::ProtocolFeaturesNotOffered { bits: surplus });
        }
        self.protocol = Some(bits);
        Ok(Progress::Done)
    }

    pub(super) fn set_mtu(&mut self, mtu: u64, actions: &mut Vec<Action<F>>) -> Progress {
        match u16::try_from(mtu) {
            Ok(bytes) if bytes >= MIN_MTU => {
                self.config.mtu = bytes;
                actions.push(Action::SetMtu(bytes));
                Progress::Done
            }
            _ => Progress::Refused(ProtocolError::Mtu { mtu }),
        }
    }

    pub(super) fn get_config(&self, access: &ConfigAccess, actions: &mut Vec<Action<F>>) -> Progress {
        let found = self.config.read(access);
        if found.is_none() {
            let (offset, size) = (access.offset, access.bytes.len());
            actions.push(Action::Refused(ProtocolError::ConfigRange { offset, size }));
        }
        actions.push(Action::Reply(Reply::Config(found).into_frame(FrontendReq::GET_CONFIG)));
        Progress::Replied
    }

    pub(super) fn set_config(&mut self, access: &ConfigAccess, actions: &mut Vec<Action<F>>) -> Progress {
        let legacy = self.features.is_some_and(|bits| bits & VIRTIO_F_VERSION_1 == 0);
        let (offset, size) = (access.offset, access.bytes.len());
        match self.config.written(access, legacy) {
            Err(ConfigRefusal::Range) => Progress::Refused(ProtocolError::ConfigRange { offset, size }),
            Err(ConfigRefusal::ReadOnly) => Progress::Refused(ProtocolError::ConfigReadOnly { offset, size }),
            Ok(config) => {
                if config != self.config {
                    self.config = config;
                    actions.push(Action::ConfigChanged(config));
                }
                Progress::Done
            }
        }
    }

    pub(super) fn set_status(&mut self, value: u64, actions: &mut Vec<Action<F>>) -> Result<Progress, ProtocolError> {
        let status = u8::try_from(value).map_err(|_| ProtocolError::Status { status: value })?;
        if status == 0 {
            // QEMU asks for the bases only after this, so they stay known.
            return self.stop_all(Then::Reset, actions);
        }
        self.status = status;
        actions.push(Action::Status(status));
        Ok(Progress::Done)
    }
}
