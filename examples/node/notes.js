// Notes on two nodes: a primary, which takes them, and a replica, which has its own live copy.
//
//   npm install
//   node notes.js                                              with litefs_vfs.so installed
//   LITEFS_EXTENSION=../../build/vfs/litefs_vfs node notes.js  with the one of a build
//
// better-sqlite3 has an SQLite of its own inside, and opens no URIs. So the VFS is made the default (LITEFS_DEFAULT=1),
// and a database is opened by its name alone. Here both nodes are processes of this machine, in a directory that is
// removed at the end. It exits with 0 if all went as told.
'use strict';

const { fork } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const Database = require('better-sqlite3');

const WAIT_MS = 10000;

// Starts the node of the file that LITEFS_CONFIG names. This connection can ask about it, and so can all later ones.
function loadLitefs() {
  const connection = new Database(':memory:');
  connection.loadExtension(process.env.LITEFS_EXTENSION || 'litefs_vfs');
  return connection;
}

function primary() {
  loadLitefs();
  const notes = new Database('notes.db');
  notes.pragma('journal_mode = WAL');
  notes.transaction(() => {
    notes.exec('CREATE TABLE note(text)');
    const insert = notes.prepare('INSERT INTO note VALUES(?)');
    for (const text of ['buy milk', 'water the plants']) insert.run(text);
  })();
  const now = notes.prepare('SELECT litefs_role() AS role, litefs_position() AS position').get();
  console.log(`the ${now.role} has taken 2 notes, and is at ${now.position}`);
  process.send(now.position);
  process.on('message', () => process.exit(0));
}

function replica() {
  const node = loadLitefs();
  process.on('message', (position) => {
    // Whoever has written there wants to read it here: wait for that very state. (A server would wait in a worker
    // thread, as nothing else runs on this one meanwhile.)
    const arrived = node.prepare("SELECT litefs_wait(?, ?, 'notes.db')").pluck().get(position, WAIT_MS);
    if (!arrived) throw new Error('the notes did not arrive');
    const notes = new Database('notes.db');
    const now = notes.prepare('SELECT litefs_role() AS role, litefs_lag() AS lag').get();
    const texts = notes.prepare('SELECT text FROM note').pluck().all();
    console.log(`the ${now.role}, ${now.lag} ms behind, reads ${JSON.stringify(texts)}`);
    try {
      notes.exec("INSERT INTO note VALUES('not here')");
    } catch (error) {
      const host = notes.prepare('SELECT litefs_primary()').pluck().get();
      console.log(`a write on it fails (${error.message}): the primary is ${host}`);
      process.exit(0);
    }
    throw new Error('the replica took a write');
  });
}

function writeConfig(directory, name, address, primaryAddress) {
  const file = path.join(directory, `${name}.yml`);
  fs.writeFileSync(file, [
    'data:', `  dir: "${directory}/${name}"`,
    'http:', `  addr: "${address}"`,
    'lease:', '  type: static', `  hostname: ${name}`, `  candidate: ${name === 'primary'}`,
    `  advertise-url: "http://${primaryAddress}"`, ''].join('\n'));
  return file;
}

function freeAddress() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = `127.0.0.1:${probe.address().port}`;
      probe.close(() => resolve(address));
    });
  });
}

function start(role, config) {
  return fork(__filename, [role], { env: { ...process.env, LITEFS_CONFIG: config, LITEFS_DEFAULT: '1' } });
}

function ended(child) {
  return new Promise((resolve) => child.on('exit', (code) => resolve(code)));
}

async function main() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'litefs-notes-'));
  try {
    const address = await freeAddress();
    const first = start('primary', writeConfig(directory, 'primary', address, address));
    const second = start('replica', writeConfig(directory, 'replica', '127.0.0.1:0', address));
    const ends = [ended(first), ended(second)];
    first.on('message', (position) => second.send(position));
    // A node that fails takes the other one with it.
    first.on('exit', () => second.kill());
    second.on('exit', () => first.connected && first.send('done'));
    const codes = await Promise.all(ends);
    return codes.every((code) => code === 0) ? 0 : 1;
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

const roles = { primary, replica };
if (process.argv[2] in roles) {
  roles[process.argv[2]]();
} else {
  main().then((code) => process.exit(code));
}
