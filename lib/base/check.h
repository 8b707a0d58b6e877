// CHECK is for our own bugs: always on, prints what failed, aborts. Bytes from a disk, a peer or a user
// are never CHECKed; they get an Error (result.h).
#pragma once

#include <sstream>
#include <string>

namespace litefs {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& values);

template <class A, class B>
std::string check_values(const A& a, const B& b) {
  std::ostringstream out;
  out << a << " against " << b;
  return out.str();
}

}  // namespace litefs

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) [[unlikely]]                                           \
      ::litefs::check_failed(__FILE__, __LINE__, #condition, std::string()); \
  } while (0)

#define LITEFS_CHECK_OP(a, op, b)                                                                      \
  do {                                                                                                 \
    if (!((a)op(b))) [[unlikely]]                                                                      \
      ::litefs::check_failed(__FILE__, __LINE__, #a " " #op " " #b, ::litefs::check_values((a), (b))); \
  } while (0)

#define CHECK_EQ(a, b) LITEFS_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) LITEFS_CHECK_OP(a, !=, b)
#define CHECK_LE(a, b) LITEFS_CHECK_OP(a, <=, b)
#define CHECK_LT(a, b) LITEFS_CHECK_OP(a, <, b)
#define CHECK_GE(a, b) LITEFS_CHECK_OP(a, >=, b)
#define CHECK_GT(a, b) LITEFS_CHECK_OP(a, >, b)
