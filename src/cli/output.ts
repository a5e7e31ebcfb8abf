/** Where a command writes. Tests collect it. */
export interface Output {
  /** Appends the text as it is. */
  out(text: string): void;
  err(text: string): void;
  /** True when colours and redrawing make sense on `out`. */
  readonly terminal: boolean;
}
