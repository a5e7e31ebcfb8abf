import type { Clock } from '../base/clock.ts';
import {
  type Demotion,
  type Exclusion,
  isVerdict,
  type SourceFault,
  type Verdict,
} from './exclusion.ts';
import type { FaultFacts } from './source.ts';
import type { RequestSize, SourceStanding } from './standing.ts';
import { RateMeter } from './rate-meter.ts';

/** Weight of the newest time to a first byte: the last ten or so decide. */
const FIRST_BYTE_WEIGHT = 0.2;
/** A peer that was silent, or whose connection broke, is left alone this long at first, twice as long each time in a row, in ms. */
const PAUSE_MS = 1000;
const MAX_PAUSE_MS = 8000;
/** A peer that stalled comes last this long unless it delivers, in ms. */
const LAST_MS = 30_000;
/** One that was given all the time a waiting pull has and did not reach the lowest rate is left alone this long, in ms. */
const TOO_SLOW_MS = 30_000;
/** Pauses after a busy answer that names no time, growing, in ms. */
const BUSY_MS = 100;
const MAX_BUSY_MS = 1000;
/** Shortest and longest time that a busy answer may name, in ms: nobody is asked in a circle, or believed for ever. */
const MIN_RETRY_AFTER_MS = 20;
const MAX_RETRY_AFTER_MS = 10_000;
/** Bans double up to this many times. */
const MAX_DOUBLINGS = 6;

/** Reasons a host is not to be asked for, the gravest first. */
const EXCLUDING = ['banned', 'too_slow', 'stalled', 'gone'] as const;
type Excluding = (typeof EXCLUDING)[number];

/** The standing of one host, a peer or a registry: what we saw of it ourselves, never a third party's word. */
export class HostStanding implements SourceStanding {
  heard_ms = Number.NEGATIVE_INFINITY;
  received_bytes = 0;
  busy_streak = 0;
  first_byte_ms: number | undefined;
  /** The fault behind the last ban. */
  verdict: Verdict = 'protocol';
  readonly #clock: Pick<Clock, 'now_ms'>;
  readonly #ban_ms: number;
  readonly #meter = new RateMeter();
  readonly #until_ms: Record<Excluding, number>;
  readonly #busy: Record<RequestSize, Exclusion | undefined> = {
    large: undefined,
    small: undefined,
  };
  #last_until_ms = Number.NEGATIVE_INFINITY;
  /** Pauses in a row without a delivery. */
  #pauses = 0;
  #bans = 0;

  constructor(modules: { clock: Pick<Clock, 'now_ms'> }, config: { readonly ban_ms: number }) {
    this.#clock = modules.clock;
    this.#ban_ms = config.ban_ms;
    const never = Number.NEGATIVE_INFINITY;
    this.#until_ms = { banned: never, too_slow: never, stalled: never, gone: never };
  }

  get in_flight(): number {
    return this.#meter.under_way;
  }

  get rate(): number | undefined {
    return this.#meter.rate(this.#clock.now_ms());
  }

  /** Rest of the ban in ms; 0 = not banned. */
  get banned_ms(): number {
    return Math.max(0, this.#until_ms.banned - this.#clock.now_ms());
  }

  excluded(size: RequestSize = 'large'): Exclusion | undefined {
    return this.#inForce(EXCLUDING) ?? this.#busyNow(size);
  }

  demoted(): Demotion | undefined {
    return this.#last_until_ms > this.#clock.now_ms() ? 'stalled' : undefined;
  }

  begin(): () => void {
    this.#meter.begin(this.#clock.now_ms());
    let under_way = true;
    return () => {
      if (under_way) this.#meter.end(this.#clock.now_ms());
      under_way = false;
    };
  }

  /** Bytes came off its connection. */
  heard(bytes: number): void {
    this.heard_ms = this.#clock.now_ms();
    this.received_bytes += bytes;
    this.#until_ms.stalled = Number.NEGATIVE_INFINITY;
    this.#meter.heard(bytes);
  }

  /** An answer took so long to begin. */
  answered(first_byte_ms: number): void {
    const now = Math.max(first_byte_ms, 0);
    const old = this.first_byte_ms ?? now;
    this.first_byte_ms = old + FIRST_BYTE_WEIGHT * (now - old);
  }

  /** A request leaves for it now. Call the returned function with the bytes of its answer received so far, as they arrive. */
  asked(): (received_bytes: number) => void {
    const sent_ms = this.#clock.now_ms();
    let before = 0;
    return (received_bytes) => {
      if (before === 0) this.answered(this.#clock.now_ms() - sent_ms);
      this.heard(received_bytes - before);
      before = received_bytes;
    };
  }

  stalling(): void {
    this.#last_until_ms = this.#clock.now_ms() + LAST_MS;
  }

  delivered(): void {
    this.#last_until_ms = Number.NEGATIVE_INFINITY;
    this.#pauses = 0;
    this.busy_streak = 0;
  }

  /** Notes a fault. True = the peer is banned now. */
  fault(fault: SourceFault, facts: FaultFacts = {}): boolean {
    const now_ms = this.#clock.now_ms();
    if (isVerdict(fault)) {
      this.#until_ms.banned = now_ms + this.#ban_ms * 2 ** Math.min(this.#bans, MAX_DOUBLINGS);
      this.#bans += 1;
      this.verdict = fault;
      return true;
    }
    if (fault === 'too_slow') this.#until_ms.too_slow = now_ms + TOO_SLOW_MS;
    if (fault === 'stalled') this.stalling();
    if (fault === 'stalled' || fault === 'gone') this.#pause(fault, now_ms);
    if (fault === 'busy') this.#isBusy(now_ms, facts);
    return false;
  }

  /** Several requests that fail together are one failure. */
  #pause(fault: 'stalled' | 'gone', now_ms: number): void {
    if (this.#inForce(['stalled', 'gone']) !== undefined) return;
    this.#until_ms[fault] = now_ms + Math.min(PAUSE_MS * 2 ** this.#pauses, MAX_PAUSE_MS);
    this.#pauses += 1;
  }

  #isBusy(now_ms: number, { retry_after_ms, size = 'large' }: FaultFacts): void {
    const isNew = this.#busyNow(size) === undefined;
    const promised = retry_after_ms !== undefined;
    if (!isNew && !promised) return;
    const pause_ms = promised
      ? Math.min(Math.max(retry_after_ms, MIN_RETRY_AFTER_MS), MAX_RETRY_AFTER_MS)
      : Math.min(BUSY_MS * 2 ** Math.min(this.busy_streak, 8), MAX_BUSY_MS);
    const until_ms = now_ms + pause_ms;
    const busy: Exclusion = { reason: 'busy', until_ms, ...(promised && { promised }) };
    this.#busy.large = busy;
    if (size === 'small') this.#busy.small = busy;
    if (isNew) this.busy_streak += 1;
  }

  #busyNow(size: RequestSize): Exclusion | undefined {
    const busy = this.#busy[size];
    return busy !== undefined && busy.until_ms > this.#clock.now_ms() ? busy : undefined;
  }

  #inForce(reasons: readonly Excluding[]): Exclusion | undefined {
    const now_ms = this.#clock.now_ms();
    const reason = reasons.find((word) => this.#until_ms[word] > now_ms);
    return reason && { reason, until_ms: this.#until_ms[reason] };
  }
}
