import { createHash } from 'node:crypto';
import { DaemonError } from '../../base/errors.ts';
import { PROOF_BYTES } from './cluster-key.ts';
import { WIRE_VERSION } from '../ground/limits.ts';

/** Bytes of a nonce. */
export const NONCE_BYTES = 32;
/** Fixed header: version, type, body length (16 bits). */
export const ADMISSION_HEADER_BYTES = 4;

const TYPES = ['nonce', 'proof', 'result'] as const;
export type AdmissionType = (typeof TYPES)[number];

/** What one side tells the other at the end. */
export const ADMISSION_RESULTS = ['ok', 'wrong_key', 'protocol_version'] as const;

export function encodeAdmission(type: AdmissionType, body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(ADMISSION_HEADER_BYTES + body.length);
  frame.set([WIRE_VERSION, TYPES.indexOf(type), body.length >> 8, body.length & 255]);
  frame.set(body, ADMISSION_HEADER_BYTES);
  return frame;
}

/** `protocol_error`; with `reason: 'protocol_version'` when the peer speaks another version. */
export function decodeAdmissionHeader(header: Uint8Array): {
  readonly type: AdmissionType;
  readonly length: number;
} {
  if (header[0] !== WIRE_VERSION) {
    throw new DaemonError('protocol_error', 'the peer speaks another version of admission', {
      reason: 'protocol_version',
      version: header[0],
    });
  }
  const type = TYPES[header[1]!];
  const length = (header[2]! << 8) | header[3]!;
  const right =
    type === 'nonce'
      ? length === NONCE_BYTES
      : type === 'proof'
        ? length === PROOF_BYTES || length === 2 * PROOF_BYTES
        : type === 'result' && length === 1;
  if (type === undefined || !right) {
    throw new DaemonError('protocol_error', 'the peer sent a malformed admission frame');
  }
  return { type, length };
}

/**
 * What a proof signs: everything that makes it worthless elsewhere. The role keeps a proof from being sent back to its
 * maker, the peer ids bind it to this encrypted connection's ends, the nonces to this very conversation.
 */
export function proofMessage(facts: {
  readonly role: 'dialer' | 'listener';
  readonly prover: string;
  readonly verifier: string;
  readonly dialer_nonce: Uint8Array;
  readonly listener_nonce: Uint8Array;
}): Uint8Array {
  const hash = createHash('sha256');
  const parts = [
    'layerswarm admission',
    String(WIRE_VERSION),
    facts.role,
    facts.prover,
    facts.verifier,
  ];
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:${part}`);
  return hash.update(facts.dialer_nonce).update(facts.listener_nonce).digest();
}
