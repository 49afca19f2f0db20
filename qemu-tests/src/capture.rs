// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Frames that QEMU captured at a guest's network device, in the classic pcap format (draft-ietf-opsawg-pcap).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The magic number of a file in this machine's byte order with times in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// Lengths of the virtio-net headers that QEMU before 8.0 leaves before a frame.
const NET_HEADERS: [usize; 3] = [0, 10, 12];

/// The frames that the station with this MAC address sent, and those that were sent to it alone, in their order.
pub fn frames(file: &Path, station: [u8; 6]) -> Result<Vec<Vec<u8>>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    read(&bytes, station).with_context(|| format!("{} is no capture", file.display()))
}

fn read(bytes: &[u8], station: [u8; 6]) -> Result<Vec<Vec<u8>>> {
    let magic = bytes.first_chunk().map(|magic| u32::from_ne_bytes(*magic));
    ensure!(magic == Some(MAGIC), "it begins with {magic:x?}");
    let mut rest = bytes.get(FILE_HEADER..).context("it ends in its header")?;
    let mut frames = Vec::new();
    // What is being written may end anywhere.
    while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER) {
        let length = u32::from_ne_bytes(header[8..12].try_into()?);
        let Some((record, next)) = behind.split_at_checked(usize::try_from(length)?) else { break };
        let frame =
            NET_HEADERS.iter().filter_map(|header| record.get(*header..)).find(|frame| concerns(frame, station));
        frames.extend(frame.map(<[u8]>::to_vec));
        rest = next;
    }
    Ok(frames)
}

fn concerns(frame: &[u8], station: [u8; 6]) -> bool {
    frame.starts_with(&station) || frame.get(6..).is_some_and(|source| source.starts_with(&station))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_behind_any_header() -> Result<()> {
        const STATION: [u8; 6] = [2, 0, 0, 0, 0, 7];
        let other = [2, 0, 0, 0, 0, 9];
        let to = [&STATION[..], &other, &[8, 0, 1]].concat();
        let from = [&other[..], &STATION, &[8, 0, 2, 3]].concat();
        let foreign = [&other[..], &other, &[8, 0]].concat();
        let mut file = [&MAGIC.to_ne_bytes()[..], &[0; 20]].concat();
        for (header, frame) in [(0, &to), (10, &from), (12, &to), (0, &foreign)] {
            let length = u32::try_from(header + frame.len())?.to_ne_bytes();
            file.extend([&[0; 8][..], &length, &length, &vec![0; header], frame].concat());
        }
        file.extend([1; 17]); // the next one is not there yet
        assert_eq!(read(&file, STATION)?, [to.clone(), from, to]);
        let error = read(&[0; 24], STATION).unwrap_err().to_string();
        assert_eq!(error, "it begins with Some(0)");
        Ok(())
    }
}
