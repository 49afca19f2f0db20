// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The messages of a live migration, as QEMU sends them, and as nobody should.

mod common;

use common::{FEATURES, Host, region};
use vhost_user::{
    Decoder, Frame, FrontendReq, LogArea, Offer, ProtocolError, Reply, Request, VringAddresses, features,
};

const LOG: LogArea = LogArea { size: 4096, offset: 64 };
const BITS: u64 = FEATURES | features::VHOST_USER_F_PROTOCOL_FEATURES;
const ADDRESSES: VringAddresses = VringAddresses { descriptor: 0x7000_0000, driver: 0x7000_0800, device: 0x7000_0c00 };

fn offer() -> Offer {
    Offer::new(FEATURES | features::VHOST_F_LOG_ALL, 1)
}

fn address(vring: u32, flags: u32, log: u64) -> Request<u32> {
    Request::SetVringAddr { vring, flags, addresses: ADDRESSES, log }
}

/// A device that runs, with what happened so far forgotten.
fn running() -> Host {
    let mut host = Host::new(offer());
    host.send(Request::SetProtocolFeatures(Offer::PROTOCOL_FEATURES), false).unwrap();
    host.send(Request::SetFeatures(BITS), false).unwrap();
    host.send(Request::SetMemTable(vec![(region(0), 1)]), false).unwrap();
    for vring in 0..2_u8 {
        host.send(Request::SetVringNum { vring: vring.into(), num: 64 }, false).unwrap();
        host.send(address(vring.into(), 0, 0), false).unwrap();
        host.send(Request::SetVringKick { vring, fd: Some(5) }, false).unwrap();
    }
    assert_eq!(host.running.len(), 2);
    host.log.clear();
    host
}

fn log(fd: u32) -> Request<u32> {
    Request::SetLogBase { log: LOG, fd: Some(fd) }
}

fn replies(frames: Vec<Frame<u32>>, code: FrontendReq) -> Vec<Reply<u32>> {
    let parse = |frame: Frame<u32>| {
        let mut decoder = Decoder::new();
        decoder.push(&frame.bytes, frame.fds);
        Reply::parse(code, decoder.next_message().unwrap().unwrap()).unwrap()
    };
    frames.into_iter().map(parse).collect()
}

#[test]
fn logging_begins_and_ends_on_a_live_device() {
    let mut host = running();
    for need_reply in [false, true] {
        let frames = host.send(log(7), need_reply).unwrap();
        assert_eq!(replies(frames, FrontendReq::SET_LOG_BASE), [Reply::LogBase], "answered once, asked for or not");
        let frames = host.send(Request::SetFeatures(BITS | features::VHOST_F_LOG_ALL), true).unwrap();
        assert_eq!(replies(frames, FrontendReq::SET_FEATURES), [Reply::Value(0)]);
        host.send(address(0, 1, 0xc00), false).unwrap();
        host.send(address(1, 1, 0x9c00), false).unwrap();
        // For each queue pair again.
        host.send(Request::SetFeatures(BITS | features::VHOST_F_LOG_ALL), false).unwrap();
        host.send(address(0, 1, 0xc00), false).unwrap();
        host.send(Request::SetFeatures(BITS), false).unwrap();
        host.send(address(0, 0, 0xc00), false).unwrap();
        host.send(address(1, 0, 0x9c00), false).unwrap();
        let expected = [
            "log 7, 4096 at 64",
            "log all true",
            "log ring 0 Some(c00)",
            "log ring 1 Some(9c00)",
            "log all false",
            "log ring 0 None",
            "log ring 1 None",
        ];
        assert_eq!(std::mem::take(&mut host.log), expected, "no ring was disturbed");
    }
    assert_eq!(host.running.len(), 2);
}

/// What a front end does whose back end died meanwhile: features first, the log last.
#[test]
fn a_device_may_start_with_logging_on() {
    let mut host = Host::new(offer());
    host.send(Request::SetFeatures(BITS | features::VHOST_F_LOG_ALL), false).unwrap();
    host.send(Request::SetMemTable(vec![(region(0), 1)]), false).unwrap();
    host.send(Request::SetVringNum { vring: 0, num: 64 }, false).unwrap();
    host.send(address(0, 1, 0x40), false).unwrap();
    host.send(Request::SetVringKick { vring: 0, fd: Some(5) }, false).unwrap();
    host.send(log(3), false).unwrap();
    assert_eq!(host.log[0], "log all true");
    assert_eq!(host.log[3..], ["log ring 0 Some(40)", "start 0", "log 3, 4096 at 64"]);
    assert_eq!(host.running[&0].features, FEATURES, "what a ring is started with does not say so");
    host.send(Request::ResetDevice, false).unwrap();
    assert_eq!(host.connection.backend().vring(0).unwrap().log, None);
}

#[test]
fn a_log_that_cannot_be_used_ends_the_connection() {
    let mut host = running();
    host.maps = false;
    let error = ProtocolError::LogUnusable { size: 4096, offset: 64 };
    assert_eq!(host.send(log(3), true), Err(error));
    assert_eq!(host.replies, [], "its answer cannot say no");
    assert_eq!(error.to_string(), "SET_LOG_BASE: the log of 0x1000 bytes at 0x40 of its file could not be used");

    let mut host = running();
    let by_address = Request::SetLogBase { log: LogArea { size: 0, offset: 0x5000 }, fd: None };
    assert_eq!(host.send(by_address, false), Err(ProtocolError::LogWithoutDescriptor { address: 0x5000 }));
}

#[test]
fn nobody_is_told_what_is_logged() {
    let mut host = running();
    let frames = host.send(Request::SetLogFd(9), true).unwrap();
    assert_eq!(replies(frames, FrontendReq::SET_LOG_FD), [Reply::Value(1)]);
    assert_eq!(host.log, ["refused log_fd"]);
}

#[test]
fn rings_are_logged_only_where_that_is_offered() {
    let mut host = Host::new(Offer::new(FEATURES, 1));
    assert_eq!(host.send(address(0, 1, 0), false), Err(ProtocolError::VringFlags { vring: 0, flags: 1 }));
    let mut host = running();
    assert_eq!(host.send(address(0, 3, 0), false), Err(ProtocolError::VringFlags { vring: 0, flags: 3 }));
}

#[test]
fn other_features_do_not_change_along_with_logging() {
    let mut host = running();
    let to = features::VIRTIO_F_VERSION_1 | features::VHOST_F_LOG_ALL;
    assert_eq!(host.send(Request::SetFeatures(to), false), Err(ProtocolError::FeaturesWhileRunning { from: BITS, to }));
}
