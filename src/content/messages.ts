/** Messages of containerd's content API as proto-loader gives and takes them (camelCase, 64-bit integers as safe numbers). */

export type Timestamp = { readonly seconds: number; readonly nanos: number };

export type Labels = Readonly<Record<string, string>>;

export type InfoMessage = {
  readonly digest: string;
  readonly size: number;
  readonly createdAt: Timestamp | null;
  readonly updatedAt: Timestamp | null;
  readonly labels: Labels;
};

export type StatusMessage = {
  readonly startedAt: Timestamp;
  readonly updatedAt: Timestamp;
  readonly ref: string;
  readonly offset: number;
  readonly total: number;
  readonly expected: string;
};

export type UpdateRequest = {
  readonly info: InfoMessage | null;
  readonly updateMask: { readonly paths: readonly string[] } | null;
};

export type ReadRequest = {
  readonly digest: string;
  readonly offset: number;
  readonly size: number;
};

export type ReadResponse = { readonly offset: number; readonly data: Uint8Array };

export type WriteAction = 'STAT' | 'WRITE' | 'COMMIT';

export type WriteRequest = {
  /** A number when the client sent one that has no name. */
  readonly action: WriteAction | number;
  readonly ref: string;
  readonly total: number;
  readonly expected: string;
  readonly offset: number;
  /** Lent until the answer. */
  readonly data: Uint8Array;
  readonly labels: Labels;
};

export type WriteResponse = {
  readonly action: WriteAction;
  readonly startedAt?: Timestamp;
  readonly updatedAt?: Timestamp;
  readonly offset: number;
  readonly total?: number;
  readonly digest?: string;
};

const NS_PER_S = 1_000_000_000n;

/** Nanoseconds since the epoch as a protobuf Timestamp, exactly. */
export function toTimestamp(time_ns: bigint): Timestamp {
  return { seconds: Number(time_ns / NS_PER_S), nanos: Number(time_ns % NS_PER_S) };
}
