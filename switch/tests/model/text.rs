// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policies in words, as the scenarios have them:
//!
//! ```text
//! range pool 192.0.2.1 1024-1027
//! map directory 10.0.0.2=198.51.100.2/7 10.0.0.3=none@60
//! layer nat 20 allow
//!   group g 0 when ip_proto=tcp lpm=dst_ip
//!     rule snat 1 out src_ip=10.0.0.0/8 dst_port=80|443 -> nat src=pool:pool idle=60
//! ```

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use packet::transpose::{Header, Tag, Transposition, Ttl, Value, Vlans};
use packet::{DropCause, EtherType, Field};
use switch::Name;
use switch::condition::{Condition, Conditions, Subject};
use switch::model::{
    Action, Answer, Balance, Content, Controller, Default, Destination, Direction, Edit, Encap, Endpoint, Group,
    Mapping, Mappings, Nat, PortPolicy, PortRange, Resource, Rule, Source, Stateful, Transaction,
};

use crate::connections::SECOND;
use crate::frame::tunnel_of;

/// What a policy is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) layers: Vec<WantedLayer>,
    pub(crate) resources: Vec<Resource>,
}

#[derive(Clone, Debug)]
pub(crate) struct WantedLayer {
    pub(crate) name: Name,
    pub(crate) order: u32,
    pub(crate) default: Default,
    pub(crate) groups: Vec<Group>,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn controller() -> Controller {
    Controller { name: name("test"), order: [0, 1000] }
}

impl Wanted {
    pub(crate) fn parse(lines: &[&str]) -> Self {
        let mut wanted = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match &*words {
                ["range", title, ranges @ ..] => wanted.resources.push(resource(title, ranges_of(ranges))),
                ["map", title, mappings @ ..] => wanted.resources.push(resource(title, map_of(mappings))),
                ["layer", title, order, default] => wanted.layers.push(WantedLayer {
                    name: name(title),
                    order: order.parse().unwrap(),
                    default: if *default == "block" { Default::Block } else { Default::Allow },
                    groups: Vec::new(),
                }),
                ["group", title, order, more @ ..] => {
                    let (lpm, when): (Vec<&str>, Vec<&str>) = more.iter().partition(|word| word.starts_with("lpm="));
                    let lpm = lpm.first().map(|lpm| field(lpm.trim_start_matches("lpm=")));
                    let when: Vec<&str> = when.into_iter().filter(|word| *word != "when").collect();
                    let (name, order, when) = (name(title), order.parse().unwrap(), conditions(&when));
                    let layer = wanted.layers.last_mut().expect("a group is in a layer");
                    layer.groups.push(Group { name, order, when, lpm, rules: Vec::new() });
                }
                ["rule", ..] => {
                    let layer = wanted.layers.last_mut().expect("a rule is in a layer");
                    layer.groups.last_mut().expect("a rule is in a group").rules.push(rule(line));
                }
                _ => panic!("{line:?} is no policy"),
            }
        }
        wanted
    }

    /// The policy that comes after another one, by one transaction.
    pub(crate) fn after(&self, before: &PortPolicy) -> PortPolicy {
        let mut edits = Vec::new();
        for resource in &self.resources {
            edits.push(Edit::PutResource { resource: Arc::new(resource.clone()) });
        }
        for layer in before.layers() {
            match self.layers.iter().find(|wanted| wanted.name == layer.name) {
                None => edits.push(Edit::RemoveLayer { name: layer.name.clone() }),
                Some(wanted) => {
                    let gone = layer.groups.iter().map(|held| &held.group.name);
                    let gone = gone.filter(|known| wanted.groups.iter().all(|group| group.name != **known));
                    let remove = |group: &Name| Edit::RemoveGroup { layer: layer.name.clone(), group: group.clone() };
                    edits.extend(gone.map(remove));
                }
            }
        }
        for WantedLayer { name, order, default, groups } in &self.layers {
            edits.push(Edit::PutLayer { name: name.clone(), order: *order, default: *default });
            for group in groups {
                edits.push(Edit::PutGroup { layer: name.clone(), group: Arc::new(group.clone()) });
            }
        }
        let gone = before.resources().iter().map(|held| &held.resource.name);
        let gone = gone.filter(|known| self.resources.iter().all(|resource| resource.name != **known));
        edits.extend(gone.map(|name| Edit::RemoveResource { name: name.clone() }));
        let transaction = Transaction { controller: controller(), preconditions: Vec::new(), edits };
        before.after(&transaction).unwrap()
    }
}

fn resource(title: &str, content: Content) -> Resource {
    Resource { name: name(title), controller: name("test"), content }
}

fn ranges_of(words: &[&str]) -> Content {
    let ranges = words.chunks(2).map(|pair| {
        let (first, last) = pair[1].split_once('-').unwrap_or((pair[1], pair[1]));
        PortRange { address: pair[0].parse().unwrap(), first: first.parse().unwrap(), last: last.parse().unwrap() }
    });
    Content::Ranges(ranges.collect())
}

fn map_of(words: &[&str]) -> Content {
    let mut map = Mappings::default();
    for word in words {
        let (key, answer) = word.split_once('=').unwrap();
        let answer = match answer.strip_prefix("none@") {
            Some(seconds) => Answer::Unknown { until_ns: seconds.parse::<u64>().unwrap() * SECOND },
            None => {
                let mut parts = answer.split('/');
                Answer::Known(Mapping {
                    address: parts.next().unwrap().parse().unwrap(),
                    vni: parts.next().filter(|vni| !vni.is_empty()).map(|vni| vni.parse().unwrap()),
                    mac: parts.next().map(|mac| mac.parse().unwrap()),
                })
            }
        };
        map.put(key.parse().unwrap(), Some(answer)).unwrap();
    }
    Content::Map(map)
}

fn field(text: &str) -> Field {
    match text.parse().unwrap() {
        Subject::Field(field) => field,
        Subject::Register(_) => panic!("{text} is no field"),
    }
}

/// `dst_port=80|443 src_ip=10.0.0.0/8`
fn conditions(words: &[&str]) -> Conditions {
    let conditions = words.iter().map(|word| {
        let (subject, values) = word.split_once('=').expect(word);
        Condition::from_text(subject, values.split('|')).unwrap()
    });
    Conditions::new(conditions.collect()).unwrap()
}

fn rule(line: &str) -> Rule {
    let (matching, action) = line.split_once("->").expect("a rule has an action");
    let words: Vec<&str> = matching.split_whitespace().collect();
    let ["rule", title, priority, direction, more @ ..] = &*words else { panic!("{line:?} is no rule") };
    let (action, terminating) = match action.trim().strip_suffix("terminating") {
        Some(action) => (action, true),
        None => (action, false),
    };
    Rule {
        name: name(title),
        priority: priority.parse().unwrap(),
        direction: if *direction == "in" { Direction::In } else { Direction::Out },
        conditions: conditions(more),
        action: self::action(action.trim()),
        terminating,
    }
}

fn action(text: &str) -> Action {
    let words: Vec<&str> = text.split_whitespace().collect();
    match &*words {
        ["allow"] => Action::Allow { stateful: None },
        ["allow", "stateful", idle] => Action::Allow { stateful: Some(stateful(idle)) },
        ["balance", backends @ .., idle] => Action::Balance(Balance {
            backends: backends.iter().map(|text| endpoint(text)).collect(),
            stateful: stateful(idle.trim_start_matches("idle=")),
        }),
        ["block"] => Action::Block { cause: DropCause::PolicyBlock },
        ["block", cause] => {
            Action::Block { cause: DropCause::ALL.into_iter().find(|known| known.label() == *cause).expect(cause) }
        }
        ["count"] => Action::Count,
        ["decap"] => Action::Decap,
        ["dscp", dscp] => Action::Dscp(dscp.parse().unwrap()),
        ["ecmp", routers @ ..] => Action::Ecmp(routers.iter().map(|mac| mac.parse().unwrap()).collect()),
        ["encap", tunnel, vni, source, "to", to @ ..] => Action::Encap(Encap {
            tunnel: tunnel_of(tunnel),
            vni: vni.parse().ok(),
            source: source.parse().unwrap(),
            destination: match to {
                ["map", map] => Destination::Mapped(name(map)),
                ends => Destination::Among(ends.iter().map(|end| end.parse().unwrap()).collect()),
            },
        }),
        ["hairpin"] => Action::Hairpin { to: None },
        ["hairpin", to] => Action::Hairpin { to: Some(name(to)) },
        ["nat", more @ ..] => {
            let more: BTreeMap<&str, &str> = more.iter().map(|word| word.split_once('=').expect(word)).collect();
            Action::Nat(Nat {
                source: more.get("src").map(|text| match text.strip_prefix("pool:") {
                    Some(pool) => Source::Ranges(name(pool)),
                    None => Source::Fixed(endpoint(text)),
                }),
                destination: more.get("dst").map(|text| endpoint(text)),
                stateful: stateful(more["idle"]),
            })
        }
        ["set", register, value] => {
            Action::SetRegister { register: register.parse().unwrap(), value: value.parse().unwrap() }
        }
        ["change", changes @ ..] => Action::Transpose { transposition: Arc::new(transposition(changes)) },
        _ => panic!("{text:?} is no action"),
    }
}

fn stateful(idle: &str) -> Stateful {
    Stateful { idle_s: NonZeroU32::new(idle.parse().unwrap()).unwrap() }
}

fn endpoint(text: &str) -> Endpoint {
    match text.parse::<SocketAddr>() {
        Ok(end) => Endpoint { address: end.ip(), port: Some(end.port()) },
        Err(_) => Endpoint { address: text.parse().expect(text), port: None },
    }
}

/// `src_ip=10.0.0.1 dst_port=7 ttl=-1 vlan=push:5 vlan=pop`
fn transposition(changes: &[&str]) -> Transposition {
    let mut all = Transposition::default();
    for change in changes {
        let (key, value) = change.split_once('=').expect(change);
        all = match (key, value.split_once(':')) {
            ("ttl", _) => match value.strip_prefix('-') {
                Some(less) => all.with_ttl(Ttl::Minus(Header::Inner, less.parse().unwrap())),
                None => all.with_ttl(Ttl::Literal(value.parse().unwrap())),
            },
            ("vlan", Some(("push", id))) => {
                let tci = Value::Number(id.parse().unwrap());
                all.with_vlans(Vlans::push(Tag { tpid: EtherType::VLAN, tci }))
            }
            ("vlan", Some(("set", id))) => all.with_vlans(Vlans::set(Value::Number(id.parse().unwrap()))),
            ("vlan", _) => all.with_vlans(Vlans::pop()),
            _ => {
                let value = match (value.parse::<IpAddr>(), value.parse::<packet::MacAddr>()) {
                    (Ok(address), _) => Value::from(address),
                    (_, Ok(mac)) => Value::from(mac),
                    _ => Value::Number(value.parse().expect(value)),
                };
                all.with(field(key), value)
            }
        };
    }
    all
}
