#include "fuse/cli.h"

#include <algorithm>
#include <string>
#include <vector>

#include "env/clock.h"
#include "fuse/cli_config.h"
#include "fuse/cli_log.h"
#include "fuse/cli_lost.h"
#include "fuse/export.h"
#include "fuse/import.h"
#include "litefs/litefs.h"
#include "node/status.h"
#include "node/values.h"

namespace litefs {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr int kExitStarting = 3;

constexpr const char* kUsage =
    R"(litefs replicates SQLite databases: applications use plain SQLite files in a mounted
directory, and every committed transaction appears on the other nodes.

Usage:
  litefs mount     run a node: mount the directory and replicate until a signal
  litefs status    show what the running node of this machine does
  litefs lost      list, and export, what this node had alone before it was overwritten
  litefs import    make a SQLite file the content of a database
  litefs export    copy a database, as of one moment, to a SQLite file
  litefs version   print the version
  litefs help      show this, or with a command's name its flags

Every setting is in the file litefs.yml; 'litefs help mount' shows a first one.
)";

constexpr const char* kMountHelp =
    R"(Usage: litefs mount [-config FILE] [-no-expand-env] [-- COMMAND [ARG...]]

Runs a node in the foreground: mounts fuse.dir, replicates its databases, and ends
on SIGTERM or SIGINT, unmounting first. Log lines go to standard error.

  -config FILE      the configuration; without it the first of ./litefs.yml,
                    ~/litefs.yml and /etc/litefs.yml
  -no-expand-env    leave $NAME and ${NAME} in the configuration as they are
  -- COMMAND ...    run this once the databases are readable, in place of the
                    configuration's exec; litefs ends with its exit code

A first litefs.yml for the primary; on a replica candidate is false, and
advertise-url is the primary's on both:

  fuse:
    dir: /litefs                 # where applications open their databases
  data:
    dir: /var/lib/litefs         # where litefs keeps them
  lease:
    type: static
    candidate: true
    advertise-url: http://primary-host:20202
)";

constexpr const char* kStatusHelp =
    R"(Usage: litefs status [-config FILE | -data DIR] [--json]

Asks the node that runs on this machine for its role, its databases with position
and lag, and the nodes connected to it. Ends with 0 once its mount serves, with 3
while it is starting, with 1 when no node runs.

  -config FILE   the node's configuration (searched for as in 'litefs mount')
  -data DIR      the node's data directory, in place of a configuration
  --json         JSON, for programs
)";

constexpr const char* kLostHelp =
    R"(Usage: litefs lost [-config FILE | -data DIR] [--json]
       litefs lost export NAME ID FILE [-config FILE | -data DIR]

When a node's database has gone another way than its primary's, the node keeps the
state that it had before it takes the primary's. 'lost' lists those states; 'export'
writes one of them to a new SQLite database. The node may run or not.

  NAME           the database
  ID             the state, as listed
  FILE           the new database; it must not exist
  -config FILE   the node's configuration (searched for as in 'litefs mount')
  -data DIR      the node's data directory, in place of a configuration
  --json         JSON, for programs

Nothing is removed by itself: delete DATA/meta/NAME/lost/ID.* when you need it no more.
)";

constexpr const char* kImportHelp =
    R"(Usage: litefs import [-config FILE | -data DIR] [-wait DURATION] FILE NAME

Makes the SQLite database FILE the content of the database NAME, on the primary, as
one transaction that replicas get like any other. NAME is made, or replaced as a
whole; its journal mode stays, and a new one gets FILE's. FILE may be - for standard
input. It is checked first (PRAGMA integrity_check) and never changed; a -wal or
-journal beside it is taken into account.

Applications may have NAME open. In WAL, readers keep their snapshot and then see the
new content, and only a writer is waited for; in the other modes readers too. Where
the page size differs and NAME is in WAL, nobody else may have it open.

  -config FILE     the node's configuration (searched for as in 'litefs mount')
  -data DIR        the node's data directory, in place of a configuration
  -wait DURATION   how long to wait for applications that are in the way (30s)
)";

constexpr const char* kExportHelp =
    R"(Usage: litefs export [-config FILE | -data DIR] [--force] NAME FILE

Copies the database NAME to FILE, a plain SQLite file, in the state of one position,
which is printed (TXID/CHECKSUM). Runs on the primary and on replicas; applications
go on meanwhile. FILE may be - for standard output.

  -config FILE   the node's configuration (searched for as in 'litefs mount')
  -data DIR      the node's data directory, in place of a configuration
  --force        replace FILE if it exists
)";

constexpr const char* kVersionHelp = "Usage: litefs version\n\nPrints the version.\n";
constexpr const char* kHelpHelp = "Usage: litefs help [COMMAND]\n";

struct Flag {
  const char* name;
  std::string* value;  // takes a value
  bool* given;         // or is a switch
};

// By which a command finds the node of this machine.
struct NodeFlags {
  ConfigSource config;
  std::string data_dir;

  std::vector<Flag> with(std::vector<Flag> others) {
    others.push_back({"config", &config.path, nullptr});
    others.push_back({"data", &data_dir, nullptr});
    return others;
  }
};

class Cli {
 public:
  Cli(std::vector<std::string> args, const CliStreams& streams, const MountFunction& mount)
      : args_(std::move(args)), streams_(streams), out_(streams.out), err_(streams.err), mount_(mount) {}

  int run() {
    if (args_.empty()) {
      err_ << kUsage;
      return kExitUsage;
    }
    std::string command = args_.front();
    args_.erase(args_.begin());
    // The usual ways to ask, which are flags elsewhere.
    if (command == "-h" || command == "-help" || command == "--help") command = "help";
    if (command == "-version" || command == "--version") command = "version";
    if (command == "mount") return mount();
    if (command == "status") return status();
    if (command == "lost") return lost();
    if (command == "import") return import_file();
    if (command == "export") return export_file();
    if (command == "version") return version();
    if (command == "help") return help();
    return wrong("unknown command '" + command + "'", kUsage);
  }

 private:
  int mount() {
    std::vector<std::string> command;
    bool command_given = split_command(&command);
    ConfigSource source;
    bool no_expand = false;
    if (auto code = flags({{"config", &source.path, nullptr}, {"no-expand-env", nullptr, &no_expand}}, kMountHelp)) {
      return *code;
    }
    if (command_given && command.empty()) return wrong("no command after '--'", kMountHelp);
    source.expand_variables = !no_expand;
    source.needs_mount = true;
    Result<int> code = run_mount(source, command);
    if (code.ok()) return code.value();
    err_ << "litefs: cannot start: " << code.error().message() << std::endl;
    return kExitFailure;
  }

  Result<int> run_mount(const ConfigSource& source, const std::vector<std::string>& command) {
    // Before any thread, as threads inherit the mask.
    std::unique_ptr<Signals> signals = TRY(Signals::create());
    LoadedConfig config = TRY(load_config(source));
    // Word by word as given; LiteFS joins the words and splits them anew.
    if (!command.empty()) config.options.exec = {ExecCommand{command, false}};
    std::unique_ptr<Clock> clock = system_clock();
    LogSettings settings;
    settings.timestamps = config.options.log_timestamps;
    Log log(terminal_log_sink(*clock, settings), config.options.log_level);
    log.info("configuration read").kv("file", config.path).kv("version", litefs_version());
    return mount_(config.options, log, *signals);
  }

  int status() {
    NodeFlags node;
    bool json = false;
    if (auto code = flags(node.with({{"json", nullptr, &json}}), kStatusHelp)) return *code;
    Result<NodeClient> client = Error(ErrorCode::kInvalid, "");
    if (auto code = find_node(node, kStatusHelp, &client)) return *code;
    Result<std::string> reply = client.value().ask(json ? "json\n" : "text\n");
    if (!reply.ok() && reply.error().code() == ErrorCode::kInvalid) {
      return failed("the node answers: " + reply.error().message());
    }
    if (!reply.ok()) return failed(reply.error().message());
    std::string text = reply.value();
    const bool starting = text.starts_with(kStatusStarting);
    if (starting) text.erase(0, std::string(kStatusStarting).size());
    out_ << text << std::flush;
    return starting ? kExitStarting : 0;
  }

  int import_file() {
    NodeFlags node;
    std::string wait;
    std::vector<std::string> words;
    if (auto code = flags(node.with({{"wait", &wait, nullptr}}), kImportHelp, &words)) return *code;
    if (words.size() != 2) return wrong("import takes a file and a database's name", kImportHelp);
    ImportRequest request;
    request.file = words[0];
    request.name = words[1];
    if (!wait.empty()) {
      Result<int64_t> wait_ms = parse_duration_ms(wait);
      if (!wait_ms.ok()) return wrong("-wait: " + wait_ms.error().message(), kImportHelp);
      request.wait = std::chrono::milliseconds(wait_ms.value());
    }
    return work(node, kImportHelp, out_,
                [&](FileSystem& files, CommandContext& context) { return import_database(files, request, context); });
  }

  int export_file() {
    NodeFlags node;
    ExportRequest request;
    std::vector<std::string> words;
    if (auto code = flags(node.with({{"force", nullptr, &request.force}}), kExportHelp, &words)) return *code;
    if (words.size() != 2) return wrong("export takes a database's name and a file", kExportHelp);
    request.name = words[0];
    request.file = words[1];
    return work(node, kExportHelp, request.file == "-" ? err_ : out_,
                [&](FileSystem& files, CommandContext& context) { return export_database(files, request, context); });
  }

  // Runs a command that takes its time and answers a line to show.
  template <class Command>
  int work(const NodeFlags& node, const char* help_text, std::ostream& shown, Command command) {
    Result<NodeClient> client = Error(ErrorCode::kInvalid, "");
    if (auto code = find_node(node, help_text, &client)) return *code;
    Result<std::unique_ptr<Signals>> signals = Signals::create();
    if (!signals.ok()) return failed(signals.error().message());
    std::unique_ptr<FileSystem> files = posix_file_system();
    CommandContext context{err_,          streams_.err_is_terminal, streams_.in_fd, streams_.out_fd, *signals.value(),
                           client.value()};
    Result<std::string> done = command(*files, context);
    signals.value()->release();
    if (!done.ok()) return failed(done.error().message());
    shown << done.value() << std::endl;
    return 0;
  }

  // An exit code when there is none to be asked.
  std::optional<int> find_node(const NodeFlags& node, const char* help_text, Result<NodeClient>* client) {
    std::string data_dir;
    if (auto code = find_data_dir(node, help_text, &data_dir)) return code;
    *client = NodeClient(data_dir);
    return std::nullopt;
  }

  int lost() {
    std::vector<std::string> words;  // NAME ID FILE
    const bool exports = !args_.empty() && args_[0] == "export";
    if (exports) {
      auto end = std::find_if(args_.begin() + 1, args_.end(), [](const std::string& a) { return a.starts_with("-"); });
      words.assign(args_.begin() + 1, end);
      args_.erase(args_.begin(), end);
    }
    NodeFlags node;
    std::string data_dir;
    bool json = false;
    std::vector<Flag> more;
    if (!exports) more.push_back({"json", nullptr, &json});
    if (auto code = flags(node.with(more), kLostHelp)) return *code;
    if (exports && words.size() != 3) return wrong("lost export needs NAME, ID and FILE", kLostHelp);
    if (auto code = find_data_dir(node, kLostHelp, &data_dir)) return *code;
    std::unique_ptr<FileSystem> files = posix_file_system();
    if (exports) {
      Status exported = export_lost_state(*files, data_dir, words[0], words[1], words[2]);
      if (!exported.ok()) return failed(exported.error().message());
      out_ << words[2] << " holds '" << words[0] << "' as it was" << std::endl;
      return 0;
    }
    Result<LostStates> states = list_lost_states(*files, data_dir);
    if (!states.ok()) return failed(states.error().message());
    out_ << (json ? lost_as_json(states.value()) : lost_as_text(states.value())) << std::flush;
    for (const Error& error : states.value().unreadable) failed(error.message());
    return states.value().unreadable.empty() ? 0 : kExitFailure;
  }

  int version() {
    if (auto code = flags({}, kVersionHelp)) return *code;
    out_ << "litefs " << litefs_version() << std::endl;
    return 0;
  }

  int help() {
    const char* text = args_.empty()           ? kUsage
                       : args_[0] == "mount"   ? kMountHelp
                       : args_[0] == "status"  ? kStatusHelp
                       : args_[0] == "lost"    ? kLostHelp
                       : args_[0] == "import"  ? kImportHelp
                       : args_[0] == "export"  ? kExportHelp
                       : args_[0] == "version" ? kVersionHelp
                       : args_[0] == "help"    ? kHelpHelp
                                               : nullptr;
    if (!text) return wrong("unknown command '" + args_[0] + "'", kUsage);
    out_ << text << std::flush;
    return 0;
  }

  // The data directory that the flags mean. An exit code when there is none.
  std::optional<int> find_data_dir(const NodeFlags& node, const char* help_text, std::string* data_dir) {
    if (!node.config.path.empty() && !node.data_dir.empty()) {
      return wrong("-config and -data exclude each other", help_text);
    }
    *data_dir = node.data_dir;
    if (data_dir->empty()) {
      Result<LoadedConfig> config = load_config(node.config);
      if (!config.ok()) return failed(config.error().message());
      *data_dir = config.value().options.data_dir;
    }
    *data_dir = absolute_path(*data_dir);
    return std::nullopt;
  }

  // Takes "-- COMMAND…" off the arguments. Whether there was a "--".
  bool split_command(std::vector<std::string>* command) {
    for (size_t i = 0; i < args_.size(); ++i) {
      if (args_[i] != "--") continue;
      command->assign(args_.begin() + static_cast<ptrdiff_t>(i) + 1, args_.end());
      args_.resize(i);
      return true;
    }
    return false;
  }

  // Reads all arguments as flags, and where the command takes `words`, the others as these ("-" is one, and all
  // behind "--"). An exit code when the command is not to go on.
  std::optional<int> flags(const std::vector<Flag>& known, const char* help_text,
                           std::vector<std::string>* words = nullptr) {
    bool only_words = false;
    for (size_t i = 0; i < args_.size(); ++i) {
      const std::string& arg = args_[i];
      if (words && !only_words && arg == "--") {
        only_words = true;
        continue;
      }
      if (words && (only_words || arg.size() < 2 || arg[0] != '-')) {
        words->push_back(arg);
        continue;
      }
      if (arg.size() < 2 || arg[0] != '-') {
        return wrong("unexpected '" + arg + "'", help_text);
      }
      std::string name = arg.substr(arg[1] == '-' ? 2 : 1);
      if (name == "h" || name == "help") {
        out_ << help_text << std::flush;
        return 0;
      }
      size_t equals = name.find('=');
      bool attached = equals != std::string::npos;
      std::string value = attached ? name.substr(equals + 1) : "";
      name = name.substr(0, equals);
      const Flag* flag = nullptr;
      for (const Flag& candidate : known) {
        if (name == candidate.name) flag = &candidate;
      }
      if (!flag) return wrong("unknown flag '" + arg + "'", help_text);
      if (flag->given) {
        if (attached) return wrong("-" + name + " takes no value", help_text);
        *flag->given = true;
        continue;
      }
      if (!attached && i + 1 < args_.size()) value = args_[++i];
      if (value.empty()) return wrong("-" + name + " needs a value", help_text);
      *flag->value = value;
    }
    return std::nullopt;
  }

  int wrong(const std::string& what, const char* usage) {
    err_ << "litefs: " << what << "\n\n" << usage << std::flush;
    return kExitUsage;
  }

  int failed(const std::string& what) {
    err_ << "litefs: " << what << std::endl;
    return kExitFailure;
  }

  std::vector<std::string> args_;
  const CliStreams& streams_;
  std::ostream& out_;
  std::ostream& err_;
  const MountFunction& mount_;
};

}  // namespace

int run_cli(int argc, const char* const* argv, const CliStreams& streams, const MountFunction& mount) {
  // argv[0] is missing when a caller of execve() left it out.
  std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  return Cli(std::move(args), streams, mount).run();
}

}  // namespace litefs
