// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What our reader says of a frame, in the words of the test vectors.

use aggregation::negotiation::{Control, Message};
use aggregation::{Cause, Checksum, GroupHeader, GsoKind, Header, Item, Limits, Meta, Reader, Source};
use serde_json::{Value, json};

pub(crate) fn answer(reader: &mut Reader, frame: &[u8], limits: &Limits) -> Value {
    let header = match reader.begin(frame, 0, limits) {
        Ok(header) => header,
        Err(cause) => return error(cause),
    };
    let mut said = heads(&header);
    if header.control {
        match Control::parse(frame) {
            Ok(control) => said["said"] = of_control(&control),
            Err(cause) => return error(cause),
        }
        return said;
    }
    let mut items = Vec::new();
    while let Some(item) = reader.next(frame) {
        items.push(match item {
            Item::Group(group) => of_group(&group),
            Item::Tlv { kind, data } => json!({ "tlv": kind, "data": hex(data) }),
            Item::Packet(packet) => {
                let mut bytes = packet.head.to_vec();
                bytes.resize(packet.len as usize, 0);
                frame.read(packet.rest_at, &mut bytes[packet.head.len()..]);
                of_packet(&bytes, &packet.meta)
            }
            Item::Damaged(damage) => json!({ "damaged": damage.cause.label(), "packets": damage.packets }),
        });
    }
    said["items"] = items.into();
    said
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn error(cause: Cause) -> Value {
    json!({ "error": cause.label() })
}

fn heads(header: &Header) -> Value {
    json!({
        "control": header.control,
        "checked": header.checked,
        "length": header.len,
        "groups": header.groups,
        "stage": header.stage,
        "sequence": header.sequence,
    })
}

fn of_group(group: &GroupHeader) -> Value {
    json!({ "group": {
        "length": group.len,
        "packets": group.packets,
        "origin": group.origin,
        "destination": group.destination,
        "class": group.class,
        "uniform": group.uniform,
        "template": group.template,
    }})
}

fn of_packet(bytes: &[u8], meta: &Meta) -> Value {
    let checksum = match meta.checksum {
        Checksum::Unknown => Value::Null,
        Checksum::Verified => "verified".into(),
        Checksum::Unfinished { start, offset } => json!([start, offset]),
    };
    let gso = meta.gso.map(|gso| {
        let kind = match gso.kind {
            GsoKind::TcpV4 => "tcp4",
            GsoKind::TcpV6 => "tcp6",
            GsoKind::Udp => "udp",
        };
        json!({ "kind": kind, "ecn": gso.ecn, "size": gso.size, "header": gso.header_len })
    });
    json!({ "packet": hex(bytes), "checksum": checksum, "gso": gso, "flow": meta.flow })
}

fn of_control(control: &Control<'_>) -> Value {
    let message = match control.message {
        Message::Hello => "hello",
        Message::HelloAck => "hello_ack",
        Message::Keepalive => "keepalive",
        Message::Bye => "bye",
    };
    let offer = control.offer.map(|offer| {
        json!({
            "versions": [offer.versions.0, offer.versions.1],
            "encapsulations": offer.encapsulations,
            "alignment": offer.align_log2,
            "bytes": offer.max_bytes,
            "packets": offer.max_packets,
            "features": offer.features.0,
            "keepalive_ms": offer.keepalive_ms,
        })
    });
    json!({
        "message": message,
        "node": control.node,
        "session": control.session,
        "peer_session": control.peer_session,
        "offer": offer,
        "name": hex(control.name),
        "reason": control.reason.map(aggregation::negotiation::Reason::code),
    })
}
