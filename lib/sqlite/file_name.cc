#include "sqlite/file_name.h"

#include <algorithm>
#include <string_view>

namespace litefs {
namespace {

struct Suffix {
  std::string_view text;
  FileKind kind;
};

constexpr Suffix kSuffixes[] = {{"-journal", FileKind::kJournal}, {"-wal", FileKind::kWal}, {"-shm", FileKind::kShm}};

// "-mj%06X9%02X"
constexpr std::string_view kSuperJournalStart = "-mj";
constexpr size_t kSuperJournalDigits = 9;
constexpr size_t kSuperJournalNine = 6;  // the digit that is always 9
constexpr size_t kSuperJournalBytes = kSuperJournalStart.size() + kSuperJournalDigits;

// Whether a name ends with a suffix and has something before it, in the same directory.
bool has_suffix(std::string_view name, std::string_view suffix) {
  return name.ends_with(suffix) && name.size() > suffix.size() && name[name.size() - suffix.size() - 1] != '/';
}

bool is_upper_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); }

bool ends_as_super_journal(std::string_view name) {
  if (name.size() <= kSuperJournalBytes) return false;
  std::string_view suffix = name.substr(name.size() - kSuperJournalBytes);
  if (!has_suffix(name, suffix)) return false;
  if (!suffix.starts_with(kSuperJournalStart)) return false;
  std::string_view digits = suffix.substr(kSuperJournalStart.size());
  return digits[kSuperJournalNine] == '9' && std::all_of(digits.begin(), digits.end(), is_upper_hex);
}

}  // namespace

FileName FileName::parse(const std::string& name) {
  for (const Suffix& suffix : kSuffixes) {
    if (has_suffix(name, suffix.text)) {
      return {name.substr(0, name.size() - suffix.text.size()), suffix.kind};
    }
  }
  if (ends_as_super_journal(name)) {
    const size_t database_bytes = name.size() - kSuperJournalBytes;
    return {name.substr(0, database_bytes), FileKind::kSuperJournal, name.substr(database_bytes)};
  }
  return {name, FileKind::kDatabase};
}

std::string FileName::text() const {
  for (const Suffix& suffix : kSuffixes) {
    if (suffix.kind == kind) return database + std::string(suffix.text);
  }
  return database + super_journal_suffix;
}

}  // namespace litefs
