-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
-- Dissects aggregate frames (docs/aggregate-frame.md) in Wireshark and tshark:
--
--     tshark -X lua_script:docs/wireshark/shunt_aggregate.lua -r capture.pcap
--
-- or put it into Wireshark's folder of personal Lua plugins. Fields begin with "shunt_agg."; what is wrong with a frame is in shunt_agg.cause,
-- by the names of the specification. Packets are handed on to Wireshark's Ethernet dissector.

local proto = Proto("shunt_agg", "Shunt aggregate frame")

proto.prefs.ethertype = Pref.uint("EtherType", 0x88b5, "EtherType of frames on Ethernet")
proto.prefs.port = Pref.uint("UDP port", 34997, "Destination port of frames in UDP")
proto.prefs.verify = Pref.bool("Require check words", false, "Whether frames without a check word are wrong")
proto.prefs.compare = Pref.bool("Compare check words", true, "Whether check words and CRCs are compared")
proto.prefs.packets = Pref.bool("Dissect packets", true, "Whether packets are handed on to the Ethernet dissector")
proto.prefs.known = Pref.string("Known TLVs", "", "Types of TLVs that are taken, such as 3e,fe; others are removed, or cost their group")

local MESSAGES = { [1] = "HELLO", [2] = "HELLO-ACK", [3] = "KEEPALIVE", [4] = "BYE" }
local STAGES = { [1] = "CNF", [2] = "node", [3] = "top of rack" }
local REASONS = { [1] = "closing", [2] = "no such session", [3] = "duplicate node id", [4] = "nothing in common", [5] = "no room" }
local TLVS = {
  [0x81] = "group CRC", [0x02] = "flow ids", [0x03] = "recorded action", [0x44] = "state log",
  [0x45] = "commit vector", [0x86] = "keyed tag", [0x87] = "fragment",
}
local GSO = { [1] = "TCP over IPv4", [2] = "TCP over IPv6", [3] = "UDP" }
local PADDING = 64

local f = {
  version = ProtoField.uint8("shunt_agg.version", "Version", base.DEC, nil, 0xf0),
  words = ProtoField.uint8("shunt_agg.words", "Header words", base.DEC, nil, 0x0f),
  control = ProtoField.bool("shunt_agg.control", "Control frame", 8, nil, 0x80),
  checked = ProtoField.bool("shunt_agg.checked", "Check word present", 8, nil, 0x20),
  critical = ProtoField.uint8("shunt_agg.critical", "Flags that must be 0", base.HEX, nil, 0x50),
  length = ProtoField.uint16("shunt_agg.length", "Length"),
  groups = ProtoField.uint8("shunt_agg.groups", "Groups"),
  stage = ProtoField.uint8("shunt_agg.stage", "Stage", base.DEC, STAGES),
  sequence = ProtoField.uint16("shunt_agg.sequence", "Sequence number"),
  check = ProtoField.uint32("shunt_agg.check", "Check word", base.HEX),
  cause = ProtoField.string("shunt_agg.cause", "Cause"),
  group = ProtoField.none("shunt_agg.group", "Group"),
  group_length = ProtoField.uint16("shunt_agg.group.length", "Length"),
  group_packets = ProtoField.uint16("shunt_agg.group.packets", "Packets"),
  origin = ProtoField.uint16("shunt_agg.group.origin", "Origin"),
  destination = ProtoField.uint16("shunt_agg.group.destination", "Destination"),
  uniform = ProtoField.bool("shunt_agg.group.uniform", "Uniform flow", 8, nil, 0x80),
  has_template = ProtoField.bool("shunt_agg.group.has_template", "Template", 8, nil, 0x40),
  class = ProtoField.uint8("shunt_agg.group.class", "Class", base.DEC, nil, 0x07),
  template = ProtoField.bytes("shunt_agg.template", "Ethernet template"),
  tlv = ProtoField.uint8("shunt_agg.tlv", "TLV", base.HEX, TLVS),
  tlv_data = ProtoField.bytes("shunt_agg.tlv.data", "Data"),
  packet = ProtoField.uint32("shunt_agg.packet.length", "Packet of bytes"),
  bytes = ProtoField.bytes("shunt_agg.packet.bytes", "Bytes"),
  verified = ProtoField.bool("shunt_agg.packet.verified", "Checksum verified"),
  csum_start = ProtoField.uint16("shunt_agg.packet.csum_start", "Unfinished checksum: start"),
  csum_offset = ProtoField.uint16("shunt_agg.packet.csum_offset", "Unfinished checksum: offset"),
  gso_kind = ProtoField.uint8("shunt_agg.packet.gso_kind", "Segmentation", base.DEC, GSO),
  gso_size = ProtoField.uint16("shunt_agg.packet.gso_size", "Segment size"),
  flow = ProtoField.uint32("shunt_agg.packet.flow", "Flow id", base.HEX),
  message = ProtoField.uint8("shunt_agg.message", "Message", base.DEC, MESSAGES),
  node = ProtoField.uint16("shunt_agg.node", "Node id"),
  session = ProtoField.uint32("shunt_agg.session", "Session", base.HEX),
  peer_session = ProtoField.uint32("shunt_agg.peer_session", "Receiver's session", base.HEX),
  min_version = ProtoField.uint8("shunt_agg.offer.min_version", "Minimum version"),
  max_version = ProtoField.uint8("shunt_agg.offer.max_version", "Maximum version"),
  encapsulations = ProtoField.uint8("shunt_agg.offer.encapsulations", "Encapsulations", base.HEX),
  alignment = ProtoField.uint8("shunt_agg.offer.alignment", "Alignment, log2"),
  max_bytes = ProtoField.uint32("shunt_agg.offer.bytes", "Most bytes"),
  max_packets = ProtoField.uint16("shunt_agg.offer.packets", "Most packets"),
  features = ProtoField.uint16("shunt_agg.offer.features", "Features", base.HEX),
  keepalive = ProtoField.uint16("shunt_agg.offer.keepalive", "Keepalive, ms"),
  name = ProtoField.string("shunt_agg.name", "Name"),
  reason = ProtoField.uint8("shunt_agg.reason", "Reason", base.DEC, REASONS),
}
proto.fields = f

local damage = ProtoExpert.new("shunt_agg.damage", "Something was not taken", expert.group.MALFORMED, expert.severity.WARN)
proto.experts = { damage }

-- Lua 5.2 has bit32, some builds have bit, and Lua 5.3 has operators that older ones cannot even parse.
local bits = bit32 or bit
local xor = bits and bits.bxor or load("return function(a, b) return a ~ b end")()
local half = bits and function(n) return bits.rshift(n, 1) end or load("return function(n) return n >> 1 end")()

local crc_table = {}
for i = 0, 255 do
  local crc = i
  for _ = 1, 8 do
    local odd = crc % 2 == 1
    crc = half(crc)
    if odd then crc = xor(crc, 0x82f63b78) % 2 ^ 32 end
  end
  crc_table[i] = crc
end

-- CRC-32C of byte strings, one behind the other.
local function crc32c(...)
  local crc = 0xffffffff
  for _, text in ipairs({ ... }) do
    for at = 1, #text do
      local low = crc % 256
      crc = xor((crc - low) / 256, crc_table[xor(low, text:byte(at)) % 256]) % 2 ^ 32
    end
  end
  return 0xffffffff - crc
end

local function padded(length) return math.floor((length + 3) / 4) * 4 end
local function has(flags, bit) return flags % (2 * bit) >= bit end

-- A part of a frame as a string; an empty range is not allowed in Wireshark.
local function raw(tvb, from, length)
  if length == 0 then return "" end
  return tvb:range(from, length):bytes():raw()
end

local function known(kind)
  for text in proto.prefs.known:gmatch("%x+") do
    if tonumber(text, 16) == kind then return true end
  end
  return false
end

local function complain(tree, cause, packets)
  local item = tree:add(f.cause, cause)
  item:set_generated()
  if packets then item:append_text(", " .. packets .. " packets") end
  item:add_proto_expert_info(damage, cause)
end

local inside = false -- frames in frames are packets, and not opened

local function hand_on(packet, pinfo, tree)
  if not proto.prefs.packets then return end
  inside = true
  pcall(function() Dissector.get("eth_withoutfcs"):call(packet, pinfo, tree) end)
  inside = false
end

-- The extensions of a packet of so many bytes, from `at` to `last`. What is wrong with them, or nil.
local function extensions(tvb, tree, flags, at, last, length)
  local function take(n)
    if at + n > last then return nil end
    at = at + n
    return tvb:range(at - n, n)
  end
  if has(flags, 0x80) then
    local part = take(4)
    if not part then return "bad_extension" end
    tree:add(f.csum_start, part:range(0, 2))
    tree:add(f.csum_offset, part:range(2, 2))
    if part:range(0, 2):uint() + part:range(2, 2):uint() + 2 > length then return "bad_offload" end
  elseif has(flags, 0x08) then
    tree:add(f.verified, true)
  end
  if has(flags, 0x40) then
    local part = take(8)
    if not part then return "bad_extension" end
    tree:add(f.gso_kind, part:range(0, 1))
    tree:add(f.gso_size, part:range(2, 2))
    local kind = part:range(0, 1):uint()
    if not GSO[kind] or part:range(2, 2):uint() == 0 or not has(flags, 0x80) then return "bad_offload" end
  end
  if has(flags, 0x20) then
    local part = take(4)
    if not part then return "bad_extension" end
    tree:add(f.flow, part)
  end
  if has(flags, 0x10) and not take(8) then return "bad_extension" end
  return nil
end

local function packets(tvb, pinfo, tree, at, last, count, template)
  local taken, runts = 0, 0
  local function end_of_runts()
    if runts > 0 then complain(tree, "runt", runts) end
    runts = 0
  end
  for number = 1, count do
    local length = at + 4 <= last and tvb:range(at, 2):uint() or 0
    local ext = at + 4 <= last and tvb:range(at + 3, 1):uint() * 4 or 0
    local total = 4 + ext + padded(length)
    if at + total > last then
      end_of_runts()
      complain(tree, "subframe_length", count - number + 1)
      return taken
    end
    if length == 0 or length + #template < 14 then
      runts = runts + 1
    else
      end_of_runts()
      local whole = length + #template
      local item = tree:add(f.packet, tvb:range(at, total), whole)
      local wrong = extensions(tvb, item, tvb:range(at + 2, 1):uint(), at + 4, at + 4 + ext, whole)
      if wrong then
        complain(item, wrong, 1)
      else
        local packet = tvb:range(at + 4 + ext, length):tvb()
        if #template > 0 then
          packet = ByteArray.new(template .. packet:range():bytes():raw(), true):tvb("Packet with its template")
        end
        item:add(f.bytes, packet:range())
        hand_on(packet, pinfo, item)
        taken = taken + 1
      end
    end
    at = at + total
  end
  end_of_runts()
  if last - at >= PADDING then complain(tree, "surplus") end
  return taken
end

-- All TLVs between two offsets, before any is believed. What is wrong with them, or a list of type, offset and length of data.
local function check_tlvs(tvb, at, last)
  local found, first = {}, at
  while at < last do
    local length = at + 4 <= last and tvb:range(at + 2, 2):uint() or 0
    if at + 4 + padded(length) > last then return "tlv_malformed" end
    local kind = tvb:range(at, 1):uint()
    if kind % 64 == 1 then
      if kind ~= 0x81 or at ~= first or length ~= 4 then return "tlv_malformed" end
    elseif kind >= 0x80 and not known(kind) then
      return "tlv_critical"
    end
    found[#found + 1] = { kind = kind, at = at, length = length }
    at = at + 4 + padded(length)
  end
  return nil, found
end

local function crc_is_wrong(tvb, at, header, last)
  local tlvs = at + header
  if not proto.prefs.compare or tvb:range(tlvs, 1):uint() ~= 0x81 or tvb:range(tlvs + 2, 2):uint() ~= 4 then return false end
  local crc = crc32c(raw(tvb, at + 12, header - 12 + 4), "\0\0\0\0", raw(tvb, tlvs + 8, last - tlvs - 8))
  return crc ~= tvb:range(tlvs + 4, 4):uint()
end

local function group_fields(tree, head)
  tree:add(f.group_length, head:range(0, 2))
  tree:add(f.group_packets, head:range(2, 2))
  tree:add(f.origin, head:range(4, 2))
  tree:add(f.destination, head:range(6, 2))
  tree:add(f.uniform, head:range(8, 1))
  tree:add(f.has_template, head:range(8, 1))
  tree:add(f.class, head:range(8, 1))
end

-- One group. How many packets were taken.
local function group(tvb, pinfo, tree, at, last)
  local head = tvb:range(at, 12)
  local count, flags = head:range(2, 2):uint(), head:range(8, 1):uint()
  local header, tlv_bytes = head:range(9, 1):uint() * 4, head:range(10, 2):uint() * 4
  local template_bytes = has(flags, 0x40) and 16 or 0
  local front = at + header + tlv_bytes + template_bytes
  local cause, tlvs
  if has(flags, 0x20) then
    cause = "group_flag"
  elseif header < 12 or front > last then
    cause = "group_header"
  elseif tlv_bytes >= 8 and crc_is_wrong(tvb, at, header, last) then
    cause = "group_crc"
  else
    cause, tlvs = check_tlvs(tvb, at + header, at + header + tlv_bytes)
  end
  if cause then
    local item = tree:add(proto, tvb:range(at, last - at), "Group that was not taken")
    complain(item, cause, count)
    return 0
  end
  local item = tree:add(f.group, tvb:range(at, last - at))
  item:append_text(string.format(" from %d to %d: %d packets", head:range(4, 2):uint(), head:range(6, 2):uint(), count))
  group_fields(item, head)
  for _, tlv in ipairs(tlvs) do
    local sub = item:add(f.tlv, tvb:range(tlv.at, 1))
    if tlv.length > 0 then sub:add(f.tlv_data, tvb:range(tlv.at + 4, tlv.length)) end
    if tlv.kind ~= 0x81 and not known(tlv.kind) then complain(sub, "tlv_removed") end
  end
  if template_bytes > 0 then item:add(f.template, tvb:range(front - 16, 14)) end
  return packets(tvb, pinfo, item, front, last, count, template_bytes > 0 and raw(tvb, front - 16, 14) or "")
end

local function offer(tree, data)
  tree:add(f.min_version, data:range(0, 1))
  tree:add(f.max_version, data:range(1, 1))
  tree:add(f.encapsulations, data:range(2, 1))
  tree:add(f.alignment, data:range(3, 1))
  tree:add(f.max_bytes, data:range(4, 4))
  tree:add(f.max_packets, data:range(8, 2))
  tree:add(f.features, data:range(10, 2))
  tree:add(f.keepalive, data:range(12, 2))
  return data:range(0, 1):uint() <= data:range(1, 1):uint()
end

-- A control frame of `length` bytes. What is wrong with it, or nil and its message.
local function control(tvb, tree, at, length)
  if not has(tvb:range(1, 1):uint(), 0x20) or tvb:range(4, 1):uint() ~= 0 then return "control_malformed" end
  local crc = crc32c(raw(tvb, 0, 8), "\0\0\0\0", raw(tvb, 12, length - 12))
  if proto.prefs.compare and crc ~= tvb:range(8, 4):uint() then return "header_check" end
  if at + 12 > length then return "control_malformed" end
  local message = tvb:range(at, 1):uint()
  tree:add(f.message, tvb:range(at, 1))
  tree:add(f.node, tvb:range(at + 2, 2))
  tree:add(f.session, tvb:range(at + 4, 4))
  tree:add(f.peer_session, tvb:range(at + 8, 4))
  if not MESSAGES[message] then return "control_malformed" end
  local node, session, offered = tvb:range(at + 2, 2):uint(), tvb:range(at + 4, 4):uint(), false
  at = at + 12
  while at < length do
    local bytes = at + 4 <= length and tvb:range(at + 2, 2):uint() or 0
    if at + 4 + padded(bytes) > length then return "tlv_malformed" end
    local kind = tvb:range(at, 1):uint()
    if kind == 0x81 then
      if bytes < 16 or not offer(tree, tvb:range(at + 4, 16)) then return "control_malformed" end
      offered = true
    elseif kind == 0x02 and bytes > 0 then
      tree:add(f.name, tvb:range(at + 4, math.min(bytes, 64)))
    elseif kind == 0x03 and bytes > 0 then
      tree:add(f.reason, tvb:range(at + 4, 1))
    elseif kind >= 0x80 then
      return "tlv_critical"
    end
    at = at + 4 + padded(bytes)
  end
  if node == 0 or session == 0 or (message <= 2 and not offered) then return "control_malformed" end
  return nil, MESSAGES[message] .. " of node " .. node
end

-- The common header. What is wrong with it, or nil, its bytes and the frame's.
local function header(tvb, tree)
  if tvb:len() < 8 then return "frame_length" end
  for _, field in ipairs({ f.version, f.words }) do tree:add(field, tvb:range(0, 1)) end
  for _, field in ipairs({ f.control, f.checked, f.critical }) do tree:add(field, tvb:range(1, 1)) end
  tree:add(f.length, tvb:range(2, 2))
  tree:add(f.groups, tvb:range(4, 1))
  tree:add(f.stage, tvb:range(5, 1))
  tree:add(f.sequence, tvb:range(6, 2))
  local first, flags, length = tvb:range(0, 1):uint(), tvb:range(1, 1):uint(), tvb:range(2, 2):uint()
  local checked, bytes = has(flags, 0x20), first % 16 * 4
  if math.floor(first / 16) ~= 1 then return "version" end
  if has(flags, 0x40) or has(flags, 0x10) then return "frame_flag" end
  if bytes < (checked and 12 or 8) or length < bytes or length > tvb:len() then return "frame_length" end
  if checked then tree:add(f.check, tvb:range(8, 4)) end
  if proto.prefs.verify and not checked then return "header_check" end
  return nil, bytes, length
end

local function check_is_wrong(tvb, at, length)
  local parts = { raw(tvb, 0, 8), "\0\0\0\0", raw(tvb, 12, at - 12) }
  for _ = 1, tvb:range(4, 1):uint() do
    if at + 12 > length then return true end
    parts[#parts + 1] = raw(tvb, at, 12)
    at = at + tvb:range(at, 2):uint()
  end
  return crc32c(table.concat(parts)) ~= tvb:range(8, 4):uint()
end

local function groups(tvb, pinfo, tree, at, length)
  local taken = 0
  for _ = 1, tvb:range(4, 1):uint() do
    local bytes = at + 12 <= length and tvb:range(at, 2):uint() or 0
    if bytes < 12 or bytes % 4 ~= 0 or at + bytes > length then
      complain(tree, "group_length")
      return taken
    end
    taken = taken + group(tvb, pinfo, tree, at, at + bytes)
    at = at + bytes
  end
  if length - at >= PADDING then complain(tree, "surplus") end
  return taken
end

function proto.dissector(tvb, pinfo, root)
  if inside then return 0 end
  local tree = root:add(proto, tvb:range())
  local cause, at, length = header(tvb, tree)
  local info = "not a frame"
  if not cause and has(tvb:range(1, 1):uint(), 0x80) then
    cause, info = control(tvb, tree, at, length)
  elseif not cause then
    if proto.prefs.compare and has(tvb:range(1, 1):uint(), 0x20) and check_is_wrong(tvb, at, length) then
      cause = "header_check"
    else
      info = groups(tvb, pinfo, tree, at, length) .. " packets in " .. tvb:range(4, 1):uint() .. " groups"
    end
  end
  if cause then complain(tree, cause) end
  pinfo.cols.protocol:set("SHUNT-AGG")
  pinfo.cols.info:set(cause or info)
  return tvb:len()
end

local ethertypes, ports = DissectorTable.get("ethertype"), DissectorTable.get("udp.port")
local ethertype, port

-- Called once, and whenever a preference changes.
local function register()
  if ethertype then ethertypes:remove(ethertype, proto) end
  if port then ports:remove(port, proto) end
  ethertype, port = proto.prefs.ethertype, proto.prefs.port
  ethertypes:add(ethertype, proto)
  ports:add(port, proto)
end
proto.prefs_changed = register
register()
