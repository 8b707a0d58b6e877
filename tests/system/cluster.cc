#include "system/cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>

#include "system/janitor.h"
#include "system/sql.h"

namespace litefs::test {

namespace {

constexpr Millis kStatusTimeout{5000};
constexpr Millis kUpTimeout{15000};
constexpr Millis kStopTimeout{15000};
constexpr Millis kAppTimeout{60000};
constexpr useconds_t kPollPauseUs = 10000;

std::string environment_or(const std::string& value, const char* name) {
  if (!value.empty()) return value;
  const char* found = getenv(name);
  return found ? found : "";
}

// A port that was free a moment ago: the node binds it after us.
uint16_t free_port() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error(std::string("cannot reserve a port: ") + std::strerror(errno));
  }
  close(fd);
  return ntohs(address.sin_port);
}

// SQLite reads the status's JSON for us.
NodeStatus parse_status(const std::string& json) {
  Sql db(":memory:");
  NodeStatus status;
  status.json = json;
  Statement role(db, "SELECT ifnull(json_extract(?1, '$.role'), '')");
  if (!role.bind_text(1, json).step()) return status;
  status.role = role.literal(0);
  Statement each(db,
                 "SELECT json_extract(value, '$.name'), ifnull(json_extract(value, '$.position'), ''),"
                 " ifnull(json_extract(value, '$.state'), ''), json_extract(value, '$.epoch'),"
                 " json_extract(value, '$.page_size')"
                 " FROM json_each(?1, '$.databases') ORDER BY 1");
  each.bind_text(1, json);
  while (each.step()) {
    status.databases.push_back({each.literal(0), each.literal(1), each.literal(2),
                                static_cast<uint64_t>(each.integer(3)), static_cast<uint64_t>(each.integer(4))});
  }
  return status;
}

std::string describe(const NodeStatus& status) {
  std::string out = status.role + ":";
  for (const DatabaseStatus& d : status.databases) {
    out += " " + d.name + "=" + d.position + "(" + d.state + ")";
  }
  return out;
}

// The same databases at the same positions, all ready.
bool equal(const NodeStatus& a, const NodeStatus& b) {
  return std::equal(a.databases.begin(), a.databases.end(), b.databases.begin(), b.databases.end(),
                    [](const DatabaseStatus& x, const DatabaseStatus& y) {
                      return x.name == y.name && x.position == y.position && x.epoch == y.epoch && x.state == "ready" &&
                             y.state == "ready";
                    });
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

const DatabaseStatus* NodeStatus::find(const std::string& database) const {
  for (const DatabaseStatus& d : databases) {
    if (d.name == database) return &d;
  }
  return nullptr;
}

App::Answer App::try_sql(const std::string& text, Millis timeout) {
  process_->write_line(text);
  Answer answer;
  while (std::optional<std::string> line = process_->read_line(timeout)) {
    if (*line == "ok") return answer;
    if (line->rfind("row ", 0) == 0) {
      answer.rows.push_back(line->substr(4));
    } else {
      size_t space = line->find(' ', 6);
      answer.error = std::stoi(line->substr(6));
      answer.message = space == std::string::npos ? "" : line->substr(space + 1);
      return answer;
    }
  }
  throw std::runtime_error("an application ended during: " + text);
}

std::vector<std::string> App::sql(const std::string& text) {
  Answer answer = try_sql(text);
  if (answer.error) throw std::runtime_error(text + ": " + answer.message);
  return answer.rows;
}

std::string App::value(const std::string& text) {
  std::vector<std::string> rows = sql(text);
  if (rows.empty()) throw std::runtime_error(text + ": no row");
  return rows[0].substr(0, rows[0].find('|'));
}

void App::close() {
  process_->close_input();
  process_->join(kAppTimeout);
}

Cluster::Cluster(const ClusterOptions& options) : options_(options) {
  options_.litefs = environment_or(options.litefs, "LITEFS_BIN");
  options_.application = environment_or(options.application, "LITEFS_APP");
  std::string parent = options.parent.empty() ? std::filesystem::temp_directory_path().string() : options.parent;
  std::string pattern = parent + "/litefs-cluster-XXXXXX";
  if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make a directory in " + parent);
  directory_ = pattern;

  int lifeline[2];
  if (pipe2(lifeline, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
  janitor_ = lifeline[1];
  janitor_pid_ = start_janitor(directory_, lifeline[0], lifeline[1]);
  ::close(lifeline[0]);
  for (size_t i = 0; i < options.nodes; i++) add_node();
}

Cluster::~Cluster() {
  for (auto& node : nodes_) {
    // Politely first: that way of ending is tested everywhere, whatever the test is about.
    if (node->process_) node->process_->signal(SIGTERM);
  }
  for (auto& node : nodes_) {
    if (node->process_ && !node->process_->wait(kStopTimeout)) {
      std::cerr << "node " << node->index_ << " does not stop: " << node->process_->kernel_state() << "\n";
    }
    node->process_.reset();
  }
  if ((options_.failed && options_.failed()) || getenv("LITEFS_TEST_LOGS")) print_logs(directory_);
  bool unmounted = unmount_below(directory_);
  std::error_code ignored;
  if (unmounted) std::filesystem::remove_all(directory_, ignored);
  // Without this word the janitor would say that we are gone.
  if (unmounted && write(janitor_, "c", 1) != 1) std::cerr << "the janitor is gone\n";
  ::close(janitor_);
  int status;
  waitpid(janitor_pid_, &status, 0);
}

std::string Cluster::scratch(const std::string& name) {
  std::filesystem::create_directories(directory_ + "/scratch");
  return directory_ + "/scratch/" + name;
}

Node& Cluster::add_node() {
  auto node = std::make_unique<Node>();
  node->index_ = nodes_.size();
  node->directory_ = directory_ + "/node" + std::to_string(node->index_);
  node->port_ = free_port();
  std::filesystem::create_directories(node->mount());
  std::filesystem::create_directories(node->data());
  nodes_.push_back(std::move(node));
  write_config(*nodes_.back());
  return *nodes_.back();
}

void Cluster::write_config(const Node& node) {
  std::ofstream out(node.directory() + "/litefs.yml");
  out << "fuse:\n  dir: \"" << node.mount() << "\"\n"
      << "data:\n  dir: \"" << node.data() << "\"\n  retention: \"24h\"\n";
  for (const std::string& line : options_.data_settings) out << "  " << line << "\n";
  out << "http:\n  addr: \"127.0.0.1:" << node.port() << "\"\n"
      << "lease:\n  type: \"static\"\n  hostname: \"node" << node.index() << "\"\n"
      << "  advertise-url: \"http://127.0.0.1:" << nodes_[0]->port() << "\"\n"
      << "  candidate: " << (node.index() == 0 ? "true" : "false") << "\n"
      << "log:\n  level: \"info\"\n";
}

void Cluster::launch(size_t index, const std::vector<std::string>& environment) {
  SpawnOptions options;
  options.argv = {options_.litefs, "mount", "-config", node(index).directory() + "/litefs.yml"};
  options.environment = environment;
  options.output_path = node(index).log_path();
  node(index).process_ = Process::spawn(options);
  node(index).process_->close_input();
}

void Cluster::wait_until_up(size_t index, Millis timeout) {
  Deadline deadline(timeout);
  Node& target = node(index);
  std::string reason;
  while (!deadline.passed()) {
    if (!target.process_->running()) {
      throw std::runtime_error("node " + std::to_string(index) + " ended at its start with " +
                               target.process_->wait(Millis(0))->text() + ": " + read_text_file(target.log_path()));
    }
    std::vector<std::string> mounts = mounts_below(target.directory());
    if (!mounts.empty()) {
      try {
        std::string role = status(index).role;
        if (role == "primary" || role == "replica") return;
      } catch (const std::runtime_error& error) {
        reason = error.what();
      }
    }
    usleep(kPollPauseUs);
  }
  throw std::runtime_error("node " + std::to_string(index) + " does not come up: " + reason);
}

void Cluster::start(size_t index, const std::vector<std::string>& environment) {
  launch(index, environment);
  wait_until_up(index, kUpTimeout);
}

void Cluster::stop(size_t index) {
  Node& target = node(index);
  target.process_->signal(SIGTERM);
  ExitStatus status = target.process_->join(kStopTimeout);
  target.process_.reset();
  if (!status.ok()) {
    throw std::runtime_error("node " + std::to_string(index) + " stopped with " + status.text());
  }
}

void Cluster::kill9(size_t index) {
  Node& target = node(index);
  target.process_->signal(SIGKILL);
  target.process_->join(kStopTimeout);
  target.process_.reset();
}

NodeStatus Cluster::status(size_t index) {
  return parse_status(run_command({options_.litefs, "status", "-data", node(index).data(), "--json"}, kStatusTimeout));
}

void Cluster::wait_for_equal(Millis timeout) {
  Deadline deadline(timeout);
  // NAME-pos drains, so that the answer holds what applications have committed up to now.
  if (node(0).process_) {
    for (const DatabaseStatus& d : status(0).databases) {
      if (d.state == "ready") position(0, d.name);
    }
  }
  std::string seen;
  while (!deadline.passed()) {
    std::vector<NodeStatus> all;
    seen.clear();
    try {
      for (auto& node : nodes_) {
        if (!node->process_) continue;
        all.push_back(status(node->index_));
        seen += "\n  " + describe(all.back());
      }
      bool same = std::all_of(all.begin(), all.end(), [&](const NodeStatus& s) { return equal(all.front(), s); });
      if (same) return;
    } catch (const std::runtime_error& error) {
      seen += std::string("\n  ") + error.what();
    }
    usleep(kPollPauseUs);
  }
  throw std::runtime_error("the nodes do not become equal:" + seen);
}

void Cluster::wait_for_state(size_t index, const std::string& database, const std::string& state, Millis timeout) {
  Deadline deadline(timeout);
  NodeStatus last;
  while (!deadline.passed()) {
    last = status(index);
    const DatabaseStatus* found = last.find(database);
    if (found && found->state == state) return;
    usleep(kPollPauseUs);
  }
  throw std::runtime_error(database + " does not become " + state + ": " + describe(last));
}

std::string Cluster::position(size_t index, const std::string& database) {
  return trimmed(run_app({"cat", node(index).path(database) + "-pos"}));
}

bool Cluster::log_contains(size_t index, const std::string& text) const {
  return read_text_file(nodes_[index]->log_path()).find(text) != std::string::npos;
}

std::unique_ptr<Process> Cluster::spawn_app(const std::vector<std::string>& words, const std::string& error_path) {
  SpawnOptions options;
  options.argv = {options_.application};
  options.argv.insert(options.argv.end(), words.begin(), words.end());
  options.error_path = error_path;
  return Process::spawn(options);
}

std::string Cluster::run_app(const std::vector<std::string>& words) {
  std::vector<std::string> argv = {options_.application};
  argv.insert(argv.end(), words.begin(), words.end());
  return run_command(argv, kAppTimeout);
}

App Cluster::open(size_t index, const std::string& database) {
  return App(spawn_app({"sql", node(index).path(database)}));
}

void Cluster::check_same(const std::string& database, Millis timeout) {
  wait_for_equal(timeout);
  std::string first_content;
  std::string first_pages;
  for (auto& node : nodes_) {
    if (!node->process_) continue;
    std::string name = "node " + std::to_string(node->index_) + " " + database;
    App app = open(node->index_, database);
    std::string integrity = app.value("PRAGMA integrity_check");
    app.close();
    if (integrity != "ok") throw std::runtime_error(name + ": integrity_check: " + integrity);

    std::string out = scratch("compare");
    run_app({"dump", node->path(database), out});
    std::string content = run_command({"/usr/bin/sha256sum", out}, kAppTimeout).substr(0, 64);
    run_app({"pages", node->path(database), out});
    char pages[17];
    snprintf(pages, sizeof pages, "%016llx", static_cast<unsigned long long>(pages_checksum(out)));
    if (first_content.empty()) {
      first_content = content;
      first_pages = pages;
    }
    if (content != first_content) throw std::runtime_error(name + ": the content differs");
    if (pages != first_pages) throw std::runtime_error(name + ": the pages differ");
    const NodeStatus now = status(node->index_);
    const DatabaseStatus* found = now.find(database);
    if (!found || found->position.substr(found->position.find('/') + 1) != pages) {
      throw std::runtime_error(name + ": its pages' checksum is " + pages + ", but " + describe(now));
    }
  }
}

std::string why_no_cluster() {
  if (geteuid() != 0) return "the mount needs root";
  int fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0) return std::string("/dev/fuse: ") + std::strerror(errno);
  ::close(fd);
  for (const char* name : {"LITEFS_BIN", "LITEFS_APP"}) {
    const char* path = getenv(name);
    if (!path || access(path, X_OK) != 0) return std::string(name) + " names no program";
  }
  return "";
}

}  // namespace litefs::test
