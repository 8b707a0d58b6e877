#include "node/node_file.h"

#include <sstream>

#include "env/process.h"

namespace litefs {
namespace {
constexpr size_t kNodeFileBytesMax = 4096;
// Of parse()'s 18 digits: a node that was told of more could not start again. One is left for each start.
constexpr uint64_t kEpochMax = 99'999'999'999'999'999;

// "another litefs (pid 42)"; without the number where it cannot be read.
std::string holder_of(File& lock) {
  uint8_t text[16];
  Result<size_t> n = lock.read_at(0, text);
  std::string pid(text, text + (n.ok() ? n.value() : 0));
  const size_t digits = pid.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string::npos) return "another litefs";
  return "another litefs (pid " + pid.substr(0, digits) + ")";
}
}  // namespace

Result<std::unique_ptr<NodeFile>> NodeFile::open(FileSystem& files, const std::string& data_dir, Random& random) {
  TRY(files.make_directories(data_dir));
  auto node = std::unique_ptr<NodeFile>(new NodeFile(files, data_dir));
  std::unique_ptr<File> lock_file = TRY(files.open(data_dir + "/lock", OpenMode::kCreate));
  Status locked = lock_file->try_lock(0, 1, LockKind::kExclusive);
  if (!locked.ok()) {
    if (locked.error().code() != ErrorCode::kBusy) return locked.error();
    return Error(ErrorCode::kBusy, holder_of(*lock_file) + " runs on the data directory " + data_dir);
  }
  node->lock_ = std::move(lock_file);
  // Only for others to show. On a full disk it may have to do without.
  const std::string pid = std::to_string(process_id()) + "\n";
  Status noted = node->lock_->truncate(0);
  if (noted.ok()) static_cast<void>(node->lock_->write_at(0, as_bytes(pid)).ok());
  MutexLock lock(node->mutex_);
  if (TRY(files.exists(node->path_))) {
    Bytes text = TRY(files.read_all(node->path_, kNodeFileBytesMax));
    node->identity_ = TRY(parse(std::string(text.begin(), text.end()), node->path_));
    return node;
  }
  Identity identity;
  identity.node = NodeId{random.nonzero_u64()};
  TRY(node->store(identity));
  return node;
}

// Closing would leave the lock to a forked process that has a copy of the descriptor.
NodeFile::~NodeFile() {
  if (lock_) static_cast<void>(lock_->try_lock(0, 1, LockKind::kNone).ok());
}

Result<NodeFile::Identity> NodeFile::parse(const std::string& text, const std::string& path) {
  Identity identity;
  std::istringstream in(text);
  std::string key, value;
  bool known = false;
  auto corrupt = [&](const std::string& why) { return Error(ErrorCode::kCorrupt, path + ": " + why); };
  while (in >> key >> value) {
    if (key == "litefs-node") {
      if (value != "1") return Error(ErrorCode::kUnsupported, path + " is of a newer litefs");
      known = true;
    } else if (key == "node") {
      identity.node.value = TRY(parse_hex16(value));
    } else if (key == "cluster") {
      identity.cluster = TRY(parse_hex16(value));
    } else if (key == "epoch") {
      if (value.find_first_not_of("0123456789") != std::string::npos || value.size() > 18)
        return corrupt("epoch '" + value + "'");
      identity.epoch.value = std::stoull(value);
    }
  }
  if (!known || identity.node.value == 0) return corrupt("it does not say which node this is");
  return identity;
}

Status NodeFile::store(const Identity& identity) {
  std::string text = "litefs-node 1\nnode " + hex16(identity.node.value) + "\ncluster " + hex16(identity.cluster) +
                     "\nepoch " + std::to_string(identity.epoch.value) + "\n";
  TRY(files_.write_atomically(path_, as_bytes(text)));
  identity_ = identity;
  return {};
}

NodeId NodeFile::node() {
  MutexLock lock(mutex_);
  return identity_.node;
}

uint64_t NodeFile::cluster() {
  MutexLock lock(mutex_);
  return identity_.cluster;
}

Epoch NodeFile::epoch() {
  MutexLock lock(mutex_);
  return identity_.epoch;
}

Status NodeFile::set_cluster(uint64_t cluster) {
  MutexLock lock(mutex_);
  Identity identity = identity_;
  identity.cluster = cluster;
  return store(identity);
}

Status NodeFile::raise_epoch(Epoch epoch) {
  MutexLock lock(mutex_);
  if (epoch <= identity_.epoch) return {};
  if (epoch.value > kEpochMax) return Error(ErrorCode::kInvalid, "an epoch of " + std::to_string(epoch.value));
  Identity identity = identity_;
  identity.epoch = epoch;
  return store(identity);
}

}  // namespace litefs
