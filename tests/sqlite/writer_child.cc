// The child that applies transactions until it is killed.
#include <unistd.h>

#include <iostream>
#include <string>

#include "child.h"
#include "history.h"

namespace litefs::test {

// writer SOURCE_WAL DATABASE PAGE_SIZE FIRST SEED: applies SOURCE_WAL's transactions from number
// FIRST on, one byte of output after each; aborts transactions and checkpoints now and then. At the
// end it waits.
int writer_main(const std::vector<std::string>& arguments) {
  std::vector<Transaction> transactions = read_transactions(arguments.at(0));
  uint32_t page_size = static_cast<uint32_t>(std::stoul(arguments.at(2)));
  std::mt19937_64 random(std::stoull(arguments.at(4)));
  auto attached = attach_writer(arguments.at(1), page_size);
  if (!attached.ok()) {
    std::cerr << "writer: " << attached.error().message() << std::endl;
    return 1;
  }
  WalWriter& writer = *attached.value();
  for (size_t i = std::stoul(arguments.at(3)); i < transactions.size(); ++i) {
    if (random() % 10 == 0) {
      const Transaction& other = transactions[random() % transactions.size()];
      writer.begin().value();
      for (const auto& [pgno, page] : other.frames) writer.add_page(pgno, page).value();
      writer.abort();
    }
    apply(writer, transactions[i]);
    if (write(1, ".", 1) != 1) return 1;
    if (random() % 20 == 0) (void)writer.checkpoint(random() % 4 == 0);
  }
  std::cin.get();
  return 0;
}

}  // namespace litefs::test
