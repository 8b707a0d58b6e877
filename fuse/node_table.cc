#include "fuse/node_table.h"

#include <algorithm>

namespace litefs {

namespace {
// Names without a node, from creations that failed, may be this many more than the nodes.
constexpr size_t kSpareNamesMax = 64;
}  // namespace

std::shared_ptr<NameState> NodeTable::name(const std::string& text) {
  MutexLock lock(mutex_);
  Name& known = names_[text];
  std::shared_ptr<NameState> state = known.state.lock();
  if (!state) {
    state = std::make_shared<NameState>(text);
    known.state = state;
    sweep_names();
  }
  return state;
}

void NodeTable::sweep_names() {
  if (names_.size() <= 2 * nodes_.size() + kSpareNamesMax) return;
  std::erase_if(names_, [](const auto& named) { return named.second.state.expired(); });
}

NodeView NodeTable::view(const Entry& entry) { return {entry.node, entry.file, entry.unlinked}; }

std::optional<NodeView> NodeTable::find(uint64_t id) {
  MutexLock lock(mutex_);
  auto it = nodes_.find(id);
  if (it == nodes_.end()) return std::nullopt;
  return view(it->second);
}

NodeTable::Entry& NodeTable::add(FileNode node) {
  node.id = next_id_++;
  names_[node.name->text].node = node.id;
  uint64_t id = node.id;
  Entry& entry = nodes_[id];
  entry.node = std::move(node);
  return entry;
}

NodeView NodeTable::look_up(const std::shared_ptr<NameState>& name, const struct stat& info) {
  const FileIdentity identity = FileIdentity::of(info);
  const bool is_directory = S_ISDIR(info.st_mode);
  MutexLock lock(mutex_);
  auto it = nodes_.find(names_[name->text].node);
  if (it != nodes_.end()) {
    const FileNode& known = it->second.node;
    if (known.identity != identity || known.is_virtual || known.is_directory != is_directory) {
      lose_name(it->second, *name);
      it = nodes_.end();
    }
  }
  FileNode made{.id = 0, .name = name, .identity = identity, .is_virtual = false, .is_directory = is_directory};
  Entry& entry = it != nodes_.end() ? it->second : add(std::move(made));
  ++entry.lookups;
  return view(entry);
}

NodeView NodeTable::look_up_virtual(const std::string& text) {
  std::shared_ptr<NameState> state = name(text);
  MutexLock lock(mutex_);
  auto it = nodes_.find(names_[text].node);
  if (it != nodes_.end() && !it->second.node.is_virtual) {
    it->second.unlinked = true;
    it = nodes_.end();
  }
  Entry& entry = it != nodes_.end()
                     ? it->second
                     : add({.id = 0, .name = state, .identity = {}, .is_virtual = true, .is_directory = false});
  ++entry.lookups;
  return view(entry);
}

void NodeTable::forget(uint64_t id, uint64_t lookups) {
  MutexLock lock(mutex_);
  auto it = nodes_.find(id);
  if (it == nodes_.end()) return;
  it->second.lookups -= std::min(lookups, it->second.lookups);
  drop_if_unused(id);
}

void NodeTable::drop_if_unused(uint64_t id) {
  auto it = nodes_.find(id);
  if (it->second.lookups > 0 || it->second.opens > 0) return;
  auto named = names_.find(it->second.node.name->text);
  if (named != names_.end() && named->second.node == id) named->second.node = 0;
  nodes_.erase(it);
  if (named != names_.end() && named->second.state.expired()) names_.erase(named);
}

void NodeTable::lose_name(Entry& entry, NameState& name) {
  entry.unlinked = true;
  if (!view(entry).is_deleted_database()) return;
  name.open_files -= std::min(name.open_files, entry.opens);
  name.closed.notify_all();
}

void NodeTable::unlink(NameState& name) {
  MutexLock lock(mutex_);
  auto named = names_.find(name.text);
  if (named == names_.end()) return;
  auto it = nodes_.find(named->second.node);
  if (it != nodes_.end()) lose_name(it->second, name);
  named->second.node = 0;
}

void NodeTable::rename(const NameState& from, const std::shared_ptr<NameState>& to) {
  MutexLock lock(mutex_);
  Name& target = names_[to->text];
  if (auto old = nodes_.find(target.node); old != nodes_.end()) old->second.unlinked = true;
  target.node = 0;
  auto named = names_.find(from.text);
  if (named == names_.end()) return;
  auto it = nodes_.find(named->second.node);
  named->second.node = 0;
  if (it == nodes_.end()) return;
  it->second.node.name = to;
  target.node = it->first;
}

uint64_t NodeTable::id_of(const std::string& name) {
  MutexLock lock(mutex_);
  auto named = names_.find(name);
  return named == names_.end() ? 0 : named->second.node;
}

std::optional<bool> NodeTable::add_open(uint64_t id, const std::shared_ptr<const BackingFile>& file) {
  MutexLock lock(mutex_);
  auto it = nodes_.find(id);
  if (it == nodes_.end()) return std::nullopt;
  Entry& entry = it->second;
  if (entry.opens++ == 0) entry.file = file;
  CHECK(entry.file == file);
  bool was_passed_through = entry.passed_through;
  entry.passed_through = file->mode() == IoMode::kPassthrough;
  return !was_passed_through;
}

bool NodeTable::remove_open(uint64_t id) {
  // Closed after the mutex is free: closing a file may take its time.
  std::shared_ptr<const BackingFile> last;
  MutexLock lock(mutex_);
  auto it = nodes_.find(id);
  if (it == nodes_.end() || it->second.opens == 0) return false;
  if (--it->second.opens == 0) last = std::move(it->second.file);
  drop_if_unused(id);
  return true;
}

size_t NodeTable::size() {
  MutexLock lock(mutex_);
  return nodes_.size();
}

}  // namespace litefs
