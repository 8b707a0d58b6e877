#include "node/member_door.h"

#include <algorithm>

namespace litefs {

std::shared_ptr<DatabaseDoor> MemberDoor::door_of(const Member::Seat& seat) {
  MutexLock lock(mutex_);
  if (door_ && seat_ == seat.number) return door_;
  std::shared_ptr<DatabaseDoor> door = member_.make_door(seat, name_, index_users_);
  // Else its host has ended meanwhile, as who asks it will learn.
  if (seat.number > seat_) {
    door_ = door;
    seat_ = seat.number;
  }
  return door;
}

std::shared_ptr<DatabaseDoor> MemberDoor::now() {
  const uint64_t number = member_.seat_number();
  {
    MutexLock lock(mutex_);
    if (number == 0 || number == told_) return door_;
  }
  const Member::Seat seat = member_.seat();
  if (seat.link) return door_of(seat);
  if (Result<Current> door = current(std::chrono::steady_clock::now()); door.ok()) return door.value().door;
  MutexLock lock(mutex_);
  return door_;
}

Result<MemberDoor::Current> MemberDoor::current(std::chrono::steady_clock::time_point until) {
  Member::Seat seat = TRY(member_.wait_seat(until));
  const auto is_told = [&] {
    MutexLock lock(mutex_);
    return told_ == seat.number;
  };
  std::shared_ptr<DatabaseDoor> door = door_of(seat);
  if (is_told()) return Current{std::move(door), std::move(seat)};
  MutexLock telling(telling_);
  if (is_told()) return Current{std::move(door), std::move(seat)};
  if (Status told = repeat(*door); !told.ok()) {
    if (told.error().code() == ErrorCode::kCancelled) member_.leave_seat(seat.number);
    return told.error();
  }
  MutexLock lock(mutex_);
  told_ = std::max(told_, seat.number);
  return Current{std::move(door), std::move(seat)};
}

// What a host was told of that has ended.
Status MemberDoor::repeat(DatabaseDoor& door) {
  bool opened, wal_opened;
  {
    MutexLock lock(mutex_);
    opened = opened_;
    wal_opened = wal_opened_;
  }
  if (opened) TRY(door.opened_before());
  if (wal_opened) TRY(door.wal_opened());
  if (*index_users_ > 0) TRY(door.index_mapped());
  return {};
}

template <class Ask>
auto MemberDoor::ask(const Ask& ask) -> decltype(ask(std::declval<DatabaseDoor&>())) {
  auto until = std::chrono::steady_clock::now() + Member::kHostMax;
  for (;;) {
    Result<Current> door = current(until);
    if (!door.ok()) {
      // A host that ended while it was told what it must know.
      if (door.error().code() == ErrorCode::kCancelled && !member_.is_closing()) continue;
      return door.error();
    }
    auto answer = ask(*door.value().door);
    if (answer.ok() || answer.error().code() != ErrorCode::kCancelled) return answer;
    member_.leave_seat(door.value().seat.number);
    until = std::chrono::steady_clock::now() + Member::kHostMax;  // of waiting for the next host
  }
}

// While there is no host, as the last one answered: a commit in the WAL does not wait for the next.
Status MemberDoor::may_write() {
  std::shared_ptr<DatabaseDoor> door = now();
  if (door) return door->may_write();
  return ask([](DatabaseDoor& door) { return door.may_write(); });
}

Status MemberDoor::open(bool create) {
  TRY(ask([&](DatabaseDoor& door) { return door.open(create); }));
  MutexLock lock(mutex_);
  opened_ = true;
  return {};
}

Status MemberDoor::wal_opened() {
  TRY(ask([](DatabaseDoor& door) { return door.wal_opened(); }));
  MutexLock lock(mutex_);
  wal_opened_ = true;
  return {};
}

Status MemberDoor::index_mapped() {
  ++*index_users_;
  Status told = ask([](DatabaseDoor& door) { return door.index_mapped(); });
  if (!told.ok()) --*index_users_;
  return told;
}

Status MemberDoor::index_unmapped() {
  --*index_users_;
  std::shared_ptr<DatabaseDoor> door;
  {
    MutexLock lock(mutex_);
    if (told_ == seat_) door = door_;
  }
  if (!door) return {};
  Status told = door->index_unmapped();
  // The next host finds by itself that it is not in use.
  return !told.ok() && told.error().code() == ErrorCode::kCancelled ? Status() : told;
}

Status MemberDoor::before_index_unlink() {
  return ask([](DatabaseDoor& door) { return door.before_index_unlink(); });
}

void MemberDoor::checkpoint_begins() {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->checkpoint_begins();
}

Result<bool> MemberDoor::before_write(FileKind kind, uint64_t offset_bytes, ByteView data) {
  return ask([&](DatabaseDoor& door) { return door.before_write(kind, offset_bytes, data); });
}

Result<bool> MemberDoor::before_resize(FileKind kind, uint64_t size_bytes) {
  return ask([&](DatabaseDoor& door) { return door.before_resize(kind, size_bytes); });
}

Result<bool> MemberDoor::before_unlink(const FileName& file, bool sync) {
  return ask([&](DatabaseDoor& door) { return door.before_unlink(file, sync); });
}

void MemberDoor::resized(FileKind kind, uint64_t size_bytes) {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->resized(kind, size_bytes);
}

void MemberDoor::unlinked(FileKind kind) {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->unlinked(kind);
}

Result<bool> MemberDoor::before_sync(FileKind kind) {
  return ask([&](DatabaseDoor& door) { return door.before_sync(kind); });
}

void MemberDoor::synced(FileKind kind, const Status& synced) {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->synced(kind, synced);
}

void MemberDoor::write_locked() {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->write_locked();
}

void MemberDoor::write_unlocked() {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->write_unlocked();
}

void MemberDoor::commit_frame_written() {
  if (std::shared_ptr<DatabaseDoor> door = now()) door->commit_frame_written();
}

}  // namespace litefs
