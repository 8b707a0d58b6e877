# SQLite's test programs, file by file, so that a compiler's cache and several cores are of use (its own rules compile
# each program in one command). Runs where SQLite has been configured; see build.
include Makefile

SUITE_CFLAGS = -O1 -g1 -fPIC -w -DSQLITE_OS_UNIX=1 -DSQLITE_EXTRA_INIT=litefs_suite_init $(ADD_CFLAGS)
# TCC without the flags that configure chose for speed.
SUITE_TCC = $(filter-out -O% -g,$(TCC)) $(SUITE_CFLAGS)
LITEFS_LIBS = $(LITEFS_LIBRARY) -Wl,-rpath,$(dir $(LITEFS_LIBRARY)) $(TLIBS) -lpthread -ldl $(ADD_LDFLAGS)

SUITE_OBJECTS = $(patsubst %.c,suite_%.o,$(notdir $(filter %.c,$(TESTFIXTURE_SRC))))
vpath %.c $(sort $(dir $(filter %.c,$(TESTFIXTURE_SRC)))) $(TOP)/test $(TOP)/mptest

suite: suite_testfixture suite_mptester suite_threadtest3 suite_kvtest suite_speedtest1 suite_aside.so

suite_%.o: %.c sqlite3.c sqlite3.h
	$(SUITE_TCC) -DSQLITE_NO_SYNC=1 $(TEMP_STORE) $(TESTFIXTURE_FLAGS) -c -o $@ $<

suite_node.o: $(SUITE)/node.c
	$(CC) $(SUITE_CFLAGS) -I. -I$(LITEFS_INCLUDE) -c -o $@ $<

suite_testfixture: $(SUITE_OBJECTS) suite_node.o $(LITEFS_LIBRARY)
	$(CC) -o $@ $(SUITE_OBJECTS) suite_node.o $(LIBTCL) $(LITEFS_LIBS)

# The others, with a library that has no test code in it.
plain_%.o: %.c sqlite3.c sqlite3.h
	$(SUITE_TCC) -c -o $@ $<

suite_mptester suite_kvtest suite_speedtest1: suite_%: plain_%.o plain_sqlite3.o suite_node.o $(LITEFS_LIBRARY)
	$(CC) -o $@ $(filter %.o,$^) $(LITEFS_LIBS)

suite_threadtest3: plain_threadtest3.o plain_test_multiplex.o plain_sqlite3.o suite_node.o $(LITEFS_LIBRARY)
	$(CC) -o $@ $(filter %.o,$^) $(LITEFS_LIBS)

plain_mptester.o: $(TOP)/mptest/mptest.c sqlite3.h
	$(SUITE_TCC) -c -o $@ $<

suite_aside.so: $(SUITE)/aside.c
	$(CC) -O1 -Wall -Wextra -fPIC -shared -o $@ $< -ldl

# It is there, with the folder of its objects beside it, which make would take for a Pascal program to build it from.
$(LITEFS_LIBRARY): ;

.SECONDARY:
