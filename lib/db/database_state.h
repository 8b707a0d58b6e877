// What a database of a node can be doing. Thread rule: plain values.
#pragma once

namespace litefs {

enum class DatabaseState {
  kOpening,  // being recovered at start, or not attached yet
  kFenced,   // processes from before the node's start still have it open
  kReady,
  kLoading,  // a copy is coming in
  kStopped,  // after an error; it says which
};

const char* database_state_name(DatabaseState state);

}  // namespace litefs
