#include "fuse/mount_client.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <functional>
#include <map>
#include <optional>

#include "base/mutex.h"
#include "fuse/descriptor.h"

namespace litefs {

namespace {

constexpr std::chrono::milliseconds kStartMax{5000};

struct DoorFiles {
  Descriptor database;
  Descriptor shm{};  // as soon as a lock on it is asked for
};

// As SQLite makes it (unixOpenSharedMemory): whoever may write the database may write its -shm.
Result<Descriptor> open_shm(const std::string& path, int database) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    Descriptor fd(open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (fd.valid()) return fd;
    if (errno != ENOENT) break;
    fd = Descriptor(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.valid() && errno == EEXIST) continue;
    if (!fd.valid()) break;
    struct stat info;
    if (fstat(database, &info) != 0 || fchown(fd.get(), info.st_uid, info.st_gid) != 0 ||
        fchmod(fd.get(), info.st_mode & 0777) != 0) {
      return errno_error(errno, "giving " + path + " the database's owner and mode");
    }
    return fd;
  }
  return errno_error(errno, "opening " + path + " through the mount");
}

Result<DoorFiles> open_door(const std::string& path) {
  DoorFiles files;
  files.database = Descriptor(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!files.database.valid()) return errno_error(errno, "opening " + path + " through the mount");
  return files;
}

Status set_lock(int fd, uint64_t start, uint64_t length, LockKind kind, const std::string& what) {
  struct flock lock = {};
  lock.l_type = static_cast<short>(kind == LockKind::kShared      ? F_RDLCK
                                   : kind == LockKind::kExclusive ? F_WRLCK
                                                                  : F_UNLCK);
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(start);
  lock.l_len = static_cast<off_t>(length);
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) {
    return Error(ErrorCode::kBusy, "locking " + what + ": somebody else holds it");
  }
  return errno_error(errno, "locking " + what);
}

// The name may be unlinked or made anew at any moment: no process has the index of a name that is not there.
Result<bool> index_in_use(const std::string& path) {
  Descriptor fd(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() && errno == ENOENT) return false;
  if (!fd.valid()) return errno_error(errno, "opening " + path + " through the mount");
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(kDmsByte);
  lock.l_len = 1;
  if (fcntl(fd.get(), F_OFD_GETLK, &lock) != 0) return errno_error(errno, "asking for locks on " + path);
  return lock.l_type != F_UNLCK;
}

MountClient::Answer stat_past_caches(const std::string& path) {
  struct statx info;
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &info) != 0) {
    return {.error = errno};
  }
  return {.error = 0, .device = makedev(info.stx_dev_major, info.stx_dev_minor)};
}

}  // namespace

// Shared with the thread, which may outlive the MountClient when it is stuck.
struct MountClient::State {
  using Job = std::function<void(State&)>;

  std::string mount_dir;
  std::chrono::milliseconds call_max{};
  Mutex mutex;
  CondVar changed;
  std::deque<Job> jobs GUARDED_BY(mutex);
  bool stopping GUARDED_BY(mutex) = false;
  pid_t thread_id GUARDED_BY(mutex) = 0;
  std::optional<Status> started GUARDED_BY(mutex);
  uint64_t next_door GUARDED_BY(mutex) = 1;
  std::map<uint64_t, DoorFiles> doors;  // the thread's own

  Status post(Job job) {
    MutexLock lock(mutex);
    if (stopping) return Error(ErrorCode::kCancelled, "the mount is stopping");
    if (jobs.size() >= kClientJobsMax) {
      return Error(ErrorCode::kBusy, "too many calls wait for the mount");
    }
    jobs.push_back(std::move(job));
    changed.notify_all();
    return {};
  }

  // Runs `job` on the thread and waits for its value.
  template <class T>
  static Result<T> call(const std::shared_ptr<State>& self, std::chrono::milliseconds time_max,
                        std::function<Result<T>(State&)> job) {
    auto answer = std::make_shared<std::optional<Result<T>>>();
    TRY(self->post([answer, job = std::move(job)](State& state) {
      Result<T> value = job(state);
      MutexLock lock(state.mutex);
      *answer = std::move(value);
    }));
    Deadline deadline = deadline_in(time_max);
    MutexLock lock(self->mutex);
    while (!*answer) {
      if (self->stopping) return Error(ErrorCode::kCancelled, "the mount is stopping");
      if (!self->changed.wait_until(self->mutex, deadline) && !*answer) {
        return Error(ErrorCode::kTimedOut, "the mount at " + self->mount_dir + " does not answer");
      }
    }
    return std::move(**answer);
  }
};

class MountClient::Door final : public LockDoor {
 public:
  Door(std::shared_ptr<State> state, uint64_t id, std::string name)
      : state_(std::move(state)), id_(id), name_(std::move(name)) {}

  ~Door() override {
    // Waits, so that who destroys a door may rely on its locks being gone; but not for a mount that
    // has kept us waiting already. A call that is still under way comes before this one.
    std::chrono::milliseconds time_max = timed_out_ ? std::chrono::milliseconds(0) : state_->call_max;
    (void)State::call<bool>(state_, time_max, [id = id_](State& state) -> Result<bool> {
      state.doors.erase(id);
      return true;
    });
  }

  Status open() {
    std::string path = state_->mount_dir + "/" + name_;
    return call([id = id_, path](State& state) -> Result<bool> {
      state.doors[id] = TRY(open_door(path));
      return true;
    });
  }

  Status try_lock(LockFile file, uint64_t start, uint64_t length, LockKind kind) override {
    return call([id = id_, name = name_, file, start, length, kind](State& state) -> Result<bool> {
      auto it = state.doors.find(id);
      CHECK(it != state.doors.end());
      DoorFiles& files = it->second;
      if (file == LockFile::kDatabase) {
        TRY(set_lock(files.database.get(), start, length, kind, name));
        return true;
      }
      const std::string shm = name + "-shm";
      if (!files.shm.valid()) files.shm = TRY(open_shm(state.mount_dir + "/" + shm, files.database.get()));
      TRY(set_lock(files.shm.get(), start, length, kind, shm));
      return true;
    });
  }

 private:
  Status call(std::function<Result<bool>(State&)> job) {
    Result<bool> answer = State::call<bool>(state_, state_->call_max, std::move(job));
    if (answer) return {};
    timed_out_ = timed_out_ || answer.error().code() == ErrorCode::kTimedOut;
    return answer.error();
  }

  std::shared_ptr<State> state_;
  uint64_t id_;
  std::string name_;
  bool timed_out_ = false;
};

Result<std::unique_ptr<MountClient>> MountClient::start(const std::string& mount_dir,
                                                        std::chrono::milliseconds call_max) {
  std::unique_ptr<MountClient> client(new MountClient());
  client->state_ = std::make_shared<State>();
  client->state_->mount_dir = mount_dir;
  client->state_->call_max = call_max;
  client->thread_ = std::make_unique<QuietThread>("litefs-client", [state = client->state_] { run(*state); });
  State& state = *client->state_;
  Deadline deadline = deadline_in(kStartMax);
  MutexLock lock(state.mutex);
  while (!state.started) {
    if (!state.changed.wait_until(state.mutex, deadline) && !state.started) {
      return Error(ErrorCode::kTimedOut, "the mount's client thread does not start");
    }
  }
  TRY(*state.started);
  client->thread_id_ = state.thread_id;
  return client;
}

void MountClient::run(State& state) {
  Result<int> own = take_own_descriptors(-1);
  Status started = own ? Status() : Status(own.error());
  {
    MutexLock lock(state.mutex);
    state.thread_id = gettid();
    state.started = started;
    state.changed.notify_all();
  }
  while (started.ok()) {
    State::Job job;
    {
      MutexLock lock(state.mutex);
      while (state.jobs.empty() && !state.stopping) state.changed.wait(state.mutex);
      if (state.stopping) break;
      job = std::move(state.jobs.front());
      state.jobs.pop_front();
    }
    job(state);
    MutexLock lock(state.mutex);
    state.changed.notify_all();
  }
  state.doors.clear();
}

MountClient::~MountClient() {
  if (stop(deadline_in(state_->call_max))) return;
  thread_->abandon();
}

Result<std::unique_ptr<LockDoor>> MountClient::lock_door(const std::string& name) {
  uint64_t id;
  {
    MutexLock lock(state_->mutex);
    id = state_->next_door++;
  }
  auto door = std::make_unique<Door>(state_, id, name);
  TRY(door->open());
  return std::unique_ptr<LockDoor>(std::move(door));
}

void MountClient::ask_index_in_use(const std::string& name, std::function<void(const Result<bool>&)> done) {
  Status posted =
      state_->post([name, done](State& state) { done(index_in_use(state.mount_dir + "/" + name + "-shm")); });
  if (!posted.ok()) done(posted.error());
}

Result<MountClient::Answer> MountClient::probe(const std::string& path, std::chrono::milliseconds time_max) {
  return State::call<Answer>(state_, time_max, [path](State&) -> Result<Answer> { return stat_past_caches(path); });
}

bool MountClient::stop(Deadline deadline) {
  {
    MutexLock lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
  }
  return thread_->join_until(deadline);
}

}  // namespace litefs
