#include "vfs/linked_node.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace litefs::test {
namespace {

constexpr Millis kUp{15000};
constexpr Millis kStop{20000};
constexpr Millis kAnswer{100000};
constexpr const char* kWaitMs = "20000";

std::string program() {
  const char* path = getenv("LITEFS_LINKED_APP");
  if (!path) throw std::runtime_error("LITEFS_LINKED_APP names no program");
  return path;
}

}  // namespace

LinkedNode::LinkedNode(const std::string& directory, const std::string& tag) : directory_(directory), tag_(tag) {
  SpawnOptions options;
  options.argv = {program(), directory + "/litefs.yml"};
  options.error_path = directory + "/log" + tag;
  std::unique_ptr<Process> process = Process::spawn(options);
  process_ = std::move(process);
  std::optional<std::string> up = process_->read_line(kUp);
  if (!up || up->rfind("up ", 0) != 0) {
    throw std::runtime_error("a node does not come up: " + up.value_or("") + read_text_file(directory + "/log" + tag));
  }
  address_ = up->substr(3);
}

App::Answer LinkedNode::try_command(const std::string& line) {
  process_->write_line(line);
  App::Answer answer;
  while (std::optional<std::string> text = process_->read_line(kAnswer)) {
    if (*text == "ok") return answer;
    if (text->rfind("row ", 0) == 0) {
      answer.rows.push_back(text->substr(4));
      continue;
    }
    size_t space = text->find(' ', 6);
    answer.error = std::stoi(text->substr(6));
    answer.message = space == std::string::npos ? "" : text->substr(space + 1);
    return answer;
  }
  throw std::runtime_error("an application ended during: " + line + "\n" + read_text_file(directory_ + "/log" + tag_));
}

std::vector<std::string> LinkedNode::command(const std::string& line) {
  App::Answer answer = try_command(line);
  if (answer.error) throw std::runtime_error(line + ": " + answer.message);
  return answer.rows;
}

std::string LinkedNode::value(const std::string& connection, const std::string& database, const std::string& query) {
  std::vector<std::string> rows = sql(connection, database, query);
  if (rows.empty()) throw std::runtime_error(query + ": no row");
  return rows[0];
}

std::string LinkedNode::log() {
  std::string all;
  for (const std::string& line : command("log")) all += line + "; ";
  return all;
}

std::string LinkedNode::position(const std::string& database) { return command("position " + database).at(0); }

void LinkedNode::wait(const std::string& database, const std::string& position) {
  command("wait " + database + " " + position + " " + kWaitMs);
}

std::string LinkedNode::content(const std::string& database) {
  const std::string rows = directory_ + "/rows" + tag_, pages = directory_ + "/pages" + tag_;
  command("rows " + database + " " + rows);
  command("pages " + database + " " + pages);
  return std::to_string(pages_checksum(pages)) + " " + run_command({"/usr/bin/sha256sum", rows}, kAnswer).substr(0, 64);
}

void LinkedNode::stop() {
  process_->close_input();
  ExitStatus status = process_->join(kStop);
  if (!status.ok()) {
    throw std::runtime_error("an application ended with " + status.text() + ": " +
                             read_text_file(directory_ + "/log" + tag_));
  }
}

void LinkedNode::kill9() {
  process_->signal(9);
  process_->join(kStop);
}

LinkedPair::LinkedPair(const std::string& directory) : directory_(directory) {
  write_config("primary", "127.0.0.1:0", "127.0.0.1:1");
  primary_ = std::make_unique<LinkedNode>(directory_ + "/primary");
  // From here on it must be found where it is, after a restart too.
  write_config("primary", primary_->address(), primary_->address());
  write_config("replica", "127.0.0.1:0", primary_->address());
  replica_ = std::make_unique<LinkedNode>(directory_ + "/replica");
}

void LinkedPair::write_config(const std::string& name, const std::string& listen, const std::string& primary) {
  std::filesystem::create_directories(directory_ + "/" + name);
  std::ofstream(directory_ + "/" + name + "/litefs.yml")
      << "data:\n  dir: \"" << directory_ << "/" << name << "/data\"\n"
      << "http:\n  addr: \"" << listen << "\"\n"
      << "lease:\n  type: \"static\"\n  hostname: \"" << name << "\"\n"
      << "  advertise-url: \"http://" << primary << "\"\n"
      << "  candidate: " << (name == "primary" ? "true" : "false") << "\n";
}

void LinkedPair::restart_primary() { primary_ = std::make_unique<LinkedNode>(directory_ + "/primary"); }
void LinkedPair::restart_replica() { replica_ = std::make_unique<LinkedNode>(directory_ + "/replica"); }

void LinkedPair::check_same(const std::string& database) {
  const std::string position = primary().position(database);
  replica().wait(database, position);
  const std::string content = primary().content(database), other = replica().content(database);
  const std::string checksum = position.substr(position.rfind(' ') + 1);
  const std::string states =
      "; primary at " + position + " " + content + ", replica at " + replica().position(database) + " " + other;
  if (content != other) throw std::runtime_error(database + " differs" + states);
  if (content.substr(0, content.find(' ')) != checksum) {
    throw std::runtime_error(database + " is not what was captured" + states);
  }
  for (LinkedNode* node : {&primary(), &replica()}) {
    const std::string integrity = node->value("check", database, "PRAGMA integrity_check");
    if (integrity != "ok") throw std::runtime_error(database + ": " + integrity);
    node->command("close check");
  }
}

void LinkedPair::stop() {
  replica().stop();
  primary().stop();
}

std::string workload_seconds() {
  const char* given = getenv("LITEFS_TEST_SECONDS");
  return given ? given : "3";
}

int64_t last_committed(const std::vector<std::string>& paths) {
  int64_t last = 0;
  for (const std::string& path : paths) {
    const std::string bytes = read_text_file(path);
    const size_t whole = bytes.size() / sizeof last;
    int64_t number = 0;
    if (whole > 0) std::memcpy(&number, bytes.data() + (whole - 1) * sizeof number, sizeof number);
    last = std::max(last, number);
  }
  return last;
}

void wait_for_commit(const std::vector<std::string>& paths) {
  for (Deadline deadline(Millis(60'000)); last_committed(paths) == 0; usleep(1000)) {
    if (deadline.passed()) throw std::runtime_error("no writer has committed anything for a minute");
  }
}

}  // namespace litefs::test
