// Errors as values.
//
// What can fail at run time returns Result<T> (or Status, when there is no value). An Error is one of
// few codes, by which callers decide, and one sentence for people that says what was attempted on what.
// TRY(expression) yields the value or returns the error from the enclosing function; context is added
// by with_context. Thread rule: plain values, any thread.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace litefs {

enum class ErrorCode {
  kIo,           // the operating system refused; the message holds its reason
  kCorrupt,      // bytes from a disk or a peer do not mean what they must
  kNotFound,     // the named thing does not exist
  kExists,       // the named thing exists already
  kInvalid,      // a user's or caller's input is wrong
  kBusy,         // somebody else holds what is needed; trying later may help
  kNoSpace,      // a disk or a configured limit is full
  kReadOnly,     // this node does not take writes now
  kUnsupported,  // known and deliberately not done here
  kUnavailable,  // a peer, service or kernel feature is missing
  kDiverged,     // two histories disagree
  kTimedOut,     // a deadline passed
  kCancelled,    // the node is stopping
};

const char* error_code_name(ErrorCode code);

class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // "while CONTEXT: MESSAGE", same code.
  Error with_context(const std::string& context) const { return Error(code_, context + ": " + message_); }

 private:
  ErrorCode code_;
  std::string message_;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    CHECK(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  const Error& error() const {
    CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  std::variant<T, Error> state_;
};

// Result without a value. A default-constructed Status is success.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose

  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  void value() const { CHECK(ok()); }
  const Error& error() const {
    CHECK(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace litefs

// Evaluates to the value of a Result, or returns its error from the enclosing function.
#define TRY(expression)                                            \
  __extension__({                                                  \
    auto litefs_try_result = (expression);                         \
    if (!litefs_try_result.ok()) return litefs_try_result.error(); \
    std::move(litefs_try_result).value();                          \
  })
