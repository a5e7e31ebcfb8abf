/** Time under way after which a rate is told anew, in ms. */
const SPAN_MS = 500;
/** What was before counts half as much with each span: about the last second decides. */
const FADING = 0.5;
/** Before the first whole span: as many bytes tell a rate already, or half of the time. */
const EARLY_BYTES = 256 * 1024;

/**
 * Bytes over the time in which something was under way: pauses between requests do not count, silence within them does. Pure but for
 * the times it is given.
 */
export class RateMeter {
  #under_way = 0;
  #since_ms = 0;
  #span_ms = 0;
  #span_bytes = 0;
  #rate: number | undefined;

  get under_way(): number {
    return this.#under_way;
  }

  begin(now_ms: number): void {
    if (this.#under_way === 0) this.#since_ms = now_ms;
    this.#under_way += 1;
  }

  end(now_ms: number): void {
    this.#pass(now_ms);
    this.#under_way -= 1;
  }

  /** Bytes came. Those that nothing is under way for are not counted. */
  heard(bytes: number): void {
    if (this.#under_way > 0) this.#span_bytes += bytes;
  }

  /** Bytes per millisecond; undefined while there is too little to tell. */
  rate(now_ms: number): number | undefined {
    this.#pass(now_ms);
    if (this.#rate !== undefined) return this.#rate;
    const isEnough = this.#span_bytes >= EARLY_BYTES || this.#span_ms >= SPAN_MS / 2;
    return isEnough ? this.#span_bytes / Math.max(this.#span_ms, 1) : undefined;
  }

  #pass(now_ms: number): void {
    if (this.#under_way > 0) this.#span_ms += now_ms - this.#since_ms;
    this.#since_ms = now_ms;
    if (this.#span_ms < SPAN_MS) return;
    const rate = this.#span_bytes / this.#span_ms;
    const weight = 1 - FADING ** (this.#span_ms / SPAN_MS);
    this.#rate = this.#rate === undefined ? rate : this.#rate + weight * (rate - this.#rate);
    this.#span_ms = 0;
    this.#span_bytes = 0;
  }
}
