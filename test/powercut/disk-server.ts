// A disk that remembers: `disk-server.ts IMAGE LOG MOUNTPOINT FLUSH_MS BYTES_PER_MS`. Serves IMAGE over FUSE as the one file MOUNTPOINT,
// and appends every write and flush to LOG before it acknowledges it. A flush takes FLUSH_MS and writes take their time too, as on a
// real disk. One request at a time, so LOG is the order in which they happened. A program of its own, because a process that waits for its own disk in the kernel would wait for ever.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fstatSync, openSync, readSync, writeSync } from 'node:fs';
import {
  REQUEST_BYTES,
  answer,
  attributesBody,
  initBody,
  openBody,
  parseData,
  parseRange,
  parseRequest,
  refusal,
  statfsBody,
  writtenBody,
} from './fuse-frames.ts';
import type { FuseRequest } from './fuse-frames.ts';
import { appendEntry } from './write-log.ts';

const [image_path, log_path, mountpoint, flush_ms, bytes_per_ms] = process.argv.slice(2);
if (bytes_per_ms === undefined)
  throw new Error('usage: disk-server.ts IMAGE LOG MOUNTPOINT FLUSH_MS BYTES_PER_MS');
const never = new Int32Array(new SharedArrayBuffer(4));
const image = openSync(image_path!, 'r+');
const log = openSync(log_path!, 'a');
const { size } = fstatSync(image);
const kernel = openSync('/dev/fuse', 'r+');
const options = 'fd=3,rootmode=100600,user_id=0,group_id=0';
// Not waited for: mounting asks us questions already. When it fails, the first read below does.
spawn('mount', ['-i', '-t', 'fuse', '-o', options, 'layerswarm-disk', mountpoint!], {
  stdio: ['ignore', 'inherit', 'inherit', kernel],
});
const buffer = Buffer.allocUnsafeSlow(REQUEST_BYTES);
for (let length = nextRequest(); length > 0; length = nextRequest()) {
  const reply = serve(parseRequest(buffer, length));
  if (reply !== undefined) send(reply);
}

/** Bytes of the next request, 0 once the file is unmounted. */
function nextRequest(): number {
  for (;;) {
    try {
      return readSync(kernel, buffer);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENODEV') return 0;
      // EPERM: not mounted yet. ENOENT and EINTR: the asker took its question back.
      if (code !== 'ENOENT' && code !== 'EINTR' && code !== 'EAGAIN' && code !== 'EPERM')
        throw error;
      if (code === 'EPERM') stand(5);
    }
  }
}

/** Stands still: nothing else is served meanwhile. */
function stand(ms: number): void {
  Atomics.wait(never, 0, 0, ms);
}

function send(reply: Buffer): void {
  try {
    writeSync(kernel, reply);
  } catch (error) {
    // The asker was interrupted.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Does what is asked; undefined when no answer is wanted. */
function serve({ operation, unique, body }: FuseRequest): Buffer | undefined {
  switch (operation) {
    case 'init':
      return answer(unique, initBody(body));
    case 'getattr':
      return answer(unique, attributesBody(size));
    case 'open':
      return answer(unique, openBody());
    case 'statfs':
      return answer(unique, statfsBody());
    case 'read': {
      const { offset, length } = parseRange(body);
      const data = Buffer.alloc(length);
      return answer(unique, data.subarray(0, readSync(image, data, 0, length, offset)));
    }
    case 'write': {
      const { offset } = parseRange(body);
      const data = parseData(body);
      writeSync(image, data, 0, data.length, offset);
      stand(data.length / Number(bytes_per_ms));
      appendEntry(log, offset, data);
      return answer(unique, writtenBody(data.length));
    }
    case 'fsync':
      stand(Number(flush_ms));
      appendEntry(log, 0, undefined);
      return answer(unique);
    case 'flush':
    case 'release':
    case 'destroy':
      return answer(unique);
    case 'forget':
    case 'batch_forget':
    case 'interrupt':
      return undefined;
    case undefined:
      return refusal(unique, constants.errno.ENOSYS);
  }
}
