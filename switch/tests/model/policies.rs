// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random policies and changes of them, in a world small enough for rules and packets to meet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use packet::transpose::{Header, OuterEdit, Tag, Transposition, Ttl, Value as To, Vlans};
use packet::{DropCause, EtherType, Field, MacAddr, Tunnel};
use proptest::prelude::*;
use proptest::sample::select;
use switch::condition::{Condition, Conditions, IpVersion, Subject, Value};
use switch::model::{
    Action, Answer, Balance, Content, Default, Destination, Direction, Edit, Encap, Endpoint, Group, Mapping, Mappings,
    Nat, PortPolicy, PortRange, Resource, Rule, Source, Stateful, Transaction,
};

use crate::connections::SECOND;
use crate::text::{controller, name};

/// When stories begin.
pub(crate) const START: u64 = 1000 * SECOND;

const LAYERS: [&str; 4] = ["a", "b", "c", "d"];
const GROUPS: [&str; 3] = ["x", "y", "z"];
const POOL: &str = "pool";
const DIRECTORY: &str = "directory";

pub(crate) fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
}

/// Addresses on the VM's side.
pub(crate) fn local(version: u8) -> Vec<IpAddr> {
    if version == 4 { vec![v4(10, 0, 0, 1), v4(10, 0, 0, 2)] } else { vec![v6(1), v6(2)] }
}

/// Addresses elsewhere; the last one is translated by some policies.
pub(crate) fn remote(version: u8) -> Vec<IpAddr> {
    if version == 4 { vec![v4(198, 51, 100, 1), v4(198, 51, 100, 2), v4(192, 0, 2, 1)] } else { vec![v6(9), v6(10)] }
}

pub(crate) const CLIENT_PORTS: [u16; 3] = [1000, 1001, 1002];
pub(crate) const SERVICES: [u16; 3] = [53, 80, 8080];

fn any_address(version: u8) -> impl Strategy<Value = IpAddr> {
    select([local(version), remote(version)].concat())
}

/// A list of edits that make a policy out of nothing.
pub(crate) fn beginning() -> impl Strategy<Value = Vec<Edit>> {
    let layers = prop::collection::vec((any::<bool>(), prop::collection::vec(group(), 0..=3)), 1..=4);
    (layers, pool(), directory()).prop_map(|(layers, pool, directory)| {
        let mut edits = vec![pool, directory];
        for (at, (blocks, groups)) in layers.into_iter().enumerate() {
            // Layers that block everything make for dull stories: only every eighth does.
            let default = if blocks && at % 2 == 0 && groups.len() > 1 { Default::Block } else { Default::Allow };
            let order = 10 * (u32::try_from(at).unwrap() + 1);
            edits.push(Edit::PutLayer { name: name(LAYERS[at]), order, default });
            edits.extend(groups.into_iter().map(|group| Edit::PutGroup { layer: name(LAYERS[at]), group }));
        }
        edits
    })
}

/// A change, which may turn out to be impossible.
pub(crate) fn change() -> impl Strategy<Value = Vec<Edit>> {
    let layer = || select(&LAYERS[..]).prop_map(name);
    let default = select(vec![Default::Allow, Default::Allow, Default::Block]);
    let edit = prop_oneof![
        8 => (layer(), group()).prop_map(|(layer, group)| Edit::PutGroup { layer, group }),
        2 => (layer(), select(&GROUPS[..])).prop_map(|(layer, group)| Edit::RemoveGroup { layer, group: name(group) }),
        2 => (layer(), 5u32..50, default).prop_map(|(name, order, default)| Edit::PutLayer { name, order, default }),
        1 => layer().prop_map(|name| Edit::RemoveLayer { name }),
        3 => pool(),
        3 => mapping(),
    ];
    prop::collection::vec(edit, 1..=2)
}

/// The policy after a change; the same if it is impossible.
pub(crate) fn changed(policy: &PortPolicy, edits: &[Edit]) -> PortPolicy {
    let transaction = Transaction { controller: controller(), preconditions: Vec::new(), edits: edits.to_vec() };
    policy.after(&transaction).unwrap_or_else(|_| policy.clone())
}

fn resource(title: &str, content: Content) -> Edit {
    Edit::PutResource { resource: Arc::new(Resource { name: name(title), controller: controller().name, content }) }
}

/// Few ports, so that they are used up.
fn pool() -> impl Strategy<Value = Edit> {
    let range = (0u8..2, 0u16..3, 0u16..3).prop_map(|(host, first, more)| PortRange {
        address: v4(192, 0, 2, 1 + host),
        first: 2000 + first,
        last: 2000 + first + more,
    });
    let v6_range = PortRange { address: v6(0x99), first: 3000, last: 3001 };
    (range, prop::option::of(Just(v6_range)))
        .prop_map(|(range, v6)| resource(POOL, Content::Ranges([range].into_iter().chain(v6).collect())))
}

fn answer() -> impl Strategy<Value = Option<Answer>> {
    let mapping = (1u8..4, prop::option::of(1u32..9), prop::option::weighted(0.3, Just(MacAddr([2, 0, 0, 0, 7, 7]))))
        .prop_map(|(host, vni, mac)| Answer::Known(Mapping { address: v4(203, 0, 113, host), vni, mac }));
    // Never at a moment at which a packet comes.
    let unknown = (1u64..20).prop_map(|later| Answer::Unknown { until_ns: START + later * 10 * SECOND + SECOND / 3 });
    prop_oneof![5 => mapping.prop_map(Some), 2 => unknown.prop_map(Some), 1 => Just(None)]
}

fn mapping() -> impl Strategy<Value = Edit> {
    (any_address(4), answer()).prop_map(|(address, answer)| Edit::PutMapping {
        resource: name(DIRECTORY),
        address,
        answer,
    })
}

fn directory() -> impl Strategy<Value = Edit> {
    prop::collection::vec((any_address(4), answer()), 0..6).prop_map(|answers| {
        let mut map = Mappings::default();
        for (address, answer) in answers {
            map.put(address, answer).unwrap();
        }
        resource(DIRECTORY, Content::Map(map))
    })
}

fn group() -> impl Strategy<Value = Arc<Group>> {
    let lpm = prop::option::weighted(0.2, select(vec![Field::IpSrc, Field::IpDst]));
    let when = prop_oneof![3 => Just(Conditions::default()), 1 => conditions(1)];
    let rules = prop::collection::vec(rule(), 0..=6);
    (select(&GROUPS[..]), 0u32..3, when, lpm, rules).prop_map(|(title, order, when, lpm, mut rules)| {
        for (at, rule) in rules.iter_mut().enumerate() {
            rule.name = name(&format!("r{at}"));
        }
        Arc::new(Group { name: name(title), order, when, lpm, rules })
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let direction = select(vec![Direction::In, Direction::Out]);
    (0u32..4, direction, conditions(2), action(), prop::bool::weighted(0.2), prop::bool::weighted(0.8)).prop_map(
        |(priority, direction, conditions, (action, needs), terminating, sensible)| {
            let direction = if matches!(action, Action::Hairpin { .. }) { Direction::Out } else { direction };
            let conditions = if sensible { with(conditions, needs) } else { conditions };
            Rule { name: name("rule"), priority, direction, conditions, action, terminating }
        },
    )
}

/// The same and more.
fn with(conditions: Conditions, more: Option<Condition>) -> Conditions {
    let Some(more) = more else { return conditions };
    let others = conditions.as_slice().iter().filter(|condition| condition.subject() != more.subject()).cloned();
    Conditions::new(others.chain([more.clone()]).collect()).unwrap()
}

fn exactly(field: Field, values: &[u128]) -> Condition {
    Condition::new(Subject::Field(field), values.iter().map(|value| Value::Exact(*value)).collect()).unwrap()
}

fn conditions(most: usize) -> impl Strategy<Value = Conditions> {
    prop::collection::vec(condition(), 0..=most).prop_map(|mut conditions| {
        conditions.sort_by_key(Condition::subject);
        conditions.dedup_by_key(|condition| condition.subject());
        Conditions::new(conditions).unwrap()
    })
}

fn prefix() -> impl Strategy<Value = Value> {
    let lens = |bits: u8| select(vec![0, bits / 4, bits / 2, bits - 8, bits - 1, bits]);
    let of = |version, bits: u8| {
        (any_address(version), lens(bits)).prop_map(move |(address, len)| {
            let (number, version) = match address {
                IpAddr::V4(address) => (u128::from(address.to_bits()), IpVersion::V4),
                IpAddr::V6(address) => (address.to_bits(), IpVersion::V6),
            };
            let free = u32::from(bits - len);
            let value = if free == 128 { 0 } else { number >> free << free };
            Value::Prefix { version, value, len }
        })
    };
    prop_oneof![3 => of(4, 32), 1 => of(6, 128)]
}

fn condition() -> impl Strategy<Value = Condition> {
    let on = |subject, values: Vec<Value>| Condition::new(subject, values).unwrap();
    let addresses = select(vec![Field::IpSrc, Field::IpDst]);
    let addresses = (addresses, prop::collection::vec(prefix(), 1..=2))
        .prop_map(move |(field, values)| on(Subject::Field(field), values));
    let port = prop_oneof![
        select(&SERVICES[..]).prop_map(|port| Value::Exact(port.into())),
        select(&CLIENT_PORTS[..]).prop_map(|port| Value::Range { lo: port.into(), hi: u128::from(port) + 1 }),
        Just(Value::Range { lo: 2000, hi: 2002 }),
    ];
    let ports = (select(vec![Field::L4Src, Field::L4Dst]), prop::collection::vec(port, 1..=2))
        .prop_map(move |(field, values)| on(Subject::Field(field), values));
    let registers =
        (0u8..2, 0u128..3).prop_map(move |(at, value)| on(Subject::Register(at), vec![Value::Exact(value)]));
    let others = select(vec![
        exactly(Field::IpProto, &[6]),
        exactly(Field::IpProto, &[17, 1]),
        exactly(Field::IpVersion, &[4]),
        exactly(Field::IpVersion, &[6]),
        exactly(Field::EtherType, &[0x0806]),
        exactly(Field::Tunnel, &[0]),
        exactly(Field::Tunnel, &[1, 3]),
        exactly(Field::TunnelKey, &[5]),
        exactly(Field::Vlan, &[0]),
        exactly(Field::Vlan, &[0x1005]),
        exactly(Field::Dscp, &[0]),
        exactly(Field::EthDst, &[0x0200_0000_0001]),
        exactly(Field::OuterIpVersion, &[4]),
    ]);
    prop_oneof![3 => addresses, 3 => ports, 2 => registers, 2 => others]
}

fn stateful() -> impl Strategy<Value = Stateful> {
    // Never a whole number of the driver's steps of time.
    select(vec![5, 20, 40, 90]).prop_map(|idle_s| Stateful { idle_s: NonZeroU32::new(idle_s).unwrap() })
}

fn endpoint(version: u8) -> impl Strategy<Value = Endpoint> {
    let address =
        if version == 4 { vec![v4(10, 1, 0, 1), v4(10, 1, 0, 2), v4(10, 0, 0, 2)] } else { vec![v6(0x21), v6(0x22)] };
    (select(address), prop::option::of(select(&SERVICES[..]))).prop_map(|(address, port)| Endpoint { address, port })
}

/// An action, and what packets must be for it to make sense.
fn action() -> impl Strategy<Value = (Action, Option<Condition>)> {
    let version = |version: u8| Some(exactly(Field::IpVersion, &[version.into()]));
    let snat =
        stateful().prop_map(|stateful| Nat { source: Some(Source::Ranges(name(POOL))), destination: None, stateful });
    let nat = |version: u8| {
        let source = prop::option::of(endpoint(version).prop_map(Source::Fixed));
        (source, endpoint(version), any::<bool>(), stateful()).prop_map(|(source, destination, both, stateful)| {
            let destination = (both || source.is_none()).then_some(destination);
            Nat { source, destination, stateful }
        })
    };
    let balance = |version: u8| {
        (prop::collection::vec(endpoint(version), 1..=3), stateful())
            .prop_map(|(backends, stateful)| Action::Balance(Balance { backends, stateful }))
    };
    let causes = select(vec![DropCause::PolicyBlock, DropCause::BadFragment]);
    let routers = prop::collection::vec((1u8..4).prop_map(|last| MacAddr([2, 0, 0, 0, 9, last])), 1..=3);
    let port = prop::option::of(Just(name("left")));
    let register = (0u8..2, 1u32..3).prop_map(|(register, value)| Action::SetRegister { register, value });
    let plain = prop_oneof![
        4 => Just(Action::Allow { stateful: None }),
        8 => stateful().prop_map(|stateful| Action::Allow { stateful: Some(stateful) }),
        3 => causes.prop_map(|cause| Action::Block { cause }),
        2 => Just(Action::Count),
        2 => (0u8..64).prop_map(Action::Dscp),
        2 => routers.prop_map(Action::Ecmp),
        2 => port.prop_map(|to| Action::Hairpin { to }),
        3 => register,
    ];
    prop_oneof![
        24 => plain.prop_map(|action| (action, None)),
        5 => snat.prop_map(move |nat| (Action::Nat(nat), version(4))),
        3 => nat(4).prop_map(move |nat| (Action::Nat(nat), version(4))),
        1 => nat(6).prop_map(move |nat| (Action::Nat(nat), version(6))),
        4 => balance(4).prop_map(move |action| (action, version(4))),
        1 => balance(6).prop_map(move |action| (action, version(6))),
        3 => encap().prop_map(|encap| (Action::Encap(encap), Some(exactly(Field::Tunnel, &[0])))),
        3 => Just((Action::Decap, Some(exactly(Field::Tunnel, &[1, 2, 3])))),
        4 => transposition().prop_map(|(transposition, needs)| {
            (Action::Transpose { transposition: Arc::new(transposition) }, needs)
        }),
    ]
}

fn encap() -> impl Strategy<Value = Encap> {
    let tunnel = select(vec![Tunnel::Vxlan, Tunnel::Nvgre, Tunnel::Geneve]);
    let ends = |version: u8| {
        if version == 4 { vec![v4(203, 0, 113, 1), v4(203, 0, 113, 2)] } else { vec![v6(0x31), v6(0x32)] }
    };
    let among = select(vec![4, 6]).prop_flat_map(move |version| {
        let source = if version == 4 { v4(203, 0, 113, 9) } else { v6(0x39) };
        let far = prop::collection::vec(select(ends(version)), 1..=2).prop_map(Destination::Among);
        (Just(source), far, (1u32..9).prop_map(Some))
    });
    let mapped = (Just(v4(203, 0, 113, 9)), Just(Destination::Mapped(name(DIRECTORY))), prop::option::of(1u32..9));
    (tunnel, prop_oneof![among.boxed(), mapped.boxed()]).prop_map(|(tunnel, (source, destination, vni))| Encap {
        tunnel,
        vni,
        source,
        destination,
    })
}

fn transposition() -> impl Strategy<Value = (Transposition, Option<Condition>)> {
    let new = Transposition::default;
    let tcp_udp = || Some(exactly(Field::IpProto, &[6, 17]));
    let ip4 = || Some(exactly(Field::IpVersion, &[4]));
    let ip = || Some(exactly(Field::IpVersion, &[4, 6]));
    let tunnelled = || Some(exactly(Field::Tunnel, &[1, 2, 3]));
    let tag = |id| Tag { tpid: EtherType::VLAN, tci: To::Number(id) };
    let both = new().with(Field::EthSrc, To::Copy(Field::EthDst)).with(Field::EthDst, To::Copy(Field::EthSrc));
    let ends = new().with(Field::IpSrc, To::Copy(Field::IpDst)).with(Field::IpDst, To::Copy(Field::IpSrc));
    let outer_ttl = OuterEdit { ttl: Some(Ttl::Minus(Header::Outer, 1)), ..OuterEdit::default() };
    select(vec![
        (new().with_ttl(Ttl::Minus(Header::Inner, 1)), ip()),
        (new().with_ttl(Ttl::Literal(9)), ip()),
        (new().with(Field::Dscp, To::Number(12)), ip()),
        (new().with(Field::L4Dst, To::from(8080)), tcp_udp()),
        (new().with(Field::L4Src, To::from(1001)), tcp_udp()),
        (new().with(Field::IpDst, To::from(v4(198, 51, 100, 2))), ip4()),
        (new().with(Field::IpSrc, To::from(v4(10, 0, 0, 2))), ip4()),
        (new().with(Field::EthDst, To::from(MacAddr([2, 0, 0, 0, 8, 8]))), None),
        (both, None),
        (ends, ip()),
        (new().with_vlans(Vlans::push(tag(5))), Some(exactly(Field::Vlan, &[0]))),
        (new().with_vlans(Vlans::set(To::Number(0x6007))), Some(exactly(Field::Vlan, &[0x1005]))),
        (new().with_vlans(Vlans::pop()), Some(exactly(Field::Vlan, &[0x1005, 0x7007]))),
        (new().with(Field::OuterDscp, To::Number(33)), tunnelled()),
        (new().with(Field::TunnelKey, To::Number(5)), tunnelled()),
        (new().with(Field::OuterIpDst, To::from(v4(203, 0, 113, 3))), Some(exactly(Field::OuterIpVersion, &[4]))),
        (new().with_outer(packet::transpose::Outer::Modify(outer_ttl)), tunnelled()),
    ])
}
