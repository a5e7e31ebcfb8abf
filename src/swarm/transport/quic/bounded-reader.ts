import { type Stream, type StreamMessageEvent, StreamResetError } from '@libp2p/interface';

type Chunk = StreamMessageEvent['data'];

/**
 * The stream's bytes in order, for a consumer that may be slow: the stream is paused while `limitBytes` or more wait
 * here, so at most that much plus one native read is ever held. Throws the stream's error when it is aborted or reset,
 * also when that happened before the iteration began: a truncated stream never looks complete. Leaving the loop early
 * puts the bytes that were not taken back into the stream and leaves it open.
 */
export async function* readBounded(stream: Stream, limitBytes: number): AsyncGenerator<Chunk> {
  const queue: Chunk[] = [];
  let held = 0;
  let failure: Error | undefined = hasFailed(stream) ? new StreamResetError() : undefined;
  let wake: (() => void) | undefined;

  const onMessage = ({ data }: StreamMessageEvent): void => {
    queue.push(data);
    held += data.byteLength;
    if (held >= limitBytes && stream.readStatus === 'readable') stream.pause();
    wake?.();
  };
  const onEnd = (): void => wake?.();
  const onClose = (event: { error?: Error }): void => {
    failure = event.error;
    wake?.();
  };
  stream.addEventListener('message', onMessage);
  stream.addEventListener('end', onEnd);
  stream.addEventListener('close', onClose);
  try {
    for (;;) {
      if (failure !== undefined) throw failure;
      const chunk = queue.shift();
      if (chunk !== undefined) {
        held -= chunk.byteLength;
        yield chunk;
      } else if (stream.readableEnded && !hasFailed(stream)) {
        return;
      } else if (stream.readStatus === 'paused') {
        stream.resume();
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    stream.removeEventListener('message', onMessage);
    stream.removeEventListener('end', onEnd);
    stream.removeEventListener('close', onClose);
    giveBack(stream, queue);
  }
}

/** An aborted or reset stream dispatches 'end' too, shortly before the 'close' event that brings its error. */
function hasFailed(stream: Stream): boolean {
  return stream.status === 'aborted' || stream.status === 'reset';
}

function giveBack(stream: Stream, queue: Chunk[]): void {
  if (stream.readStatus !== 'readable' && stream.readStatus !== 'paused') return;
  for (const chunk of queue.reverse()) stream.unshift(chunk);
  if (stream.readStatus === 'paused') stream.resume();
}
