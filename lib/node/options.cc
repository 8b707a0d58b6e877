#include "node/options.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

#include "node/yaml_tree.h"

namespace litefs {
namespace {

// Known to LiteFS, and not here yet. A section stands for everything below it.
struct MissingKey {
  const char* key;
  const char* what;
};
constexpr MissingKey kMissingKeys[] = {
    {"proxy", "is LiteFS's HTTP proxy, which liblitefs does not have yet"},
    {"backup", "is LiteFS's backup client, which liblitefs does not have yet"},
    {"tracing", "is LiteFS's trace log, which liblitefs does not have"},
    {"lease.consul", "configures the consul lease, which liblitefs does not have yet; use lease.type: static"},
    {"lease.promote", "is for elections, which liblitefs does not have yet (the static lease has one primary)"},
    {"lease.demote-delay", "is for elections, which liblitefs does not have yet"},
    {"lease.reconnect-delay", "is not configurable in liblitefs; replicas reconnect with a back-off of their own"},
};

// Switches of LiteFS that liblitefs has in one position only: given so they are accepted, else they are errors.
struct FixedSwitch {
  const char* key;
  bool value;
  const char* why;
};
constexpr FixedSwitch kFixedSwitches[] = {
    {"exit-on-error", true, "litefs always ends when it cannot start"},
    {"skip-sync", false, "exec always waits until the databases are readable"},
    {"strict-verify", false, "every page is verified already, and there is no stricter mode"},
    {"fuse.debug", false, "there is no log of single FUSE requests"},
    {"data.compress", true, "change records are always compressed"},
};

class Reader {
 public:
  Reader(const std::string& file_name, const OptionsContext& context) : file_name_(file_name), context_(context) {}

  Result<Options> read(const YamlNode& root) {
    if (root.kind != YamlNode::Kind::kNull && root.kind != YamlNode::Kind::kMap) {
      return at(root.line, "", "the file must hold keys, as in 'fuse:'");
    }
    TRY(section("", root));
    TRY(finish());
    return std::move(options_);
  }

 private:
  using Setter = Status (Reader::*)(const std::string& key, const YamlNode& value);
  struct Key {
    const char* name;
    Setter set;
  };
  static const std::array<Key, 17> kKeys;
  static constexpr const char* kSections[] = {"fuse", "data", "http", "lease", "log"};

  Error at(int line, const std::string& key, const std::string& message) const {
    std::string place = file_name_ + (line > 0 ? ":" + std::to_string(line) : "") + ": ";
    return Error(ErrorCode::kInvalid, place + (key.empty() ? "" : key + ": ") + message);
  }

  Status section(const std::string& prefix, const YamlNode& node) {
    for (const YamlNode::Entry& entry : node.entries) {
      std::string key = prefix + entry.key;
      auto [first, fresh] = lines_.emplace(key, entry.line);
      if (!fresh) {
        return at(entry.line, key, "given twice, first on line " + std::to_string(first->second));
      }
      TRY(one(prefix, key, entry));
    }
    return {};
  }

  Status one(const std::string& prefix, const std::string& key, const YamlNode::Entry& entry) {
    const YamlNode& value = entry.value;
    for (const MissingKey& missing : kMissingKeys) {
      // "proxy:" with nothing in it asks for nothing.
      if (key == missing.key && value.kind == YamlNode::Kind::kNull) return {};
      if (key == missing.key) {
        return at(entry.line, "", "'" + key + "' " + missing.what);
      }
    }
    for (const char* name : kSections) {
      if (key != name) continue;
      if (value.kind == YamlNode::Kind::kNull) return {};
      if (value.kind == YamlNode::Kind::kMap) return section(key + ".", value);
      return at(entry.line, key, "must hold keys of its own, indented below it");
    }
    for (const FixedSwitch& fixed : kFixedSwitches) {
      if (key == fixed.key) return set_fixed(fixed, value);
    }
    for (const Key& known : kKeys) {
      if (key != known.name) continue;
      // An absent value leaves the default, as in LiteFS.
      if (value.kind == YamlNode::Kind::kNull) return {};
      return (this->*known.set)(key, value);
    }
    return unknown(prefix, key, entry);
  }

  Status unknown(const std::string& prefix, const std::string& key, const YamlNode::Entry& entry) {
    std::vector<std::string> allowed;
    for (const Key& known : kKeys) {
      std::string name = known.name;
      if (name.rfind(prefix, 0) != 0) continue;
      name = name.substr(prefix.size());
      name = name.substr(0, name.find('.'));
      if (std::find(allowed.begin(), allowed.end(), name) == allowed.end()) allowed.push_back(name);
    }
    std::string list;
    for (const std::string& name : allowed) list += (list.empty() ? "" : ", ") + name;
    return at(entry.line, key,
              "no such key; " + (prefix.empty() ? "at the top level" : "below " + prefix.substr(0, prefix.size() - 1)) +
                  " there are " + list);
  }

  // A scalar with its variables replaced.
  Result<std::string> text(const std::string& key, const YamlNode& value) {
    if (value.kind != YamlNode::Kind::kScalar) {
      return at(value.line, key, "must be one value, not a list or a section");
    }
    if (!context_.variable) return value.text;
    Result<std::string> expanded = expand_variables(value.text, [this](const std::string& name) {
      std::optional<std::string> found = context_.variable(name);
      // As LiteFS: shells set HOSTNAME without exporting it.
      if (name == "HOSTNAME" && found.value_or("").empty()) return std::optional(context_.hostname);
      return found;
    });
    if (!expanded.ok()) return at(value.line, key, expanded.error().message());
    return expanded;
  }

  // A scalar read by one of values.h's functions.
  template <class T>
  Result<T> parsed(const std::string& key, const YamlNode& value, Result<T> (*parse)(const std::string&)) {
    std::string plain = TRY(text(key, value));
    Result<T> result = parse(plain);
    if (!result.ok()) return at(value.line, key, result.error().message());
    return result;
  }

  Result<size_t> one_of(const std::string& key, const YamlNode& value, const std::vector<std::string>& allowed) {
    std::string plain = TRY(text(key, value));
    std::string list;
    for (size_t i = 0; i < allowed.size(); ++i) {
      if (plain == allowed[i]) return i;
      list += (list.empty() ? "" : i + 1 == allowed.size() ? " or " : ", ") + allowed[i];
    }
    return at(value.line, key, "'" + plain + "' is not " + list);
  }

  Result<std::string> directory(const std::string& key, const YamlNode& value) {
    std::string plain = TRY(text(key, value));
    if (plain.empty()) return at(value.line, key, "is empty; it names a directory");
    std::filesystem::path path = std::filesystem::path(context_.working_directory) / plain;
    std::string normal = path.lexically_normal().string();
    while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
    if (normal == "/") return at(value.line, key, "'" + plain + "' is the root directory");
    return normal;
  }

  Status set_fixed(const FixedSwitch& fixed, const YamlNode& value) {
    if (value.kind == YamlNode::Kind::kNull) return {};
    if (TRY(parsed(fixed.key, value, parse_bool)) == fixed.value) return {};
    return at(value.line, fixed.key, std::string(fixed.value ? "false" : "true") + " is not supported: " + fixed.why);
  }

  Status set_fuse_dir(const std::string& key, const YamlNode& value) {
    options_.fuse_dir = TRY(directory(key, value));
    return {};
  }
  Status set_allow_other(const std::string& key, const YamlNode& value) {
    options_.fuse_allow_other = TRY(parsed(key, value, parse_bool));
    return {};
  }
  Status set_replica_open(const std::string& key, const YamlNode& value) {
    static constexpr ReplicaOpen kValues[] = {ReplicaOpen::kAuto, ReplicaOpen::kReadOnly, ReplicaOpen::kWritable};
    options_.fuse_replica_open = kValues[TRY(one_of(key, value, {"auto", "readonly", "writable"}))];
    return {};
  }
  Status set_data_dir(const std::string& key, const YamlNode& value) {
    options_.data_dir = TRY(directory(key, value));
    return {};
  }
  Status set_retention(const std::string& key, const YamlNode& value) {
    options_.retention_ms = TRY(parsed(key, value, parse_duration_ms));
    return {};
  }
  Status set_retention_size(const std::string& key, const YamlNode& value) {
    options_.retention_bytes = TRY(parsed(key, value, parse_size_bytes));
    return {};
  }
  Status set_monitor_interval(const std::string& key, const YamlNode& value) {
    int64_t ms = TRY(parsed(key, value, parse_duration_ms));
    if (ms < 1000) return at(value.line, key, "is under one second");
    options_.retention_monitor_interval_ms = ms;
    return {};
  }
  Status set_listen(const std::string& key, const YamlNode& value) {
    options_.listen = TRY(parsed(key, value, parse_listen_address));
    return {};
  }
  Status set_lease_type(const std::string& key, const YamlNode& value) {
    std::string type = TRY(text(key, value));
    if (type == "static") return {};
    if (type == "consul") {
      return at(value.line, key, "liblitefs does not have the consul lease yet; use static");
    }
    return at(value.line, key, "'" + type + "' is not static, the one lease that liblitefs has so far");
  }
  Status set_hostname(const std::string& key, const YamlNode& value) {
    options_.hostname = TRY(text(key, value));
    if (options_.hostname.size() > 255) return at(value.line, key, "is longer than 255 characters");
    for (char c : options_.hostname) {
      // It is shown in `.primary`, one line, and in tables.
      if (c <= ' ' || c == 127) return at(value.line, key, "has a space or a control character");
    }
    return {};
  }
  Status set_advertise_url(const std::string& key, const YamlNode& value) {
    options_.primary = TRY(parsed(key, value, parse_http_url));
    return {};
  }
  Status set_candidate(const std::string& key, const YamlNode& value) {
    options_.candidate = TRY(parsed(key, value, parse_bool));
    return {};
  }
  Status set_log_level(const std::string& key, const YamlNode& value) {
    static constexpr LogLevel kValues[] = {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError};
    options_.log_level = kValues[TRY(one_of(key, value, {"debug", "info", "warn", "error"}))];
    return {};
  }
  Status set_log_format(const std::string& key, const YamlNode& value) {
    TRY(one_of(key, value, {"text"}));
    return {};
  }
  Status set_log_debug(const std::string& key, const YamlNode& value) {
    debug_ = TRY(parsed(key, value, parse_bool));
    return {};
  }
  Status set_log_timestamp(const std::string& key, const YamlNode& value) {
    options_.log_timestamps = TRY(parsed(key, value, parse_bool));
    return {};
  }

  Status set_exec(const std::string& key, const YamlNode& value) {
    if (value.kind != YamlNode::Kind::kList) return add_command(key, value, false);
    for (const YamlNode& item : value.items) {
      if (item.kind != YamlNode::Kind::kMap) {
        return at(item.line, key, "an item of the list is written '- cmd: …'");
      }
      const YamlNode::Entry* cmd = nullptr;
      const YamlNode::Entry* if_candidate = nullptr;
      for (const YamlNode::Entry& entry : item.entries) {
        const YamlNode::Entry** slot = entry.key == "cmd"            ? &cmd
                                       : entry.key == "if-candidate" ? &if_candidate
                                                                     : nullptr;
        if (!slot) {
          return at(entry.line, key + "." + entry.key, "no such key; an item has cmd and if-candidate");
        }
        if (*slot) return at(entry.line, key + "." + entry.key, "given twice in one item");
        *slot = &entry;
      }
      if (!cmd) return at(item.line, key, "an item has no cmd");
      bool only = if_candidate && if_candidate->value.kind != YamlNode::Kind::kNull &&
                  TRY(parsed(key + ".if-candidate", if_candidate->value, parse_bool));
      TRY(add_command(key + ".cmd", cmd->value, only));
    }
    return {};
  }

  Status add_command(const std::string& key, const YamlNode& value, bool if_candidate) {
    ExecCommand command;
    command.argv = TRY(parsed(key, value, split_words));
    command.if_candidate = if_candidate;
    if (command.argv.empty()) {
      // `exec: ${CMD:-}` is the way to have a command only where CMD is set.
      if (key == "exec") return {};
      return at(value.line, key, "is empty");
    }
    options_.exec.push_back(std::move(command));
    return {};
  }

  int line_of(const std::string& key) const {
    auto found = lines_.find(key);
    return found == lines_.end() ? 0 : found->second;
  }

  Status finish() {
    if (options_.fuse_dir.empty() && context_.needs_mount) {
      return at(line_of("fuse"), "fuse.dir", "is missing; it names the directory to mount on");
    }
    if (options_.data_dir.empty()) {
      return at(line_of("data"), "data.dir", "is missing; it names the directory that keeps the data");
    }
    const bool mounts = !options_.fuse_dir.empty();
    if (mounts && is_inside(options_.data_dir, options_.fuse_dir)) {
      return at(line_of("data.dir"), "data.dir",
                options_.data_dir + " lies in fuse.dir, " + options_.fuse_dir + ", and the mount would hide it");
    }
    if (mounts && is_inside(options_.fuse_dir, options_.data_dir)) {
      return at(line_of("fuse.dir"), "fuse.dir",
                options_.fuse_dir + " lies in data.dir, " + options_.data_dir + "; it must be a directory apart");
    }
    if (options_.hostname.empty()) options_.hostname = context_.hostname;
    if (options_.primary.host.empty()) {
      if (!options_.candidate) {
        return at(line_of("lease"), "lease.advertise-url",
                  "is missing; a replica finds the primary by it, as http://host:20202");
      }
      options_.primary = {options_.hostname, options_.listen.port};
    }
    if (debug_ && line_of("log.level") != 0 && options_.log_level != LogLevel::kDebug) {
      return at(line_of("log.debug"), "log.debug", "contradicts log.level");
    }
    if (debug_) options_.log_level = LogLevel::kDebug;
    return {};
  }

  const std::string& file_name_;
  const OptionsContext& context_;
  Options options_;
  bool debug_ = false;
  std::map<std::string, int> lines_;  // of each key given
};

const std::array<Reader::Key, 17> Reader::kKeys = {{
    {"exec", &Reader::set_exec},
    {"fuse.dir", &Reader::set_fuse_dir},
    {"fuse.allow-other", &Reader::set_allow_other},
    {"fuse.replica-open", &Reader::set_replica_open},
    {"data.dir", &Reader::set_data_dir},
    {"data.retention", &Reader::set_retention},
    {"data.retention-size", &Reader::set_retention_size},
    {"data.retention-monitor-interval", &Reader::set_monitor_interval},
    {"http.addr", &Reader::set_listen},
    {"lease.type", &Reader::set_lease_type},
    {"lease.hostname", &Reader::set_hostname},
    {"lease.advertise-url", &Reader::set_advertise_url},
    {"lease.candidate", &Reader::set_candidate},
    {"log.level", &Reader::set_log_level},
    {"log.format", &Reader::set_log_format},
    {"log.debug", &Reader::set_log_debug},
    {"log.timestamp", &Reader::set_log_timestamp},
}};

}  // namespace

bool is_inside(const std::string& path, const std::string& directory) {
  return path == directory || (path.size() > directory.size() && path[directory.size()] == '/' &&
                               path.compare(0, directory.size(), directory) == 0);
}

Result<Options> parse_options(const std::string& text, const std::string& file_name, const OptionsContext& context) {
  CHECK(!context.hostname.empty());
  YamlNode root = TRY(parse_yaml(text, file_name));
  return Reader(file_name, context).read(root);
}

}  // namespace litefs
