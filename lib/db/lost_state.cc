#include "db/lost_state.h"

#include <algorithm>

#include "changelog/page_codec.h"
#include "sqlite/header.h"

namespace litefs {
namespace {

constexpr const char* kFirstLine = "litefs-lost 1\n";
constexpr const char* kManifestSuffix = ".manifest";
constexpr size_t kManifestBytesMax = 64u << 10;
constexpr const char* kUnknown = "unknown";

std::string words_of(const Position& p) {
  return hex16(p.epoch.value) + " " + hex16(p.txid.value) + " " + hex16(p.checksum.value);
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return text;
}

// Takes a manifest's lines one after another, by their keys.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}

  Result<std::string> value(const std::string& key) {
    size_t end = rest_.find('\n');
    if (end == std::string_view::npos || rest_.substr(0, key.size() + 1) != key + " ") {
      return Error(ErrorCode::kCorrupt, "manifest: no line '" + key + "' where it should be");
    }
    std::string out(rest_.substr(key.size() + 1, end - key.size() - 1));
    rest_.remove_prefix(end + 1);
    return out;
  }
  Result<uint64_t> number(const std::string& key, uint64_t max) {
    const std::string text = TRY(value(key));
    uint64_t out = 0;
    for (char c : text) {
      if (c < '0' || c > '9' || out > (max - static_cast<uint64_t>(c - '0')) / 10) {
        return Error(ErrorCode::kCorrupt, "manifest: '" + key + "' is no number in range");
      }
      out = out * 10 + static_cast<uint64_t>(c - '0');
    }
    if (text.empty()) return Error(ErrorCode::kCorrupt, "manifest: '" + key + "' has no value");
    return out;
  }
  Result<uint64_t> hex(const std::string& key) { return parse_hex16(TRY(value(key))); }
  Result<std::optional<Position>> position(const std::string& key, bool may_be_unknown) {
    const std::string text = TRY(value(key));
    if (may_be_unknown && text == kUnknown) return std::optional<Position>();
    if (text.size() != 50 || text[16] != ' ' || text[33] != ' ') {
      return Error(ErrorCode::kCorrupt, "manifest: '" + key + "' is no position");
    }
    Position p;
    p.epoch.value = TRY(parse_hex16(text.substr(0, 16)));
    p.txid.value = TRY(parse_hex16(text.substr(17, 16)));
    p.checksum.value = TRY(parse_hex16(text.substr(34, 16)));
    return std::optional<Position>(p);
  }
  bool next_is_unknown(const std::string& key) const {
    const std::string line = key + " " + kUnknown + "\n";
    return rest_.substr(0, line.size()) == line;
  }
  size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
};

// The image's pages have exactly the state's checksum.
Status check_image(File& image, const LostState& state) {
  Bytes page(state.page_size);
  Checksum sum;
  for (Pgno pgno = 1; pgno <= state.size_pages; ++pgno) {
    if (pgno == lock_page(state.page_size)) continue;
    TRY(image.read_exactly(static_cast<uint64_t>(pgno - 1) * page.size(), page));
    if (pgno == 1) mask_local_bytes(page);
    sum ^= page_hash(pgno, page);
  }
  if (sum == state.position.checksum) return {};
  return Error(ErrorCode::kCorrupt, image.path() + " has changed since it was kept: its checksum is " +
                                        hex16(sum.value) + ", not " + hex16(state.position.checksum.value));
}

Status copy_image(File& from, File& to, uint64_t size_bytes) {
  if (Status cloned = to.clone_from(from); cloned.ok()) return to.sync();
  Bytes piece(1u << 20);
  for (uint64_t at = 0; at < size_bytes; at += piece.size()) {
    piece.resize(static_cast<size_t>(std::min<uint64_t>(piece.size(), size_bytes - at)));
    TRY(from.read_exactly(at, piece));
    TRY(to.write_at(at, piece));
  }
  return to.sync();
}

}  // namespace

std::string LostState::id() const { return hex16(position.txid.value) + "-" + hex16(position.checksum.value); }

std::string lost_image_path(const std::string& lost_dir, const std::string& id) { return lost_dir + "/" + id + ".db"; }
std::string lost_manifest_path(const std::string& lost_dir, const std::string& id) {
  return lost_dir + "/" + id + kManifestSuffix;
}

Bytes LostState::encode() const {
  std::string text = kFirstLine;
  text += "database " + one_line(database) + "\n";
  text += "database-id " + hex16(database_id.value) + "\n";
  text += "kept-at " + std::to_string(std::max<int64_t>(kept_wall_ms, 0)) + "\n";
  text += "why " + one_line(why) + "\n";
  text += "position " + words_of(position) + "\n";
  text += "diverged-at " + (diverged_at ? words_of(*diverged_at) : kUnknown) + "\n";
  text += "transactions " + (transactions ? std::to_string(*transactions) : kUnknown) + "\n";
  text += "page-size " + std::to_string(page_size) + "\n";
  text += "pages " + std::to_string(size_pages) + "\n";
  text += "checksum " + hex16(page_hash(0, as_bytes(text)).value) + "\n";
  return Bytes(text.begin(), text.end());
}

Result<LostState> LostState::parse(ByteView manifest) {
  std::string_view text(reinterpret_cast<const char*>(manifest.data()), manifest.size());
  if (text.substr(0, std::string_view(kFirstLine).size()) != kFirstLine) {
    return Error(ErrorCode::kCorrupt, "manifest: it does not begin with 'litefs-lost 1'");
  }
  Lines lines(text.substr(std::string_view(kFirstLine).size()));
  LostState s;
  s.database = TRY(lines.value("database"));
  s.database_id.value = TRY(lines.hex("database-id"));
  s.kept_wall_ms = static_cast<int64_t>(TRY(lines.number("kept-at", INT64_MAX)));
  s.why = TRY(lines.value("why"));
  s.position = *TRY(lines.position("position", false));
  s.diverged_at = TRY(lines.position("diverged-at", true));
  if (lines.next_is_unknown("transactions")) {
    TRY(lines.value("transactions"));
  } else {
    s.transactions = TRY(lines.number("transactions", UINT64_MAX));
  }
  const uint64_t page_size = TRY(lines.number("page-size", kPageBytesMax));
  s.size_pages = static_cast<Pgno>(TRY(lines.number("pages", UINT32_MAX - 1)));
  const ByteView hashed = manifest.first(manifest.size() - lines.left());
  const uint64_t hash = TRY(lines.hex("checksum"));
  if (lines.left() != 0 || page_hash(0, hashed).value != hash) {
    return Error(ErrorCode::kCorrupt, "manifest: its checksum is wrong");
  }
  if (!valid_page_size(page_size)) return Error(ErrorCode::kCorrupt, "manifest: no page size of SQLite's");
  s.page_size = static_cast<uint32_t>(page_size);
  return s;
}

Result<LostStates> list_lost_states(FileSystem& files, const std::string& data_dir) {
  LostStates out;
  const std::string meta_dir = data_dir + "/meta";
  for (const std::string& name : TRY(files.list(meta_dir))) {
    const std::string lost_dir = meta_dir + "/" + name + "/lost";
    Result<std::vector<std::string>> names = files.list(lost_dir);
    if (!names.ok() && names.error().code() == ErrorCode::kNotFound) continue;
    for (const std::string& file : TRY(std::move(names))) {
      if (!file.ends_with(kManifestSuffix)) continue;
      const std::string path = lost_dir + "/" + file;
      Result<Bytes> manifest = files.read_all(path, kManifestBytesMax);
      Result<LostState> state =
          manifest.ok() ? LostState::parse(manifest.value()) : Result<LostState>(manifest.error());
      if (!state.ok()) {
        out.unreadable.push_back(state.error().with_context(path));
        continue;
      }
      std::string image = path.substr(0, path.size() - std::string_view(kManifestSuffix).size()) + ".db";
      out.entries.push_back({std::move(state).value(), std::move(image)});
    }
  }
  std::stable_sort(out.entries.begin(), out.entries.end(), [](const auto& a, const auto& b) {
    if (a.state.database != b.state.database) return a.state.database < b.state.database;
    return a.state.kept_wall_ms < b.state.kept_wall_ms;
  });
  return out;
}

Status export_lost_state(FileSystem& files, const std::string& data_dir, const std::string& database,
                         const std::string& id, const std::string& to) {
  const LostStates all = TRY(list_lost_states(files, data_dir));
  auto found = std::find_if(all.entries.begin(), all.entries.end(), [&](const LostStates::Entry& e) {
    return e.state.database == database && e.state.id() == id;
  });
  if (found == all.entries.end()) {
    for (const Error& error : all.unreadable) {
      if (error.message().find(id) != std::string::npos) return error;
    }
    return Error(ErrorCode::kNotFound, "no lost state " + id + " of '" + database + "' in " + data_dir);
  }
  std::unique_ptr<File> image = TRY(files.open(found->image_path, OpenMode::kReadOnly));
  TRY(check_image(*image, found->state));
  std::unique_ptr<File> copy = TRY(files.open(to, OpenMode::kCreateNew));
  Status copied = copy_image(*image, *copy, found->state.size_bytes());
  if (copied.ok()) copied = files.sync_directory(directory_of(to));
  if (copied.ok()) return {};
  copy.reset();
  Status removed = files.remove(to);
  return removed.ok() ? copied : Status(copied.error().with_context(removed.error().message()));
}

}  // namespace litefs
