#include "child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <map>
#include <stdexcept>

namespace litefs::test {
namespace {

size_t read_some(int fd, char* out, size_t size) {
  ssize_t n;
  do n = read(fd, out, size);
  while (n < 0 && errno == EINTR);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

}  // namespace

Child::Child(const std::vector<std::string>& arguments) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
  std::vector<std::string> words = {"/proc/self/exe", "--child"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int parent = getpid();
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    execv("/proc/self/exe", argv.data());
    _exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  to_ = in[1];
  from_ = out[0];
}

Child::~Child() {
  kill_now();
  ::close(from_);
  if (to_ >= 0) ::close(to_);
}

void Child::send(const std::string& line) {
  std::string text = line + "\n";
  for (size_t done = 0; done < text.size();) {
    ssize_t n = write(to_, text.data() + done, text.size() - done);
    if (n < 0) throw std::runtime_error("the child is gone");
    done += static_cast<size_t>(n);
  }
}

std::string Child::receive() {
  for (;;) {
    size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    char more[4096];
    size_t n = read_some(from_, more, sizeof more);
    if (n == 0) throw std::runtime_error("the child has ended: " + buffer_);
    buffer_.append(more, n);
  }
}

size_t Child::receive_bytes(size_t count) {
  size_t done = 0;
  char bytes[4096];
  while (done < count) {
    size_t n = read_some(from_, bytes, std::min(sizeof bytes, count - done));
    if (n == 0) break;
    done += n;
  }
  return done;
}

void Child::kill_now() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Child::finish() {
  ::close(to_);
  to_ = -1;
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  if (status != 0) throw std::runtime_error("the child ended with status " + std::to_string(status));
}

void SqliteProcess::open(const std::string& path) {
  child_.send(".open " + path);
  Answer a = answer();
  if (a.code != 0) throw std::runtime_error(a.message);
}

void SqliteProcess::close() {
  child_.send(".close");
  Answer a = answer();
  if (a.code != 0) throw std::runtime_error(a.message);
}

Answer SqliteProcess::run(const std::string& sql) {
  child_.send(sql);
  return answer();
}

void SqliteProcess::exec(const std::string& sql) {
  Answer a = run(sql);
  if (a.code != 0) throw std::runtime_error(a.message + " in " + sql.substr(0, 200));
}

std::string SqliteProcess::value(const std::string& sql) {
  Answer a = run(sql);
  if (a.code != 0) throw std::runtime_error(a.message + " in " + sql);
  if (a.rows.size() != 1) throw std::runtime_error("not one row from " + sql);
  return a.rows[0];
}

Answer SqliteProcess::answer() {
  Answer a;
  for (;;) {
    std::string line = child_.receive();
    if (line.empty() || line[0] != '=') {
      a.rows.push_back(line.substr(1));
      continue;
    }
    size_t space = line.find(' ');
    a.code = std::atoi(line.c_str() + 1);
    a.message = line.substr(space + 1);
    return a;
  }
}

int child_main(int argc, char** argv) {
  if (argc < 3 || std::string(argv[1]) != "--child") return -1;
  static const std::map<std::string, int (*)(const std::vector<std::string>&)> verbs = {
      {"shell", shell_main}, {"reader", reader_main}, {"writer", writer_main}};
  auto verb = verbs.find(argv[2]);
  if (verb == verbs.end()) return 2;
  return verb->second(std::vector<std::string>(argv + 3, argv + argc));
}

}  // namespace litefs::test
