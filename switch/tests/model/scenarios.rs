// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stories that are told in words, with their outcome.

use crate::engine::Port;
use crate::interpreter::Interpreter;
use crate::script::run;
use crate::switch_under_test::Switch;

/// Name and text of each.
pub(crate) const SCENARIOS: &[(&str, &str)] = &[
    (
        "VF-6: answers to what was allowed need no rule",
        "
policy
  layer acl 10 block
    group base 0
      rule web 10 out dst_port=80 ip_proto=tcp -> allow stateful 60
      rule dns 10 out dst_port=53 -> allow stateful 60
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A => drop policy_default     # nobody asked
out udp 10.0.0.1:1000 > 192.0.2.53:53 => same
in udp 192.0.2.53:53 > 10.0.0.1:1000 => same
in udp 192.0.2.53:53 > 10.0.0.1:1001 => drop policy_default
in udp 192.0.2.54:53 > 10.0.0.1:1000 => drop policy_default
out udp 10.0.0.1:1000 > 192.0.2.53:123 => drop policy_default
connections 1
count acl/base/dns 1 46
count acl/entry 1 46
count acl/default 4 196
",
    ),
    (
        "VF-6, VF-22: a TCP connection from its SYN to the end of TIME_WAIT",
        "
policy
  layer acl 10 block
    group base 0
      rule web 10 out dst_port=80 ip_proto=tcp -> allow stateful 600
out tcp 10.0.0.1:1000 > 192.0.2.80:80 S seq=100 len=0 => same
wait 29
in tcp 192.0.2.80:80 > 10.0.0.1:1000 SA seq=500 ack=101 len=0 => same
out tcp 10.0.0.1:1000 > 192.0.2.80:80 A seq=101 ack=501 len=0 => same
wait 599                                                         # established: its rule's time
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A seq=501 ack=101 len=10 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 FA seq=511 ack=101 len=0 => same
wait 119                                                         # closing: 120 s
out tcp 10.0.0.1:1000 > 192.0.2.80:80 FA seq=101 ack=512 len=0 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A seq=512 ack=102 len=0 => same
wait 59                                                          # TIME_WAIT: 60 s
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A seq=512 ack=102 len=0 => same
wait 60
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A seq=512 ack=102 len=0 => drop policy_default
connections 0
",
    ),
    (
        "VF-22: half-open is forgotten after 30 s",
        "
policy
  layer acl 10 block
    group base 0
      rule web 10 out dst_port=80 -> allow stateful 600
out tcp 10.0.0.1:1000 > 192.0.2.80:80 S seq=100 len=0 => same
wait 30
in tcp 192.0.2.80:80 > 10.0.0.1:1000 SA seq=500 ack=101 len=0 => drop policy_default
out udp 10.0.0.1:1000 > 192.0.2.80:80 => same
wait 30
in udp 192.0.2.80:80 > 10.0.0.1:1000 => drop policy_default
out udp 10.0.0.1:1000 > 192.0.2.80:80 => same
wait 29
in udp 192.0.2.80:80 > 10.0.0.1:1000 => same
wait 599                                                         # now it was answered
in udp 192.0.2.80:80 > 10.0.0.1:1000 => same
wait 600
in udp 192.0.2.80:80 > 10.0.0.1:1000 => drop policy_default
",
    ),
    (
        "VF-22: a reset counts in its window only",
        "
policy
  layer acl 10 block
    group base 0
      rule web 10 out dst_port=80 -> allow stateful 600
out tcp 10.0.0.1:1000 > 192.0.2.80:80 S seq=100 len=0 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 SA seq=500 ack=101 len=0 => same
out tcp 10.0.0.1:1000 > 192.0.2.80:80 A seq=101 ack=501 len=0 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 R seq=502 len=0 => same
wait 11
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A seq=501 ack=101 len=0 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 R seq=501 len=0 => same
wait 10
in tcp 192.0.2.80:80 > 10.0.0.1:1000 A seq=501 ack=101 len=0 => drop policy_default
",
    ),
    (
        "a SYN on what is over begins anew, from either side",
        "
policy
  layer acl 10 block
    group base 0
      rule web 10 out dst_port=80 -> allow stateful 600
out tcp 10.0.0.1:1000 > 192.0.2.80:80 S seq=100 len=0 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 RA seq=0 ack=101 len=0 => same
out tcp 10.0.0.1:1000 > 192.0.2.80:80 S seq=900 len=0 => same
wait 29                                                          # a reset one would be gone
in tcp 192.0.2.80:80 > 10.0.0.1:1000 SA seq=500 ack=901 len=0 => same
connections 1
out tcp 10.0.0.1:1000 > 192.0.2.80:80 R seq=901 len=0 => same
in tcp 192.0.2.80:80 > 10.0.0.1:1000 S seq=7 len=0 => drop policy_default
connections 0
",
    ),
    (
        "stray TCP passes a stateful allow without a trace, and is not translated",
        "
policy
  range pool 192.0.2.1 1024-1024
  layer acl 10 block
    group base 0
      rule all 10 out -> allow stateful 600
  layer nat 20 allow
    group g 0
      rule snat 1 out dst_port=80 -> nat src=pool:pool idle=60
out tcp 10.0.0.1:1000 > 198.51.100.1:81 R seq=1 len=0 => same
out tcp 10.0.0.1:1000 > 198.51.100.1:81 SA seq=1 len=0 => same
out tcp 10.0.0.1:1000 > 198.51.100.1:80 R seq=1 len=0 => drop no_connection
out tcp 10.0.0.1:1000 > 198.51.100.1:80 SA seq=1 len=0 => drop no_connection
out arp 10.0.0.1 > 10.0.0.254 => same
connections 0
out tcp 10.0.0.1:1000 > 198.51.100.1:80 A seq=1 ack=9 => tcp 192.0.2.1:1024 > 198.51.100.1:80   # midstream
in tcp 198.51.100.1:80 > 192.0.2.1:1024 A seq=9 ack=5 => tcp 198.51.100.1:80 > 10.0.0.1:1000
connections 1
",
    ),
    (
        "SNAT: one port serves two destinations, and no third connection to one of them",
        "
policy
  range pool 192.0.2.1 1024-1024
  layer nat 20 allow
    group g 0
      rule snat 1 out src_ip=10.0.0.0/8 -> nat src=pool:pool idle=60
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:1024 > 198.51.100.1:53
out udp 10.0.0.2:1000 > 198.51.100.2:53 => udp 192.0.2.1:1024 > 198.51.100.2:53
in udp 198.51.100.1:53 > 192.0.2.1:1024 => udp 198.51.100.1:53 > 10.0.0.1:1000
in udp 198.51.100.2:53 > 192.0.2.1:1024 => udp 198.51.100.2:53 > 10.0.0.2:1000
out udp 10.0.0.3:1000 > 198.51.100.1:53 => drop nat_exhausted
in udp 198.51.100.3:53 > 192.0.2.1:1024 => same                  # nobody's
count nat/g/snat 3 138
count nat/entry 2 92
wait 60
connections 0
out udp 10.0.0.3:1000 > 198.51.100.1:53 => drop nat_exhausted    # the name rests
out udp 10.0.0.3:1000 > 198.51.100.3:53 => udp 192.0.2.1:1024 > 198.51.100.3:53
wait 33
out udp 10.0.0.3:1000 > 198.51.100.1:53 => udp 192.0.2.1:1024 > 198.51.100.1:53
",
    ),
    (
        "SNAT keeps its port while the list has it",
        "
policy
  range pool 192.0.2.1 1024-1027
  layer nat 20 allow
    group g 0
      rule snat 1 out -> nat src=pool:pool idle=60
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:$p > 198.51.100.1:53
out udp 10.0.0.2:1000 > 198.51.100.1:53 => udp 192.0.2.1:$q > 198.51.100.1:53
differ $p $q
policy
  range pool 192.0.2.1 1020-1030
  layer nat 20 allow
    group g 0
      rule other 7 out -> nat src=pool:pool idle=20
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:$p > 198.51.100.1:53
in udp 198.51.100.1:53 > 192.0.2.1:$q => udp 198.51.100.1:53 > 10.0.0.2:1000
policy
  range pool 192.0.2.1 2000-2010
  layer nat 20 allow
    group g 0
      rule other 7 out -> nat src=pool:pool idle=20
in udp 198.51.100.1:53 > 192.0.2.1:$p => same                    # it has ended
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:$r > 198.51.100.1:53
differ $p $q $r
",
    ),
    (
        "SNAT of echoes: the identifier is the port",
        "
policy
  range pool 192.0.2.1 1024-1024
  layer nat 20 allow
    group g 0
      rule snat 1 out -> nat src=pool:pool idle=60
out ping 10.0.0.1 > 198.51.100.1 id=7 => ping 192.0.2.1 > 198.51.100.1 id=1024
in pong 198.51.100.1 > 192.0.2.1 id=1024 => pong 198.51.100.1 > 10.0.0.1 id=7
out sctp 10.0.0.1 > 198.51.100.1 => sctp 192.0.2.1 > 198.51.100.1
in sctp 198.51.100.1 > 192.0.2.1 => sctp 198.51.100.1 > 10.0.0.1
out sctp 10.0.0.2 > 198.51.100.1 => drop nat_exhausted
out udp [fd00::1]:7 > [fd00::2]:53 => drop untransposable
out arp 10.0.0.1 > 10.0.0.9 => drop no_connection
",
    ),
    (
        "DNAT, inbound, and answers come from the address that was asked",
        "
policy
  layer nat 20 allow
    group g 0
      rule dnat 1 in dst_ip=192.0.2.1 dst_port=80 -> nat dst=10.0.0.1:8080 idle=60
in tcp 198.51.100.1:1000 > 192.0.2.1:80 S seq=1 len=0 => tcp 198.51.100.1:1000 > 10.0.0.1:8080
out tcp 10.0.0.1:8080 > 198.51.100.1:1000 SA seq=1 ack=2 len=0 => tcp 192.0.2.1:80 > 198.51.100.1:1000
out tcp 10.0.0.1:8080 > 198.51.100.2:1000 SA seq=1 ack=2 len=0 => same
in tcp 198.51.100.1:1000 > 192.0.2.1:81 S seq=1 len=0 => same
policy
  layer nat 20 allow
    group g 0
      rule dnat 1 in dst_ip=192.0.2.1 dst_port=80 -> nat dst=10.0.0.2:8080 idle=60
out tcp 10.0.0.1:8080 > 198.51.100.1:1000 A seq=2 ack=2 len=0 => same
in tcp 198.51.100.1:1000 > 192.0.2.1:80 A seq=2 ack=2 len=0 => tcp 198.51.100.1:1000 > 10.0.0.2:8080
",
    ),
    (
        "two connections whose answers would have one name: the second does not begin",
        "
policy
  layer nat 20 allow
    group g 0
      rule snat 1 out -> nat src=192.0.2.1 idle=60
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:1000 > 198.51.100.1:53
out udp 10.0.0.2:1000 > 198.51.100.1:53 => drop nat_exhausted
out udp 10.0.0.2:1001 > 198.51.100.1:53 => udp 192.0.2.1:1001 > 198.51.100.1:53
connections 2
",
    ),
    (
        "balance: a connection stays where it is while that is in the list",
        "
policy
  layer lb 20 allow
    group g 0
      rule vip 1 in dst_ip=192.0.2.1 -> balance 10.1.0.1:8080 10.1.0.2:8080 10.1.0.3:8080 idle=60
in tcp 198.51.100.1:1000 > 192.0.2.1:80 S seq=1 len=0 => tcp 198.51.100.1:1000 > $b:8080
in tcp 198.51.100.1:1000 > 192.0.2.1:80 S seq=1 len=0 => tcp 198.51.100.1:1000 > $b:8080
out tcp $b:8080 > 198.51.100.1:1000 SA seq=1 ack=2 len=0 => tcp 192.0.2.1:80 > 198.51.100.1:1000
policy
  layer lb 20 allow
    group g 0
      rule vip 1 in dst_ip=192.0.2.1 -> balance 10.1.0.4:8080 10.1.0.3:8080 10.1.0.2:8080 10.1.0.1:8080 idle=60
in tcp 198.51.100.1:1000 > 192.0.2.1:80 A seq=2 ack=2 len=0 => tcp 198.51.100.1:1000 > $b:8080
policy
  layer lb 20 allow
    group g 0
      rule vip 1 in dst_ip=192.0.2.1 -> balance 10.1.0.9:8080 idle=60
out tcp $b:8080 > 198.51.100.1:1000 A seq=2 ack=2 => same
in tcp 198.51.100.1:1000 > 192.0.2.1:80 A seq=2 ack=2 => tcp 198.51.100.1:1000 > 10.1.0.9:8080
",
    ),
    (
        "encap and decap",
        "
policy
  layer net 30 allow
    group g 0
      rule out 1 out ip_proto=udp -> encap vxlan 77 192.0.2.1 to 192.0.2.2
      rule gen 1 out ip_proto=tcp -> encap geneve 78 192.0.2.1 to 192.0.2.3
      rule nv 1 out ip_proto=sctp -> encap nvgre 79 2001:db8::1 to 2001:db8::2
      rule arp 1 out ether_type=arp -> encap vxlan 77 192.0.2.1 to 192.0.2.2
      rule in 1 in tunnel=vxlan tunnel_key=77 -> decap
      rule not 0 in -> decap
out udp 10.0.0.1:1 > 10.0.0.2:2 dscp=46 ecn=2 => vxlan 77 192.0.2.1 > 192.0.2.2 / udp 10.0.0.1:1 > 10.0.0.2:2
out tcp 10.0.0.1:1 > 10.0.0.2:2 S => geneve 78 192.0.2.1 > 192.0.2.3 / tcp 10.0.0.1:1 > 10.0.0.2:2
out sctp 10.0.0.1 > 10.0.0.2 => nvgre 79 2001:db8::1 > 2001:db8::2 / sctp 10.0.0.1 > 10.0.0.2
out arp 10.0.0.1 > 10.0.0.2 => vxlan 77 192.0.2.1 > 192.0.2.2 / arp 10.0.0.1 > 10.0.0.2
out vxlan 5 192.0.2.1 > 192.0.2.9 / udp 10.0.0.1:1 > 10.0.0.2:2 => drop untransposable
in vxlan 77 192.0.2.2 > 192.0.2.1 / udp 10.0.0.2:2 > 10.0.0.1:1 => udp 10.0.0.2:2 > 10.0.0.1:1
in udp 10.0.0.2:2 > 10.0.0.1:1 => drop untransposable
count net/g/out 2 142
count net/g/in 1 96
",
    ),
    (
        "encap by a map: unknown waits, none is dropped until that expires",
        "
policy
  map directory 10.0.0.2=192.0.2.2 10.0.0.3=192.0.2.3/9/02:00:00:00:00:33 10.0.0.4=none@1010
  layer net 30 allow
    group g 0
      rule out 1 out -> encap vxlan 77 192.0.2.1 to map directory
out udp 10.0.0.1:1 > 10.0.0.2:2 => vxlan 77 192.0.2.1 > 192.0.2.2 / udp 10.0.0.1:1 > 10.0.0.2:2
out udp 10.0.0.1:1 > 10.0.0.3:2
  => vxlan 9 192.0.2.1 > 192.0.2.3 / udp 10.0.0.1:1 > 10.0.0.3:2 mac=02:00:00:00:00:01>02:00:00:00:00:33
out udp 10.0.0.1:1 > 10.0.0.4:2 => drop no_mapping
out udp 10.0.0.1:1 > 10.0.0.5:2 => park
out udp [fd00::1]:1 > [fd00::2]:2 => park
wait 10
out udp 10.0.0.1:1 > 10.0.0.4:2 => park
policy
  map directory 10.0.0.2=192.0.2.9 10.0.0.5=192.0.2.5
  layer net 30 allow
    group g 0
      rule out 1 out -> encap vxlan 77 192.0.2.1 to map directory
out udp 10.0.0.1:1 > 10.0.0.2:2 => vxlan 77 192.0.2.1 > 192.0.2.9 / udp 10.0.0.1:1 > 10.0.0.2:2
out udp 10.0.0.1:1 > 10.0.0.5:2 => vxlan 77 192.0.2.1 > 192.0.2.5 / udp 10.0.0.1:1 > 10.0.0.5:2
count net/g/out 5 230
",
    ),
    (
        "a change of policy that blocks a connection, and one that it does not notice",
        "
policy
  layer acl 10 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
out udp 10.0.0.1:1000 > 192.0.2.53:53 => same
policy
  layer acl 10 block
    group base 0
      rule more 20 out dst_port=53 -> allow stateful 60
      rule web 10 in -> block
in udp 192.0.2.53:53 > 10.0.0.1:1000 => same
count acl/entry 1 46
policy
  layer acl 10 block
    group base 0
      rule web 10 out dst_port=80 -> allow stateful 60
in udp 192.0.2.53:53 > 10.0.0.1:1000 => drop policy_default
connections 0
policy
  layer acl 10 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
in udp 192.0.2.53:53 > 10.0.0.1:1000 => drop policy_default
",
    ),
    (
        "a connection gets an entry of a layer that comes, and loses that of one that goes",
        "
policy
  layer acl 10 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
out udp 10.0.0.1:1000 > 192.0.2.53:53 => same
policy
  layer acl 10 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
  layer more 20 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
in udp 192.0.2.53:53 > 10.0.0.1:1000 => same
count more/entry 1 46
policy
  layer more 20 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
in udp 192.0.2.53:53 > 10.0.0.1:1000 => same
policy
  layer more 20 block
    group base 0
      rule dns 10 out dst_port=53 -> allow
in udp 192.0.2.53:53 > 10.0.0.1:1000 => drop policy_default
connections 0
",
    ),
    (
        "answers search rules where the connection has no entry",
        "
policy
  layer acl 10 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
  layer net 20 allow
    group base 0
      rule bad 10 in src_ip=192.0.2.66 -> block bad_fragment
      rule mark 5 in -> dscp 10
out udp 10.0.0.1:1000 > 192.0.2.66:53 => same
out udp 10.0.0.1:1000 > 192.0.2.53:53 => same
in udp 192.0.2.66:53 > 10.0.0.1:1000 => drop bad_fragment
in udp 192.0.2.53:53 > 10.0.0.1:1000 => udp 192.0.2.53:53 > 10.0.0.1:1000 dscp=10
",
    ),
    (
        "an answer that meets a stateful rule adds no entry, and is not translated",
        "
policy
  layer acl 10 block
    group base 0
      rule dns 10 out dst_port=53 -> allow stateful 60
  layer net 20 allow
    group base 0
      rule in 10 in src_ip=192.0.2.53 -> allow stateful 60
      rule nat 10 in src_ip=192.0.2.54 -> nat dst=10.0.0.9 idle=60
out udp 10.0.0.1:1000 > 192.0.2.53:53 => same
out udp 10.0.0.1:1000 > 192.0.2.54:53 => same
in udp 192.0.2.53:53 > 10.0.0.1:1000 => same
in udp 192.0.2.54:53 > 10.0.0.1:1000 => drop no_connection
connections 2
",
    ),
    (
        "a flow that a later layer drops leaves nothing behind",
        "
policy
  range pool 192.0.2.1 1024-1024
  layer nat 20 allow
    group g 0
      rule snat 1 out -> nat src=pool:pool idle=60
  layer last 30 allow
    group g 0
      rule bad 1 out dst_port=666 src_ip=192.0.2.1 -> block
out udp 10.0.0.1:1000 > 198.51.100.1:666 => drop policy_block
connections 0
count nat/g/snat 1 46
count last/g/bad 1 46
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:1024 > 198.51.100.1:53
",
    ),
    (
        "VF-2: registers are for the layers behind, and zero at the entry",
        "
policy
  layer a 10 allow
    group g 0
      rule web 1 out dst_port=80 -> set 3 7
      rule back 1 in meta3=9 -> block
  layer b 20 allow
    group g 0
      rule seven 1 out meta3=7 -> block
      rule nine 1 in src_port=80 -> set 3 9
out udp 10.0.0.1:1 > 10.0.0.2:80 => drop policy_block
out udp 10.0.0.1:1 > 10.0.0.2:81 => same
in udp 10.0.0.2:80 > 10.0.0.1:1 => drop policy_block
in udp 10.0.0.2:81 > 10.0.0.1:1 => same
",
    ),
    (
        "VF-11: the last group's rule applies, and a terminating one at once",
        "
policy
  layer acl 10 allow
    group first 1
      rule a 1 out dst_port=1-9 -> block runt terminating
      rule b 1 out dst_port=10-19 -> block runt
      rule c 5 out dst_port=15 -> count
      rule d 5 out dst_port=15 -> block too_big
    group second 2 when ip_proto=udp
      rule a 1 out dst_port=1-9 -> allow
      rule b 1 out dst_port=11 -> allow
    group third 3 when ip_proto=sctp
      rule all 1 out -> block
out udp 10.0.0.1:1 > 10.0.0.2:1 => drop runt
out udp 10.0.0.1:1 > 10.0.0.2:10 => drop runt
out udp 10.0.0.1:1 > 10.0.0.2:11 => same
out udp 10.0.0.1:1 > 10.0.0.2:15 => same
out tcp 10.0.0.1:1 > 10.0.0.2:11 => drop runt
out tcp 10.0.0.1:1 > 10.0.0.2:20 => same
in udp 10.0.0.1:1 > 10.0.0.2:1 => same
out sctp 10.0.0.1 > 10.0.0.2 => drop policy_block
count acl/first/c 1 46
count acl/second/b 1 46
",
    ),
    (
        "VF-12: the longest prefix first, then priority, then place",
        "
policy
  layer route 10 block
    group g 0 lpm=dst_ip
      rule wide 9 out dst_ip=10.0.0.0/8 -> dscp 8
      rule near 1 out dst_ip=10.0.0.0/24 -> dscp 24
      rule both 5 out dst_ip=10.0.0.7/32|10.1.0.0/16 -> dscp 32
      rule other 5 out dst_ip=10.1.0.0/16 -> dscp 33
      rule any 99 out -> dscp 1
out udp 10.0.0.1:1 > 10.0.0.7:1 => udp 10.0.0.1:1 > 10.0.0.7:1 dscp=32
out udp 10.0.0.1:1 > 10.0.0.8:1 => udp 10.0.0.1:1 > 10.0.0.8:1 dscp=24
out udp 10.0.0.1:1 > 10.1.0.7:1 => udp 10.0.0.1:1 > 10.1.0.7:1 dscp=32
out udp 10.0.0.1:1 > 10.2.0.7:1 => udp 10.0.0.1:1 > 10.2.0.7:1 dscp=8
out udp 10.0.0.1:1 > 11.0.0.7:1 => udp 10.0.0.1:1 > 11.0.0.7:1 dscp=1
out udp [fd00::1]:1 > [::a00:7]:1 => udp [fd00::1]:1 > [::a00:7]:1 dscp=1
",
    ),
    (
        "each layer sees what those before it left, and both directions meet them in reverse",
        "
policy
  layer near 10 allow
    group g 0
      rule o 1 out dst_port=1 -> change dst_port=2 ttl=-1
      rule i 1 in dst_port=2 -> change src_ip=10.9.9.9 vlan=push:5
  layer far 20 allow
    group g 0
      rule o 1 out dst_port=2 -> change dst_ip=10.8.8.8 vlan=push:7
      rule i 1 in dst_port=1 -> change dst_port=2 eth_dst=02:00:00:00:00:77
out udp 10.0.0.1:9 > 10.0.0.2:1 => udp 10.0.0.1:9 > 10.8.8.8:2 ttl=63 vlan=7
out udp 10.0.0.1:9 > 10.0.0.2:3 => same
in udp 10.0.0.2:9 > 10.0.0.1:1 => udp 10.9.9.9:9 > 10.0.0.1:2 vlan=5 mac=02:00:00:00:00:fe>02:00:00:00:00:77
count near/g/i 1 46
count far/g/o 1 46
out udp 10.0.0.1:9 > 10.0.0.2:1 ttl=1 => drop ttl_expired
count far/g/o 2 92
",
    ),
    (
        "NAT in one layer, filters around it: each sees its own side",
        "
policy
  range pool 192.0.2.1 1024-1030
  layer acl 10 block
    group g 0
      rule mine 1 out src_ip=10.0.0.0/8 -> allow stateful 60
  layer nat 20 allow
    group g 0
      rule snat 1 out src_ip=10.0.0.0/8 -> nat src=pool:pool idle=60
  layer edge 30 block
    group g 0
      rule public 1 out src_ip=192.0.2.0/24 -> allow stateful 60
out tcp 10.0.0.1:1000 > 198.51.100.1:80 S seq=1 len=0 => tcp 192.0.2.1:$p > 198.51.100.1:80
in tcp 198.51.100.1:80 > 192.0.2.1:$p SA seq=9 ack=2 len=0 => tcp 198.51.100.1:80 > 10.0.0.1:1000
in tcp 198.51.100.1:80 > 10.0.0.1:1000 SA seq=9 ack=2 len=0 => drop policy_default
out tcp 192.0.2.7:1000 > 198.51.100.1:80 S seq=1 len=0 => drop policy_default
count acl/entry 1 54
count edge/entry 1 54
",
    ),
    (
        "hairpin overrides where the packet goes; the layers behind still apply",
        "
policy
  layer a 10 allow
    group g 0
      rule self 1 out dst_ip=10.0.0.1 -> hairpin
      rule left 1 out dst_ip=10.0.0.2 -> hairpin left
  layer b 20 allow
    group g 0
      rule bad 1 out dst_port=666 -> block
      rule mark 1 out dst_port=7 -> dscp 7
out udp 10.0.0.1:9 > 10.0.0.1:1 => hairpin - udp 10.0.0.1:9 > 10.0.0.1:1
out udp 10.0.0.1:9 > 10.0.0.2:7 => hairpin left udp 10.0.0.1:9 > 10.0.0.2:7 dscp=7
out udp 10.0.0.1:9 > 10.0.0.2:666 => drop policy_block
",
    ),
    (
        "ICMP errors are translated as the connection that they are about",
        "
policy
  range pool 192.0.2.1 1024-1024
  layer acl 10 block
    group g 0
      rule dns 1 out dst_port=53 -> allow stateful 60
  layer nat 20 allow
    group g 0
      rule snat 1 out -> nat src=pool:pool idle=60
out udp 10.0.0.1:1000 > 198.51.100.1:53 => udp 192.0.2.1:1024 > 198.51.100.1:53
in unreachable 198.51.100.1 > 192.0.2.1 about udp 192.0.2.1:1024 > 198.51.100.1:53
  => unreachable 198.51.100.1 > 10.0.0.1 about udp 10.0.0.1:1000 > 198.51.100.1:53
in unreachable 198.51.100.77 > 192.0.2.1 quoted=28 about udp 192.0.2.1:1024 > 198.51.100.1:53   # a router, briefly
  => unreachable 198.51.100.77 > 10.0.0.1 about udp 10.0.0.1:1000 > 198.51.100.1:53
in unreachable 198.51.100.1 > 192.0.2.1 about udp 192.0.2.1:1025 > 198.51.100.1:53 => drop policy_default
in udp 198.51.100.1:53 > 192.0.2.1:1024 => udp 198.51.100.1:53 > 10.0.0.1:1000
out unreachable 10.0.0.1 > 198.51.100.1 about udp 198.51.100.1:53 > 10.0.0.1:1000
  => unreachable 192.0.2.1 > 198.51.100.1 about udp 198.51.100.1:53 > 192.0.2.1:1024
out unreachable 10.0.0.254 > 198.51.100.1 about udp 198.51.100.1:53 > 10.0.0.1:1000
  => unreachable 10.0.0.254 > 198.51.100.1 about udp 198.51.100.1:53 > 192.0.2.1:1024
wait 59
in unreachable 198.51.100.1 > 192.0.2.1 about udp 192.0.2.1:1024 > 198.51.100.1:53
  => unreachable 198.51.100.1 > 10.0.0.1 about udp 10.0.0.1:1000 > 198.51.100.1:53
wait 2
in unreachable 198.51.100.1 > 192.0.2.1 about udp 192.0.2.1:1024 > 198.51.100.1:53 => drop policy_default
connections 0
",
    ),
    (
        "ICMP errors about a balanced connection come from the address that was asked",
        "
policy
  layer lb 20 block
    group g 0
      rule vip 1 in dst_ip=192.0.2.1 -> balance 10.1.0.1:8080 idle=60
in tcp 198.51.100.1:1000 > 192.0.2.1:80 S seq=1 len=0 => tcp 198.51.100.1:1000 > 10.1.0.1:8080
out unreachable 10.1.0.1 > 198.51.100.1 about tcp 198.51.100.1:1000 > 10.1.0.1:8080 S seq=1 len=0
  => unreachable 192.0.2.1 > 198.51.100.1 about tcp 198.51.100.1:1000 > 192.0.2.1:80
in unreachable 198.51.100.1 > 192.0.2.1 about tcp 192.0.2.1:80 > 198.51.100.1:1000 SA
  => unreachable 198.51.100.1 > 10.1.0.1 about tcp 10.1.0.1:8080 > 198.51.100.1:1000
out unreachable 10.1.0.1 > 198.51.100.1 about tcp 198.51.100.1:1001 > 10.1.0.1:8080 => drop policy_default
",
    ),
    (
        "what comes to the VM's own address says nothing about its translated connection",
        "
policy
  range pool 192.0.2.1 1024-1024
  layer nat 20 allow
    group g 0
      rule snat 1 out -> nat src=pool:pool idle=60
out tcp 10.0.0.1:1000 > 198.51.100.1:80 A seq=1 ack=9 => tcp 192.0.2.1:1024 > 198.51.100.1:80
in tcp 198.51.100.1:80 > 10.0.0.1:1000 A seq=9 ack=1 => same
in tcp 198.51.100.1:80 > 10.0.0.1:1000 A seq=9 ack=1 => same
out tcp 10.0.0.1:1000 > 198.51.100.1:80 S seq=77 len=0 => drop nat_exhausted   # it begins anew, and its name rests
",
    ),
    (
        "a denial expires although policy has just changed somewhere else",
        "
policy
  map directory 10.0.0.4=none@1010
  layer net 30 allow
    group g 0
      rule out 1 out -> encap vxlan 77 192.0.2.1 to map directory
out udp 10.0.0.1:1 > 10.0.0.4:2 => drop no_mapping
wait 5
out udp 10.0.0.1:1 > 10.0.0.4:2 => drop no_mapping
wait 5
policy
  range pool 192.0.2.1 1024-1024
  map directory 10.0.0.4=none@1010
  layer net 30 allow
    group g 0
      rule out 1 out -> encap vxlan 77 192.0.2.1 to map directory
out udp 10.0.0.1:1 > 10.0.0.4:2 => park
",
    ),
    (
        "an entry that a later packet of the initiator adds is for answers that were known before",
        "
policy
  layer near 10 allow
    group g 0
      rule all 1 out -> allow stateful 60
  layer far 20 block
    group g 0
      rule tagged 1 out vlan=5 -> allow stateful 60
      rule plain 1 out vlan=none -> allow
out udp 10.0.0.1:1 > 10.0.0.2:53 => same
in udp 10.0.0.2:53 > 10.0.0.1:1 => drop policy_default
out udp 10.0.0.1:1 > 10.0.0.2:53 vlan=5 => same
in udp 10.0.0.2:53 > 10.0.0.1:1 => same
count far/entry 1 46
connections 1
",
    ),
    (
        "VLANs",
        "
policy
  layer v 10 allow
    group g 0
      rule two 2 out vlan=5 second_vlan=6 -> change vlan=pop
      rule one 1 out vlan=5 -> change vlan=set:9
      rule none 1 out vlan=none -> change vlan=push:3
out udp 10.0.0.1:9 > 10.0.0.2:1 vlan=5,6 => udp 10.0.0.1:9 > 10.0.0.2:1 vlan=6
out udp 10.0.0.1:9 > 10.0.0.2:1 vlan=5 => udp 10.0.0.1:9 > 10.0.0.2:1 vlan=9
out udp 10.0.0.1:9 > 10.0.0.2:1 => udp 10.0.0.1:9 > 10.0.0.2:1 vlan=3
",
    ),
];

/// Runs all scenarios, each on a new switch; panics if any of them goes wrong, after all of them.
pub(crate) fn run_all<S: Switch>(new: impl Fn() -> S) {
    let failed = SCENARIOS.iter().filter(|(title, text)| {
        let one = std::panic::AssertUnwindSafe(|| run(title, text, &mut new()));
        std::panic::catch_unwind(one).is_err()
    });
    let failed: Vec<_> = failed.map(|(title, _)| title).collect();
    assert!(failed.is_empty(), "{} scenarios went wrong: {failed:#?}", failed.len());
}

#[test]
fn the_interpreter_does_what_the_scenarios_say() {
    run_all(Interpreter::new);
}

#[test]
fn the_engine_does_what_the_scenarios_say() {
    for seed in 0..4 {
        run_all(|| Port::new(seed));
    }
}
