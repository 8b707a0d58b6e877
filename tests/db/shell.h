// A sqlite3 shell in a process of its own: an application that knows nothing of liblitefs.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "test.h"

namespace litefs::test {

class Shell {
 public:
  explicit Shell(const std::string& database, bool read_only = false) {
    int in[2], out[2];
    REQUIRE(pipe(in) == 0);
    REQUIRE(pipe(out) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      dup2(out[1], 2);
      for (int fd : {in[0], in[1], out[0], out[1]}) close(fd);
      if (read_only) {
        execlp("sqlite3", "sqlite3", "-batch", "-readonly", database.c_str(), nullptr);
      } else {
        execlp("sqlite3", "sqlite3", "-batch", database.c_str(), nullptr);
      }
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_ = fdopen(in[1], "w");
    from_ = fdopen(out[0], "r");
  }
  ~Shell() {
    if (pid_ > 0) quit();
  }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  // Runs statements or dot commands; the answer is what they print, errors included, without the last newline.
  std::string run(const std::string& sql) {
    std::fprintf(to_, "%s\n.print <<<done>>>\n", sql.c_str());
    std::fflush(to_);
    std::string out;
    char line[65536];
    while (std::fgets(line, sizeof line, from_)) {
      if (std::string(line) == "<<<done>>>\n") {
        if (!out.empty()) out.pop_back();
        return out;
      }
      out += line;
    }
    FAIL("the sqlite3 shell ended: " << out);
    return out;
  }
  void quit() {
    std::fclose(to_);
    std::fclose(from_);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void kill9() {
    kill(pid_, SIGKILL);
    quit();
  }

 private:
  pid_t pid_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

}  // namespace litefs::test
