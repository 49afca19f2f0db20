// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Entry points for fuzz targets; what must never panic, hang or grow without bound.

use crate::{
    Action, BackendConnection, BackendRequest, Decoder, Frame, FrontendReq, Header, Message, Offer, ProtocolError,
    Reply, Request, features,
};

/// Feeds `data` to a decoder in pieces (each led by a byte with its length and one with its number of descriptors)
/// and parses every message as everything it could be. What parses must encode to something that parses the same.
pub fn decode(data: &[u8]) {
    let mut decoder = Decoder::new();
    for_each_chunk(data, |chunk, fds| {
        decoder.push(chunk, 0..fds);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => parse_all(&message),
                Ok(None) => break true,
                Err(_) => break false,
            }
        }
    });
}

/// Reads `data` as a session: each message is a request id, a byte with need-reply (bit 0), a descriptor (bit 1) and
/// where to split it (the rest), a payload length, and the payload. Plays a host that does what it is told, and
/// checks that what it is told makes sense.
pub fn session(mut data: &[u8]) {
    let offered = features::VIRTIO_F_VERSION_1 | features::VIRTIO_F_RING_PACKED | features::VHOST_F_LOG_ALL;
    let mut offer = Offer::new(offered, 2);
    // One that the host serves itself.
    offer.protocol_features |= features::PROTOCOL_F_INFLIGHT_SHMFD;
    let mut connection = BackendConnection::new(offer);
    let mut running = [false; 4];
    while let [id, how, len, rest @ ..] = data {
        let (payload, next) = rest.split_at(rest.len().min(usize::from(*len)));
        let mut bytes = Vec::new();
        let size = u32::try_from(payload.len()).unwrap_or(0);
        Header::request(u32::from(*id), how & 1 != 0, size).put(&mut bytes);
        bytes.extend_from_slice(payload);
        let (first, second) = bytes.split_at(bytes.len().min(1 + usize::from(*how >> 2)));
        connection.receive(first, (how & 2 != 0).then_some(7));
        connection.receive(second, None);
        if let Err(error) = drain(&mut connection, &mut running, len % 7 == 3) {
            assert!(ProtocolError::CAUSES.contains(&error.cause()), "{error}");
            assert_ne!(error, ProtocolError::HostOrder);
            assert!(connection.poll().is_err_and(|again| again == error));
            return;
        }
        data = next;
    }
}

fn drain(connection: &mut BackendConnection<u32>, running: &mut [bool; 4], refuse: bool) -> Result<(), ProtocolError> {
    while let Some(action) = connection.poll()? {
        match action {
            Action::Reply(frame) => assert!(frame.fds.is_empty()),
            Action::SetMemory { ack, .. }
            | Action::AddRegion { ack, .. }
            | Action::RemoveRegion { ack, .. }
            | Action::SetLog { ack, .. } => connection.finish(ack, !refuse),
            Action::Start(start) => {
                let was = running.get_mut(usize::from(start.vring)).map(|running| std::mem::replace(running, true));
                assert_eq!(was, Some(false), "ring {} started twice", start.vring);
            }
            Action::Stop { vring, ack } => {
                let was = running.get_mut(usize::from(vring)).map(|running| std::mem::replace(running, false));
                assert_eq!(was, Some(true), "ring {vring} stopped twice");
                connection.finish_stop(ack, u32::from(vring));
            }
            Action::SetEnabled { vring, .. } => {
                assert_eq!(running.get(usize::from(vring)), Some(&true), "ring {vring} does not run");
            }
            Action::ResetDevice => assert_eq!(*running, [false; 4], "reset with running rings"),
            Action::Request { ack, .. } => connection.finish_request(ack, None),
            _ => {}
        }
    }
    Ok(())
}

fn parse_all(message: &Message<u32>) {
    let copy = || Message { header: message.header, payload: message.payload.clone(), fds: message.fds.clone() };
    match Request::parse(copy()) {
        Err(_) | Ok(Request::Unknown(_)) => {}
        Ok(request) => {
            let frame = request.into_frame(message.header.needs_reply());
            let again = one_message(frame).map(Request::parse);
            assert_eq!(again, Some(Request::parse(copy())));
        }
    }
    let _ = BackendRequest::parse(copy());
    if let Ok(code) = FrontendReq::try_from(message.header.request) {
        let _ = Reply::parse(code, copy());
    }
}

fn one_message(frame: Frame<u32>) -> Option<Message<u32>> {
    let mut decoder = Decoder::new();
    decoder.push(&frame.bytes, frame.fds);
    decoder.next_message().ok().flatten()
}

/// Calls `each` with pieces of `data` and a number of descriptors, until it returns false.
fn for_each_chunk(mut data: &[u8], mut each: impl FnMut(&[u8], u32) -> bool) {
    while let [len, fds, rest @ ..] = data {
        let (chunk, next) = rest.split_at(rest.len().min(usize::from(*len)));
        // Mostly few, sometimes too many.
        let fds = u32::from(*fds) % 40;
        if !each(chunk, fds) {
            return;
        }
        data = next;
    }
}
