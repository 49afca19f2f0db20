// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Message orders of real front ends, against a host in memory.

mod common;

use common::{FEATURES, Host, region};
use vhost_user::{
    ConfigAccess, DeviceSetup, Event, Frame, Frontend, FrontendConfig, FrontendError, FrontendReq, Inflight, Offer,
    Order, ProtocolError, QueueSetup, Reply, Request, VringAddresses, features,
};

const PACKED_START: u32 = 0x8000_8000;
const INFLIGHT: Inflight = Inflight { mmap_size: 64, mmap_offset: 0, num_queues: 2, queue_size: 256 };

fn run(frontend: &mut Frontend<u32>, host: &mut Host) -> Result<Event, FrontendError> {
    loop {
        while let Some(frame) = frontend.next_frame() {
            for reply in host.receive(frame).expect("the host keeps the connection") {
                // A byte at a time, as a slow peer would.
                for byte in reply.bytes {
                    assert!(frontend.wanted() > 0);
                    frontend.receive(&[byte], []);
                }
            }
        }
        if let Some(event) = frontend.next_event()? {
            return Ok(event);
        }
    }
}

fn setup(pairs: u16) -> DeviceSetup<u32> {
    let queue = |index: u16| QueueSetup {
        size: 256,
        base: PACKED_START,
        addresses: addresses(u64::from(index)),
        kick: Some(100 + u32::from(index)),
        call: Some(200 + u32::from(index)),
        err: None,
    };
    DeviceSetup {
        memory: vec![(region(0), 1), (region(0x1000), 2)],
        queues: (0..pairs * 2).map(queue).collect(),
        enabled_pairs: 1,
    }
}

fn addresses(ring: u64) -> VringAddresses {
    let at = 0x7000_0000 + ring * 0x1000;
    VringAddresses { descriptor: at, driver: at + 0x800, device: at + 0xc00 }
}

fn value(frames: &[Frame<u32>], request: FrontendReq) -> u64 {
    let [frame] = frames else { panic!("{frames:?}") };
    let mut decoder = vhost_user::Decoder::new();
    decoder.push(&frame.bytes, []);
    let message = decoder.next_message().unwrap().unwrap();
    match Reply::<u32>::parse(request, message).unwrap() {
        Reply::Value(value) => value,
        Reply::VringBase { base, .. } => u64::from(base),
        other => panic!("{other:?}"),
    }
}

fn connected(order: Order, pairs: u16) -> (Frontend<u32>, Host) {
    let mut host = Host::new(Offer::new(FEATURES, 4));
    let mut frontend = Frontend::new(FrontendConfig { order, ..FrontendConfig::new(FEATURES, pairs) });
    frontend.connect().unwrap();
    let Event::Negotiated(agreed) = run(&mut frontend, &mut host).unwrap() else { panic!() };
    assert_eq!((agreed.features, agreed.protocol_features), (FEATURES, Offer::PROTOCOL_FEATURES));
    assert_eq!((agreed.max_pairs, agreed.max_mem_slots), (Some(4), 509));
    (frontend, host)
}

fn started(order: Order, pairs: u16) -> (Frontend<u32>, Host) {
    let (mut frontend, mut host) = connected(order, pairs);
    frontend.start(setup(pairs)).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Started));
    (frontend, host)
}

#[test]
fn both_orders_start_every_ring_and_enable_one_pair() {
    for order in [Order::VirtioUser, Order::Qemu] {
        for pairs in [1, 2, 4] {
            let (_, host) = started(order, pairs);
            assert_eq!(host.running.len(), usize::from(pairs) * 2, "{order:?}");
            for (vring, start) in &host.running {
                assert_eq!(start.base, Some(PACKED_START));
                assert_eq!((start.size, start.features), (256, FEATURES));
                assert_eq!(start.addresses, addresses(u64::from(*vring)));
                assert_eq!(host.kicks[vring], Some(100 + u32::from(*vring)));
                assert_eq!(host.calls[vring], Some(200 + u32::from(*vring)));
                assert_eq!(host.enabled[vring], *vring < 2);
            }
            assert_eq!(host.memory.len(), 2);
            assert_eq!(host.connection.backend().status(), 15);
        }
    }
}

#[test]
fn stop_reports_bases_and_a_second_start_works() {
    for order in [Order::VirtioUser, Order::Qemu] {
        let (mut frontend, mut host) = started(order, 2);
        // The upper half that a host may leave out is made equal.
        host.base = 0x8012;
        frontend.stop().unwrap();
        assert_eq!(run(&mut frontend, &mut host), Ok(Event::Stopped(vec![0x8012_8012; 4])));
        assert!(host.running.is_empty());
        let mut again = setup(2);
        again.memory.clear();
        if order == Order::VirtioUser {
            again.memory = vec![(region(0), 1), (region(0x1000), 2)];
        }
        frontend.start(again).unwrap();
        assert_eq!(run(&mut frontend, &mut host), Ok(Event::Started));
        assert_eq!(host.running.len(), 4);
    }
}

#[test]
fn live_memory_changes() {
    let (mut frontend, mut host) = started(Order::VirtioUser, 1);
    host.log.clear();
    frontend.replace_memory(vec![(region(0), 5)]).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    let expected = ["enable 0 false", "enable 1 false", "memory 1", "enable 0 true", "enable 1 true"].map(String::from);
    assert_eq!(host.log, expected);
    frontend.add_region(region(0x5000), 9).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    frontend.add_region(region(0x5800), 9).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Refused(FrontendReq::ADD_MEM_REG)));
    frontend.remove_region(region(0x5000)).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    frontend.remove_region(region(0x5000)).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Refused(FrontendReq::REM_MEM_REG)));
    assert_eq!(host.memory, [(region(0), 5)]);
    assert_eq!(host.running.len(), 2);
}

#[test]
fn memory_that_cannot_be_mapped_is_refused_or_ends_the_connection() {
    let mut host = Host::new(Offer::new(FEATURES, 1));
    host.maps = false;
    let table = || Request::SetMemTable(vec![(region(0), 1)]);
    assert_eq!(value(&host.send(table(), true).unwrap(), FrontendReq::SET_MEM_TABLE), 1);
    assert_eq!(host.log, ["memory 1", "refused memory_unusable"]);
    let request = FrontendReq::SET_MEM_TABLE;
    assert_eq!(host.send(table(), false), Err(ProtocolError::MemoryUnusable { request }));
    assert!(host.connection.backend().regions().is_empty());
}

#[test]
fn more_regions_than_a_table_takes_go_one_by_one() {
    let (mut frontend, mut host) = connected(Order::VirtioUser, 1);
    let mut setup = setup(1);
    setup.memory = (0..100).map(|at| (region(at * 0x1000), 1)).collect();
    frontend.start(setup).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Started));
    assert_eq!(host.memory.len(), 100);
}

#[test]
fn reset_device_forgets_rings_and_keeps_memory() {
    let (mut frontend, mut host) = started(Order::Qemu, 2);
    frontend.reset_device().unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    assert!(host.running.is_empty());
    assert_eq!(host.connection.backend().acked_features(), None);
    let mut again = setup(2);
    again.memory.clear();
    frontend.start(again).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Started));
    assert_eq!(host.running.len(), 4);
}

#[test]
fn status_mtu_rarp_and_config() {
    let (mut frontend, mut host) = started(Order::VirtioUser, 1);
    frontend.get_status().unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Status(15)));
    frontend.set_mtu(9000).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    frontend.set_mtu(60).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Refused(FrontendReq::NET_SET_MTU)));
    frontend.get_config(10, 2).unwrap();
    let access = ConfigAccess { offset: 10, flags: 0, bytes: 9000u16.to_le_bytes().to_vec() };
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Config(Some(access.clone()))));
    frontend.get_config(255, 2).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Config(None)));
    frontend.set_config(ConfigAccess { bytes: vec![1, 1], ..access }).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Refused(FrontendReq::SET_CONFIG)));
    frontend.send_rarp([2, 0, 0, 0, 0, 7]).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    assert!(host.log.contains(&"SendRarp([2, 0, 0, 0, 0, 7])".to_owned()));
    // A driver's reset stops its rings.
    frontend.set_status(0).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    assert!(host.running.is_empty());
}

/// DPDK's virtio-user in server mode continues the old connection's negotiation: ENABLE 0, GET_VRING_BASE and an
/// acknowledged SET_STATUS, without owner and before any features, and it waits for the answers.
#[test]
fn a_reconnect_in_virtio_users_manner() {
    let (mut frontend, _) = started(Order::VirtioUser, 2);
    let mut host = Host::new(Offer::new(FEATURES, 4));
    frontend.reconnect();
    let Event::Negotiated(agreed) = run(&mut frontend, &mut host).unwrap() else { panic!() };
    assert_eq!(agreed.features, FEATURES);
    frontend.start(setup(2)).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Started));
    assert_eq!(host.running.len(), 4);
    assert!(host.enabled[&1] && !host.enabled[&2]);
}

#[test]
fn a_reconnect_cannot_win_features_but_can_lose_them() {
    for order in [Order::VirtioUser, Order::Qemu] {
        let config = FrontendConfig { order, ..FrontendConfig::new(FEATURES, 1) };
        let mut frontend = Frontend::new(config);
        let mut host = Host::new(Offer::new(FEATURES & !features::VIRTIO_F_IN_ORDER, 1));
        frontend.connect().unwrap();
        run(&mut frontend, &mut host).unwrap();
        let mut host = Host::new(Offer::new(FEATURES, 1));
        frontend.reconnect();
        let Event::Negotiated(agreed) = run(&mut frontend, &mut host).unwrap() else { panic!() };
        assert_eq!(agreed.features, FEATURES & !features::VIRTIO_F_IN_ORDER);
        let mut host = Host::new(Offer::new(features::VIRTIO_F_VERSION_1, 1));
        frontend.reconnect();
        let Event::Negotiated(agreed) = run(&mut frontend, &mut host).unwrap() else { panic!() };
        assert_eq!(agreed.features, features::VIRTIO_F_VERSION_1);
    }
}

#[test]
fn required_features_and_queues_are_checked() {
    let mut host = Host::new(Offer::new(features::VIRTIO_F_VERSION_1, 1));
    let required = features::VIRTIO_F_RING_PACKED;
    let mut frontend = Frontend::new(FrontendConfig { required, ..FrontendConfig::new(FEATURES, 1) });
    frontend.connect().unwrap();
    let error = FrontendError::FeaturesMissing { bits: required };
    assert_eq!(run(&mut frontend, &mut host), Err(error));
    assert_eq!(frontend.next_event(), Err(error));
    assert_eq!(frontend.connect(), Err(error));

    let mut host = Host::new(Offer::new(FEATURES, 1));
    let mut frontend = Frontend::new(FrontendConfig::new(FEATURES, 2));
    frontend.connect().unwrap();
    assert_eq!(run(&mut frontend, &mut host), Err(FrontendError::TooFewPairs { offered: 1, wanted: 2 }));
}

#[test]
fn a_back_end_without_protocol_features_starts_rings_enabled() {
    let mut offer = Offer::new(FEATURES, 1);
    offer.protocol_features = 0;
    let mut host = Host::new(offer);
    let mut frontend = Frontend::new(FrontendConfig::new(FEATURES, 1));
    frontend.connect().unwrap();
    let Event::Negotiated(agreed) = run(&mut frontend, &mut host).unwrap() else { panic!() };
    assert_eq!((agreed.protocol_features, agreed.max_mem_slots), (0, 8));
    frontend.start(setup(1)).unwrap();
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Started));
    assert!(host.enabled[&0] && host.enabled[&1]);
    assert_eq!(
        frontend.set_mtu(1500),
        Err(FrontendError::NotNegotiated { request: FrontendReq::NET_SET_MTU, feature: features::PROTOCOL_F_NET_MTU })
    );
}

#[test]
fn enable_and_base_before_everything_else() {
    let mut host = Host::new(Offer::new(FEATURES, 1));
    host.send(Request::SetVringEnable { vring: 0, enable: 1 }, false).unwrap();
    let base = host.send(Request::GetVringBase { vring: 1 }, false).unwrap();
    assert_eq!(value(&base, FrontendReq::GET_VRING_BASE), 0);
    assert!(host.connection.backend().vring(0).unwrap().enabled);
}

#[test]
fn num_base_addr_kick_in_any_order() {
    let steps = || {
        [
            Request::SetVringNum { vring: 0, num: 256 },
            Request::SetVringBase { vring: 0, base: 0x8005 },
            Request::SetVringAddr { vring: 0, flags: 0, addresses: addresses(0), log: 0 },
            Request::SetVringKick { vring: 0, fd: None },
            Request::SetMemTable(vec![(region(0), 1)]),
            Request::SetFeatures(FEATURES | features::VHOST_USER_F_PROTOCOL_FEATURES),
        ]
    };
    let count = steps().len();
    let mut tried = 0;
    for code in 0..count.pow(u32::try_from(count).unwrap()) {
        let mut order: Vec<usize> = Vec::new();
        let mut rest = code;
        for _ in 0..count {
            order.push(rest % count);
            rest /= count;
        }
        if (0..count).any(|step| !order.contains(&step)) {
            continue;
        }
        tried += 1;
        let mut host = Host::new(Offer::new(FEATURES, 1));
        let mut steps = steps().map(Some);
        for step in &order {
            host.send(steps[*step].take().unwrap(), false).unwrap();
        }
        let start = host.running.get(&0).unwrap_or_else(|| panic!("{order:?} {:?}", host.log));
        // A base that came after the start was taken all the same.
        assert_eq!((start.base, start.size), (Some(0x8005), 256), "{order:?}");
    }
    assert_eq!(tried, 720);
}

#[test]
fn a_running_ring_that_is_set_up_anew_waits_for_its_kick() {
    let (_, mut host) = started(Order::VirtioUser, 1);
    host.send(Request::SetVringNum { vring: 0, num: 256 }, false).unwrap();
    host.send(Request::SetVringAddr { vring: 0, flags: 0, addresses: addresses(0), log: 0 }, false).unwrap();
    assert_eq!(host.running.len(), 2, "nothing changed");
    host.send(Request::SetVringNum { vring: 0, num: 512 }, false).unwrap();
    assert_eq!(host.running.len(), 1);
    host.send(Request::SetVringBase { vring: 0, base: PACKED_START }, false).unwrap();
    host.send(Request::SetVringAddr { vring: 0, flags: 0, addresses: addresses(3), log: 0 }, false).unwrap();
    assert_eq!(host.running.len(), 1);
    host.send(Request::SetVringKick { vring: 0, fd: Some(7) }, false).unwrap();
    assert_eq!((host.running[&0].size, host.running[&0].addresses), (512, addresses(3)));
    host.send(Request::SetVringBase { vring: 1, base: PACKED_START }, false).unwrap();
    assert!(!host.running.contains_key(&1));
    // A new kick descriptor for a running ring is no restart.
    host.log.clear();
    host.send(Request::SetVringKick { vring: 0, fd: Some(8) }, false).unwrap();
    assert_eq!((host.log.len(), host.kicks[&0]), (0, Some(8)));
}

/// QEMU 7.2 writes status 0 first and asks for the bases then.
#[test]
fn bases_are_known_after_a_reset_by_status() {
    let (_, mut host) = started(Order::Qemu, 1);
    host.base = 0x0007_0007;
    host.send(Request::SetStatus(0), false).unwrap();
    assert!(host.running.is_empty());
    let base = host.send(Request::GetVringBase { vring: 1 }, false).unwrap();
    assert_eq!(value(&base, FrontendReq::GET_VRING_BASE), 0x0007_0007);
}

#[test]
fn what_is_not_offered_is_refused_by_name() {
    let cases = [
        (Request::GetInflightFd(INFLIGHT), FrontendReq::GET_INFLIGHT_FD, features::PROTOCOL_F_INFLIGHT_SHMFD),
        (Request::SetInflightFd(INFLIGHT, 1), FrontendReq::SET_INFLIGHT_FD, features::PROTOCOL_F_INFLIGHT_SHMFD),
        (Request::SetBackendReqFd(1), FrontendReq::SET_BACKEND_REQ_FD, features::PROTOCOL_F_BACKEND_REQ),
        (Request::PostcopyAdvise, FrontendReq::POSTCOPY_ADVISE, features::PROTOCOL_F_PAGEFAULT),
        (Request::VringKick { vring: 0 }, FrontendReq::VRING_KICK, features::PROTOCOL_F_INBAND_NOTIFICATIONS),
    ];
    for (request, name, feature) in cases {
        let mut host = Host::new(Offer::new(FEATURES, 1));
        let error = ProtocolError::NotOffered { request: name, feature };
        assert_eq!(host.send(request, true), Err(error));
        // The front end was told before the end, unless the reply it waits for has no way to say so.
        match name {
            FrontendReq::GET_INFLIGHT_FD | FrontendReq::POSTCOPY_ADVISE => assert_eq!(host.replies, []),
            _ => assert_eq!(value(&host.replies, name), 1),
        }
    }
    let mut host = Host::new(Offer::new(FEATURES, 1));
    assert_eq!(host.send(Request::Unknown(77), false), Err(ProtocolError::UnknownRequest { id: 77 }));
}

#[test]
fn surplus_features_are_an_error_that_names_them() {
    let mut host = Host::new(Offer::new(FEATURES, 1));
    let bits = features::VHOST_F_LOG_ALL;
    let error = host.send(Request::SetFeatures(FEATURES | bits), false).unwrap_err();
    assert_eq!(error, ProtocolError::FeaturesNotOffered { bits });
    let mut host = Host::new(Offer::new(FEATURES, 1));
    let bits = features::PROTOCOL_F_PAGEFAULT;
    let error = host.send(Request::SetProtocolFeatures(bits), false).unwrap_err();
    assert_eq!(error, ProtocolError::ProtocolFeaturesNotOffered { bits });
}

#[test]
fn the_need_reply_flag_counts_once_negotiation_did_not_decline_it() {
    let mut host = Host::new(Offer::new(FEATURES, 1));
    let owner = FrontendReq::SET_OWNER;
    assert_eq!(value(&host.send(Request::SetOwner, true).unwrap(), owner), 0);
    host.send(Request::SetProtocolFeatures(features::PROTOCOL_F_MQ), false).unwrap();
    assert_eq!(host.send(Request::SetOwner, true).unwrap(), []);
    let error = ProtocolError::NotNegotiated { request: FrontendReq::GET_STATUS, feature: features::PROTOCOL_F_STATUS };
    assert_eq!(host.send(Request::GetStatus, false), Err(error));
}

#[test]
fn messages_with_a_reply_of_their_own_are_answered_once() {
    let mut host = Host::new(Offer::new(FEATURES, 3));
    for (request, code, expected) in [
        (Request::GetFeatures, FrontendReq::GET_FEATURES, FEATURES | features::VHOST_USER_F_PROTOCOL_FEATURES),
        (Request::GetQueueNum, FrontendReq::GET_QUEUE_NUM, 3),
        (Request::GetMaxMemSlots, FrontendReq::GET_MAX_MEM_SLOTS, 509),
        (Request::GetVringBase { vring: 5 }, FrontendReq::GET_VRING_BASE, 0),
    ] {
        assert_eq!(value(&host.send(request, true).unwrap(), code), expected);
    }
}

#[test]
fn indices_sizes_and_values_are_bounded() {
    let mut host = Host::new(Offer::new(FEATURES, 1));
    let error = host.send(Request::SetVringKick { vring: 2, fd: Some(1) }, false).unwrap_err();
    assert_eq!(error, ProtocolError::VringIndex { vring: 2, max: 2 });
    for num in [0, 32769, u32::MAX] {
        let mut host = Host::new(Offer::new(FEATURES, 1));
        let error = host.send(Request::SetVringNum { vring: 0, num }, false).unwrap_err();
        assert_eq!(error, ProtocolError::VringSize { vring: 0, size: num, max: 32768 });
    }
    let mut host = Host::new(Offer::new(FEATURES, 1));
    let error = host.send(Request::SetVringEnable { vring: 1, enable: 2 }, false).unwrap_err();
    assert_eq!(error, ProtocolError::EnableValue { vring: 1, value: 2 });
}

#[test]
fn features_cannot_change_under_running_rings() {
    let (_, mut host) = started(Order::VirtioUser, 1);
    let bits = FEATURES | features::VHOST_USER_F_PROTOCOL_FEATURES;
    assert_eq!(value(&host.send(Request::SetFeatures(bits), true).unwrap(), FrontendReq::SET_FEATURES), 0);
    let to = features::VIRTIO_F_VERSION_1;
    assert_eq!(host.send(Request::SetFeatures(to), false), Err(ProtocolError::FeaturesWhileRunning { from: bits, to }));
}

#[test]
fn a_host_that_offers_more_serves_it_itself() {
    let mut offer = Offer::new(FEATURES, 1);
    offer.protocol_features |= features::PROTOCOL_F_INFLIGHT_SHMFD;
    let mut connection = vhost_user::BackendConnection::<u32>::new(offer);
    let Frame { bytes, fds } = Request::SetInflightFd(INFLIGHT, 4).into_frame(true);
    connection.receive(&bytes, fds);
    let Some(vhost_user::Action::Request { request, ack }) = connection.poll().unwrap() else { panic!() };
    assert_eq!(request, Request::SetInflightFd(INFLIGHT, 4));
    assert_eq!(connection.wanted(), 0);
    assert!(connection.poll().unwrap().is_none());
    connection.finish_request(ack, None);
    assert!(matches!(connection.poll(), Ok(Some(vhost_user::Action::Reply(_)))));
    assert_eq!(connection.wanted(), 12);
}

#[test]
fn messages_behind_an_outstanding_acknowledgement_wait_and_are_answered_in_order() {
    let mut connection = vhost_user::BackendConnection::<u32>::new(Offer::new(FEATURES, 1));
    let table = Request::SetMemTable(vec![(region(0), 1)]).into_frame(true);
    let get = Request::GetFeatures.into_frame(false);
    connection.receive(&table.bytes, table.fds);
    connection.receive(&get.bytes, get.fds);
    let Some(vhost_user::Action::SetMemory { ack, .. }) = connection.poll().unwrap() else { panic!() };
    assert!(connection.poll().unwrap().is_none());
    assert_eq!(connection.wanted(), 0);
    connection.finish(ack, true);
    let mut requests = Vec::new();
    while let Some(vhost_user::Action::Reply(frame)) = connection.poll().unwrap() {
        requests.push(frame.bytes[0]);
    }
    assert_eq!(requests, [5, 1]);
    assert!(connection.is_between_messages());
}

#[test]
fn an_acknowledgement_of_another_connection_is_the_hosts_error() {
    let connection = || {
        let mut connection = vhost_user::BackendConnection::<u32>::new(Offer::new(FEATURES, 1));
        let table = Request::SetMemTable(vec![(region(0), 1)]).into_frame(true);
        connection.receive(&table.bytes, table.fds);
        connection
    };
    let (mut one, mut other) = (connection(), vhost_user::BackendConnection::<u32>::new(Offer::new(FEATURES, 1)));
    let Some(vhost_user::Action::SetMemory { ack, .. }) = one.poll().unwrap() else { panic!() };
    other.finish(ack, true);
    assert_eq!(other.poll().unwrap_err(), ProtocolError::HostOrder);
}

#[test]
fn a_message_nobody_asked_for_ends_the_front_end() {
    let mut frontend = Frontend::<u32>::new(FrontendConfig::new(FEATURES, 1));
    let frame = Reply::<u32>::Value(1).into_frame(FrontendReq::GET_FEATURES);
    frontend.receive(&frame.bytes, frame.fds);
    assert_eq!(frontend.next_event(), Err(FrontendError::Unasked { request: 1 }));
    assert!(frontend.next_frame().is_none());
}

#[test]
fn operations_do_not_overlap() {
    let (mut frontend, mut host) = started(Order::VirtioUser, 1);
    frontend.set_enabled(0, false).unwrap();
    assert_eq!(frontend.stop(), Err(FrontendError::Busy));
    assert_eq!(run(&mut frontend, &mut host), Ok(Event::Done));
    assert!(!host.enabled[&0]);
    assert_eq!(frontend.set_enabled(1, true), Err(FrontendError::Queues { got: 4, expected: 2 }));
    assert!(frontend.is_idle());
}
