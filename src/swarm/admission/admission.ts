import { randomBytes } from 'node:crypto';
import type { Stream } from '@libp2p/interface';
import { DaemonError } from '../../base/errors.ts';
import {
  ADMISSION_HEADER_BYTES,
  ADMISSION_RESULTS,
  type AdmissionType,
  decodeAdmissionHeader,
  encodeAdmission,
  NONCE_BYTES,
  proofMessage,
} from './admission-protocol.ts';
import type { ClusterKeys } from './cluster-key.ts';
import { FramedStream } from '../transport/framed-stream.ts';

/** Frames that may lie unread: the conversation never has more than two in one direction. */
const MAX_UNREAD_FRAMES = 3;

type Ends = {
  readonly keys: ClusterKeys;
  readonly self: string;
  readonly peer: string;
  readonly signal: AbortSignal;
};

/** Frames of one admission stream, in order. */
class AdmissionChannel {
  readonly #frames: { type: AdmissionType; body: Uint8Array }[] = [];
  readonly #framed: FramedStream;
  readonly #signal: AbortSignal;
  #wake: () => void = () => undefined;

  constructor(stream: Stream, signal: AbortSignal) {
    this.#signal = signal;
    this.#framed = new FramedStream(stream, {
      header_bytes: ADMISSION_HEADER_BYTES,
      onHeader: (header) => {
        const { type, length } = decodeAdmissionHeader(header);
        if (this.#frames.length >= MAX_UNREAD_FRAMES) {
          throw new DaemonError('protocol_error', 'the peer sent too many admission frames');
        }
        const body = new Uint8Array(length);
        return {
          length,
          target: body,
          done: () => {
            this.#frames.push({ type, body });
            this.#wake();
          },
        };
      },
      onEnd: () => this.#wake(),
    });
  }

  send(type: AdmissionType, body: Uint8Array): void {
    this.#framed.sendNow(encodeAdmission(type, body));
  }

  sendResult(result: (typeof ADMISSION_RESULTS)[number]): void {
    this.send('result', Uint8Array.of(ADMISSION_RESULTS.indexOf(result)));
  }

  /** The next frame. A result in another frame's place is the peer's refusal and is thrown as such. */
  async next(want: AdmissionType): Promise<Uint8Array> {
    while (this.#frames.length === 0) {
      this.#signal.throwIfAborted();
      this.#framed.signal.throwIfAborted();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#signal.addEventListener('abort', () => resolve(), { once: true });
      });
    }
    const frame = this.#frames.shift()!;
    if (frame.type === 'result' && ADMISSION_RESULTS[frame.body[0]!] !== 'ok') {
      throw refused(
        ADMISSION_RESULTS[frame.body[0]!] === 'wrong_key' ? 'wrong_key' : 'protocol_version',
      );
    }
    if (frame.type !== want) {
      throw new DaemonError('protocol_error', 'the peer broke the order of admission frames');
    }
    return frame.body;
  }
}

function refused(reason: 'wrong_key' | 'protocol_version'): DaemonError {
  return reason === 'wrong_key'
    ? new DaemonError(
        'permission_denied',
        'The peer and this host have no cluster key in common.',
        { reason },
      )
    : new DaemonError('protocol_error', 'The peer speaks another version of admission.', {
        reason,
      });
}

/**
 * The dialer's half: resolves when the listener has proved the cluster key, and the listener knows that we have. From
 * then on either may open streams. `permission_denied` (no key in common), `protocol_error`, or the signal's reason.
 */
export async function admitAsDialer(stream: Stream, ends: Ends): Promise<void> {
  const channel = new AdmissionChannel(stream, ends.signal);
  const dialer_nonce = randomBytes(NONCE_BYTES);
  channel.send('nonce', dialer_nonce);
  const listener_nonce = await channel.next('nonce');
  refuseEcho(dialer_nonce, listener_nonce);
  const nonces = { dialer_nonce, listener_nonce };
  channel.send(
    'proof',
    ends.keys.prove(
      proofMessage({ role: 'dialer', prover: ends.self, verifier: ends.peer, ...nonces }),
    ),
  );
  const proofs = await channel.next('proof');
  const message = proofMessage({
    role: 'listener',
    prover: ends.peer,
    verifier: ends.self,
    ...nonces,
  });
  if (!ends.keys.verify(message, proofs)) {
    channel.sendResult('wrong_key');
    throw refused('wrong_key');
  }
  channel.sendResult('ok');
}

/**
 * The listener's half. `onProved` is called when the dialer has proved the key: its streams are served from then on;
 * ours may be opened when the promise resolves, because only then the dialer has verified us. Errors as for the dialer.
 */
export async function admitAsListener(
  stream: Stream,
  ends: Ends & { readonly onProved: () => void },
): Promise<void> {
  const channel = new AdmissionChannel(stream, ends.signal);
  const dialer_nonce = await channel.next('nonce');
  const listener_nonce = randomBytes(NONCE_BYTES);
  const nonces = { dialer_nonce, listener_nonce };
  channel.send('nonce', listener_nonce);
  const proofs = await channel.next('proof');
  const message = proofMessage({
    role: 'dialer',
    prover: ends.peer,
    verifier: ends.self,
    ...nonces,
  });
  if (!ends.keys.verify(message, proofs)) {
    channel.sendResult('wrong_key');
    throw refused('wrong_key');
  }
  ends.onProved();
  channel.send(
    'proof',
    ends.keys.prove(
      proofMessage({ role: 'listener', prover: ends.self, verifier: ends.peer, ...nonces }),
    ),
  );
  await channel.next('result');
}

function refuseEcho(mine: Uint8Array, theirs: Uint8Array): void {
  if (Buffer.compare(mine, theirs) === 0) {
    throw new DaemonError('protocol_error', 'the peer sent our own nonce back');
  }
}
