// Makes the image of a disk after a power cut: `cut-disk.ts BASE LOG OUT CUT`, CUT being a `Cut` as JSON. A program of its own, since
// OUT lies in memory that only programs of the lab host see.
import { copyFileSync, openSync, readSync, writeSync } from 'node:fs';
import { keptWrites } from './cut.ts';
import type { Cut } from './cut.ts';
import { readEntries } from './write-log.ts';

const [base, log_path, out_path, text] = process.argv.slice(2);
if (text === undefined) throw new Error('usage: cut-disk.ts BASE LOG OUT CUT');
copyFileSync(base!, out_path!);
const log = openSync(log_path!, 'r');
const out = openSync(out_path!, 'r+');
for (const { offset, length, data } of keptWrites(readEntries(log), JSON.parse(text) as Cut)) {
  const bytes = Buffer.allocUnsafe(length);
  readSync(log, bytes, 0, length, data);
  writeSync(out, bytes, 0, length, offset);
}
