import type { Demotion, Exclusion } from './exclusion.ts';

/** `small` = lists and blobs of some 64 KiB: a host whose upload slots are taken can still answer those. */
export type RequestSize = 'large' | 'small';

/**
 * What is known of the host behind a source: one standing per host, whoever asks it and for whichever blob. It lives with the owner of
 * the source, who counts the bytes; every pull reads it and says what it saw. All of it is memory. Times are those of the monotonic clock.
 */
export interface SourceStanding {
  /** Large pieces under way at it, for all pulls together. */
  readonly in_flight: number;
  /** Bytes per millisecond of all its answers together while anything was under way, lately; undefined when not measured yet. */
  readonly rate: number | undefined;
  /** Time to a first byte, smoothed, in ms; undefined when not measured yet. */
  readonly first_byte_ms: number | undefined;
  /** When bytes last came from it, whatever for; -Infinity when never. */
  readonly heard_ms: number;
  /** Bytes that came from it so far, whatever for. */
  readonly received_bytes: number;
  /** How often in a row it was busy when it was asked at the time it had named. */
  readonly busy_streak: number;
  /** Why it is not to be asked for that now. The end of it may come sooner than said: bytes from a stalled host end its exclusion. */
  excluded(size?: RequestSize): Exclusion | undefined;
  /** Why it comes last now. */
  demoted(): Demotion | undefined;
  /** A large piece is asked for. Call the returned function once when that has ended. */
  begin(): () => void;
  /** One of its requests lets others wait: it comes last until it delivers, or for half a minute. */
  stalling(): void;
  /** A whole, right piece came from it: it is itself again. */
  delivered(): void;
}
