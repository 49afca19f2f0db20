// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The language against its grammar, and expressions against what frames were built from.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::parse::tests::stack::{Body, Group, Ip, L4, Outer, Piece, Shim, Stack};
use crate::parse::tests::strategy::stack;
use crate::{EtherType, WINDOW};

fn filter(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refusal(text: &str) -> String {
    text.parse::<Filter>().expect_err(text).to_string()
}

#[test]
fn operators_bind_as_in_pcap_filter() {
    for (text, same) in [
        ("arp or ip and tcp", "(arp or ip) and tcp"),
        ("arp and ip or tcp", "(arp and ip) or tcp"),
        ("not arp and ip", "(not arp) and ip"),
        ("! arp && ip || tcp", "not arp and ip or tcp"),
        ("!arp&&ip||(tcp)", "not arp and ip or tcp"),
        ("not not arp", "not (not arp)"),
        ("arp\tor\n ip", "arp or ip"),
        ("src 10.0.0.1", "src host 10.0.0.1"),
        ("ether dst 02:00:00:00:00:01", "ether dst host 02:00:00:00:00:01"),
        ("port 80", "portrange 80-80"),
        ("net 10.0.0.1/32", "host 10.0.0.1"),
        ("ip proto icmp", "icmp"),
        ("ether proto 0x0806", "arp"),
        ("proto 6", "tcp"),
    ] {
        assert_eq!(filter(text).node(), filter(same).node(), "{text}");
    }
    assert_ne!(filter("arp or ip and tcp").node(), filter("arp or (ip and tcp)").node());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    assert!(refusal("").starts_with("at byte 0: the end where a primitive"));
    assert!(refusal("arp or").starts_with("at byte 6: the end where a primitive"));
    assert_eq!(refusal("arp ip"), "at byte 4: \"ip\" where \"and\", \"or\" or the end is expected");
    assert_eq!(refusal("(arp"), "at byte 4: the end where \")\" is expected");
    assert_eq!(refusal("host 10.0.0"), "at byte 5: \"10.0.0\" where an IP address is expected");
    assert_eq!(refusal("net 10.0.0.1/8"), "at byte 4: the address has bits behind its prefix of 8");
    for text in [
        "net 10.0.0.0/33",
        "net ::/129",
        "net 10.0.0.0/",
        "net 10.0.0.0",
        "port 65536",
        "port +80",
        "port http",
        "portrange 2-1",
        "vlan 4096",
        "vni",
        "ether 02:00:00:00:00:01",
        "ether host 2:0:0:0:0:1",
        "tcp host 10.0.0.1",
        "tcp src 10.0.0.1",
        "src tcp",
        "proto 256",
        "less 0x",
        "less 0x+1",
        "arp) or (ip",
        "ip[0] = 4",
        "é",
    ] {
        assert!(text.parse::<Filter>().is_err(), "{text}");
    }
}

#[test]
fn expressions_are_bounded() {
    let many = |n: usize| vec!["arp"; n].join(" or ");
    filter(&many(MAX_PRIMITIVES));
    assert_eq!(many(MAX_PRIMITIVES + 1).parse::<Filter>(), Err(FilterError::TooMany));
    let deep = |n: usize| format!("{}arp{}", "(".repeat(n), ")".repeat(n));
    filter(&deep(MAX_DEPTH - 1));
    assert_eq!(deep(MAX_DEPTH).parse::<Filter>(), Err(FilterError::TooDeep));
    assert_eq!("!".repeat(MAX_TEXT - 3).parse::<Filter>(), Err(FilterError::TooDeep));
    let long = format!("arp{}", " ".repeat(MAX_TEXT));
    assert_eq!(long.parse::<Filter>(), Err(FilterError::TooLong { len: MAX_TEXT + 3 }));
}

/// Of a frame whose headers are cut short, addresses and type are believed, and its length.
#[test]
fn what_cannot_be_parsed_has_an_ethernet_header() {
    let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &[0x45; 10]].concat();
    let matches = |text: &str| filter(text).matches(&frame, 24);
    for text in ["ip", "ether src 02:00:00:00:00:02", "less 24", "greater 24", "not tcp", "not host 69.69.69.69"] {
        assert!(matches(text), "{text}");
    }
    for text in ["tcp", "udp", "proto 69", "net 0.0.0.0/0", "portrange 0-65535", "vlan", "vni 0", "less 23"] {
        assert!(!matches(text), "{text}");
    }
    for short in [&[][..], &frame[..13]] {
        assert!(!filter("ether proto 0x0800").matches(short, 24));
    }
}

/// What can be said of a frame, and whether it is true, told from what the frame was built from.
fn claims(stack: &Stack) -> Vec<(String, bool)> {
    let length = stack.build().bytes.len();
    let (outer, inner) = match &stack.outer {
        Some(outer) if outer.is_visible() => (Some(outer), stack.inner.clone()),
        Some(outer) => (None, seen_from_outside(outer)),
        None => (None, stack.inner.clone()),
    };
    let groups: Vec<&Group> = outer.map(|outer| &outer.group).into_iter().chain([&inner]).collect();
    let ips: Vec<&Ip> = groups.iter().filter_map(|group| ip_of(group)).collect();
    let any_ip = |test: &dyn Fn(&Ip) -> bool| ips.iter().any(|ip| test(ip));
    let own = ip_of(&inner);
    let mut claims = vec![
        ("ip".to_owned(), any_ip(&|ip| !ip.v6)),
        ("ip6".to_owned(), any_ip(&|ip| ip.v6)),
        ("arp".to_owned(), matches!(inner.body, Body::Arp { .. })),
        ("vlan".to_owned(), groups.iter().any(|group| group.link.as_ref().is_some_and(|link| !link.tags.is_empty()))),
        (format!("less {length}"), true),
        (format!("greater {}", length + 1), false),
    ];
    for (name, number) in [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmp6", 58), ("sctp", 132)] {
        let wants_v6 = match number {
            1 => Some(false),
            58 => Some(true),
            _ => None,
        };
        let is = own.is_some_and(|ip| protocol(ip) == number && wants_v6.is_none_or(|v6| v6 == ip.v6));
        claims.push((name.to_owned(), is));
        claims.push((format!("proto {number}"), own.is_some_and(|ip| protocol(ip) == number)));
    }
    for link in groups.iter().filter_map(|group| group.link.as_ref()) {
        let mac = |octets: [u8; 6]| MacAddr(octets);
        claims.push((format!("ether src {}", mac(link.source)), true));
        claims.push((format!("ether dst {}", mac(link.destination)), true));
        let links = || groups.iter().filter_map(|group| group.link.as_ref());
        let is_source = links().any(|other| other.source == link.destination);
        claims.push((format!("ether src {}", mac(link.destination)), is_source));
        claims.push(("ether multicast".to_owned(), links().any(|link| link.destination[0] & 1 == 1)));
        for (_, tag) in &link.tags {
            claims.push((format!("vlan {}", tag & 0xfff), true));
            let other = tag & 0xfff ^ 1;
            let is = links().flat_map(|link| &link.tags).any(|(_, tag)| tag & 0xfff == other);
            claims.push((format!("vlan {other}"), is));
        }
    }
    for ip in &ips {
        for (is_source, address) in [(true, ip.source), (false, ip.destination)] {
            let text = text_of(ip.v6, address);
            let same = |other: &Ip, value: u128| other.v6 == ip.v6 && low(other.v6, value) == low(ip.v6, address);
            claims.push((format!("host {text}"), true));
            claims.push((format!("src host {text}"), any_ip(&|other| same(other, other.source))));
            claims.push((format!("dst {text}"), !is_source || any_ip(&|o| same(o, o.destination))));
            let (bits, half) = if ip.v6 { (128, 61) } else { (32, 13) };
            let network = low(ip.v6, address) >> (bits - half) << (bits - half);
            claims.push((format!("net {}/{half}", text_of(ip.v6, network)), true));
            claims.push((format!("net {}/0", text_of(ip.v6, 0)), true));
        }
    }
    if let Some(ip) = own {
        let ports = match ip.l4 {
            L4::Tcp { ports, .. } | L4::Udp { ports } if !matches!(ip.piece, Piece::Later { .. }) => Some(ports),
            _ => None,
        };
        let [source, destination] = ports.unwrap_or([7, 8]);
        let is_tcp = matches!(ip.l4, L4::Tcp { .. });
        let has = ports.is_some();
        claims.push((format!("src port {source}"), has));
        claims.push((format!("dst port {destination}"), has));
        claims.push((format!("port {destination}"), has));
        claims.push((format!("src port {}", source ^ 1), false));
        claims.push((format!("tcp port {source}"), has && is_tcp));
        claims.push((format!("udp dst port {destination}"), has && !is_tcp));
        claims.push((format!("src portrange {source}-65535"), has));
        claims.push(("portrange 0-65535".to_owned(), has));
    } else {
        claims.push(("portrange 0-65535".to_owned(), false));
    }
    if let Body::Arp { sender, target, .. } = inner.body {
        claims.push((format!("src host {}", text_of(false, sender.into())), true));
        claims.push((format!("dst host {}", text_of(false, target.into())), true));
    }
    let key = outer.map(|outer| match outer.shim {
        Shim::Vxlan { vni } | Shim::Geneve { vni, .. } => vni,
        Shim::Nvgre { subnet, .. } => subnet,
        Shim::Gre { key, .. } => key.unwrap_or(0),
    });
    claims.push((format!("vni {}", key.unwrap_or(0)), key.is_some()));
    claims.push((format!("vni {}", key.unwrap_or(0) ^ 1), false));
    claims
}

/// The outer group of a tunnel that is not seen: it carries UDP or GRE, whatever its own body says.
fn seen_from_outside(outer: &Outer) -> Group {
    let l4 = match outer.shim {
        Shim::Vxlan { .. } => L4::Udp { ports: [outer.src_port, 4789] },
        Shim::Geneve { .. } => L4::Udp { ports: [outer.src_port, 6081] },
        Shim::Nvgre { .. } | Shim::Gre { .. } => L4::Other { protocol: 47 },
    };
    let body = match &outer.group.body {
        Body::Ip(ip) => Body::Ip(Ip { l4, ..ip.clone() }),
        other => other.clone(),
    };
    Group { link: outer.group.link.clone(), body }
}

fn ip_of(group: &Group) -> Option<&Ip> {
    match &group.body {
        Body::Ip(ip) => Some(ip),
        _ => None,
    }
}

fn protocol(ip: &Ip) -> u8 {
    // A later fragment of IPv6 says what the first one has behind its fragment header.
    if let ([_, behind], Piece::Later { .. }, true) = (&ip.extensions, ip.piece, ip.v6)
        && let Some((extension, _)) = behind.first()
    {
        return *extension;
    }
    match ip.l4 {
        L4::Tcp { .. } => 6,
        L4::Udp { .. } => 17,
        L4::Icmp { .. } if ip.v6 => 58,
        L4::Icmp { .. } => 1,
        L4::Other { protocol } => protocol,
    }
}

fn low(v6: bool, value: u128) -> u128 {
    if v6 { value } else { value & 0xffff_ffff }
}

fn text_of(v6: bool, value: u128) -> String {
    if v6 {
        core::net::Ipv6Addr::from_bits(value).to_string()
    } else {
        core::net::Ipv4Addr::from_bits(u32::try_from(low(v6, value)).unwrap()).to_string()
    }
}

/// An expression over claims, by their places.
#[derive(Clone, Debug)]
enum Tree {
    Claim(prop::sample::Index),
    Not(Box<Self>),
    Both(Box<Self>, Box<Self>),
    Any(Box<Self>, Box<Self>),
}

impl Tree {
    fn text(&self, claims: &[(String, bool)]) -> String {
        match self {
            Self::Claim(at) => at.get(claims).0.clone(),
            Self::Not(tree) => format!("not ({})", tree.text(claims)),
            Self::Both(a, b) => format!("({}) and ({})", a.text(claims), b.text(claims)),
            Self::Any(a, b) => format!("({})||({})", a.text(claims), b.text(claims)),
        }
    }

    fn truth(&self, claims: &[(String, bool)]) -> bool {
        match self {
            Self::Claim(at) => at.get(claims).1,
            Self::Not(tree) => !tree.truth(claims),
            Self::Both(a, b) => a.truth(claims) && b.truth(claims),
            Self::Any(a, b) => a.truth(claims) || b.truth(claims),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    any::<prop::sample::Index>().prop_map(Tree::Claim).prop_recursive(4, 20, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Tree::Both(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Tree::Any(Box::new(a), Box::new(b))),
        ]
    })
}

/// Whether the parser knows all tags, and the headers are in the window.
fn is_within(stack: &Stack) -> bool {
    let groups = stack.outer.iter().map(|outer| &outer.group).chain([&stack.inner]);
    let few_tags = groups.filter_map(|group| group.link.as_ref()).all(|link| link.tags.len() <= 2);
    let built = stack.build();
    let no_tag = !matches!(stack.inner.body, Body::Other { ether_type, .. } if EtherType(ether_type).is_vlan());
    few_tags && no_tag && usize::from(built.parsed.layout.end) <= WINDOW
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_claim_about_a_frame_is_judged_as_it_was_built(stack in stack().prop_filter("within", is_within)) {
        let frame = stack.build().bytes;
        let len = u32::try_from(frame.len()).unwrap();
        for (text, truth) in claims(&stack) {
            prop_assert_eq!(filter(&text).matches(&frame, len), truth, "{}", text);
        }
    }

    #[test]
    fn expressions_are_judged_as_their_parts(stack in stack().prop_filter("within", is_within), tree in tree()) {
        let claims = claims(&stack);
        let frame = stack.build().bytes;
        let len = u32::try_from(frame.len()).unwrap();
        let text = tree.text(&claims);
        prop_assert_eq!(filter(&text).matches(&frame, len), tree.truth(&claims), "{}", text);
    }

    /// Any words of the language in any order, and any frame: no panic, and the same text is the same expression.
    #[test]
    fn any_words_are_taken_or_refused(words in vec(prop::sample::select(&WORDS[..]), 0..30), frame in vec(any::<u8>(), 0..300)) {
        let text = words.join(" ");
        let (once, again) = (text.parse::<Filter>(), text.parse::<Filter>());
        prop_assert_eq!(&once, &again);
        if let Ok(filter) = once {
            let len = u32::try_from(frame.len()).unwrap();
            // One that is nested as deep as may be cannot be nested deeper.
            if let Ok(inverse) = format!("not ({text})").parse::<Filter>() {
                prop_assert_ne!(filter.matches(&frame, len), inverse.matches(&frame, len));
            }
        }
    }
}

const WORDS: [&str; 34] = [
    "and",
    "or",
    "not",
    "(",
    ")",
    "!",
    "&&",
    "||",
    "src",
    "dst",
    "host",
    "net",
    "port",
    "portrange",
    "ether",
    "ip",
    "ip6",
    "arp",
    "rarp",
    "icmp",
    "icmp6",
    "tcp",
    "udp",
    "proto",
    "vlan",
    "vni",
    "less",
    "greater",
    "10.0.0.1",
    "fd00::/8",
    "02:00:00:00:00:01",
    "7",
    "0x800",
    "1-2",
];
