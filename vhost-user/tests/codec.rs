// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every message survives the way to bytes and back, in whatever pieces it arrives.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use vhost_user::{
    BackendRequest, ConfigAccess, Decoder, DeviceStateTransfer, Frame, FrontendReq, Header, Inflight, Iotlb, LogArea,
    Message, Region, Reply, Request, ShmemMap, VringAddresses, VringArea, WireError, fuzzing,
};

fn region() -> impl Strategy<Value = Region> {
    any::<[u64; 4]>().prop_map(|[guest_addr, size, user_addr, mmap_offset]| Region {
        guest_addr,
        size,
        user_addr,
        mmap_offset,
    })
}

fn config() -> impl Strategy<Value = ConfigAccess> {
    (any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..=256)).prop_map(|(offset, flags, bytes)| ConfigAccess {
        offset,
        flags,
        bytes,
    })
}

fn inflight() -> impl Strategy<Value = Inflight> {
    any::<(u64, u64, u16, u16)>().prop_map(|(mmap_size, mmap_offset, num_queues, queue_size)| Inflight {
        mmap_size,
        mmap_offset,
        num_queues,
        queue_size,
    })
}

fn iotlb() -> impl Strategy<Value = Iotlb> {
    any::<([u64; 3], u8, u8)>().prop_map(|([iova, size, user_addr], permissions, kind)| Iotlb {
        iova,
        size,
        user_addr,
        permissions,
        kind,
    })
}

fn shmem_map() -> impl Strategy<Value = ShmemMap> {
    any::<(u8, [u64; 4])>().prop_map(|(shmid, [fd_offset, shm_offset, len, flags])| ShmemMap {
        shmid,
        fd_offset,
        shm_offset,
        len,
        flags,
    })
}

fn ring_request() -> impl Strategy<Value = Request<u32>> {
    let ring = any::<u32>();
    prop_oneof![
        (ring, any::<u32>()).prop_map(|(vring, num)| Request::SetVringNum { vring, num }),
        (ring, any::<u32>(), any::<[u64; 4]>()).prop_map(|(vring, flags, [descriptor, driver, device, log])| {
            Request::SetVringAddr { vring, flags, addresses: VringAddresses { descriptor, driver, device }, log }
        }),
        (ring, any::<u32>()).prop_map(|(vring, base)| Request::SetVringBase { vring, base }),
        ring.prop_map(|vring| Request::GetVringBase { vring }),
        (any::<u8>(), of(any::<u32>())).prop_map(|(vring, fd)| Request::SetVringKick { vring, fd }),
        (any::<u8>(), of(any::<u32>())).prop_map(|(vring, fd)| Request::SetVringCall { vring, fd }),
        (any::<u8>(), of(any::<u32>())).prop_map(|(vring, fd)| Request::SetVringErr { vring, fd }),
        (ring, any::<u32>()).prop_map(|(vring, enable)| Request::SetVringEnable { vring, enable }),
        (ring, any::<u32>()).prop_map(|(vring, endian)| Request::SetVringEndian { vring, endian }),
        ring.prop_map(|vring| Request::VringKick { vring }),
    ]
}

fn memory_request() -> impl Strategy<Value = Request<u32>> {
    prop_oneof![
        vec((region(), any::<u32>()), 0..=32).prop_map(Request::SetMemTable),
        (region(), any::<u32>()).prop_map(|(region, fd)| Request::AddMemReg(region, fd)),
        region().prop_map(Request::RemMemReg),
        any::<u64>().prop_map(|offset| Request::SetLogBase { log: LogArea { size: 0, offset }, fd: None }),
        any::<(u64, u64, u32)>()
            .prop_map(|(size, offset, fd)| Request::SetLogBase { log: LogArea { size, offset }, fd: Some(fd) }),
        any::<u32>().prop_map(Request::SetLogFd),
        iotlb().prop_map(Request::Iotlb),
        inflight().prop_map(Request::GetInflightFd),
        (inflight(), any::<u32>()).prop_map(|(inflight, fd)| Request::SetInflightFd(inflight, fd)),
    ]
}

fn device_request() -> impl Strategy<Value = Request<u32>> {
    prop_oneof![
        any::<u64>().prop_map(Request::SetFeatures),
        any::<u64>().prop_map(Request::SetProtocolFeatures),
        any::<[u8; 6]>().prop_map(Request::SendRarp),
        any::<u64>().prop_map(Request::NetSetMtu),
        any::<u32>().prop_map(Request::SetBackendReqFd),
        config().prop_map(Request::GetConfig),
        config().prop_map(Request::SetConfig),
        vec(any::<u8>(), 0..2000).prop_map(Request::CreateCryptoSession),
        any::<u64>().prop_map(Request::CloseCryptoSession),
        any::<u32>().prop_map(Request::GpuSetSocket),
        any::<u64>().prop_map(Request::SetStatus),
        any::<[u8; 16]>().prop_map(Request::GetSharedObject),
        any::<(u32, u32, u32)>().prop_map(|(direction, phase, fd)| {
            Request::SetDeviceStateFd(DeviceStateTransfer { direction, phase }, fd)
        }),
    ]
}

fn bare_request() -> impl Strategy<Value = Request<u32>> {
    prop_oneof![
        Just(()).prop_map(|()| Request::GetFeatures),
        Just(()).prop_map(|()| Request::SetOwner),
        Just(()).prop_map(|()| Request::ResetOwner),
        Just(()).prop_map(|()| Request::GetProtocolFeatures),
        Just(()).prop_map(|()| Request::GetQueueNum),
        Just(()).prop_map(|()| Request::PostcopyAdvise),
        Just(()).prop_map(|()| Request::PostcopyListen),
        Just(()).prop_map(|()| Request::PostcopyEnd),
        Just(()).prop_map(|()| Request::ResetDevice),
        Just(()).prop_map(|()| Request::GetMaxMemSlots),
        Just(()).prop_map(|()| Request::GetStatus),
        Just(()).prop_map(|()| Request::CheckDeviceState),
        Just(()).prop_map(|()| Request::GetShmemConfig),
    ]
}

fn request() -> impl Strategy<Value = Request<u32>> {
    prop_oneof![ring_request(), memory_request(), device_request(), bare_request()]
}

fn backend_request() -> impl Strategy<Value = BackendRequest<u32>> {
    prop_oneof![
        iotlb().prop_map(BackendRequest::Iotlb),
        Just(()).prop_map(|()| BackendRequest::ConfigChange),
        (any::<[u64; 3]>(), of(any::<u32>())).prop_map(|([index, size, offset], fd)| {
            BackendRequest::VringHostNotifier { area: VringArea { index, size, offset }, fd }
        }),
        any::<u32>().prop_map(|vring| BackendRequest::VringCall { vring }),
        any::<u32>().prop_map(|vring| BackendRequest::VringErr { vring }),
        any::<[u8; 16]>().prop_map(BackendRequest::SharedObjectAdd),
        any::<[u8; 16]>().prop_map(BackendRequest::SharedObjectRemove),
        any::<[u8; 16]>().prop_map(BackendRequest::SharedObjectLookup),
        (shmem_map(), any::<u32>()).prop_map(|(map, fd)| BackendRequest::ShmemMap(map, fd)),
        shmem_map().prop_map(BackendRequest::ShmemUnmap),
    ]
}

fn reply() -> impl Strategy<Value = (FrontendReq, Reply<u32>)> {
    prop_oneof![
        any::<u64>().prop_map(|value| (FrontendReq::GET_FEATURES, Reply::Value(value))),
        any::<u64>().prop_map(|value| (FrontendReq::SET_MEM_TABLE, Reply::Value(value))),
        any::<(u32, u32)>().prop_map(|(vring, base)| (FrontendReq::GET_VRING_BASE, Reply::VringBase { vring, base })),
        of(config()).prop_map(|config| (FrontendReq::GET_CONFIG, Reply::Config(config))),
        (inflight(), any::<u32>()).prop_map(|(area, fd)| (FrontendReq::GET_INFLIGHT_FD, Reply::Inflight(area, fd))),
        of(any::<u32>()).prop_map(|fd| (FrontendReq::POSTCOPY_ADVISE, Reply::Descriptor(fd))),
        (any::<u64>(), of(any::<u32>()))
            .prop_map(|(value, fd)| (FrontendReq::SET_DEVICE_STATE_FD, Reply::DeviceState(value, fd))),
        Just(()).prop_map(|()| (FrontendReq::SET_LOG_BASE, Reply::LogBase)),
        vec(any::<u64>(), 0..=256).prop_map(|sizes| (FrontendReq::GET_SHMEM_CONFIG, Reply::ShmemConfig(sizes))),
        vec(region(), 1..=32).prop_map(|regions| (FrontendReq::SET_MEM_TABLE, Reply::Regions(regions))),
        region().prop_map(|region| (FrontendReq::ADD_MEM_REG, Reply::Region(region))),
        vec(any::<u8>(), 0..100).prop_map(|bytes| (FrontendReq::CREATE_CRYPTO_SESSION, Reply::CryptoSession(bytes))),
    ]
}

/// Feeds frames as the kernel would: a read ends where descriptors were attached to a send, which comes with its
/// first byte.
fn feed(frames: &[Frame<u32>], cuts: &[usize]) -> Vec<Message<u32>> {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    let mut cuts = cuts.iter().cycle();
    let mut plain: Vec<u8> = Vec::new();
    for frame in frames {
        // Bytes without descriptors may be read together with what follows them.
        let mut rest = std::mem::take(&mut plain);
        let carried = rest.len();
        rest.extend(&frame.bytes);
        if frame.fds.is_empty() && cuts.next().is_some_and(|cut| cut % 2 == 0) {
            plain = rest;
            continue;
        }
        let mut fds = frame.fds.clone();
        let mut done = 0;
        while done < rest.len() {
            let cut = (cuts.next().unwrap_or(&0) % 40 + 1).min(rest.len() - done);
            let chunk = &rest[done..done + cut];
            done += cut;
            let now = if done > carried { std::mem::take(&mut fds) } else { Vec::new() };
            decoder.push(chunk, now);
            while let Some(message) = decoder.next_message().unwrap() {
                messages.push(message);
            }
        }
    }
    decoder.push(&plain, []);
    while let Some(message) = decoder.next_message().unwrap() {
        messages.push(message);
    }
    assert!(decoder.is_empty());
    messages
}

fn one(frame: Frame<u32>) -> Message<u32> {
    let mut decoder = Decoder::new();
    decoder.push(&frame.bytes, frame.fds);
    decoder.next_message().unwrap().unwrap()
}

proptest! {
    #[test]
    fn requests_survive_any_chunking(
        seeds in vec((request(), any::<bool>()), 1..8),
        cuts in vec(any::<usize>(), 1..20),
    ) {
        let (expected, frames): (Vec<_>, Vec<_>) = seeds
            .into_iter()
            .map(|(request, need)| {
                let frame = request.into_frame(need);
                let copy = Frame { bytes: frame.bytes.clone(), fds: frame.fds.clone() };
                ((Request::parse(one(copy)), need), frame)
            })
            .unzip();
        let got: Vec<_> = feed(&frames, &cuts)
            .into_iter()
            .map(|message| {
                let need = message.header.needs_reply();
                (Request::parse(message), need)
            })
            .collect();
        prop_assert!(got.iter().all(|(request, _)| request.is_ok()));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn requests_round_trip(request in request(), need in any::<bool>()) {
        let text = format!("{request:?}");
        let message = one(request.into_frame(need));
        prop_assert_eq!(message.header.needs_reply(), need);
        prop_assert_eq!(format!("{:?}", Request::parse(message).unwrap()), text);
    }

    #[test]
    fn backend_requests_round_trip(request in backend_request(), need in any::<bool>()) {
        let text = format!("{request:?}");
        let message = one(request.into_frame(need));
        prop_assert_eq!(format!("{:?}", BackendRequest::parse(message).unwrap()), text);
    }

    #[test]
    fn replies_round_trip((code, reply) in reply()) {
        let text = format!("{reply:?}");
        let message = one(reply.into_frame(code));
        prop_assert_eq!(message.header.flags, 5);
        prop_assert_eq!(format!("{:?}", Reply::parse(code, message).unwrap()), text);
    }

    #[test]
    fn a_wrong_size_or_count_is_an_error_and_drops_all_descriptors(
        request in request(),
        grow in 1usize..9,
        extra in 0usize..3,
    ) {
        prop_assume!(!matches!(request, Request::CreateCryptoSession(_)));
        let lenient = matches!(request, Request::RemMemReg(_) | Request::SetLogBase { .. } | Request::Iotlb(_));
        let frame = request.into_frame(false);
        let mut message = one(Frame { bytes: frame.bytes, fds: vec![] });
        let token = std::rc::Rc::new(());
        let due = frame.fds.len();
        if extra == 0 && !lenient {
            message.payload.resize(message.payload.len() + grow, 0);
        }
        let fds = vec![token.clone(); due + if lenient { extra + 1 } else { extra }];
        let wrong = fds.len() != due || message.payload.len() != usize::try_from(message.header.size).unwrap();
        let Message { header, payload, .. } = message;
        let result = Request::parse(Message { header, payload, fds });
        let tolerated = matches!(result, Ok(Request::RemMemReg(_)));
        prop_assert!(!wrong || tolerated || result.is_err());
        if let Err(error) = &result {
            prop_assert!(WireError::CAUSES.contains(&error.cause()));
            prop_assert_eq!(std::rc::Rc::strong_count(&token), 1);
        }
    }

    #[test]
    fn decoding_anything_never_panics(data in vec(any::<u8>(), 0..400)) {
        fuzzing::decode(&data);
    }

    #[test]
    fn decoding_headers_of_any_request_never_panics(id in 0u32..50, flags in 0u8..16, body in vec(any::<u8>(), 0..80)) {
        let size = u32::try_from(body.len()).unwrap();
        let flags = u32::from(flags) | 1;
        let message = Message { header: Header { request: id, flags, size }, payload: body, fds: vec![1u32] };
        let mut bytes = vec![12, 0];
        for word in [id, flags, size] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([u8::try_from(size).unwrap(), 1]);
        bytes.extend(&message.payload);
        fuzzing::decode(&bytes);
        drop(Request::parse(message));
    }
}

#[test]
fn every_front_end_request_is_recognised() {
    for id in 1..=44 {
        let code = FrontendReq::try_from(id).unwrap();
        let message = |len: usize, fds: &[u32]| Message {
            header: Header::request(id, false, u32::try_from(len).unwrap()),
            payload: vec![0; len],
            fds: fds.to_vec(),
        };
        let found = [0, 8, 12, 16, 24, 32, 40]
            .into_iter()
            .find_map(|len| [&[][..], &[1]].into_iter().find_map(|fds| Request::parse(message(len, fds)).ok()));
        assert_eq!(found.and_then(|request| request.code()), Some(code), "{code:?}");
    }
    let message = Message::<u32> { header: Header::request(45, false, 0), payload: vec![], fds: vec![] };
    assert_eq!(Request::parse(message), Ok(Request::Unknown(45)));
}
