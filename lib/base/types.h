// The numbers that must not be mixed up, and a database's position.
//
// Position: (epoch, TXID, checksum). TXID counts a database's transactions, one each, from 1. The epoch
// is the term of the primary that wrote the record. The checksum is the XOR over all pages (the lock
// page left out) of XXH3-64 seeded with the page number, local bytes of page 1 taken as zero
// (sqlite/header.h). Positions are ordered by epoch, then TXID. Thread rule: plain values.
#pragma once

#include <compare>
#include <cstdint>
#include <ostream>
#include <string>

#include "base/result.h"

namespace litefs {

// A page's number in its database, from 1.
using Pgno = uint32_t;

struct TxId {
  uint64_t value = 0;
  auto operator<=>(const TxId&) const = default;
};

struct Epoch {
  uint64_t value = 0;
  auto operator<=>(const Epoch&) const = default;
};

struct Checksum {
  uint64_t value = 0;
  bool operator==(const Checksum&) const = default;
  Checksum& operator^=(Checksum other) {
    value ^= other.value;
    return *this;
  }
};

// Random, durable, drawn when a node first creates a database of a name; it identifies the history of that name, in
// which a deletion and a creation anew are transactions like others.
struct DatabaseId {
  uint64_t value = 0;
  auto operator<=>(const DatabaseId&) const = default;
};

// Random, durable, drawn at a node's first start.
struct NodeId {
  uint64_t value = 0;
  auto operator<=>(const NodeId&) const = default;
};

struct Position {
  Epoch epoch;
  TxId txid;
  Checksum checksum;

  bool operator==(const Position&) const = default;
  // The order of histories: epoch first, then TXID. Equal order with other checksums is a divergence.
  bool before(const Position& other) const { return epoch != other.epoch ? epoch < other.epoch : txid < other.txid; }
};

// 16 lower-case hex digits.
std::string hex16(uint64_t value);
// Reads exactly 16 hex digits.
Result<uint64_t> parse_hex16(const std::string& text);
// "TXID/CHECKSUM", 16 hex digits each, as LiteFS prints it.
std::string position_text(const Position& position);

std::ostream& operator<<(std::ostream& out, TxId v);
std::ostream& operator<<(std::ostream& out, Epoch v);
std::ostream& operator<<(std::ostream& out, Checksum v);
std::ostream& operator<<(std::ostream& out, DatabaseId v);
std::ostream& operator<<(std::ostream& out, NodeId v);
std::ostream& operator<<(std::ostream& out, const Position& v);

}  // namespace litefs
