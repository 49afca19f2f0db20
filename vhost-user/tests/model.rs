// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random sessions against a small plain model: whatever the order of messages, the node agrees with the model about
//! what runs, and its actions are consistent (the host in `common` checks those).

mod common;

use common::{FEATURES, Host, region};
use proptest::collection::vec;
use proptest::prelude::*;
use vhost_user::{Decoder, Frame, FrontendReq, Kick, Offer, Reply, Request, VringAddresses, features, fuzzing};

const RINGS: u8 = 4;

#[derive(Clone, Debug)]
enum Operation {
    Features {
        packed: bool,
        protocol: bool,
    },
    /// The same features, and whether everything is logged.
    Logging(bool),
    ProtocolFeatures(u64),
    Num(u8, u16),
    Base(u8, u16),
    GetBase(u8),
    Addr(u8, u64),
    Kick(u8, bool),
    Call(u8, bool),
    Enable(u8, bool),
    Memory(Vec<u8>),
    Add(u8),
    Remove(u8),
    Status(u8),
    Mtu(u16),
    ResetDevice,
    ResetOwner,
}

fn operation() -> impl Strategy<Value = Operation> {
    let ring = 0..RINGS;
    prop_oneof![
        2 => any::<(bool, bool)>().prop_map(|(packed, protocol)| Operation::Features { packed, protocol }),
        2 => any::<bool>().prop_map(Operation::Logging),
        1 => any::<u64>().prop_map(Operation::ProtocolFeatures),
        4 => (ring.clone(), 6u32..9).prop_map(|(ring, log)| Operation::Num(ring, 1 << log)),
        4 => (ring.clone(), 0u16..64).prop_map(|(ring, base)| Operation::Base(ring, base)),
        3 => ring.clone().prop_map(Operation::GetBase),
        4 => (ring.clone(), 0u64..3).prop_map(|(ring, at)| Operation::Addr(ring, at)),
        6 => (ring.clone(), any::<bool>()).prop_map(|(ring, fd)| Operation::Kick(ring, fd)),
        1 => (ring.clone(), any::<bool>()).prop_map(|(ring, fd)| Operation::Call(ring, fd)),
        4 => (ring, any::<bool>()).prop_map(|(ring, on)| Operation::Enable(ring, on)),
        2 => vec(0u8..6, 0..4).prop_map(Operation::Memory),
        2 => (0u8..6).prop_map(Operation::Add),
        1 => (0u8..6).prop_map(Operation::Remove),
        1 => prop_oneof![Just(0u8), Just(15)].prop_map(Operation::Status),
        1 => any::<u16>().prop_map(Operation::Mtu),
        1 => Just(Operation::ResetDevice),
        1 => Just(Operation::ResetOwner),
    ]
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ring {
    size: Option<u16>,
    addresses: Option<u64>,
    base: Option<u32>,
    kick: bool,
    enabled: bool,
    running: bool,
}

/// What a node should make of a session.
#[derive(Debug, Default)]
struct Model {
    features: Option<u64>,
    acks: bool,
    rings: [Ring; RINGS as usize],
    slots: Vec<u8>,
}

/// Whether a request has an effect, none, or ends the connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Refused,
    Closed,
}

impl Model {
    /// The base a stopped ring reports: the host's, made equal in both halves for packed rings.
    fn stop(&mut self, ring: usize, base: u32) {
        let ring = &mut self.rings[ring];
        ring.kick = false;
        if std::mem::take(&mut ring.running) {
            ring.base = Some(base);
        }
    }

    fn apply(&mut self, operation: &Operation, host_base: u32) -> Verdict {
        let verdict = self.effect(operation, host_base);
        if self.features.is_some() && !self.slots.is_empty() {
            for ring in &mut self.rings {
                ring.running |= ring.kick && ring.size.is_some() && ring.addresses.is_some();
            }
        }
        verdict
    }

    fn effect(&mut self, operation: &Operation, host_base: u32) -> Verdict {
        match *operation {
            Operation::Features { packed, protocol } => {
                let bits = feature_bits(packed, protocol);
                let same = self.features.is_some_and(|had| had & !features::VHOST_F_LOG_ALL == bits);
                if same {
                    // Logging ends, if it was on.
                    self.features = Some(bits);
                } else {
                    if self.features.is_some() && self.rings.iter().any(|ring| ring.running) {
                        return Verdict::Closed;
                    }
                    self.features = Some(bits);
                    if !protocol {
                        self.rings.iter_mut().for_each(|ring| ring.enabled = true);
                    }
                }
            }
            // Whatever runs; the host's own checks see to it that it goes on running.
            Operation::Logging(on) => {
                let before = self.features.unwrap_or(0) & !features::VHOST_F_LOG_ALL;
                let bits = before | if on { features::VHOST_F_LOG_ALL } else { 0 };
                if self.features.is_none() {
                    self.rings.iter_mut().for_each(|ring| ring.enabled = true);
                }
                self.features = Some(bits);
            }
            Operation::ProtocolFeatures(bits) => {
                self.acks = bits & features::PROTOCOL_F_REPLY_ACK != 0;
            }
            Operation::Num(ring, size) => {
                let at = usize::from(ring);
                if self.rings[at].size != Some(size) {
                    if self.rings[at].running {
                        self.stop(at, host_base);
                    }
                    self.rings[at].size = Some(size);
                }
            }
            Operation::Addr(ring, addresses) => {
                let at = usize::from(ring);
                if self.rings[at].addresses != Some(addresses) {
                    if self.rings[at].running {
                        self.stop(at, host_base);
                    }
                    self.rings[at].addresses = Some(addresses);
                }
            }
            Operation::Base(ring, base) => {
                let at = usize::from(ring);
                let late = self.rings[at].running && self.rings[at].base.is_none();
                if self.rings[at].running {
                    self.stop(at, host_base);
                }
                self.rings[at].kick |= late;
                self.rings[at].base = Some(u32::from(base));
            }
            Operation::GetBase(ring) => self.stop(usize::from(ring), host_base),
            Operation::Kick(ring, _) => self.rings[usize::from(ring)].kick = true,
            Operation::Enable(ring, on) => self.rings[usize::from(ring)].enabled = on,
            Operation::Memory(ref slots) => {
                if (1..slots.len()).any(|at| slots[..at].contains(&slots[at])) {
                    return Verdict::Refused;
                }
                self.slots.clone_from(slots);
            }
            Operation::Add(slot) => {
                if self.slots.contains(&slot) {
                    return Verdict::Refused;
                }
                self.slots.push(slot);
            }
            Operation::Remove(slot) => {
                if !self.slots.contains(&slot) {
                    return Verdict::Refused;
                }
                self.slots.retain(|known| *known != slot);
            }
            Operation::Mtu(mtu) if mtu < 68 => return Verdict::Refused,
            Operation::Status(0) => (0..self.rings.len()).for_each(|ring| {
                if self.rings[ring].running {
                    self.stop(ring, host_base);
                }
            }),
            Operation::ResetDevice => {
                self.rings = Default::default();
                self.features = None;
            }
            Operation::ResetOwner => self.rings.iter_mut().for_each(|ring| ring.enabled = false),
            Operation::Call(..) | Operation::Status(_) | Operation::Mtu(_) => {}
        }
        Verdict::Done
    }
}

fn feature_bits(packed: bool, protocol: bool) -> u64 {
    let packed = if packed { FEATURES } else { features::VIRTIO_F_VERSION_1 };
    packed | if protocol { features::VHOST_USER_F_PROTOCOL_FEATURES } else { 0 }
}

fn addresses(at: u64) -> VringAddresses {
    let at = 0x7000_0000 + at * 0x1000;
    VringAddresses { descriptor: at, driver: at + 16, device: at + 32 }
}

fn request(operation: &Operation, acked: Option<u64>) -> Request<u32> {
    let slot = |slot: u8| region(u64::from(slot) * 0x1000);
    match *operation {
        Operation::Features { packed, protocol } => Request::SetFeatures(feature_bits(packed, protocol)),
        Operation::Logging(on) => {
            let bits = acked.unwrap_or(0) & !features::VHOST_F_LOG_ALL;
            Request::SetFeatures(bits | if on { features::VHOST_F_LOG_ALL } else { 0 })
        }
        // Only REPLY_ACK may be declined, so that every other request stays legal.
        Operation::ProtocolFeatures(bits) => Request::SetProtocolFeatures(protocol_bits(bits)),
        Operation::Num(ring, size) => Request::SetVringNum { vring: ring.into(), num: size.into() },
        Operation::Base(ring, base) => Request::SetVringBase { vring: ring.into(), base: base.into() },
        Operation::GetBase(ring) => Request::GetVringBase { vring: ring.into() },
        Operation::Addr(ring, at) => {
            Request::SetVringAddr { vring: ring.into(), flags: 0, addresses: addresses(at), log: 0 }
        }
        Operation::Kick(vring, fd) => Request::SetVringKick { vring, fd: fd.then_some(1) },
        Operation::Call(vring, fd) => Request::SetVringCall { vring, fd: fd.then_some(2) },
        Operation::Enable(ring, on) => Request::SetVringEnable { vring: ring.into(), enable: on.into() },
        Operation::Memory(ref slots) => Request::SetMemTable(slots.iter().map(|at| (slot(*at), 3)).collect()),
        Operation::Add(at) => Request::AddMemReg(slot(at), 4),
        Operation::Remove(at) => Request::RemMemReg(slot(at)),
        Operation::Status(status) => Request::SetStatus(status.into()),
        Operation::Mtu(mtu) => Request::NetSetMtu(mtu.into()),
        Operation::ResetDevice => Request::ResetDevice,
        Operation::ResetOwner => Request::ResetOwner,
    }
}

fn protocol_bits(bits: u64) -> u64 {
    Offer::PROTOCOL_FEATURES & (bits | !features::PROTOCOL_F_REPLY_ACK)
}

fn reply(frames: &[Frame<u32>], code: FrontendReq) -> Option<Reply<u32>> {
    assert!(frames.len() < 2, "{frames:?}");
    let mut decoder = Decoder::new();
    decoder.push(&frames.first()?.bytes, []);
    Some(Reply::parse(code, decoder.next_message().unwrap().unwrap()).unwrap())
}

fn compare(host: &Host, model: &Model) {
    let backend = host.connection.backend();
    let protocol = features::VHOST_USER_F_PROTOCOL_FEATURES;
    assert_eq!(backend.acked_features(), model.features.map(|bits| bits & !protocol));
    for (index, ring) in (0..).zip(&model.rings) {
        let state = backend.vring(index).unwrap();
        let found = Ring {
            size: state.size,
            addresses: state.addresses.map(|a| (a.descriptor - 0x7000_0000) / 0x1000),
            base: state.base,
            kick: state.kick != Kick::Unset,
            enabled: state.enabled,
            running: state.running,
        };
        assert_eq!(&found, ring, "ring {index}");
        assert_eq!(host.running.contains_key(&index), ring.running, "ring {index}");
        if ring.running {
            assert_eq!(host.enabled[&index], ring.enabled, "ring {index}");
        }
    }
    let regions: Vec<_> = model.slots.iter().map(|slot| region(u64::from(*slot) * 0x1000)).collect();
    assert_eq!(backend.regions(), regions);
    assert!(host.memory.iter().map(|(region, _)| region).eq(&regions));
    assert!(!backend.is_waiting());
}

fn play(operations: &[(Operation, bool)]) {
    let mut host = Host::new(Offer::new(FEATURES | features::VHOST_F_LOG_ALL, u16::from(RINGS / 2)));
    let mut model = Model { acks: true, ..Model::default() };
    for (step, (operation, need_reply)) in (0u32..).zip(operations) {
        host.base = step % 64;
        let request = request(operation, model.features);
        let code = request.code().unwrap();
        let result = host.send(request, *need_reply);
        let verdict = model.apply(
            &match operation {
                Operation::ProtocolFeatures(bits) => Operation::ProtocolFeatures(protocol_bits(*bits)),
                other => other.clone(),
            },
            host.base,
        );
        let acked = *need_reply && model.acks;
        let memory = matches!(operation, Operation::Memory(_) | Operation::Add(_));
        if verdict == Verdict::Closed || verdict == Verdict::Refused && memory && !acked {
            result.unwrap_err();
            host.connection.poll().unwrap_err();
            assert_eq!(host.connection.wanted(), 0);
            return;
        }
        let answer = reply(&result.unwrap(), code);
        match operation {
            Operation::GetBase(ring) => {
                let low = model.rings[usize::from(*ring)].base.unwrap_or(0);
                let packed = model.features.is_some_and(|bits| bits & features::VIRTIO_F_RING_PACKED != 0);
                let base = if packed { low | low << 16 } else { low };
                assert_eq!(answer, Some(Reply::VringBase { vring: u32::from(*ring), base }));
            }
            _ => assert_eq!(answer, acked.then_some(Reply::Value(u64::from(verdict == Verdict::Refused)))),
        }
        compare(&host, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_node_agrees_with_the_model(operations in vec((operation(), any::<bool>()), 0..80)) {
        play(&operations);
    }

    #[test]
    fn random_sessions_never_panic_and_stay_consistent(
        messages in vec((0u8..50, any::<u8>(), message_body()), 0..40),
    ) {
        let mut data = Vec::new();
        for (id, how, body) in messages {
            data.extend([id, how, u8::try_from(body.len()).unwrap()]);
            data.extend(body);
        }
        fuzzing::session(&data);
    }

    #[test]
    fn random_bytes_never_panic(data in vec(any::<u8>(), 0..300)) {
        fuzzing::session(&data);
    }
}

/// Bodies that have a chance: small numbers in the sizes that exist.
fn message_body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![3 => 0u8..5, 1 => any::<u8>()].prop_map(|low| vec![low, 0, 0, 0]);
    prop_oneof![Just(0usize), Just(2), Just(2), Just(4), Just(10), 0usize..12]
        .prop_flat_map(move |words| vec(word.clone(), words))
        .prop_map(|words| words.concat())
}

/// A session that a fuzzer would take long to find: everything in place, then torn down in every way.
#[test]
fn a_full_session() {
    let mut operations =
        vec![Operation::Features { packed: true, protocol: true }, Operation::Memory(vec![0, 1]), Operation::Add(2)];
    for ring in 0..RINGS {
        operations.extend([
            Operation::Num(ring, 256),
            Operation::Base(ring, 3),
            Operation::Addr(ring, 1),
            Operation::Kick(ring, true),
            Operation::Enable(ring, true),
        ]);
    }
    operations.extend([
        Operation::Memory(vec![0, 1, 2]),
        Operation::GetBase(1),
        Operation::Status(0),
        Operation::Kick(1, false),
        Operation::ResetOwner,
        Operation::ResetDevice,
        Operation::Features { packed: false, protocol: false },
    ]);
    play(&operations.into_iter().map(|operation| (operation, true)).collect::<Vec<_>>());
}
