// The applications of the system tests: processes that use SQLite and know nothing of liblitefs.
//
//   app init DB PAGE_SIZE [MODE]     makes the workload's tables (workload.h)
//   app write DB WRITER SEED SECONDS PROFILE COMMITTED
//                                    commits transactions; prints "TRANSACTIONS SWITCHES"
//   app read DB SEED SECONDS         checks snapshots; prints "SNAPSHOTS FIRST LAST"
//   app visit DB SEED SECONDS        the same, by connections that come and go
//   app check DB                     checks one snapshot; prints its counter
//   app sql DB                       one line of SQL from stdin at a time; answers "row
//   VALUE|VALUE…" lines,
//                                    then "ok" or "error CODE MESSAGE"; ends at the end of the
//                                    input
//   app insist DB FILE               opens, creates and commits again and again, whatever happens
//   to the
//                                    mount, until SIGTERM; appends each number committed to FILE
//   app dump DB FILE                 writes every table's rows in a fixed order, for comparing
//   app pages DB FILE                writes the database's pages as SQLite sees them
//   app cat FILE, app list DIR       print
//   app remove FILE                  unlinks it
//
// Exit code 0: done; 1: a snapshot is no committed state; 2: wrong use; 3: SQLite or the system
// refused. Every one ends by an alarm after LITEFS_APP_SECONDS_MAX seconds (default 120).
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <vector>

#include "system/content.h"
#include "system/sql.h"
#include "system/workload.h"

namespace litefs::test {

namespace {

int serve_sql(const std::string& path) {
  std::unique_ptr<Sql> db;
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      if (!db) db = std::make_unique<Sql>(path);
      run_script(*db, line, std::cout);
      std::cout << "ok" << std::endl;
    } catch (const SqlError& error) {
      std::cout << "error " << error.code() << " " << one_line(error.what()) << std::endl;
    }
  }
  return 0;
}

// An application that reconnects on every error, at once, and makes what it does not find.
int insist(const std::string& path, const std::string& committed_path) {
  std::ofstream committed(committed_path, std::ios::app);
  for (int64_t number = 1; !workloads_stopped();) {
    try {
      Sql db(path);
      db.exec("PRAGMA journal_mode=WAL");
      db.exec("CREATE TABLE IF NOT EXISTS insisted(number INTEGER PRIMARY KEY)");
      while (!workloads_stopped()) {
        Statement(db, "INSERT OR IGNORE INTO insisted VALUES(?)").bind(1, number).run();
        committed << number++ << std::endl;
      }
    } catch (const SqlError&) {
      // Again, from the beginning.
    }
  }
  return 0;
}

int cat(const std::string& path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error(path + ": " + std::strerror(errno));
  char chunk[4096];
  ssize_t got;
  while ((got = read(fd, chunk, sizeof chunk)) > 0) std::cout.write(chunk, got);
  if (got < 0) throw std::runtime_error(path + ": " + std::strerror(errno));
  close(fd);
  return 0;
}

int list(const std::string& path) {
  DIR* directory = opendir(path.c_str());
  if (!directory) throw std::runtime_error(path + ": " + std::strerror(errno));
  while (dirent* entry = readdir(directory)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") std::cout << name << "\n";
  }
  closedir(directory);
  return 0;
}

int remove(const std::string& path) {
  if (unlink(path.c_str()) != 0) throw std::runtime_error(path + ": " + std::strerror(errno));
  return 0;
}

int write(const std::vector<std::string>& words) {
  WriterOptions options;
  options.writer = std::stoll(words[2]);
  options.seed = std::stoull(words[3]);
  options.seconds = std::stod(words[4]);
  options.profile = words[5];
  options.committed_path = words[6];
  WriteReport report = write_workload(words[1], options);
  std::cout << report.transactions << " " << report.switches << "\n";
  return 0;
}

int read(const std::vector<std::string>& words) {
  ReaderOptions options;
  options.seed = std::stoull(words[2]);
  options.seconds = std::stod(words[3]);
  options.visits = words[0] == "visit";
  ReadReport report = read_workload(words[1], options);
  std::cout << report.snapshots << " " << report.first << " " << report.last << "\n";
  return 0;
}

int check(const std::string& path) {
  Sql db(path, SQLITE_OPEN_READWRITE);
  std::mt19937_64 random(0);
  std::cout << check_snapshot(db, random) << "\n";
  return 0;
}

int run(const std::vector<std::string>& words) {
  std::string verb = words.empty() ? "" : words[0];
  if (verb == "init" && (words.size() == 3 || words.size() == 4)) {
    create_workload(words[1], std::stoi(words[2]), words.size() == 4 ? words[3] : "wal");
    return 0;
  }
  if (verb == "write" && words.size() == 7) return write(words);
  if ((verb == "read" || verb == "visit") && words.size() == 4) return read(words);
  if (verb == "check" && words.size() == 2) return check(words[1]);
  if (verb == "sql" && words.size() == 2) return serve_sql(words[1]);
  if (verb == "insist" && words.size() == 3) return insist(words[1], words[2]);
  if (verb == "dump" && words.size() == 3) return dump_rows(words[1], words[2]) ? 0 : 3;
  if (verb == "pages" && words.size() == 3) return dump_pages(words[1], words[2]) ? 0 : 3;
  if (verb == "cat" && words.size() == 2) return cat(words[1]);
  if (verb == "list" && words.size() == 2) return list(words[1]);
  if (verb == "remove" && words.size() == 2) return remove(words[1]);
  std::cerr << "app: wrong use\n";
  return 2;
}

}  // namespace

}  // namespace litefs::test

int main(int argc, char** argv) {
  const char* seconds = getenv("LITEFS_APP_SECONDS_MAX");
  alarm(seconds ? static_cast<unsigned>(atoi(seconds)) : 120);
  signal(SIGTERM, [](int) { litefs::test::stop_workloads(); });
  try {
    return litefs::test::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const litefs::test::Violation& violation) {
    std::cerr << "violation: " << violation.what() << std::endl;
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 3;
  }
}
