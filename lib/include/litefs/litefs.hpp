/** @file litefs.hpp
 * @brief liblitefs for C++: litefs.h with owners and exceptions. It adds nothing else, and needs C++17.
 *
 * What functions mean, which errors they have and which threads may call them stands in litefs.h. Where a function of
 * it answers something else than LITEFS_OK, these throw litefs::NodeError.
 */
#ifndef LITEFS_LITEFS_HPP
#define LITEFS_LITEFS_HPP

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "litefs.h"

namespace litefs {

/** @brief A result that is not LITEFS_OK, with the node's message. */
class NodeError : public std::runtime_error {
 public:
  NodeError(int result, const std::string& message)
      : std::runtime_error(message.empty() ? litefs_result_text(result) : message), result_(result) {}
  /** LITEFS_… */
  int result() const { return result_; }

 private:
  int result_;
};

/** @brief A database of OpenNode::databases. */
struct DatabaseEntry {
  std::string name;
  std::string state;
  std::string detail;
  litefs_position position;
  unsigned page_size;
  litefs_uint64 size_bytes;
  litefs_int64 lag_ms;
  litefs_uint64 log_bytes;
};

/** @brief A database of a replica, of OpenNode::replicas. */
struct ReplicaEntry {
  std::string host_name;
  std::string address;
  litefs_uint64 node_id;
  litefs_int64 connected_since_ms;
  std::string database;
  litefs_uint64 txid;
  litefs_uint64 behind_txids;
};

/** @brief An open node; the destructor closes it.
 *
 * A node that was moved from may only be destroyed or assigned to. The callbacks must not throw, nor set who is told in their own place.
 */
class OpenNode {
 public:
  explicit OpenNode(const litefs_options& options) {
    litefs_node* node = nullptr;
    const int result = litefs_open(&options, &node);
    owned_ = std::make_unique<Owned>(node);
    check(result);
  }
  OpenNode(OpenNode&&) noexcept = default;
  OpenNode& operator=(OpenNode&&) noexcept = default;

  litefs_node* handle() const { return owned_->node; }
  /** Before the destructor does it, which cannot say that it failed: it leaves a node with open connections running. */
  void close() {
    check(litefs_close(owned_->node));
    owned_->node = nullptr;
  }

  int role() const {
    int role = 0;
    check(litefs_role(handle(), &role));
    return role;
  }
  std::string primary() const { return text(litefs_primary); }
  std::string address() const { return text(litefs_address); }

  std::vector<DatabaseEntry> databases() const {
    std::vector<DatabaseEntry> databases;
    check(litefs_list_databases(
        handle(),
        [](void* context, const litefs_database* database) {
          static_cast<std::vector<DatabaseEntry>*>(context)->push_back(
              {database->name, database->state, database->detail, database->position, database->page_size,
               database->size_bytes, database->lag_ms, database->log_bytes});
          return 0;
        },
        &databases));
    return databases;
  }

  std::vector<ReplicaEntry> replicas() const {
    std::vector<ReplicaEntry> replicas;
    check(litefs_list_replicas(
        handle(),
        [](void* context, const litefs_replica* replica) {
          static_cast<std::vector<ReplicaEntry>*>(context)->push_back(
              {replica->host_name, replica->address, replica->node_id, replica->connected_since_ms, replica->database,
               replica->txid, replica->behind_txids});
          return 0;
        },
        &replicas));
    return replicas;
  }

  litefs_position position(const std::string& database) const {
    litefs_position position;
    check(litefs_get_position(handle(), database.c_str(), &position));
    return position;
  }
  /** @return false at the deadline. */
  bool wait(const std::string& database, const litefs_position& position, std::chrono::milliseconds timeout) const {
    const int result =
        litefs_wait_position(handle(), database.c_str(), &position, static_cast<unsigned>(timeout.count()));
    if (result == LITEFS_TIMED_OUT) return false;
    check(result);
    return true;
  }
  /** @return nothing while it is not known. */
  std::optional<std::chrono::milliseconds> lag() const {
    litefs_int64 lag_ms = 0;
    const int result = litefs_lag(handle(), &lag_ms);
    if (result == LITEFS_UNAVAILABLE) return std::nullopt;
    check(result);
    return std::chrono::milliseconds(lag_ms);
  }
  void promote() { check(litefs_promote(handle())); }
  void handoff(const std::string& host_name = "") {
    check(litefs_handoff(handle(), host_name.empty() ? nullptr : host_name.c_str()));
  }

  /** Empty: nobody is told. */
  void on_role(std::function<void(int role, const std::string& primary)> told) {
    auto next = std::make_unique<decltype(told)>(std::move(told));
    litefs_role_function call = [](void* context, int role, const char* primary) {
      (*static_cast<decltype(told)*>(context))(role, primary);
    };
    check(litefs_on_role(handle(), *next ? call : nullptr, next.get()));
    owned_->role.swap(next);
  }
  void on_transaction(std::function<void(const std::string& database, const litefs_position& position)> told) {
    auto next = std::make_unique<decltype(told)>(std::move(told));
    litefs_transaction_function call = [](void* context, const char* database, const litefs_position* position) {
      (*static_cast<decltype(told)*>(context))(database, *position);
    };
    check(litefs_on_transaction(handle(), *next ? call : nullptr, next.get()));
    owned_->transaction.swap(next);
  }

  /** @brief Registers the SQLite VFS; closing the node unregisters it. */
  void register_vfs(bool make_default = false) {
    const int code = sqlite3_litefs_register(handle(), make_default ? 1 : 0);
    if (code != 0) throw NodeError(LITEFS_BUSY, "the VFS cannot be registered: SQLite result " + std::to_string(code));
  }

 private:
  struct Owned {
    explicit Owned(litefs_node* opened) : node(opened) {}
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() {
      if (litefs_close(node) == LITEFS_OK) return;
      // The node goes on: it must not call what is destroyed here.
      litefs_on_role(node, nullptr, nullptr);
      litefs_on_transaction(node, nullptr, nullptr);
    }
    std::unique_ptr<std::function<void(int, const std::string&)>> role;
    std::unique_ptr<std::function<void(const std::string&, const litefs_position&)>> transaction;
    litefs_node* node;
  };

  void check(int result) const {
    if (result != LITEFS_OK) throw NodeError(result, owned_->node ? litefs_message(owned_->node) : "");
  }
  std::string text(int (*ask)(litefs_node*, char**)) const {
    char* given = nullptr;
    check(ask(handle(), &given));
    const std::unique_ptr<char, void (*)(void*)> freed(given, litefs_free);
    return given;
  }

  std::unique_ptr<Owned> owned_;
};

}  // namespace litefs

#endif  // LITEFS_LITEFS_HPP
