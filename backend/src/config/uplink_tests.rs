// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the keys of an uplink can say.

use super::tests::{parse, refused};
use super::*;

pub(super) const UPLINK: &str = r#"
[[port]]
name = "up"
kind = "af-packet"
interface = "eth0"
address = ["192.0.2.1/24", "2001:db8::1/64"]
gateway = ["192.0.2.254", "fe80::1"]
mtu = 9000
mac = "52:54:00:00:00:09"

[[port]]
name = "vm0"
socket = "/s"
mac = "52:54:00:00:00:09"
vni = 0xffffff
"#;

#[test]
fn an_uplink_has_an_interface_and_addresses() {
    let config = parse(UPLINK).expect("accepted");
    let uplink = UplinkConfig {
        link: LinkConfig::AfPacket { interface: InterfaceName::new("eth0").expect("a name") },
        address: ["192.0.2.1/24", "2001:db8::1/64"].map(|text| text.parse().expect("an address")).to_vec(),
        gateway: ["192.0.2.254", "fe80::1"].map(|text| text.parse().expect("an address")).to_vec(),
        mtu: Some(9000),
    };
    let mac = Some(packet::MacAddr([0x52, 0x54, 0, 0, 0, 9]));
    let [up, vm0] = &config.ports[..] else { panic!("{config:?}") };
    assert_eq!((&up.endpoint, up.mac, up.vni), (&Endpoint::Uplink(uplink), mac, None));
    assert_eq!(vm0.overlay_key(), Vni::new(Vni::MAX).zip(mac));
    let bare = parse("[[port]]\nname = 'up'\nkind = 'af-packet'\ninterface = 'eth0'\naddress = '10.0.0.1/8'\n");
    let Endpoint::Uplink(uplink) = &bare.expect("accepted").ports[0].endpoint else { panic!("no uplink") };
    assert_eq!((uplink.address.len(), uplink.gateway.len(), uplink.mtu), (1, 0, None));
}

pub(super) const LINKS: &str = r#"
[[port]]
name = "a"
kind = "tap"
interface = "tap0"
mtu = 1400

[[port]]
name = "b"
kind = "af-xdp"
interface = "eth0"

[[port]]
name = "c"
kind = "af-xdp"
interface = "eth1"
xdp_queue = 3
xdp_mode = "generic"
xdp_zero_copy = false

[[port]]
name = "d"
kind = "udp"
local = "[::]:34997"
peer = "[2001:db8::2]:34997"
address = "10.0.0.1/8"
"#;

#[test]
fn each_kind_of_uplink_has_its_own_keys() {
    let config = parse(LINKS).expect("accepted");
    let interface = |name: &str| InterfaceName::new(name).expect("a name");
    let links: Vec<LinkConfig> = config
        .ports
        .iter()
        .map(|port| match &port.endpoint {
            Endpoint::Uplink(uplink) => uplink.link.clone(),
            Endpoint::VhostUser(_) => panic!("no uplink"),
        })
        .collect();
    let xdp =
        |name, queue, mode, zero_copy| LinkConfig::AfXdp(AfXdp { interface: interface(name), queue, mode, zero_copy });
    let udp = LinkConfig::Udp {
        local: "[::]:34997".parse().expect("an address"),
        peer: "[2001:db8::2]:34997".parse().expect("an address"),
    };
    let expected = [
        LinkConfig::Tap { interface: interface("tap0") },
        xdp("eth0", 0, XdpMode::Auto, true),
        xdp("eth1", 3, XdpMode::Generic, false),
        udp,
    ];
    assert_eq!(links, expected);
    let kinds: Vec<&str> = config.ports.iter().map(|port| port.kind().name()).collect();
    assert_eq!(kinds, ["tap", "af-xdp", "af-xdp", "udp"]);
}

#[test]
fn what_is_not_for_a_kind_is_named_with_its_line() {
    let tap = "[[port]]\nname = 'a'\nkind = 'tap'\ninterface = 'tap0'\n";
    let xdp = "[[port]]\nname = 'a'\nkind = 'af-xdp'\ninterface = 'eth0'\n";
    let udp = "[[port]]\nname = 'a'\nkind = 'udp'\nlocal = '10.0.0.1:1'\npeer = '10.0.0.2:2'\n";
    let ends =
        |local: &str, peer: &str| format!("[[port]]\nname = 'a'\nkind = 'udp'\nlocal = '{local}'\npeer = '{peer}'\n");
    let cases = [
        (format!("{tap}xdp_queue = 1\n"), "5: [[port]] key \"xdp_queue\" is not for kind \"tap\""),
        (format!("{tap}peer = '10.0.0.2:2'\n"), "5: [[port]] key \"peer\" is not for kind \"tap\""),
        ("[[port]]\nname = 'a'\nkind = 'tap'\n".to_owned(), "1: [[port]] key \"interface\" is missing"),
        (format!("{xdp}queues = 1\n"), "5: [[port]] key \"queues\" is not for kind \"af-xdp\""),
        (format!("{xdp}xdp_queue = 1024\n"), "5: [[port]] key \"xdp_queue\" is 1024, which is outside 0..=1023"),
        (
            format!("{xdp}xdp_mode = 'skb'\n"),
            "5: [[port]] key \"xdp_mode\" is \"skb\"; it can be \"auto\", \"native\" or \"generic\"",
        ),
        (
            format!("{xdp}xdp_zero_copy = 1\n"),
            "5: [[port]] key \"xdp_zero_copy\" must be true or false, not a whole number",
        ),
        (format!("{udp}interface = 'eth0'\n"), "6: [[port]] key \"interface\" is not for kind \"udp\""),
        (
            "[[port]]\nname = 'a'\nkind = 'udp'\nlocal = '10.0.0.1:1'\n".to_owned(),
            "1: [[port]] key \"peer\" is missing",
        ),
        (
            ends("10.0.0.1", "10.0.0.2:2"),
            "4: [[port]] key \"local\": \"10.0.0.1\" is not an IP address and a port, such as \"192.0.2.1:34997\"",
        ),
        (
            ends("10.0.0.1:0", "10.0.0.2:2"),
            "4: [[port]] key \"local\": \"10.0.0.1:0\" is not an address with a port other than 0, \
             such as \"192.0.2.1:34997\"",
        ),
        (
            ends("10.0.0.1:1", "0.0.0.0:2"),
            "5: [[port]] key \"peer\": \"0.0.0.0:2\" is not the address of one station, such as \"192.0.2.1:34997\"",
        ),
        (
            ends("10.0.0.1:1", "[::1]:2"),
            "5: [[port]] key \"peer\": ::1 cannot be reached from \"local\" 10.0.0.1: \
             one is IPv4, the other IPv6",
        ),
        (ends("10.0.0.1:1", "10.0.0.1:1"), "5: [[port]] key \"peer\" is 10.0.0.1:1, which is \"local\" itself"),
        (
            format!("{tap}{}", xdp.replace("eth0", "tap0").replace("'a'", "'b'")),
            "8: port \"b\" uses interface tap0, which port \"a\" uses already",
        ),
        (
            format!("{udp}{}", udp.replace("'a'", "'b'")),
            "10: port \"b\" uses path 10.0.0.1:1 > 10.0.0.2:2, which port \"a\" uses already",
        ),
    ];
    for (text, message) in cases {
        refused(&[(&text, &format!("node.toml:{message}"))]);
    }
}

#[test]
fn what_an_uplink_cannot_be_is_named_with_its_line() {
    let up = "[[port]]\nname = 'up'\nkind = 'af-packet'\ninterface = 'eth0'\n";
    let guest = "[[port]]\nname = 'a'\nsocket = '/s'\n";
    let with = |base: &str, rest: &str| format!("{base}{rest}\n");
    let cases = [
        (with("[[port]]\nname = 'a'\nkind = 'af-packet'", ""), "1: [[port]] key \"interface\" is missing"),
        (with(up, "socket = '/s'"), "5: [[port]] key \"socket\" is not for kind \"af-packet\""),
        (with(up, "queues = 2"), "5: [[port]] key \"queues\" is not for kind \"af-packet\""),
        (with(guest, "gateway = '10.0.0.1'"), "4: [[port]] key \"gateway\" is not for kind \"vhost-user\""),
        (with(guest, "interface = 'eth0'"), "4: [[port]] key \"interface\" is not for kind \"vhost-user\""),
        (
            with("[[port]]\nname = 'a'\nkind = 'af-packet'\n", "interface = 'eth0/1'"),
            "4: [[port]] key \"interface\": \"eth0/1\" is no name of an interface, \
             which has 1 to 15 bytes, no space and no '/' or ':'",
        ),
        (with(up, "mtu = 67"), "5: [[port]] key \"mtu\" is 67, which is outside 68..=65535"),
        (
            with(up, "address = '192.0.2.1'"),
            "5: [[port]] key \"address\": \"192.0.2.1\" is not an address with the length of its prefix, \
             such as \"192.0.2.1/24\"",
        ),
        (
            with(up, "address = ['192.0.2.1/24', 4]"),
            "5: [[port]] key \"address\" must be a string or an array of strings, not an array with other things",
        ),
        (with(up, "address = []"), "5: [[port]] key \"address\" must not be empty"),
        (with(up, "address = ['10.0.0.1/8', '10.0.0.1/9']"), "5: [[port]] key \"address\" has 10.0.0.1 twice"),
        (
            with(up, "address = '10.0.0.1/8'\ngateway = 'router'"),
            "6: [[port]] key \"gateway\": \"router\" is not the address of a station, such as \"192.0.2.254\"",
        ),
        (
            with(up, "address = '10.0.0.1/8'\ngateway = '192.0.2.1'"),
            "6: [[port]] key \"gateway\": 192.0.2.1 is not another station in the prefix of an \"address\"",
        ),
        (
            with(up, "gateway = 'fe80::1'"),
            "5: [[port]] key \"gateway\": fe80::1 is not another station in the prefix of an \"address\"",
        ),
        (
            with(up, "address = '10.0.0.1/8'\ngateway = ['10.0.0.2', '10.0.0.3']"),
            "6: [[port]] key \"gateway\" has two IPv4 routers",
        ),
        (
            with(guest, "mac = '01:00:5e:00:00:01'"),
            "4: [[port]] key \"mac\": \"01:00:5e:00:00:01\" is not the address of one station, \
             such as \"52:54:00:12:34:56\"",
        ),
        (with(guest, "vni = 1"), "4: [[port]] key \"vni\" needs key \"mac\""),
        (
            with(guest, "mac = '52:54:00:12:34:56'\nvni = 16777216"),
            "5: [[port]] key \"vni\" is 16777216, which is outside 0..=16777215",
        ),
        (
            format!("{up}[[port]]\nname = 'b'\nkind = 'af-packet'\ninterface = 'eth0'\n"),
            "8: port \"b\" uses interface eth0, which port \"up\" uses already",
        ),
        (
            format!(
                "{up}address = '10.0.0.1/8'\n[[port]]\nname = 'b'\nkind = 'af-packet'\ninterface = 'eth1'\n\
                 address = '10.0.0.1/16'\n"
            ),
            "10: port \"b\" uses address 10.0.0.1, which port \"up\" uses already",
        ),
        (
            format!(
                "{guest}mac = '52:54:00:12:34:56'\n[[port]]\nname = 'b'\nsocket = '/b'\nmac = '52:54:00:12:34:56'\n"
            ),
            "8: port \"b\" uses mac 52:54:00:12:34:56, which port \"a\" uses already",
        ),
    ];
    for (text, message) in cases {
        refused(&[(&text, &format!("node.toml:{message}"))]);
    }
}
