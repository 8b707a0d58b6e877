"""The loadable extension in real programs: Python's sqlite3 module, and the sqlite3 shell.

Arguments: the extension, then unittest's. Ends with 77 where Python's sqlite3 cannot load extensions.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest

from extension_fixture import Node, address_in, write_config

WAIT_MS = 20000
extension = ""


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="litefs-test-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def node(self, name, **environment):
        node = Node(extension, os.path.join(self.directory, name), **environment)
        self.addCleanup(node.clean_up)
        return node

    def config(self, name, *arguments, **options):
        return write_config(os.path.join(self.directory, name), *arguments, **options)

    def start_primary(self, **environment):
        return self.node("first", LITEFS_CONFIG=self.config("first", True), **environment).load()

    def start_pair(self):
        primary = self.start_primary()
        address = address_in(primary.log_path)
        # From here on it must be found where it is, after a restart too.
        self.config("first", True, listen=address, primary=address)
        replica = self.node("second", LITEFS_CONFIG=self.config("second", False, primary=address)).load()
        return primary, replica


class PairTest(Case):
    def test_functions_and_tables_tell_of_both_nodes(self):
        primary, replica = self.start_pair()
        primary.open()
        primary.sql("PRAGMA journal_mode=WAL")
        primary.sql("CREATE TABLE t(x)")
        # A transaction that is open is in no position yet, and asking for one does not wait for it.
        before = primary.value("SELECT litefs_txid()")
        primary.sql("BEGIN IMMEDIATE")
        primary.sql("INSERT INTO t VALUES('hello')")
        self.assertEqual(primary.value("SELECT litefs_txid()"), before)
        primary.sql("COMMIT")
        self.assertEqual(primary.value("SELECT litefs_txid()"), before + 1)
        position = primary.value("SELECT litefs_position()")
        self.assertRegex(position, "^%016x/[0-9a-f]{16}$" % (before + 1))
        self.assertEqual(primary.value("SELECT litefs_position('app.db')"), position)

        wait = "SELECT litefs_wait('%s', %d, 'app.db')" % (position, WAIT_MS)
        self.assertEqual(replica.value(wait, "loader"), 1)
        replica.open()
        self.assertEqual(replica.value("SELECT litefs_position()"), position)
        self.assertEqual(replica.sql("SELECT * FROM t"), [["hello"]])
        self.assertEqual(primary.sql("SELECT litefs_role(), litefs_primary(), litefs_lag()"), [["primary", None, 0]])
        self.assertEqual(replica.sql("SELECT litefs_role(), litefs_primary(), litefs_lag() >= 0"),
                         [["replica", "first", 1]])

        columns = "name, state, detail, epoch, txid, checksum, position, page_size, size_bytes, log_bytes > 0"
        rows = primary.sql("SELECT %s FROM litefs_databases" % columns, "loader")
        self.assertEqual(rows, [["app.db", "ready", "", 1, before + 1, position[17:], position, 4096, 8192, 1]])
        self.assertEqual(replica.sql("SELECT %s FROM litefs_databases" % columns), rows)
        self.assertEqual(replica.sql("SELECT * FROM litefs_replicas"), [])
        self.assertEqual(
            primary.sql("SELECT hostname, address LIKE '127.0.0.1:%', length(node_id), "
                        "abs(connected_since_ms / 1000 - strftime('%s')) < 600, database FROM litefs_replicas"),
            [["second", 1, 16, 1, "app.db"]])

    def test_a_wait_ends_with_the_transaction_that_it_waits_for(self):
        primary, replica = self.start_pair()
        primary.open().sql("CREATE TABLE t(x)")
        txid = primary.value("SELECT litefs_txid()")
        self.assertEqual(replica.value("SELECT litefs_wait(%d, %d, 'app.db')" % (txid, WAIT_MS), "loader"), 1)
        replica.open()
        self.assertEqual(replica.value("SELECT litefs_wait(%d, 1)" % (txid + 1)), 0)
        replica.send("sql", "c", "SELECT litefs_wait(%d, %d)" % (txid + 1, WAIT_MS))
        primary.sql("INSERT INTO t VALUES(1)")
        self.assertEqual(replica.receive(), [[1]])
        self.assertEqual(replica.sql("SELECT * FROM t"), [[1]])
        other = "%016x/%016x" % (txid + 1, 1)
        self.assertIn("has not been at " + other, replica.error("sql", "c", "SELECT litefs_wait('%s', 1)" % other))

    def test_a_refused_write_tells_who_takes_it(self):
        primary, replica = self.start_pair()
        primary.open().sql("CREATE TABLE t(x)")
        replica.value("SELECT litefs_wait(1, %d, 'app.db')" % WAIT_MS, "loader")
        replica.open()
        self.assertIsNone(replica.value("SELECT litefs_message()"))
        self.assertIn("readonly", replica.error("sql", "c", "INSERT INTO t VALUES(1)"))
        self.assertRegex(replica.value("SELECT litefs_message()"), "this node is a replica; the primary is first ")
        self.assertEqual(replica.sql("SELECT * FROM t"), [])

    def test_a_program_that_ends_with_open_connections_loses_nothing(self):
        for mode in ("WAL", "DELETE"):
            with self.subTest(mode):
                primary, replica = self.start_pair()
                primary.open().sql("PRAGMA journal_mode=" + mode)
                primary.sql("CREATE TABLE IF NOT EXISTS t(x)")
                txid = primary.do("end", "c", "INSERT INTO t VALUES('last')")[0][0]
                primary.join()
                # The replica has it from the node that has ended.
                self.assertEqual(replica.value("SELECT litefs_wait(%d, %d, 'app.db')" % (txid, WAIT_MS), "loader"), 1)
                self.assertEqual(replica.open().sql("SELECT x FROM t"), [["last"]])
                again = self.node("first", LITEFS_CONFIG=os.path.join(primary.directory, "litefs.yml")).load().open()
                self.assertEqual(again.sql("SELECT x FROM t"), [["last"]])
                self.assertEqual(again.sql("PRAGMA integrity_check"), [["ok"]])
                again.sql("INSERT INTO t VALUES('next')")
                position = again.value("SELECT litefs_position()")
                self.assertEqual(replica.value("SELECT litefs_wait('%s', %d)" % (position, WAIT_MS)), 1)
                self.assertEqual(replica.sql("SELECT count(*) FROM flood"), again.sql("SELECT count(*) FROM flood"))
                again.stop()
                replica.stop()
                shutil.rmtree(os.path.join(self.directory, "first"))
                shutil.rmtree(os.path.join(self.directory, "second"))


class LoadTest(Case):
    def test_a_database_by_its_name_alone_where_it_is_the_default(self):
        node = self.start_primary(LITEFS_DEFAULT="1").open(name="plain.db")
        node.sql("CREATE TABLE t(x)")
        self.assertEqual(node.value("SELECT litefs_txid()"), 1)
        self.assertEqual(node.value("SELECT file FROM pragma_database_list"), node.directory + "/data/db/plain.db")
        node.do("load", "again")
        self.assertEqual(node.open("d", "plain.db").value("SELECT litefs_txid()", "d"), 1)
        node.open("elsewhere", "file:%s/elsewhere?vfs=unix" % self.directory).sql("CREATE TABLE t(x)", "elsewhere")
        self.assertIn("main database is none", node.error("sql", "elsewhere", "SELECT litefs_txid()"))
        self.assertEqual(node.value("SELECT litefs_txid('plain.db')", "elsewhere"), 1)
        self.assertIn("unable to open", node.error("open", "outside", self.directory + "/outside"))
        self.assertIn("does not lie in " + node.directory, node.value("SELECT litefs_message()"))
        node.stop()

    def test_loading_it_again_changes_nothing(self):
        node = self.start_primary().open()
        node.sql("CREATE TABLE t(x)")
        node.do("load", "other")
        node.do("load", "loader")
        self.assertEqual(node.do("load_in_threads", 8), [])
        self.assertEqual(node.sql("SELECT litefs_role(), litefs_txid()"), [["primary", 1]])
        node.stop()
        # Nobody has loaded it before these do, all at once.
        config = os.path.join(node.directory, "litefs.yml")
        node = self.node("first", LITEFS_CONFIG=config)
        self.assertEqual(node.do("load_in_threads", 8), [])
        self.assertEqual(node.open().value("SELECT litefs_txid()"), 1)
        node.stop()

    def test_another_sqlite_of_the_process_is_refused(self):
        node = self.start_primary().open()
        with open("/proc/%d/maps" % node.process.pid) as maps:
            libraries = {line.split()[-1] for line in maps if "/libsqlite3.so" in line}
        if not libraries:
            self.skipTest("this Python has SQLite inside")
        other = shutil.copy(libraries.pop(), os.path.join(self.directory, "other.so"))
        code, message = node.do("load_in_another_sqlite", other)
        self.assertNotEqual(code, 0)
        self.assertIn("another SQLite library in this process has loaded it already", message)
        node.sql("CREATE TABLE t(x)")
        self.assertEqual(node.value("SELECT litefs_txid()"), 1)
        node.stop()

    def test_what_is_wrong_with_the_configuration_is_said(self):
        self.config("first", True)
        path = os.path.join(self.directory, "first", "litefs.yml")
        missing = self.node("first", LITEFS_CONFIG=path + "x")
        self.assertRegex(missing.error("load", "c"), "LITEFS_CONFIG: .*litefs.ymlx")
        with open(path, "a") as out:
            out.write("nonsense: 1\n")
        self.assertRegex(self.node("first", LITEFS_CONFIG=path).error("load", "c"), "litefs.yml:10.*nonsense")
        self.config("first", True)
        wrong = self.node("first", LITEFS_CONFIG=path, LITEFS_DEFAULT="yes")
        self.assertIn("LITEFS_DEFAULT is 'yes'", wrong.error("load", "c"))

    def test_several_processes_have_one_data_directory(self):
        first = self.start_primary().open()
        second = self.node("first", LITEFS_CONFIG=os.path.join(first.directory, "litefs.yml")).load().open()
        first.sql("CREATE TABLE t(x)")
        second.sql("INSERT INTO t VALUES(1)")
        ask = "SELECT litefs_role(), litefs_txid(), litefs_position(), litefs_wait(2, 0), litefs_lag(), count(*) FROM t"
        self.assertEqual(first.sql(ask)[0][:2], ["primary", 2])
        self.assertEqual(second.sql(ask), first.sql(ask))
        for table in ("litefs_databases", "litefs_replicas"):
            self.assertEqual(second.sql("SELECT * FROM " + table), first.sql("SELECT * FROM " + table))
        # Who runs the node ends, with connections open, or is killed; the other goes on.
        third = self.node("first", LITEFS_CONFIG=os.path.join(first.directory, "litefs.yml")).load().open()
        first.stop()
        second.sql("INSERT INTO t VALUES(2)")
        third.sql("INSERT INTO t VALUES(3)")
        second.process.kill()
        third.sql("INSERT INTO t VALUES(4)")
        self.assertEqual(third.sql("SELECT litefs_role(), litefs_txid(), count(*) FROM t"), [["primary", 5, 4]])
        third.stop()

    def test_the_first_open_may_name_the_configuration(self):
        path = self.config("first", True)
        other = self.config("other", True)
        node = self.node("first").load()
        self.assertIn("set LITEFS_CONFIG", node.error("sql", "loader", "SELECT litefs_role()"))
        self.assertIn("set LITEFS_CONFIG", node.error("sql", "loader", "SELECT * FROM litefs_databases"))
        self.assertIn("unable to open", node.error("open", "c", "file:app.db?vfs=litefs"))
        self.assertIn("set LITEFS_CONFIG", node.value("SELECT litefs_message()", "loader"))
        self.assertIn("unable to open", node.error("open", "c", "file:app.db?vfs=litefs&litefs_config=%sx" % path))
        self.assertIn("litefs.ymlx", node.value("SELECT litefs_message()", "loader"))
        node.open(name="file:app.db?vfs=litefs&litefs_config=" + path).sql("CREATE TABLE t(x)")
        node.open("d").open("e", "file:app.db?vfs=litefs&litefs_config=" + path)
        self.assertEqual(node.value("SELECT litefs_txid()", "d"), 1)
        self.assertIn("unable to open", node.error("open", "f", "file:app.db?vfs=litefs&litefs_config=" + other))
        self.assertIn("the node of this process is that of " + path, node.value("SELECT litefs_message()"))
        node.stop()

    def test_wrong_arguments_are_told_of(self):
        node = self.start_primary().open()
        node.sql("CREATE TABLE t(x)")
        for call, said in (("litefs_txid('none.db')", "none.db"), ("litefs_txid(NULL)", "NULL"),
                           ("litefs_position('none.db')", "none.db"), ("litefs_wait('x', 1)", "neither"),
                           ("litefs_wait(NULL, 1)", "neither"), ("litefs_wait(-1, 1)", "negative"),
                           ("litefs_wait(1.5, 1)", "neither"), ("litefs_wait(1, -1)", "milliseconds"),
                           ("litefs_wait(1, 'soon')", "milliseconds"), ("litefs_wait(1, 5000000000)", "milliseconds"),
                           ("litefs_wait(1, 1, NULL)", "NULL"), ("litefs_role(1)", "wrong number")):
            self.assertIn(said, node.error("sql", "c", "SELECT " + call), call)
        self.assertEqual(node.sql("SELECT litefs_wait('1', '0'), litefs_wait(1.0, 0.0)"), [[1, 1]])

    def test_a_forked_process_is_told_and_ends_by_itself(self):
        node = self.start_primary().open()
        node.sql("CREATE TABLE t(x)")
        *errors, status = node.do("fork", "c", "loader")
        self.assertEqual(status, 0)
        self.assertEqual(len(errors), 5)
        for error in errors:
            self.assertNotIn("no error", error)
        for error in errors[1:3] + errors[4:]:
            self.assertIn("forked", error)
        node.sql("INSERT INTO t VALUES(1)")
        self.assertEqual(node.value("SELECT litefs_txid()"), 2)
        node.stop()


class ShellTest(Case):
    def test_the_shell_loads_it(self):
        shell = shutil.which("sqlite3")
        if not shell:
            self.skipTest("there is no sqlite3 shell")
        script = (".load %s\n.open file:app.db?vfs=litefs\nCREATE TABLE IF NOT EXISTS t(x);\nINSERT INTO t VALUES(1);\n"
                  "SELECT litefs_role(), litefs_txid(), count(*) FROM t;\n" % os.path.splitext(extension)[0])
        environment = {**os.environ, "LITEFS_CONFIG": self.config("first", True)}
        for expected in ("primary|2|1\n", "primary|3|2\n"):
            done = subprocess.run([shell, "-batch"], input=script, capture_output=True, text=True, timeout=60,
                                  env=environment)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, expected, ""))


if __name__ == "__main__":
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        print("skipped: this Python's sqlite3 module cannot load extensions: " + sys.executable)
        sys.exit(77)
    extension = sys.argv.pop(1)
    unittest.main(verbosity=2)
