// A replica's files beside the history that it is to follow.
#pragma once

#include "child.h"
#include "history.h"
#include "sqlite/wal_writer.h"
#include "test.h"

namespace litefs::test {

struct Replica {
  TempDir dir;
  std::string path = dir.file("replica.db");
  History history;

  explicit Replica(const HistoryPlan& plan, uint64_t seed = 1) {
    std::mt19937_64 random(seed);
    history = make_history(dir.path(), plan, random);
    write_file(path, history.first);
  }

  std::unique_ptr<WalWriter> attach(WalWriterOptions options = {}) {
    return attach_writer(path, history.page_size, std::move(options)).value();
  }
  ErrorCode attach_error() { return attach_writer(path, history.page_size).error().code(); }
  void apply_range(WalWriter& writer, size_t first, size_t end) {
    for (size_t i = first; i < end; ++i) apply(writer, history.transactions[i]);
  }
  // meta.n when so many transactions are applied.
  int64_t n_after(size_t transactions) const { return transactions == 0 ? 0 : history.n_after[transactions - 1]; }
  // What a recovery would find in the WAL.
  WalScanResult scan() {
    auto wal = posix_file_system()->open(path + "-wal", OpenMode::kReadOnly).value();
    Bytes bytes(kWalHeaderBytes);
    wal->read_exactly(0, bytes).value();
    WalHeader header = *WalHeader::parse(bytes).value();
    return scan_wal(*wal, header, {header.salts, 0, {}}, [](uint32_t, const WalFrame&, ByteView) { return true; })
        .value();
  }
};

}  // namespace litefs::test
